"""What board controllers say, in the store: states, alarms, operations; scripted ones on fake time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import pytest

from roost.cloud.power import admission, control
from roost.cloud.power.boards import Boards
from roost.cloud.power.control import PowerController, pause_after, told
from roost.cloud.power.procedures import procedures
from roost.cloud.power.redfish import Board, BoardFailed, Seen
from roost.engine.admission import Refused, Request
from roost.engine.controller import Runner
from roost.engine.procedures import OperationController
from roost.engine.vault import Place, Vault
from roost.link.files import write_private
from roost.model.alarms import ALARMS
from roost.model.fault import Alarm
from roost.model.host import HOST, Host, HostSpec
from roost.model.kind import Problem
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationAction, OperationSpec
from roost.model.power import (
    BOARD_SECRET_TYPE,
    BoardController,
    BootDevice,
    PowerState,
    PowerStatus,
    board_problems,
)
from roost.model.secret import SECRET, Secret
from roost.store.store import Store
from tests.support.redfish import PASSWORD, USER, Emulated, emulator
from tests.support.stores import CLOUD, World, new_database, opened, world

NAME = "worker-0"
DOWN = BoardFailed("it can't be reached", "check its cable")


class Scripted(Boards):
    """Says what it is told to say, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Seen | BoardFailed = Seen("off")
        self.looks = 0
        self.commands: list[str] = []
        self.follows = True

    async def look(self, board: Board, ca_bundle: str) -> Seen:
        self.looks += 1
        await asyncio.sleep(0.1)
        if isinstance(self.answer, BoardFailed):
            raise self.answer
        return self.answer

    async def command(self, board: Board, ca_bundle: str, wanted: str) -> None:
        self.commands.append(wanted)
        if self.follows:
            self.answer = Seen("off" if wanted == "off" else "on")

    async def boot_once(self, board: Board, ca_bundle: str, device: BootDevice) -> None:
        self.commands.append(f"boot {device}")


class Powered:
    """A cloud with one host and its board controller."""

    def __init__(self, made: World, boards: Scripted, vault: Vault) -> None:
        self.store, self.boards, self.vault = made.store, boards, vault
        self._made = made

    def begin(self) -> None:
        power = PowerController(CLOUD, self.boards, self.vault)
        self._made.start([power, OperationController(procedures(power), "one")])

    async def begin_anew(self) -> None:
        await self._made.stop()
        self.begin()

    async def host(self) -> Host:
        return await self.store.load(Host, CLOUD, NAME)

    async def power(self) -> PowerStatus:
        status = (await self.host()).status.power
        assert status is not None
        return status

    async def alarms(self) -> list[Alarm]:
        return await self.store.every(Alarm, CLOUD)

    async def order(self, action: OperationAction, boot: BootDevice = "none") -> str:
        name = f"{action}-{NAME}-test"
        spec = OperationSpec(action=action, host=NAME, boot=boot)
        made = Operation(metadata=Metadata(name=name, namespace=CLOUD), spec=spec)
        await self.store.save(made)
        return name

    async def ended(self, name: str) -> Operation:
        while not (found := await self.store.load(Operation, CLOUD, name)).status.finished_at:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        return found


def sealed(vault: Vault, name: str, **values: str) -> Secret:
    """A Secret as the API would store it."""
    data = {}
    for key, value in values.items():
        place = Place(SECRET.kind, CLOUD, name, f"data.{key}")
        data[key] = vault.seal(place, base64.b64encode(value.encode()).decode())
    return Secret(metadata=Metadata(name=name, namespace=CLOUD), type=BOARD_SECRET_TYPE, data=data)


def declared(board: BoardController) -> Host:
    return Host(metadata=Metadata(name=NAME, namespace=CLOUD), spec=HostSpec(board_controller=board))


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "keys", write_private, datetime.now(UTC))


@contextlib.asynccontextmanager
async def powered(vault: Vault) -> AsyncIterator[Powered]:
    async with world() as made:
        boards = Scripted()
        try:
            await made.store.save(sealed(vault, "board", username=USER, password=PASSWORD))
            await made.store.save(declared(BoardController(address="https://192.0.2.7", secret="board")))
            found = Powered(made, boards, vault)
            found.begin()
            yield found
        finally:
            boards.close()


# -- pure


def test_stamps_move_only_with_what_they_date() -> None:
    first = told(None, Seen("off", "Maker Box"), None, "t1")
    assert (first.since, first.reachable, first.reachable_since) == ("t1", "yes", "t1")
    assert told(first, Seen("off"), None, "t2") == first
    lost = told(first, Seen("unknown"), DOWN, "t3")
    assert (lost.state, lost.since, lost.reachable, lost.model) == ("unknown", "t3", "no", "Maker Box")
    assert told(lost, Seen("unknown"), DOWN, "t4") == lost
    assert "check its cable" in lost.message


