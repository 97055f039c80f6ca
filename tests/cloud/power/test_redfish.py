"""Board controllers by Redfish: the emulator over TLS, and every way in which one can be broken."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.cloud.power import boards, redfish
from roost.cloud.power.boards import Boards
from roost.cloud.power.redfish import Board, BoardFailed
from tests.support.redfish import PASSWORD, USER, Emulated, broken, emulator, serving

FOLLOWS_WITHIN = 120.0


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with emulator(tmp_path_factory.mktemp("redfish")) as found:
        yield found


@pytest.fixture
def asked() -> Iterator[Boards]:
    found = Boards()
    yield found
    found.close()


def board(found: Emulated, **changes: str) -> Board:
    fields = {"address": found.address, "username": USER, "password": PASSWORD} | changes
    return Board(**fields)


async def until(asked: Boards, found: Emulated, state: str) -> None:
    deadline = time.monotonic() + FOLLOWS_WITHIN
    while (seen := await asked.look(board(found), found.ca_bundle)).state != state:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.5)


async def test_power_follows_commands(emulated: Emulated, asked: Boards) -> None:
    await asked.command(board(emulated), emulated.ca_bundle, "off")
    await until(asked, emulated, "off")
    await asked.boot_once(board(emulated), emulated.ca_bundle, "network")
    # A reset of a machine that is off turns it on.
    await asked.command(board(emulated), emulated.ca_bundle, "reset")
    await until(asked, emulated, "on")
    await asked.command(board(emulated), emulated.ca_bundle, "on")
    await asked.command(board(emulated), emulated.ca_bundle, "reset")
    await until(asked, emulated, "on")


async def test_a_wrong_password_is_said_and_not_shown(emulated: Emulated, asked: Boards) -> None:
    with pytest.raises(BoardFailed) as failed:
        await asked.look(board(emulated, password="wrong-secret"), emulated.ca_bundle)
    assert "does not take the user name and password" in str(failed.value)
    assert "wrong-secret" not in str(failed.value) and "wrong-secret" not in repr(board(emulated))


async def test_a_stranger_s_certificate_is_refused(emulated: Emulated, asked: Boards) -> None:
    with pytest.raises(BoardFailed, match="not vouched for"):
        await asked.look(board(emulated), "")
    seen = await asked.look(
        Board(address=emulated.address, username=USER, password=PASSWORD, verify=False), ""
    )
    assert seen.state in ("on", "off", "unknown")


async def test_a_machine_that_is_not_there_is_named(emulated: Emulated, asked: Boards) -> None:
    with pytest.raises(BoardFailed, match="HTTP 404"):
        await asked.look(board(emulated, system="/redfish/v1/Systems/none"), emulated.ca_bundle)


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def silent(secured: ssl.SSLSocket) -> None:
    secured.recv(1)


def dripping(secured: ssl.SSLSocket) -> None:
    secured.sendall(OK + b"content-length: 100000\r\n\r\n")
    while True:
        secured.sendall(b" ")
        time.sleep(0.05)


def dripping_headers(secured: ssl.SSLSocket) -> None:
    secured.sendall(OK + b"x-more: ")
    while True:
        secured.sendall(b"x")
        time.sleep(0.05)


def endless(secured: ssl.SSLSocket) -> None:
    secured.sendall(OK + b"\r\n")
    while True:
        secured.sendall(b" " * 65536)


def failing(secured: ssl.SSLSocket) -> None:
    secured.sendall(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}")


def nonsense(secured: ssl.SSLSocket) -> None:
    secured.sendall(OK + b"content-length: 9\r\n\r\n[1, 2, 3]")


def redirecting(secured: ssl.SSLSocket) -> None:
    secured.sendall(
        b"HTTP/1.1 302 Found\r\nlocation: https://192.0.2.1/redfish/v1/\r\ncontent-length: 0\r\n\r\n"
    )


def pointing_away(secured: ssl.SSLSocket) -> None:
    body = b'{"Systems": {"@odata.id": "https://192.0.2.1/redfish/v1/Systems"}, "Id": "1", "Name": "x"}'
    secured.sendall(OK + b"content-length: %d\r\n\r\n" % len(body) + body)


def hanging_up(secured: ssl.SSLSocket) -> None:
    secured.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (silent, "did not answer in time"),
        (dripping, "did not finish its answer"),
        (dripping_headers, "did not finish its answer"),
        (endless, "an answer of more than"),
        (failing, "HTTP 500"),
        (nonsense, "as Redfish does"),
        (redirecting, "did not answer as Redfish does|can't be reached"),
        (pointing_away, "point to another address"),
        (hanging_up, "can't be reached"),
    ],
)
async def test_a_broken_one_is_told_within_bounds(
    tmp_path: Path, asked: Boards, monkeypatch: pytest.MonkeyPatch, answer: object, reason: str
) -> None:
    monkeypatch.setattr(redfish, "READ_WITHIN", 1.0)
    monkeypatch.setattr(redfish, "WITHIN", 2.0)
    with broken(tmp_path, answer) as found, pytest.raises(BoardFailed, match=reason) as failed:  # type: ignore[arg-type]
        await asked.look(board(found), found.ca_bundle)
    assert failed.value.remedy


SYSTEM = "/redfish/v1/Systems/1"
RESOURCES = {
    "/redfish/v1/": {
        "Id": "RootService",
        "Name": "Root",
        "RedfishVersion": "1.6.0",
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
    },
    SYSTEM: {
        "Id": "1",
        "Name": "System",
        "PowerState": "On",
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": f"{SYSTEM}/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart"],
            }
        },
    },
}


async def test_a_command_whose_answer_is_lost_is_given_once(tmp_path: Path, asked: Boards) -> None:
    commands: list[bytes] = []

    def answering(secured: ssl.SSLSocket) -> None:
        said = b""
        while b"\r\n\r\n" not in said:
            said += secured.recv(65536)
        method, path = said.split()[:2]
        if method == b"POST":
            commands.append(path)
            return
        body = json.dumps({"@odata.id": path.decode(), **RESOURCES[path.decode()]}).encode()
        length = f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        secured.sendall(OK + length.encode() + body)

    with serving(tmp_path, answering) as found, pytest.raises(BoardFailed, match="can't be reached"):
        await asked.command(board(found, system=SYSTEM), found.ca_bundle, "reset")
    assert commands == [f"{SYSTEM}/Actions/ComputerSystem.Reset".encode()]


async def test_nobody_there_is_told(asked: Boards) -> None:
    with pytest.raises(BoardFailed, match="can't be reached"):
        await asked.look(Board(address="https://127.0.0.1:1"), "")


async def test_boards_that_hang_hold_up_no_loop_and_end(
    tmp_path: Path, asked: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redfish, "READ_WITHIN", 30.0)
    monkeypatch.setattr(boards, "PATIENCE", 1.0)
    with broken(tmp_path, silent) as found:
        looks = [asked.look(board(found), found.ca_bundle) for _ in range(2 * boards.AT_ONCE)]
        results = await asyncio.gather(*looks, return_exceptions=True)
    assert all(isinstance(r, BoardFailed) and "was not done in" in r.reason for r in results)
