"""Whole runs: the same seed gives the same run, the dead write nothing, and what goes wrong is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random

import pytest

from roost.cloud.hosts import HostController
from roost.model.fault import Alarm
from roost.sim.deterministic import run as running
from roost.sim.deterministic.disk import Rows
from roost.sim.deterministic.events import ACTIONS, Argument, Event, Plan, Violation
from roost.sim.deterministic.network import End
from roost.sim.deterministic.run import run
from roost.sim.deterministic.tree import Node, Tree

NODES = ("central", "site-0000", "site-0001", "site-0000/controller-0", "site-0001/controller-1")


def event(at: float, action: str, target: str, **arguments: Argument) -> Event:
    """An event."""
    return Event(at=at, action=action, target=target, arguments=arguments)  # type: ignore[arg-type]


ALL_SORTS = Plan(
    seed=3,
    seconds=120.0,
    events=(
        event(1, "machine", "site-0000/controller-0", memory=97.0),
        event(2, "snapshot", "site-0000"),
        event(5, "crash", "site-0000", silent=True),
        event(9, "start", "site-0000"),
        event(11, "cut", "site-0001", direction="up"),
        event(14, "clock-step", "site-0001", seconds=-45.0),
        event(15, "clock-drift", "site-0001/controller-1", ppm=400.0),
        event(30, "mend", "site-0001"),
        event(35, "crash", "central"),
        event(38, "start", "central"),
        event(39, "power-cut", "site-0001"),
        event(44, "start", "site-0001"),
        event(40, "reset-link", "site-0001/controller-0"),
        event(45, "slow-link", "site-0000", delay=0.4, jitter=0.9),
        event(50, "full-disk", "site-0001"),
        event(52, "machine", "site-0001/controller-0", disks=3, dark="eth1"),
        event(58, "free-disk", "site-0001"),
        event(60, "slow-disk", "central", seconds=1.5),
        event(65, "skew", "site-0000/controller-1", version="0.0.9", without="again"),
        event(66, "reset-link", "site-0000/controller-1"),
        event(70, "stop", "site-0001/controller-1"),
        event(80, "start", "site-0001/controller-1"),
        event(85, "restore", "site-0000"),
        event(100, "crash", "site-0000/controller-0", silent=True),
    ),
)


def drawn(seed: int) -> Plan:
    """A plan from a seed: crashes, cuts and starts."""
    chance, events = Random(seed), list[Event]()
    for _ in range(12):
        at, target = chance.uniform(0, 60), chance.choice(NODES)
        action = chance.choice(("crash", "crash", "start", "cut", "mend", "reset-link", "stop", "full-disk"))
        said: dict[str, Argument] = {"silent": chance.random() < 0.5} if action == "crash" else {}
        events.append(event(at, action, target, **said))
    return Plan(seed=seed, seconds=60.0, events=tuple(events))


def test_every_action_can_be_performed() -> None:
    assert {e.action for e in ALL_SORTS.events} == set(ACTIONS) - {"operate"}
    outcome = run(ALL_SORTS)
    assert outcome.violations == []
    said = "\n".join(outcome.trace)
    assert "snapshot of site-0000 at revision" in said
    assert "restored site-0000 from revision" in said
    assert outcome.trace[-1].endswith("settled")
    assert outcome.simulated > 120


def test_a_plan_travels_as_json() -> None:
    assert Plan.decode(ALL_SORTS.encode()) == ALL_SORTS


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_run_in_one_process(seed: int) -> None:
    one, two = run(drawn(seed)), run(drawn(seed))
    assert one.trace == two.trace
    assert one.digest == two.digest
    assert run(drawn(seed + 100)).digest != one.digest


def test_the_same_seed_gives_the_same_run_in_other_processes() -> None:
    """Addresses differ there, and so does what ran before."""
    program = (
        "from tests.sim.test_deterministic_run import ALL_SORTS, drawn\n"
        "from roost.sim.deterministic.run import run\n"
        "import sys\n"
        "if len(sys.argv) > 1: run(drawn(77)); ballast = [object() for _ in range(100_000)]\n"
        "print(*(run(plan).digest for plan in (ALL_SORTS, drawn(5))))\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout
        for arguments in ([], ["after another run"])
    ]
    assert told[0] == told[1]
    assert len(told[0].split()) == 2


class DeadWriteNothing:
    """Whatever a process was in the midst of: its store does not change from its death to its next start."""

    name = "dead-write-nothing"

    def __init__(self) -> None:
        self._left: dict[str, object] = {}
        self.deaths = 0
        self.broken: list[Violation] = []

    def begin(self, tree: Tree) -> None:
        """Nobody is dead yet."""

    def observe(self, tree: Tree) -> None:
        """Compare the stores of the dead with what they were when first seen dead."""
        for name, node in tree.nodes.items():
            if node.running:
                self._left.pop(name, None)
                continue
            rows = node.rows()
            if name not in self._left:
                self.deaths += 1
            if self._left.setdefault(name, rows) != rows:
                self.broken.append(Violation(self.name, tree.now, f"{name} has written"))

    async def finish(self, tree: Tree) -> list[Violation]:
        """What was seen."""
        return self.broken


def test_the_dead_write_nothing() -> None:
    deaths = 0
    for seed in range(6):
        law = DeadWriteNothing()
        outcome = run(drawn(seed), laws=[law])
        assert outcome.violations == []
        deaths += law.deaths
    assert deaths > 10


def die_at(step: int) -> None:
    """Kill a site after so many steps of the whole tree's start: nothing comes of it afterwards."""
    with running._world(Plan(seed=step, sites=1, hosts=1), running._settled(1, 1), 60.0) as tree:
        node, count, rows = tree.nodes["site-0000"], tree.loop._count, list[Rows]()

        def counted(number: int) -> None:
            count(number)
            if tree.loop.steps >= step and not rows:
                node.crash()
                rows.append(node.rows())

        async def work() -> list[Violation]:
            tree.start()
            await asyncio.sleep(30)
            return []

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tree.loop, "_count", counted)
            sent = frames_of(patch, node)
            assert running._performed(tree, work()) == []
        assert rows and node.rows() == rows[0]
        assert all(sent), "only the living have sent"
        assert tree.loop.problems == [] and tree.problems == []