def test_pauses_grow_to_a_bound() -> None:
    pauses = [pause_after(n) for n in range(12)]
    assert pauses[0] == control.LOOK and pauses[1] == control.FIRST_PAUSE
    assert pauses[1:] == sorted(pauses[1:]) and pauses[-1] == control.LONGEST_PAUSE


@pytest.mark.parametrize(
    ("board", "wrong"),
    [
        (BoardController(address="https://192.0.2.7"), ""),
        (BoardController(address="https://[2001:db8::7]:8443/"), ""),
        (BoardController(address="http://192.0.2.7"), "it is no https address"),
        (BoardController(address="https://192.0.2.7:x"), "it is no https address"),
        (BoardController(address="https://a:b@192.0.2.7"), "it says more than where to go"),
        (BoardController(address="https://192.0.2.7/redfish/v1"), "it has a path"),
        (BoardController(address="https://192.0.2.7", system="1"), "it is no path of Redfish"),
        (BoardController(address="https://192.0.2.7", unverified=True, ca_bundle="x"), "not to be used"),
    ],
)
def test_what_is_no_way_to_a_board_controller_is_refused(board: BoardController, wrong: str) -> None:
    found: list[Problem] = board_problems(board, "spec.boardController")
    assert (wrong in found[0].reason) if wrong else not found


# -- over time


@pytest.mark.looptime
async def test_what_it_says_is_kept_and_looked_at_seldom(vault: Vault) -> None:
    async with powered(vault) as site:
        await asyncio.sleep(1)
        assert (await site.power()).state == "off"
        before = site.store.revision
        await asyncio.sleep(600)
        assert 8 <= site.boards.looks <= 15
        assert site.store.revision == before
        # What agents write into the Host makes nobody ask the board controller.
        looks = site.boards.looks
        for n in range(50):
            await site.store.transact(lambda tx, n=n: tx.report(_readings(tx.load(Host, CLOUD, NAME), n)))  # type: ignore[misc]
            await asyncio.sleep(0.2)
        assert site.boards.looks <= looks + 1


@pytest.mark.looptime
async def test_one_lost_answer_is_no_alarm_and_a_lasting_failure_is_and_ends(vault: Vault) -> None:
    async with powered(vault) as site:
        await asyncio.sleep(1)
        site.boards.answer = DOWN
        await asyncio.sleep(75)
        assert (await site.power()).state == "unknown" and not await site.alarms()
        site.boards.answer = Seen("on")
        await asyncio.sleep(80)
        assert (await site.power()).state == "on" and not await site.alarms()
        site.boards.answer = DOWN
        await asyncio.sleep(400)
        (alarm,) = await site.alarms()
        assert alarm.status.alarm_id == control.ALARM and ALARMS[control.ALARM].degrades_from is None
        # A restart forgets how often it failed, and clears nothing.
        await site.begin_anew()
        await asyncio.sleep(2)
        assert len(await site.alarms()) == 1
        site.boards.answer = Seen("on")
        await asyncio.sleep(400)
        assert not await site.alarms()


@pytest.mark.looptime
async def test_a_secret_that_is_mended_is_tried_at_once(vault: Vault) -> None:
    async with powered(vault) as site:
        await asyncio.sleep(1)
        await site.store.transact(lambda tx: tx.drop(SECRET.kind, CLOUD, "board"))
        await asyncio.sleep(2000)
        (alarm,) = await site.alarms()
        assert "Secret board is not there" in alarm.status.reason
        await site.store.save(sealed(vault, "board", username=USER, password=PASSWORD))
        await asyncio.sleep(1)
        assert (await site.power()).state == "off" and not await site.alarms()
        looks = site.boards.looks
        await site.store.save(sealed(vault, "another", username=USER, password=PASSWORD))
        await asyncio.sleep(1)
        assert site.boards.looks == looks
        await site.store.save(sealed(vault, "board", username=USER, password="another"))
        await asyncio.sleep(1)
        assert site.boards.looks == looks + 1


@pytest.mark.looptime
async def test_without_a_board_controller_nothing_is_known_of_it(vault: Vault) -> None:
    async with powered(vault) as site:
        site.boards.answer = DOWN
        await asyncio.sleep(400)
        host = await site.host()
        spec = msgspec.structs.replace(host.spec, board_controller=None)
        await site.store.save(msgspec.structs.replace(host, spec=spec))
        await asyncio.sleep(1)
        assert (await site.host()).status.power is None and not await site.alarms()
        looks = site.boards.looks
        await asyncio.sleep(1000)
        assert site.boards.looks == looks


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("action", "before", "commands"),
    [
        ("power-on", "off", ["on"]),
        ("power-on", "on", []),
        ("power-off", "on", ["off"]),
        ("reset", "on", ["reset"]),
        ("reset", "off", ["reset"]),
    ],
)
async def test_an_operation_commands_once_and_waits_until_it_is_so(
    vault: Vault, action: OperationAction, before: PowerState, commands: list[str]
) -> None:
    async with powered(vault) as site:
        site.boards.answer = Seen(before)
        ended = await site.ended(await site.order(action))
        assert ended.status.state == "succeeded" and site.boards.commands == commands
        assert (await site.power()).state == ("off" if action == "power-off" else "on")


