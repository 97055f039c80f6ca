"""Plans follow from their seeds alone, and shrinking finds the part of a plan that matters."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.sim.deterministic.events import ACTIONS, Event, Plan
from roost.sim.deterministic.operators import VERBS
from roost.sim.deterministic.plans import plan
from roost.sim.deterministic.shrink import shrink


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)
    assert Plan.decode(plan(7).encode()) == plan(7)


def test_plans_are_in_order_within_their_time_and_of_what_there_is() -> None:
    for seed in range(300):
        made = plan(seed)
        times = [e.at for e in made.events]
        assert times == sorted(times)
        assert all(0 <= at < made.seconds for at in times)
        nodes = {"central"} | {f"site-{n:04d}" for n in range(made.sites)}
        nodes |= {f"site-{n:04d}/controller-{h}" for n in range(made.sites) for h in range(made.hosts)}
        for event in made.events:
            assert event.action in ACTIONS
            assert event.target in nodes
            if event.action == "operate":
                assert event.arguments["verb"] in VERBS


def test_over_many_seeds_every_action_and_verb_comes() -> None:
    events = [e for seed in range(600) for e in plan(seed).events]
    assert {e.action for e in events} == set(ACTIONS)
    assert {e.arguments["verb"] for e in events if e.action == "operate"} == set(VERBS)


def test_shrinking_leaves_what_matters() -> None:
    whole = plan(11)
    needed = (
        Event(at=3.25, action="crash", target="site-0000"),
        Event(at=5.5, action="cut", target="site-0000"),
    )
    events = tuple(sorted((*whole.events, *needed), key=lambda e: e.at))
    whole = Plan(seed=11, sites=3, hosts=2, seconds=100.0, events=events)

    def fails(tried: Plan) -> bool:
        actions = [(e.action, e.target) for e in tried.events]
        return ("crash", "site-0000") in actions and ("cut", "site-0000") in actions

    found = shrink(whole, fails)
    assert found.whole
    assert {e.action for e in found.plan.events} == {"crash", "cut"}
    assert len(found.plan.events) == 2
    assert (found.plan.sites, found.plan.hosts) == (1, 1)
    assert found.plan.seconds < 30


def test_shrinking_is_bounded_and_keeps_what_fails() -> None:
    whole = plan(12)
    tried: list[Plan] = []

    def fails(one: Plan) -> bool:
        tried.append(one)
        return len(one.events) >= len(whole.events) // 2

    found = shrink(whole, fails, tries=5)
    assert (found.tries, found.whole, len(tried)) == (5, False, 5)
    assert found.plan == whole or fails(found.plan)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_whatever_is_needed_the_result_still_fails(seed: int, data: st.DataObject) -> None:
    whole = plan(seed)
    if not whole.events:
        return
    needed = data.draw(st.sets(st.sampled_from(range(len(whole.events))), max_size=4))
    wanted = [(whole.events[n].action, whole.events[n].target) for n in needed]

    def fails(tried: Plan) -> bool:
        there = [(e.action, e.target) for e in tried.events]
        return all(there.count(w) >= wanted.count(w) for w in wanted)

    found = shrink(whole, fails, tries=2000, seconds=20.0)
    assert fails(found.plan)
    assert len(found.plan.events) == len(wanted)
