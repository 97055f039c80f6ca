"""A site is cut off for 24 hours, of simulated time on every clock, and works on; then the laws."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from roost.engine.faults import KEPT, SHED, write_log
from roost.sim.deterministic import operators  # noqa: F401 - its verbs
from roost.sim.deterministic import run as running
from roost.sim.deterministic.events import Argument, Event, Plan, Violation
from roost.sim.deterministic.laws.books import Book
from roost.sim.deterministic.laws.watching import every
from roost.sim.deterministic.tree import Tree
from roost.store.store import HISTORY
from roost.store.transaction import Transaction

CENTRE, SITE, HOST = "central", "site-0000", "site-0000/controller-0"
HOUR, DAY = 3600.0, 86_400.0
CUT_AT = 60.0
LOOK_EVERY = 300.0
BURST = KEPT // 8
"""Entries of the log that something at the site writes every two hours: in all more than is kept."""
DEADLINE = 1200.0
"""Seconds of the wall clock, for machines that do much else."""


def event(at: float, action: str, target: str, **arguments: Argument) -> Event:
    return Event(at=at, action=action, target=target, arguments=arguments)  # type: ignore[arg-type]


def operate(at: float, target: str, verb: str, **arguments: Argument) -> Event:
    return event(at, "operate", target, verb=verb, **arguments)


def day() -> Plan:
    """Memory is full for half of each hour, and people write on both sides. Now and then a host is locked."""
    events = [event(CUT_AT, "cut", SITE)]
    for hour in range(24):
        at = CUT_AT + 600 + hour * HOUR
        events.append(event(at, "machine", HOST, memory=97.0))
        events.append(event(at + HOUR / 2, "machine", HOST, memory=40.0))
        events.append(
            operate(at + 10, CENTRE, "declare-policy", name="shared", port=1000 + hour, subclouds="*")
        )
        events.append(operate(at + 20, SITE, "declare-policy", name="own", port=2000 + hour))
        if hour % 2 == 0:
            events.append(operate(at + 30, SITE, "tell"))
        if hour % 6 == 1:
            events.append(operate(at + 40, SITE, "force-lock", host="controller-0"))
            events.append(operate(at + HOUR / 2, SITE, "unlock", host="controller-0"))
        if hour == 12:
            events.append(event(at + 50, "crash", SITE, silent=True))
            events.append(event(at + 90, "start", SITE))
    events.append(event(CUT_AT + DAY, "mend", SITE))
    return Plan(seed=24, sites=1, hosts=1, seconds=CUT_AT + DAY + 300, events=tuple(events))


async def tell(tree: Tree, _: Event) -> None:
    """Something at the site has much to say."""
    node = tree.nodes[SITE]

    def work(tx: Transaction) -> None:
        for n in range(BURST):
            write_log(tx, SITE, event="counted", text=f"{n} of {BURST}", severity="info")

    if node.alive:
        await node.within(node.store.transact(work))


class Day:
    """What a day leaves behind: read in the end, as rows."""

    name = "a day apart"

    def __init__(self) -> None:
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.shed: dict[str, dict[str, Any]] = {}
        self.history: dict[str, int] = {}
        self.steps_a_second = 0.0

    def begin(self, tree: Tree) -> None:
        self.steps_a_second = -float(tree.loop.steps)

    def observe(self, tree: Tree) -> None:
        return

    async def finish(self, tree: Tree) -> list[Violation]:
        self.steps_a_second = (self.steps_a_second + tree.loop.steps) / tree.now
        for name in (CENTRE, SITE):
            book = Book(tree.nodes[name].rows())
            self.logs[name] = [row.status for row in book.of("LogEntry", namespace=SITE)]
            self.shed[name] = book.rows["Cloud", "", SITE].status.get("logShed", {})
            self.history[name] = len(book.table("changes"))
        return []


@pytest.mark.timeout(2 * DEADLINE)
def test_a_day_apart_keeps_the_laws_and_all_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "OBSERVED_EVERY", LOOK_EVERY)
    monkeypatch.setitem(running.OPERATIONS, "tell", tell)
    seen = Day()
    began = time.process_time()
    outcome = running.run(day(), laws=[*every(), seen], deadline=DEADLINE)
    used = time.process_time() - began
    assert outcome.violations == [], outcome.violations
    assert outcome.simulated > DAY
    assert seen.steps_a_second < 50, "what costs grows with what changes, not with time"
    steps = f"{seen.steps_a_second:.1f} steps a second"
    print(f"{outcome.simulated:.0f} s took {used:.1f} s of a processor, {steps}")

    for name in (CENTRE, SITE):
        log, shed = seen.logs[name], seen.shed[name]
        events = Counter(entry["event"] for entry in log)
        print(
            f"{name}: {len(log)} entries {dict(events)}; shed: {shed}; {seen.history[name]} rows of history"
        )
        assert len(log) <= KEPT + 256, "the log is bounded"
        assert events[SHED] == 1, "one entry tells what was shed"
        made = max(entry["sequence"] for entry in log if entry["source"] == SITE)
        missing = made - sum(entry["source"] == SITE for entry in log)
        # The entry that tells of it takes the place of the one before, which is gone without being counted.
        assert 0 < shed["total"] <= missing <= shed["total"] + made // 128, (
            f"{shed} of {made}, {missing} gone"
        )
        assert seen.history[name] <= HISTORY + 1000, "history is bounded"
        # Memory was full for half of every hour: 24 alarms came and went, none of them to and fro.
        for way in ("alarm-set", "alarm-clear"):
            told = [e for e in log if e["event"] == way and e["alarmId"] == "100.103"]
            assert 12 <= len(told) <= 24, f"{way}: {len(told)} of 24"
    assert seen.logs[CENTRE] and len(seen.logs[CENTRE]) == len(seen.logs[SITE])
