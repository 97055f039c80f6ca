"""What is in force of a copy with overrides, and what becomes of an override: rules without a store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.engine.overrides import Ended, Unfit, effective, judge, laid_over, normal
from roost.model import codec, patches
from roost.model.codec import Raw, encode
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.meta import Metadata, condition_is
from roost.model.override import (
    LocalOverride,
    LocalOverrideSpec,
    LocalOverrideStatus,
    OverrideReview,
    OverrideReviewSpec,
    OverrideTarget,
)

NOW = "2026-11-23T00:00:00.000Z"
SSH = {"action": "allow", "protocol": "tcp", "ports": ["22"]}


def copy(generation: int = 1, **spec: Any) -> Raw:
    raw = {
        "apiVersion": "roost.edge/v1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "p.central", "namespace": "harbor", "uid": "u", "generation": generation},
        "spec": {"networks": ["oam"], **spec},
    }
    return codec.overlay(raw, codec.decode(FirewallPolicy, raw))


def override(patch: Raw, *, generation: int = 1, seen: int = 0, name: str = "o") -> LocalOverride:
    values, removes = patches.split(patch)
    target = OverrideTarget(kind="FirewallPolicy", name="p.central", generation=seen)
    spec = LocalOverrideSpec(target=target, patch=values, removes=removes, reason="r")
    metadata = Metadata(name=name, namespace="harbor", uid="o-uid", generation=generation)
    return LocalOverride(metadata=metadata, spec=spec)


def review(decision: str, *, uid: str = "o-uid", generation: int = 1) -> OverrideReview:
    spec = OverrideReviewSpec(override="o", uid=uid, generation=generation, decision=decision)  # type: ignore[arg-type]
    return OverrideReview(metadata=Metadata(name="o", namespace="harbor"), spec=spec)


def looked(made: LocalOverride, target: Raw | None, **more: Any) -> LocalOverride:
    """The override after the site's controller has looked at it."""
    verdict = judge(made, target, more.get("review"), NOW, more.get("made_against"))
    assert isinstance(verdict, LocalOverrideStatus), verdict
    return msgspec.structs.replace(made, status=verdict)


def test_an_override_speaks_for_its_fields_and_the_rest_follows() -> None:
    made = override({"order": 5, "hosts": {"labels": {"zone": "a"}}})
    raw = effective(FIREWALL_POLICY, copy(order=1, rules=[SSH]), [made])
    assert raw["spec"]["order"] == 5 and raw["spec"]["hosts"]["labels"] == {"zone": "a"}
    assert raw["spec"]["rules"][0]["ports"] == ["22"]
    after = effective(FIREWALL_POLICY, copy(2, order=1, rules=[]), [made])
    assert after["spec"]["order"] == 5 and after["spec"]["rules"] == []


def test_what_is_removed_is_absent_or_at_its_default() -> None:
    made = override({"order": None, "hosts": {"labels": {"a/b": None}}})
    assert made.spec.removes == ["/order", "/hosts/labels/a~1b"]
    target = copy(order=7, hosts={"labels": {"a/b": "x", "c": "y"}})
    raw = effective(FIREWALL_POLICY, target, [made])
    assert raw["spec"]["order"] == 1000 and raw["spec"]["hosts"]["labels"] == {"c": "y"}
    stood = looked(made, target)
    assert [(d.path, d.central, d.local) for d in stood.status.differences] == [
        ("/order", "7", "1000"),
        ("/hosts/labels/a~1b", '"x"', ""),
    ]


def test_one_that_does_not_fit_is_left_out_and_says_so() -> None:
    made = override({"order": 99999})
    target = copy(order=7)
    assert effective(FIREWALL_POLICY, target, [made]) == target
    status = looked(made, target).status
    assert not status.in_force and condition_is(status.conditions, "InForce", "False")


@pytest.mark.parametrize("patch", [{"subclouds": {}}, {"oder": 1}, {"rules": [{"action": "maybe"}]}])
def test_what_leaves_no_right_resource_is_unfit(patch: Raw) -> None:
    with pytest.raises(Unfit) as caught:
        laid_over(FIREWALL_POLICY, copy(), patch)
    assert caught.value.problems[0].field.startswith("spec.")


def test_only_what_both_have_changed_is_a_conflict() -> None:
    made = looked(override({"order": 5, "defaultIngress": "allow"}), copy(1, order=1))
    assert made.status.conflicts == 0 and len(made.status.differences) == 2
    other = looked(made, copy(2, order=1, rules=[SSH]))
    assert other.status.conflicts == 0, "the centre changed what nobody overrides"
    both = looked(other, copy(3, order=3))
    assert [(d.path, d.before, d.central, d.local) for d in both.status.differences if d.conflict] == [
        ("/order", "1", "3", "5")
    ]
    assert condition_is(both.status.conditions, "Conflict")
    again = looked(both, copy(4, order=1))
    assert again.status.conflicts == 0, "the centre has taken its change back"