def test_a_cloud_may_die_between_any_two_turns_of_the_loop() -> None:
    for step in range(15, 375, 15):
        die_at(step)


def frames_of(patch: pytest.MonkeyPatch, node: Node) -> list[bool]:
    """Whether the process of a node lived, at each frame that an end of its own has sent."""
    told, send = list[bool](), End.send

    async def watched(end: End, frame: bytes) -> None:
        if end.station is node.station and end.process is not None:
            told.append(end.process.alive)
        await send(end, frame)

    patch.setattr(End, "send", watched)
    return told


class RaisesAlarm:
    """Sees the alarm of a loaded host, at its site and at the centre."""

    name = "raises-alarm"

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.looks = 0

    def begin(self, tree: Tree) -> None:
        """Nothing yet."""

    def observe(self, tree: Tree) -> None:
        """Which stores hold the alarm."""
        self.looks += 1
        for name in ("central", "site-0000"):
            node = tree.nodes[name]
            if node.alive and any('"100.103"' in str(r["data"]) for r in node.rows()["resources"]):
                self.seen.add(name)

    async def finish(self, tree: Tree) -> list[Violation]:
        """It is over by now."""
        alarms = await tree.nodes["central"].store.every(Alarm)
        return [
            Violation(self.name, tree.now, a.status.reason) for a in alarms if a.status.alarm_id == "100.103"
        ]


def test_laws_look_on_while_real_code_runs() -> None:
    law = RaisesAlarm()
    events = (
        event(5, "machine", "site-0000/controller-0", memory=97.0),
        event(60, "machine", "site-0000/controller-0", memory=20.0),
    )
    assert run(Plan(seed=1, seconds=90.0, events=events), laws=[law]).violations == []
    assert law.seen == {"central", "site-0000"}
    assert law.looks > 18


# -- what goes wrong is told


@contextlib.contextmanager
def replaced(owner: type, name: str, value: Callable[..., object]) -> Iterator[None]:
    """Another function in place of one of the product's, for a while."""
    former = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)


def test_an_error_that_nobody_expected_is_a_violation() -> None:
    def decide(*_: object) -> None:
        raise KeyError("nobody thought of this")

    outcome = run(Plan(seed=1, seconds=5.0), faulty=lambda: replaced(HostController, "decide", decide))
    assert any("nobody thought of this" in v.message for v in outcome.violations)


def test_a_tree_that_does_not_come_to_rest_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SETTLED_WITHIN", 60.0)
    monkeypatch.setattr("roost.sim.deterministic.network.Link.heal", lambda _: None)
    outcome = run(Plan(seed=1, seconds=10.0, events=(event(1, "cut", "site-0000"),)))
    assert [v.law for v in outcome.violations] == ["settled"]
    assert "site-0000 is not linked" in outcome.violations[0].message


def test_a_run_that_takes_too_long_is_a_violation() -> None:
    outcome = run(Plan(seed=1, seconds=5.0), deadline=0.0)
    assert [v.law for v in outcome.violations] == ["outoftime"]


def test_a_controller_that_asks_for_itself_again_and_again_is_a_violation() -> None:
    def decide(*_: object) -> float:
        return 0.0

    outcome = run(Plan(seed=1, seconds=5.0), faulty=lambda: replaced(HostController, "decide", decide))
    assert any("steps a second are made" in v.message for v in outcome.violations)


def test_an_event_for_a_node_that_there_is_not_is_told() -> None:
    outcome = run(Plan(seed=1, seconds=5.0, events=(event(1, "crash", "nowhere"),)))
    assert any("nowhere" in v.message for v in outcome.violations)
