"""What an operation does next, from counts alone: tables, and whole runs that hypothesis thinks up."""

from __future__ import annotations

from datetime import timedelta

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from roost.fleet.operations import deciding
from roost.fleet.operations.deciding import Limits, Verdict, budget, decide, limits
from roost.fleet.operations.planning import planned
from roost.model import time
from roost.model.fleet import SubcloudGroupSpec
from roost.model.subcloud_operation import (
    MOST_STAGES,
    SubcloudOperationSpec,
    SubcloudOperationStatus,
    SubcloudStage,
    SubcloudStepCounts,
)
from tests.support.clock import START

C = SubcloudStepCounts
PLAIN = SubcloudOperationSpec(action="manage", failure_budget="1")


def counts(**states: int) -> SubcloudStepCounts:
    return C(total=sum(states.values()), **states)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (counts(waiting=9), Verdict("running", starts=3)),
        (counts(waiting=9, running=2), Verdict("running", starts=1)),
        (counts(waiting=9, running=3), Verdict("running")),
        (counts(waiting=9, running=5), Verdict("running")),
        (counts(waiting=1, offline=4, running=1), Verdict("running", starts=1)),
        (counts(offline=4), Verdict("running")),
        (counts(waiting=9, failed=1), Verdict("running", starts=3)),
        (counts(waiting=9, failed=2), Verdict("halted")),
        (counts(running=1, failed=2), Verdict("halted")),
        (counts(done=8, failed=2), Verdict("failed")),
        (counts(done=8, failed=1), Verdict("done")),
        (counts(done=1, skipped=3), Verdict("done")),
        (counts(), Verdict("done")),
    ],
)
def test_the_next_thing(now: SubcloudStepCounts, expected: Verdict) -> None:
    assert decide(PLAIN, now, now, Limits(window=3, budget=1)) == expected


@pytest.mark.parametrize(
    ("now", "paused", "aborted"),
    [
        (counts(waiting=9, running=1), "paused", "aborting"),
        (counts(running=1), "paused", "aborting"),
        (counts(aborted=9, running=1), "paused", "aborting"),
        (counts(done=9, aborted=1), "done", "aborted"),
        (counts(done=9), "done", "done"),
        (counts(waiting=9, failed=5), "halted", "aborting"),
        (counts(done=9, failed=5), "failed", "failed"),
    ],
)
def test_the_operators_word(now: SubcloudStepCounts, paused: str, aborted: str) -> None:
    for wish, phase in (({"paused": True}, paused), ({"aborted": True}, aborted)):
        spec = msgspec.structs.replace(PLAIN, **wish)
        verdict = decide(spec, now, now, Limits(window=3, budget=1))
        assert (verdict.phase, verdict.starts, verdict.further) == (phase, 0, False)


def test_a_stage_that_is_over_makes_way() -> None:
    everything, here = counts(waiting=5, done=3), counts(done=3)
    assert decide(PLAIN, everything, here, Limits(3, 1)) == Verdict("running", further=True)
    of_the_group = SubcloudOperationSpec(action="manage")
    everything, here = counts(waiting=5, failed=2), counts(waiting=5)
    assert decide(of_the_group, everything, here, Limits(3, 1)).starts == 3, "of a former stage"
    assert decide(PLAIN, everything, here, Limits(3, 1)).phase == "halted", "a budget of all"


@pytest.mark.parametrize(
    ("text", "total", "most"),
    [("0", 10, 0), ("3", 10, 3), ("5%", 10, 0), ("5%", 20_000, 1000), ("100%", 7, 7)],
)
def test_budgets(text: str, total: int, most: int) -> None:
    assert budget(text, total) == most


def test_limits_are_the_operations_own_or_those_of_the_group() -> None:
    group = SubcloudGroupSpec(max_parallel=50, failure_budget="10%")
    serial = SubcloudGroupSpec(apply_type="serial", max_parallel=50)
    everything, here = counts(waiting=200), counts(waiting=40)

    def of(spec: SubcloudGroupSpec = group, **fields: object) -> Limits:
        own = msgspec.convert({"action": "manage", **fields}, SubcloudOperationSpec)
        return limits(own, spec, everything, here)

    assert of() == Limits(50, 4)
    assert of(serial) == Limits(1, 0)
    assert of(serial, maxParallel=7) == Limits(7, 0)
    assert of(serial, applyType="parallel") == Limits(50, 0)
    assert of(applyType="serial") == Limits(1, 4)
    assert of(failureBudget="5%") == Limits(50, 10)