def test_naming_a_later_generation_settles_a_conflict_at_the_site() -> None:
    made = looked(override({"order": 5}, seen=1), copy(1, order=1))
    both = looked(made, copy(2, order=3))
    assert both.status.conflicts == 1
    spec = msgspec.structs.replace(both.spec, target=msgspec.structs.replace(both.spec.target, generation=2))
    agreed = looked(msgspec.structs.replace(both, spec=spec), copy(2, order=3))
    assert agreed.status.conflicts == 0 and agreed.status.differences[0].before == "3"


def test_what_the_centre_said_when_it_was_made_counts_though_it_changed_before_anybody_looked() -> None:
    made = looked(override({"order": 5}), copy(2, order=3), made_against=copy(1, order=1))
    assert made.status.conflicts == 1 and made.status.differences[0].before == "1"


def test_what_it_comes_to_speak_of_later_is_no_conflict_by_itself() -> None:
    made = looked(override({"order": 5}), copy(1, order=1))
    wider = msgspec.structs.replace(override({"order": 5, "defaultEgress": "deny"}), status=made.status)
    seen = looked(wider, copy(2, order=2))
    assert {d.path: d.conflict for d in seen.status.differences} == {"/order": True, "/defaultEgress": False}


@pytest.mark.parametrize(
    ("which", "event"),
    [
        (review("revert"), "override-reverted"),
        (review("revert", generation=2), ""),
        (review("revert", uid="another"), ""),
        (review("adopt"), ""),
        (None, ""),
    ],
)
def test_a_review_speaks_of_one_override_at_one_generation(which: OverrideReview | None, event: str) -> None:
    verdict = judge(override({"order": 5}), copy(order=1), which, NOW)
    assert (verdict.event if isinstance(verdict, Ended) else "") == event


def test_it_ends_when_the_intent_from_above_says_the_same() -> None:
    made = looked(override({"order": 5}), copy(1, order=1), review=review("adopt"))
    assert made.status.review == "adopt"
    verdict = judge(made, copy(2, order=5), None, NOW)
    assert isinstance(verdict, Ended) and verdict.event == "override-adopted"


def test_what_is_withdrawn_is_one_difference_and_any_change_above_a_conflict() -> None:
    plain = override({})
    out = msgspec.structs.replace(plain, spec=msgspec.structs.replace(plain.spec, withdrawn=True))
    made = looked(out, copy(1))
    assert [(d.path, d.local, d.conflict) for d in made.status.differences] == [("", '"withdrawn"', False)]
    changed = looked(made, copy(2, order=3))
    assert changed.status.conflicts == 1 and "all of it" in changed.status.conditions[1].message
    assert isinstance(judge(changed, None, None, NOW), Ended), "the centre has come to the same"
    assert isinstance(judge(changed, copy(2, order=3), review("revert"), NOW), Ended)


def test_what_only_a_newer_version_knows_is_no_difference() -> None:
    made = looked(override({"rules": [SSH]}), copy(1))
    adopted = copy(2, rules=[{**SSH, "newer": "field"}])
    assert isinstance(judge(made, adopted, None, NOW), Ended)
    wider = copy(2, newer={"a": 1})
    assert effective(FIREWALL_POLICY, wider, [made])["spec"]["newer"] == {"a": 1}, "and it is kept"


def test_it_waits_for_a_target_that_was_taken_away_and_finds_it_again() -> None:
    made = looked(override({"order": 5}), copy(1, order=1))
    waits = looked(made, None)
    assert not waits.status.in_force and waits.status.base == made.status.base
    back = copy(1, order=2)
    back["metadata"]["uid"] = "another life"
    found = looked(waits, back)
    assert found.status.in_force and found.status.conflicts == 1


def test_looking_twice_says_the_same() -> None:
    made = looked(override({"order": 5}), copy(1, order=1))
    assert looked(made, copy(1, order=1)) == made


# -- whatever happens in whatever order

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "order": st.integers(0, 3),
    "defaultIngress": st.sampled_from(["allow", "deny"]),
    "defaultEgress": st.sampled_from(["allow", "deny"]),
}
some = st.fixed_dictionaries({}, optional=FIELDS)
words = st.fixed_dictionaries({}, optional=FIELDS).filter(bool)
steps = st.one_of(
    st.tuples(st.just("above"), words),
    st.tuples(st.just("below"), words),
    st.tuples(st.just("adopt")),
    st.tuples(st.just("revert")),
    st.tuples(st.just("down")),
    st.tuples(st.just("up")),
    st.tuples(st.just("look")),
    st.tuples(st.just("give up")),
)