@pytest.mark.looptime
async def test_a_machine_starts_from_another_device_once(vault: Vault) -> None:
    async with powered(vault) as site:
        ended = await site.ended(await site.order("power-on", "network"))
        assert ended.status.state == "succeeded" and site.boards.commands == ["boot network", "on"]


@pytest.mark.looptime
async def test_power_that_does_not_follow_ends_with_what_it_waited_for(vault: Vault) -> None:
    async with powered(vault) as site:
        site.boards.follows = False
        ended = await site.ended(await site.order("power-on"))
        assert ended.status.state == "failed" and site.boards.commands == ["on"]
        assert "waiting until it is on" in ended.status.message


@pytest.mark.looptime
async def test_a_command_is_not_given_twice_when_its_process_dies(vault: Vault) -> None:
    async with powered(vault) as site:
        site.boards.answer = Seen("on")
        given = asyncio.Event()

        async def dying(board: Board, ca_bundle: str, wanted: str) -> None:
            site.boards.commands.append(wanted)
            given.set()
            await asyncio.Event().wait()

        site.boards.command = dying  # type: ignore[method-assign]
        name = await site.order("reset")
        await given.wait()
        await site.begin_anew()
        ended = await site.ended(name)
        assert site.boards.commands == ["reset"] and ended.status.state == "succeeded"


@pytest.mark.looptime
async def test_a_board_controller_that_is_away_is_waited_for_before_the_command(vault: Vault) -> None:
    async with powered(vault) as site:
        site.boards.answer = DOWN
        name = await site.order("power-on")
        await asyncio.sleep(30)
        assert "check its cable" in (await site.store.load(Operation, CLOUD, name)).status.message
        site.boards.answer = Seen("off")
        ended = await site.ended(name)
        assert ended.status.state == "succeeded" and site.boards.commands == ["on"]


@pytest.mark.looptime
async def test_a_missing_secret_is_named(vault: Vault) -> None:
    async with powered(vault) as site:
        await site.store.transact(lambda tx: tx.remove(SECRET.kind, CLOUD, "board"))
        await asyncio.sleep(200)
        assert "Secret board is not there" in (await site.power()).message


def _readings(host: Host, n: int) -> Host:
    return msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, task=f"work {n}"))


# -- what is refused


async def test_what_does_not_fit_is_refused_with_the_remedy(store: Store) -> None:
    host = declared(BoardController(address="https://192.0.2.7", secret="other", ca_bundle="no PEM"))

    def asked(changed: Host) -> Callable[[], object]:
        request = Request(operation="create", info=HOST, user="someone", new=changed)
        return lambda: store.transact(lambda tx: admission.rule(tx, request))

    with pytest.raises(Refused, match="can't be read"):
        await cast("asyncio.Future[None]", asked(host)())
    await store.save(
        Secret(metadata=Metadata(name="other", namespace=CLOUD), type="Opaque", data={"a": "YQ=="})
    )
    plain = declared(BoardController(address="https://192.0.2.7", secret="other"))
    with pytest.raises(Refused, match="sent nowhere"):
        await cast("asyncio.Future[None]", asked(plain)())
    spec = OperationSpec(action="power-on", host=NAME)
    operation = Operation(metadata=Metadata(name="x", namespace=CLOUD), spec=spec)
    with pytest.raises(Refused, match="has no board controller"):
        admission.check(operation, Host(metadata=Metadata(name=NAME, namespace=CLOUD)))


# -- end to end


async def test_a_real_emulator_is_turned_on_by_an_operation(tmp_path: Path, vault: Vault) -> None:
    with emulator(tmp_path) as found, new_database() as url:
        async with opened(url) as store, asyncio.timeout(240):
            await store.save(sealed(vault, "board", username=USER, password=PASSWORD))
            await store.save(declared(_board(found)))
            power = PowerController(CLOUD, Boards(), vault)
            runners = [Runner(store, power), Runner(store, OperationController(procedures(power), "one"))]
            tasks = [asyncio.ensure_future(r.run()) for r in runners]
            try:
                spec = OperationSpec(action="power-on", host=NAME, boot="network")
                await store.save(Operation(metadata=Metadata(name="power-on", namespace=CLOUD), spec=spec))
                while not (done := await store.load(Operation, CLOUD, "power-on")).status.finished_at:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                assert done.status.state == "succeeded", done.status
                status = (await store.load(Host, CLOUD, NAME)).status.power
                assert status is not None and (status.state, status.reachable) == ("on", "yes")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                power.boards.close()


def _board(found: Emulated) -> BoardController:
    return BoardController(address=found.address, secret="board", ca_bundle=found.ca_bundle)