class Fleet:
    """Steps that an adversary moves; what `decide` allows is started, nothing else."""

    def __init__(self, total: int, window: int, budget: int) -> None:
        self.states = ["waiting"] * total
        self.limits = Limits(window, budget)
        self.spec = msgspec.structs.replace(PLAIN, failure_budget=str(budget))

    def counts(self) -> SubcloudStepCounts:
        states = {state: self.states.count(state) for state in set(self.states)}
        return C(total=len(self.states), **states)

    def verdict(self) -> Verdict:
        return decide(self.spec, self.counts(), self.counts(), self.limits)

    def all(self, state: str) -> list[int]:
        return [n for n, s in enumerate(self.states) if s == state]


WHATS = ["start", "done", "failed", "offline", "back", "pause", "go", "abort", "retry"]
MOVES = st.lists(st.tuples(st.sampled_from(WHATS), st.integers(0, 10_000)), max_size=120)


@settings(max_examples=300)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 5), MOVES)
def test_no_run_breaks_the_window_or_the_budget_and_every_run_ends(
    total: int, window: int, most: int, moves: list[tuple[str, int]]
) -> None:
    fleet = Fleet(total, window, most)

    def move(before: str, after: str, which: int) -> None:
        if there := fleet.all(before):
            fleet.states[there[which % len(there)]] = after

    def start() -> None:
        verdict, before = fleet.verdict(), fleet.counts()
        for n in fleet.all("waiting")[: verdict.starts]:
            fleet.states[n] = "running"
        if verdict.starts:
            assert before.failed <= most, "nothing is started past the budget"
            assert not fleet.spec.paused and not fleet.spec.aborted
        assert fleet.counts().running <= window

    for what, which in moves:
        match what:
            case "start":
                start()
            case "done" | "failed":
                move("running", what, which)
            case "offline":
                move("waiting", "offline", which)
            case "back":
                move("offline", "waiting", which)
            case "pause" | "go":
                fleet.spec = msgspec.structs.replace(fleet.spec, paused=what == "pause")
            case "abort" if which % 4 == 0:
                fleet.spec = msgspec.structs.replace(fleet.spec, aborted=True)
                fleet.states = ["aborted" if s in ("waiting", "offline") else s for s in fleet.states]
            case "retry" if not fleet.spec.aborted:
                fleet.states = ["waiting" if s == "failed" else s for s in fleet.states]
    fleet.spec = msgspec.structs.replace(fleet.spec, paused=False)
    for _ in range(3 * total + 3):
        start()
        move("running", "done", 0)
        move("offline", "failed", 0)
    verdict = fleet.verdict()
    if fleet.counts().failed > most:
        assert verdict.phase in ("halted", "failed", "aborted")
        assert not fleet.counts().running
    else:
        assert verdict.phase in ("done", "aborted") and not fleet.counts().open


GROUPS = st.sampled_from(["", "canary", "north", "south"])
MEMBERS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), GROUPS, max_size=30)


@given(MEMBERS, st.lists(st.sampled_from(["canary", "north", "nobody"]), unique=True), st.integers(0, 3))
def test_every_subcloud_has_one_step_in_a_stage_of_its_own_group(
    members: dict[str, str], order: list[str], window: int
) -> None:
    spec = SubcloudOperationSpec(action="manage", order=order, max_parallel=window)
    made = planned(spec, [(group, name) for name, group in members.items()])
    assert sorted(name for _, name in made.steps) == sorted(members)
    assert made.steps == sorted(made.steps), "the order of rows is that of stages"
    present = [group for group in order if group in members.values()]
    assert [stage.group for stage in made.stages][: len(present)] == present
    for number, stage in enumerate(made.stages):
        inside = [members[name] for at, name in made.steps if at == number]
        assert len(inside) == stage.total > 0
        if stage.group or not window:
            assert set(inside) == {stage.group}


def test_too_many_groups_share_the_last_stage() -> None:
    members = [(f"g{n:04}", f"s{n:04}") for n in range(MOST_STAGES + 50)]
    made = planned(SubcloudOperationSpec(action="manage"), members)
    assert len(made.stages) == MOST_STAGES and len(made.steps) == len(members)
    assert made.stages[-1] == SubcloudStage(group="", total=51)


def test_rate_and_end_follow_from_what_has_ended_since_it_began_to_run() -> None:
    steps = counts(done=70, waiting=20, running=10)
    status = SubcloudOperationStatus(
        phase="running", steps=steps, running_since=time.stamp(START), running_from=10
    )
    now = START + timedelta(minutes=2)
    assert deciding.expectation(status, now) == (30.0, time.stamp(now + timedelta(minutes=1)))
    assert deciding.expectation(status, START) == (0.0, "")
    paused = msgspec.structs.replace(status, phase="paused")
    assert deciding.expectation(paused, now) == (0.0, "")