class Sides:
    """A central cloud with a shared policy, its exception and its review for one site; the site with its copy
    and override. `down` and `up` carry the present state over the link; without them it is cut."""

    def __init__(self) -> None:
        self.shared: Raw = copy()["spec"]
        self.exception: Raw = {}
        self.generation = 1
        self.review: OverrideReview | None = None
        self.seen: LocalOverride | None = None
        self.copy = copy()
        self.review_below: OverrideReview | None = None
        self.override: LocalOverride | None = None
        self.made = 0
        self.log: list[str] = []
        self.decided: set[tuple[str, int]] = set()

    @property
    def above(self) -> Raw:
        """The copy as the central cloud means it."""
        raw = copy(self.generation)
        return normal(FIREWALL_POLICY, {**raw, "spec": patches.merge(self.shared, self.exception)})

    @property
    def in_force(self) -> Raw:
        spec: Raw = effective(FIREWALL_POLICY, self.copy, [self.override] if self.override else [])["spec"]
        return spec

    def step(self, what: str, *given: Any) -> None:
        match what:
            case "above":
                self.shared = patches.merge(self.shared, given[0])
                self.generation += 1
            case "below":
                self._below(given[0])
            case "give up":
                self.override = None
            case "adopt" | "revert":
                self._decide(what)
            case "down":
                self.copy, self.review_below = self.above, self.review
            case "up":
                self.seen = self.override
                self._clear()
            case _:
                self.look()

    def _below(self, patch: Raw) -> None:
        before = self.override
        whole = patches.composed(before.spec.patch, patch) if before else patch
        if laid_over(FIREWALL_POLICY, self.copy, whole)["spec"] == self.copy["spec"]:
            return
        if before is None:
            self.made += 1
            new = override(whole)
            meta = msgspec.structs.replace(new.metadata, uid=f"life-{self.made}")
            self.override = msgspec.structs.replace(new, metadata=meta)
        elif before.spec.patch != whole:
            meta = msgspec.structs.replace(before.metadata, generation=before.metadata.generation + 1)
            spec = msgspec.structs.replace(before.spec, patch=whole)
            self.override = msgspec.structs.replace(before, metadata=meta, spec=spec)
        self.look()

    def _decide(self, decision: str) -> None:
        if self.seen is None:
            return
        meta = self.seen.metadata
        self.review = review(decision, uid=meta.uid, generation=meta.generation)
        self.decided.add((meta.uid, meta.generation))
        if decision == "adopt":
            self.exception = patches.composed(self.exception, self.seen.spec.patch)
            self.generation += 1

    def _clear(self) -> None:
        if self.review and (self.seen is None or self.seen.metadata.uid != self.review.spec.uid):
            self.review = None

    def look(self) -> None:
        """The site's controller."""
        if self.override is None:
            return
        verdict = judge(self.override, self.copy, self.review_below, NOW)
        if isinstance(verdict, Ended):
            self.log.append(verdict.event)
            if verdict.event == "override-reverted":
                meta = self.override.metadata
                assert (meta.uid, meta.generation) in self.decided, "nobody has decided on this word"
            else:
                spoken = patches.leaves(self.override.spec.patch)
                assert all(patches.at(self.copy["spec"], p) == v for p, v in spoken.items()), (
                    "it ended though the centre says otherwise"
                )
            self.override = None
        else:
            self.override = msgspec.structs.replace(self.override, status=verdict)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=25))
def test_neither_sides_last_word_is_lost_silently(history: list[tuple[Any, ...]]) -> None:
    sides = Sides()
    for step in history:
        sides.step(*step)
        _nothing_is_lost(sides)
    for _ in range(4):
        for quiet in ("down", "look", "up"):
            sides.step(quiet)
    _nothing_is_lost(sides)
    assert sides.copy == sides.above, "the copy says to the letter what the centre means"
    assert sides.seen == sides.override, "the centre sees what the site overrides"
    if sides.override is not None:
        status = sides.override.status
        named = {d.path for d in status.differences}
        assert all(d.conflict == (d.central != d.before) for d in status.differences)
        spoken = patches.leaves(sides.override.spec.patch)
        differing = {p for p, v in spoken.items() if patches.at(sides.copy["spec"], p) != v}
        assert named == differing and differing, "each difference is shown, and nothing stands without one"
    before = (sides.override, list(sides.log), sides.copy)
    for quiet in ("down", "down", "look", "look", "up", "up"):
        sides.step(quiet)
    assert (sides.override, sides.log, sides.copy) == before, "what comes twice changes nothing"


def _nothing_is_lost(sides: Sides) -> None:
    """What the site said is in force where it speaks; where it does not, what the centre said."""
    spoken = patches.leaves(sides.override.spec.patch) if sides.override else {}
    for field in FIELDS:
        pointer = f"/{field}"
        wanted = spoken.get(pointer, sides.copy["spec"][field])
        assert sides.in_force[field] == wanted, (field, sides.in_force, wanted)


@given(some, some, some)
def test_patches_put_together_do_what_one_after_the_other_does(target: Raw, first: Raw, second: Raw) -> None:
    one_by_one = patches.merge(patches.merge(target, first), second)
    assert patches.merge(target, patches.composed(first, second)) == one_by_one


nested: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text("ab/~", min_size=1, max_size=3), inner, min_size=1, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text("ab/~", min_size=1, max_size=3), nested, max_size=3))
def test_a_patch_in_two_parts_is_the_same_patch(patch: Raw) -> None:
    values, removes = patches.split(patch)
    assert patches.leaves(patches.joined(values, removes)) == patches.leaves(patch)


def test_an_override_is_a_resource_without_null() -> None:
    raw = encode(override({"order": None, "defaultIngress": "allow"}))
    assert raw["spec"]["patch"] == {"defaultIngress": "allow"} and raw["spec"]["removes"] == ["/order"]
