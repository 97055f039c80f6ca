"""SNMP: to a real snmptrapd, informs and traps, 2c and 3, killed in the middle; the MIB is right."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import uvloop

from roost.cloud.outlets import snmp
from tests.cloud.outlets import mibs, programs
from tests.cloud.outlets.receivers import site, until

MIB = Path(snmp.__file__).with_name("ROOST-ALARM-MIB.txt")


def test_the_mib_is_sound(tmp_path: Path) -> None:
    smilint = programs.program("smilint", "smitools")
    known = mibs.write(tmp_path / "mibs")
    done = subprocess.run(
        [smilint, "-s", "-l", "4", str(MIB)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SMIPATH": str(known)},
    )
    assert done.stdout + done.stderr == ""


def test_the_mib_numbers_what_is_sent() -> None:
    text = MIB.read_text()
    notifications = dict(
        re.findall(r"(roost\w+) NOTIFICATION-TYPE.*?roostNotifications (\d+)", text, re.DOTALL)
    )
    assert sorted(map(int, notifications.values())) == sorted(snmp.NOTIFICATIONS.values())
    assert notifications["roostAlarmClear"] == str(snmp.NOTIFICATIONS["clear"])
    assert notifications["roostMessage"] == str(snmp.NOTIFICATIONS["log"])
    objects = dict(re.findall(r"(roost\w+) OBJECT-TYPE.*?roostObjects (\d+)", text, re.DOTALL))
    assert sorted(map(int, objects.values())) == sorted(snmp.OBJECTS.values())
    for name, word in (("id", "roostId"), ("again", "roostAgain"), ("severity", "roostSeverity")):
        assert objects[word] == str(snmp.OBJECTS[name])


def _seen(out: Path) -> list[str]:
    return re.findall(r"roostId\.0 = STRING: (\S+)", out.read_text(errors="replace")) if out.exists() else []


@pytest.mark.parametrize(
    ("version", "notification", "algorithm"),
    [("2c", "inform", "SHA"), ("3", "inform", "SHA"), ("3", "inform", "SHA-256"), ("3", "trap", "SHA-256")],
)
async def test_snmptrapd_is_told(tmp_path: Path, version: str, notification: str, algorithm: str) -> None:
    snmptrapd = programs.program("snmptrapd", "snmptrapd")
    port, out, file = programs.free_port(socket.SOCK_DGRAM), tmp_path / "traps", tmp_path / "snmptrapd.conf"
    state = tmp_path / "state"
    state.mkdir()
    async with site(tmp_path) as here:
        # An engine of our own is authoritative for traps: a manager must know it (RFC 3414, 3.2).
        from roost.cloud.outlets.memory import snmp_engine

        engine = await here.store.transact(snmp_engine)
        of = f"-e 0x{engine.id.hex()} " if notification == "trap" else ""
        file.write_text(
            "authCommunity log roosters\n"
            f"createUser {of}noc {algorithm} knock-knock-1 AES who-is-there-2\n"
            "authUser log noc priv\ndisableAuthorization no\n"
        )
        command = [
            snmptrapd, "-f", "-n", "-C", "-c", str(file), "-A",
            "-Lf", str(out),
            "-M", f"{mibs.write(tmp_path / 'mibs')}:{MIB.parent}", "-m", "ROOST-ALARM-MIB",
            "-x", str(tmp_path / "none"), f"udp:127.0.0.1:{port}",
        ]  # fmt: skip
        async with programs.running(command, tmp_path / "log", SNMP_PERSISTENT_DIR=str(state)) as manager:
            await until(lambda: out.exists())
            await here.secret(community="roosters", authentication="knock-knock-1", privacy="who-is-there-2")
            await here.declare(
                "snmp",
                f"udp://127.0.0.1:{port}",
                secret="noc",
                snmp={
                    "version": version,
                    "user": "noc",
                    "authentication": algorithm,
                    "notification": notification,
                },
                limits={"timeoutSeconds": 1, "longestPauseSeconds": 1},
            )
            await until(lambda: len(set(_seen(out))) == 2)
            await here.faults("h1", "100.101")
            await here.faults("h1")
            await until(lambda: len(set(_seen(out))) == 4)
            text = out.read_text(errors="replace")
            if notification == "trap":
                return
            await manager.kill()
            await here.faults("h2", "100.101")
            await here.faults("h3", "100.103")

            async def retried() -> bool:
                return (await here.status()).retries > 0

            await until(retried)
            await asyncio.sleep(0)
            await manager.start()
            await until(lambda: len(set(_seen(out))) == 6)
            again = re.findall(r"roostAgain\.0 = INTEGER: true", out.read_text(errors="replace"))
            assert again, "the one in flight was sent again, and says so"
            assert "host=h1" in text and "roostAlarmClear" in text and "cleared(1)" in text


def test_it_holds_on_the_loop_of_a_cloud(tmp_path: Path) -> None:
    uvloop.run(test_snmptrapd_is_told(tmp_path, "3", "inform", "SHA-256"))
