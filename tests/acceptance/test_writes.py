"""The judge of writes and watches itself: it passes what is right and names each thing that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.watcher import Seen, Stream, What, judge_stream, state
from tests.acceptance.writes import ANNOTATION, LABEL, Asked, Raw, Verb, content, judge_object, named, numbers

KEY = ("FirewallPolicy", "ridge", "one")


def asked(number: int, said: Any = "accepted", verb: Verb = "update", **more: Any) -> Asked:
    told = {"revision": 100 + number, "uid": "u"} if said == "accepted" else {}
    return Asked(number, "ada", "ridge", verb, KEY, said=said, **{**told, **more})


def seen(number: int, uid: str = "u") -> Raw:
    made = named(*KEY, content("FirewallPolicy", number))
    made["metadata"]["uid"] = uid
    return made


@pytest.mark.parametrize(
    "kind", ["FirewallPolicy", "ConfigMap", "PlatformNetwork", "Host", "Subcloud", "Operation"]
)
def test_the_number_of_a_write_is_in_every_part(kind: str) -> None:
    whole = named(kind, "ridge", "one", content(kind, 7))
    assert numbers(whole) == {7}
    other = named(kind, "ridge", "one", content(kind, 8))
    for part in ("spec", "data"):
        if whole.get(part):
            assert numbers({**whole, part: other[part]}) == {7, 8}
    for part, value in (("annotations", {ANNOTATION: "8"}), ("labels", {LABEL: "w8"})):
        assert numbers({**whole, "metadata": {**whole["metadata"], part: value}}) == {7, 8}
        assert -1 in numbers({**whole, "metadata": {**whole["metadata"], part: {}}})
    assert numbers({**other, "metadata": {"name": "one"}}) == set(), "nobody here wrote it"


def test_a_copy_says_the_number_of_its_original() -> None:
    spec = content("FirewallPolicy", 7)["spec"]
    copy = {"kind": "FirewallPolicy", "metadata": {"name": "one.central"}, "spec": spec}
    assert numbers(copy) == {7}
    assert numbers({**copy, "spec": {**spec, "order": 8}}) == {7, 8}


CREATED = asked(1, verb="create")


@pytest.mark.parametrize(
    ("history", "there"),
    [
        ([CREATED], seen(1)),
        ([CREATED, asked(2)], seen(2)),
        ([CREATED, asked(2, "unanswered")], seen(2)),
        ([CREATED, asked(2, "unanswered")], seen(1)),
        ([CREATED, asked(2, "refused")], seen(1)),
        ([CREATED, asked(2, revision=90)], seen(1)),
        ([CREATED, asked(2, verb="delete")], None),
        ([CREATED, asked(2, "unanswered", "delete", uid="u")], None),
        ([CREATED, asked(2, "unanswered", "delete", uid="u")], seen(1)),
        ([CREATED, asked(2, verb="delete"), asked(3, verb="create", uid="v")], seen(3, "v")),
        ([asked(1, "unanswered", "create")], None),
        ([asked(1, "unanswered", "create")], seen(1)),
        ([asked(1, "refused", "create")], None),
    ],
)
def test_what_is_right_passes(history: list[Asked], there: Raw | None) -> None:
    assert judge_object(history, there) == []


HALF = {**seen(2), "spec": content("FirewallPolicy", 1)["spec"]}


@pytest.mark.parametrize(
    ("history", "there", "problem"),
    [
        ([CREATED], None, "write 1 (ada: create FirewallPolicy ridge/one at ridge) was accepted and is lost"),
        (
            [CREATED, asked(2)],
            seen(1),
            "write 2 (ada: update FirewallPolicy ridge/one at ridge) was accepted and",
        ),
        ([CREATED, asked(2)], HALF, "is of several writes: [1, 2]"),
        ([CREATED, asked(2, "refused")], seen(2), "says what was not accepted"),
        ([CREATED, asked(2, "never sent")], seen(2), "says what was not accepted"),
        ([CREATED], seen(9), "says what was not accepted"),
        ([CREATED, asked(2, verb="delete")], seen(1), "though its deletion was accepted"),
        ([CREATED], seen(1, "v"), "was accepted and is lost: another is there"),
        ([asked(1, "refused", "create")], seen(1), "says what was not accepted"),
    ],
)
def test_what_is_wrong_is_named(history: list[Asked], there: Raw | None, problem: str) -> None:
    assert any(problem in one for one in judge_object(history, there)), judge_object(history, there)


def test_a_host_is_in_the_state_that_was_asked_for_last() -> None:
    history = [asked(1, wish="locked"), asked(2, wish="unlocked")]
    for one in history:
        one.key = ("Host", "ridge", "c")
    made = named("Host", "ridge", "c", content("Host", 2, administrativeState="unlocked"))
    made["metadata"]["uid"] = "u"
    assert judge_object(history, made) == []
    made["spec"]["administrativeState"] = "locked"
    assert "asked was ['unlocked']" in judge_object(history, made)[0]
    history.append(asked(3, "unanswered", wish="locked"))
    assert judge_object(history, made) == []


def event(what: What, revision: int, *said: int, uid: str = "u") -> Seen:
    return Seen(what, KEY, uid, revision, frozenset(said))


def told(*events: Seen) -> Stream:
    return Stream("policies of ridge", "ridge", "FirewallPolicy", list(events), started_at=100)


CHANGED = [CREATED, asked(2), asked(3, verb="delete")]
WELL = (event("ADDED", 101, 1), event("MODIFIED", 102, 2), event("DELETED", 103, 2))


def test_a_watch_that_was_told_everything_in_order_passes() -> None:
    assert judge_stream(told(*WELL), CHANGED) == []
    assert judge_stream(told(event("LISTED", 90, 1), *WELL[1:]), [asked(1, revision=90), *CHANGED[1:]]) == []
    again = (event("ADDED", 104, 4, uid="v"),)
    assert judge_stream(told(*WELL, *again), [*CHANGED, asked(4, verb="create", uid="v")]) == []
    assert state(told(*WELL, *again)) == {KEY: 104} and state(told(*WELL)) == {}


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (WELL[:1] + WELL[2:], "was not told of write 2"),
        (WELL[:2], "was not told of write 3"),
        ((WELL[0], WELL[1], WELL[1], WELL[2]), "at 102 came after 102"),
        ((WELL[1], WELL[0], WELL[2]), "came after 102"),
        ((*WELL, event("MODIFIED", 104, 2)), "after its end"),
        ((WELL[0], event("ADDED", 102, 2), WELL[2]), "a second time"),
        ((WELL[0], event("MODIFIED", 102, 1, 2), WELL[2]), "is of writes [1, 2]"),
        ((WELL[0], event("MODIFIED", 102, 9), WELL[2]), "says what was not accepted: 9"),
        ((WELL[0], event("MODIFIED", 102, 1), WELL[2]), "was told [1] for write 2"),
        ((WELL[0], WELL[1], event("MODIFIED", 110, 1), event("DELETED", 111, 1)), "write 1 came back"),
        ((event("MODIFIED", 101, 1), *WELL[1:]), "and nothing was there"),
    ],
)
def test_what_is_wrong_with_a_watch_is_named(events: tuple[Seen, ...], problem: str) -> None:
    found = judge_stream(told(*events), CHANGED)
    assert any(problem in one for one in found), found


def test_log_entries_come_once_in_order_and_without_a_gap() -> None:
    def entry(what: What, revision: int, sequence: int) -> Seen:
        return Seen(
            what,
            ("LogEntry", "ridge", f"log.{sequence}"),
            f"u{sequence}",
            revision,
            frozenset(),
            "r",
            sequence,
        )

    def entries(*sequences: int) -> list[str]:
        events = [entry("LISTED", 90, 2), entry("LISTED", 80, 1)]
        events += [entry("ADDED", 101 + n, sequence) for n, sequence in enumerate(sequences)]
        return judge_stream(Stream("log", "ridge", "LogEntry", events, started_at=100), [])

    assert entries(3, 4, 5) == []
    assert entries(3, 5) == ["log: entry 5 of r came after 3"]
    assert entries(3, 3)[-1] == "log: entry 3 of r came after 3"
    assert entries(4, 3)[0] == "log: entry 4 of r came after 2"


def test_lists_made_anew_and_other_trouble_are_named() -> None:
    stream = told(*WELL)
    stream.relists.append("from 12: too old")
    stream.problems.append("it ended")
    assert judge_stream(stream, CHANGED) == [
        "it ended",
        "policies of ridge: had to list anew from 12: too old",
    ]
