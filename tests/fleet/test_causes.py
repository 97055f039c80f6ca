"""Causes of a fleet's troubles: rules one by one, and how often they are right where the truth is known."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.fleet.causes import Judgement, Site, Told, Topology, Trouble, judge
from tests.fleet.outages import Outage, score

NOW = 10_000.0
TREE = {"core": "", "north": "core", "south": "core", "n1": "north", "n2": "north"}
TOPOLOGY = Topology(TREE)


def lost(uplink: str, count: int, at: float = 100.0, step: float = 0.0, stem: str = "") -> list[Site]:
    return [Site(name=f"{stem or uplink}-{n:03}", uplink=uplink, lost_at=at + n * step) for n in range(count)]


def found(sites: list[Site], below: dict[str, int], now: float = NOW) -> list[tuple[str, str, int, str]]:
    return [(c.kind, c.name, len(c.sites), c.certainty) for c in judge(sites, below, TOPOLOGY, now).causes]


BELOW = {"core": 40, "north": 20, "south": 20, "n1": 10, "n2": 10}


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([], []),
        (lost("n1", 1), [("Subcloud", "n1-000", 1, "certain")]),
        (lost("n1", 10), [("Uplink", "n1", 10, "certain")]),
        (lost("n1", 10, step=1.0), [("Uplink", "n1", 10, "certain")]),
        (lost("n1", 9), [("Uplink", "n1", 9, "likely")]),
        ([*lost("n1", 10), *lost("n2", 10)], [("Uplink", "north", 20, "certain")]),
        ([*lost("n1", 10), *lost("n2", 10), *lost("south", 20)], [("Uplink", "core", 40, "certain")]),
        (
            [*lost("n1", 10), *lost("n2", 10, at=500.0)],
            [("Uplink", "n1", 10, "certain"), ("Uplink", "n2", 10, "certain")],
        ),
        (
            [*lost("n1", 10), *lost("south", 1, stem="other")],
            [("Uplink", "n1", 10, "certain"), ("Subcloud", "other-000", 1, "certain")],
        ),
        (
            [*lost("n1", 1, at=10.0, stem="early"), *lost("n1", 9)],
            [("Uplink", "n1", 9, "certain"), ("Subcloud", "early-000", 1, "certain")],
        ),
        (lost("none", 3), [("Subcloud", f"none-{n:03}", 1, "certain") for n in range(3)]),
        (lost("", 2, stem="a"), [("Subcloud", f"a-{n:03}", 1, "certain") for n in range(2)]),
    ],
)
def test_causes(sites: list[Site], expected: list[tuple[str, str, int, str]]) -> None:
    assert found(sites, BELOW) == expected


def test_a_branch_that_lost_nothing_shows_that_its_uplink_works() -> None:
    below = {"core": 100, "north": 90, "south": 10, "n1": 45, "n2": 45}
    both = [*lost("n1", 45), *lost("n2", 45)]
    assert found(both, below) == [("Uplink", "north", 90, "certain")]
    below = {"core": 100, "north": 100, "south": 0, "n1": 80, "n2": 20}
    assert found(lost("n1", 80), below) == [("Uplink", "n1", 80, "certain")]


def test_half_of_an_uplink_is_none() -> None:
    assert [kind for kind, *_ in found(lost("n1", 5), BELOW)] == ["Subcloud"] * 5


def test_a_later_outage_of_what_lies_before_leaves_the_earlier_one() -> None:
    sites = [*lost("n1", 10), *lost("n2", 10, at=400.0), *lost("north", 5, at=400.0)]
    below = {**BELOW, "core": 45, "north": 25}
    assert found(sites, below) == [("Uplink", "north", 15, "certain"), ("Uplink", "n1", 10, "certain")]


def test_a_certificate_that_is_over_explains_its_subcloud_alone() -> None:
    sites = [*lost("n1", 9), Site(name="z", uplink="n1", lost_at=100.0, expired=True)]
    assert found(sites, BELOW) == [("Uplink", "n1", 9, "likely"), ("Certificate", "z", 1, "certain")]


def test_all_alarms_of_a_host_are_one() -> None:
    trouble = Trouble(host="controller-0", alarms=7, severity="major", since=50.0, reason="/var is full.")
    (cause,) = judge([Site(name="a", uplink="n1", troubles=(trouble,))], BELOW, TOPOLOGY, NOW).causes
    assert (cause.kind, cause.name, cause.alarms) == ("Host", "a/controller-0", 7)
    assert cause.reason == "/var is full., and 6 alarms more" and cause.since == 50.0


def test_while_losses_come_in_nothing_on_their_way_is_judged() -> None:
    sites = [*lost("n1", 5, at=NOW - 4), *lost("n2", 1, at=NOW - 1), *lost("south", 1, at=NOW - 60)]
    before = judge(sites, BELOW, TOPOLOGY, NOW)
    assert [c.name for c in before.causes] == ["south-000"] and before.again == pytest.approx(2.0)
    after = judge(sites, BELOW, TOPOLOGY, NOW + 2.1)
    assert len(after.causes) == 7 and after.again is None
    ahead = judge(lost("n1", 2, at=NOW + 500), BELOW, TOPOLOGY, NOW)
    assert len(ahead.causes) == 2 and ahead.again is None, "a clock that was set back holds up nothing"


def test_an_uplink_that_was_told_stays_until_the_last_is_back() -> None:
    all_lost = [*lost("n1", 10), *lost("n2", 10)]
    (whole,) = judge(all_lost, BELOW, TOPOLOGY, NOW).causes
    told = [Told(uplink="north", since=100.0, most=20, certainty="certain")]
    for left in (all_lost[:15], all_lost[10:], all_lost[:9], all_lost[7:8]):
        (cause,) = judge(left, BELOW, TOPOLOGY, NOW, told).causes
        assert (cause.kind, cause.name, cause.since) == ("Uplink", "north", whole.since)
        assert len(cause.sites) == len(left) and cause.most == 20
        assert (
            f"20 subclouds behind uplink north went offline together; {20 - len(left)} are back"
            in cause.reason
        )
    assert judge([], BELOW, TOPOLOGY, NOW, told).causes == ()
    again = lost("n1", 1, at=5000.0)
    assert [c.name for c in judge(again, BELOW, TOPOLOGY, NOW, told).causes] == ["n1-000"], "lost anew"


def test_what_is_told_is_not_taken_back_for_a_straggler_and_gives_way_to_a_wider_cause() -> None:
    told = [Told(uplink="n1", since=NOW - 10, most=9, certainty="likely")]
    first, straggler = lost("n1", 9, at=NOW - 10), lost("n1", 1, at=NOW - 1, stem="late")
    (cause,) = judge([*first, *straggler], BELOW, TOPOLOGY, NOW, told).causes
    assert (cause.name, len(cause.sites), cause.most) == ("n1", 10, 10)
    elsewhere = lost("south", 1, at=NOW - 1, stem="late")
    (cause,) = judge([*first, *elsewhere], BELOW, TOPOLOGY, NOW, told).causes
    assert (cause.name, len(cause.sites)) == ("n1", 9)
    rest = lost("n2", 10, at=NOW - 5)
    (wider,) = judge([*first, *lost("n1", 1, at=NOW - 9, stem="z"), *rest], BELOW, TOPOLOGY, NOW, told).causes
    assert (wider.name, len(wider.sites)) == ("north", 20)


def test_uplinks_in_a_circle_are_walked_once() -> None:
    circle = Topology({"a": "b", "b": "c", "c": "a", "d": "d"})
    assert circle.way("a") == ("a", "b", "c") and circle.way("d") == ("d",) and circle.way("none") == ()
    sites = [Site(name=f"s{n}", uplink="abcd"[n % 4], lost_at=1.0) for n in range(20)]
    explained = [n for c in judge(sites, dict.fromkeys("abcd", 5), circle, NOW).causes for n in c.sites]
    assert sorted(explained) == sorted(s.name for s in sites)


SITES = st.lists(
    st.builds(
        lambda n, uplink, at, expired: Site(name=f"s{n:03}", uplink=uplink, lost_at=at, expired=expired),
        st.integers(0, 200),
        st.sampled_from(["", "core", "north", "south", "n1", "n2", "none"]),
        st.none() | st.floats(0, NOW),
        st.booleans(),
    ),
    max_size=40,
    unique_by=lambda s: s.name,
)


@settings(max_examples=300)
@given(SITES, st.dictionaries(st.sampled_from(sorted(TREE)), st.integers(0, 50)), st.randoms())
def test_each_loss_is_explained_exactly_once_in_whatever_order(
    sites: list[Site], below: dict[str, int], chance: random.Random
) -> None:
    judged: Judgement = judge(sites, below, TOPOLOGY, NOW + 100)
    explained = sorted(name for cause in judged.causes for name in cause.sites)
    assert explained == sorted(s.name for s in sites if s.lost_at is not None)
    assert judged.again is None
    mixed = list(sites)
    chance.shuffle(mixed)
    assert judge(mixed, below, TOPOLOGY, NOW + 100) == judged
    assert len({(c.kind, c.name, c.since) for c in judged.causes}) == len(judged.causes)


def test_outages_whose_truth_is_known_are_told_as_they_were() -> None:
    found = score(Outage.of(seed) for seed in range(300))
    assert found.precision >= 0.94 and found.recall >= 0.94, found
