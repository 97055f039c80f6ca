"""What operators say of alarms: which suppression counts, what an acknowledgement holds for, what blocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from roost.model import time
from roost.model.alarms import ALARMS, RANK
from roost.model.cloud import AlarmCounts
from roost.model.codec import check
from roost.model.fault import Alarm, AlarmSpec, AlarmStatus, Severity
from roost.model.marking import Limits, Rules, blocks_upgrade, counted, marked
from roost.model.meta import Metadata
from roost.model.suppression import (
    ALARM_POLICY,
    ALARM_SUPPRESSION,
    AlarmPolicy,
    AlarmPolicySpec,
    AlarmRule,
    AlarmSuppression,
    AlarmSuppressionSpec,
)

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
SEVERITIES = st.sampled_from(["critical", "major", "minor", "warning"])


def suppression(
    name: str, *ids: str, entity: str = "*", hours: float = 1, by: str = "ada"
) -> AlarmSuppression:
    until = time.stamp(NOW + timedelta(hours=hours))
    spec = AlarmSuppressionSpec(alarm_ids=list(ids), entity=entity, reason="works", until=until, by=by)
    return AlarmSuppression(metadata=Metadata(name=name), spec=spec)


def policy(name: str, *rules: AlarmRule) -> AlarmPolicy:
    return AlarmPolicy(metadata=Metadata(name=name), spec=AlarmPolicySpec(rules=list(rules)))


def status(alarm_id: str = "100.101", severity: Severity = "critical", entity: str = "host=h") -> AlarmStatus:
    return AlarmStatus(alarm_id=alarm_id, severity=severity, entity=entity)


@pytest.mark.parametrize(
    ("alarm_id", "entity", "suppressions", "by"),
    [
        ("100.101", "host=h", [], ""),
        ("100.101", "host=h", [suppression("a", "100.103")], ""),
        ("100.101", "host=h", [suppression("a", "100.103", "100.101")], "a"),
        ("100.101", "host=h", [suppression("a", "100.101", entity="host=worker-*")], ""),
        ("100.104", "host=worker-1.filesystem=/var", [suppression("a", "100.104", entity="host=w*")], "a"),
        ("100.101", "host=h", [suppression("a", "100.101", hours=-0.001)], ""),
        ("100.101", "host=h", [suppression("a", "100.101"), suppression("b", "100.101", hours=2)], "b"),
        ("100.101", "host=h", [suppression("b", "100.101"), suppression("a", "100.101")], "b"),
        # What may not be suppressed is not, wherever the suppression comes from.
        ("200.001", "host=h", [suppression("a", "200.001")], ""),
        ("999.999", "host=h", [suppression("a", "999.999")], ""),
    ],
)
def test_an_alarm_is_suppressed_by_the_fitting_one_that_ends_last(
    alarm_id: str, entity: str, suppressions: list[AlarmSuppression], by: str
) -> None:
    rules = Rules(suppressions=tuple(suppressions))
    found = marked(status(alarm_id, entity=entity), AlarmSpec(), 1, rules, NOW)
    assert found.suppressed is bool(by)
    assert (found.suppression.name if found.suppression else "") == by
    if by:
        assert not found.degrades_host and not found.blocks_updates


def test_a_suppression_whose_end_can_not_be_read_suppresses_nothing() -> None:
    spec = AlarmSuppressionSpec(alarm_ids=["100.101"], reason="r", until="tomorrow")
    broken = AlarmSuppression(metadata=Metadata(name="a"), spec=spec)
    assert not marked(status(), AlarmSpec(), 1, Rules(suppressions=(broken,)), NOW).suppressed


def test_a_policy_is_laid_over_the_dictionary_field_by_field_in_the_order_of_names() -> None:
    first = policy("a", AlarmRule(alarm_id="100.101", degrades_from="major", blocks_updates_from="none"))
    second = policy("b", AlarmRule(alarm_id="100.101", degrades_from="none"))
    assert Rules().limits("100.101") == Limits("critical", "major")
    assert Rules(policies=(first,)).limits("100.101") == Limits("major", None)
    assert Rules(policies=(second, first)).limits("100.101") == Limits(None, None)
    assert Rules(policies=(first, second)).limits("100.103") == Limits("critical", None)
    assert Rules(policies=(second,)).limits("999.999") == Limits(None, None)


@given(severities=st.lists(SEVERITIES, min_size=1, max_size=8), at=SEVERITIES)
def test_an_acknowledgement_holds_exactly_while_the_alarm_is_no_worse(
    severities: list[Severity], at: Severity
) -> None:
    """Whatever severities it went through, and if some of them were never seen."""
    spec = AlarmSpec(acknowledged_by="ada", acknowledged_severity=at)
    now, told = NOW, status(severity=severities[0])
    for severity in severities:
        told = marked(msgspec.structs.replace(told, severity=severity), spec, 2, Rules(), now)
        assert told.acknowledged is (RANK[severity] <= RANK[at])
        assert told.acknowledgement is not None and told.acknowledgement.at == time.stamp(NOW)
        now += timedelta(minutes=1)
    direct = marked(status(severity=severities[-1]), spec, 2, Rules(), NOW)
    assert direct == told


def test_an_acknowledgement_without_a_severity_speaks_of_what_was_there_and_is_taken_back_by_spec() -> None:
    spec = AlarmSpec(acknowledged_by="ada", comment="spare ordered")
    first = marked(status(severity="major"), spec, 2, Rules(), NOW)
    assert first.acknowledged and first.acknowledgement is not None
    assert (first.acknowledgement.severity, first.acknowledgement.comment) == ("major", "spare ordered")
    worse = marked(msgspec.structs.replace(first, severity="critical"), spec, 2, Rules(), NOW)
    assert not worse.acknowledged and worse.acknowledgement == first.acknowledgement
    again = marked(worse, msgspec.structs.replace(spec, acknowledged_severity="critical"), 3, Rules(), NOW)
    assert again.acknowledged
    gone = marked(again, AlarmSpec(), 4, Rules(), NOW)
    assert (gone.acknowledged, gone.acknowledgement) == (False, None)


@given(
    alarm_id=st.sampled_from(sorted(ALARMS)),
    severity=SEVERITIES,
    hours=st.lists(st.integers(-3, 3), max_size=3),
    offset=st.integers(-4, 4),
)
def test_marking_twice_is_marking_once_and_forgets_what_was_marked_before(
    alarm_id: str, severity: Severity, hours: list[int], offset: int
) -> None:
    given_rules = tuple(suppression(f"s{n}", alarm_id, hours=h) for n, h in enumerate(hours))
    rules, now = Rules(suppressions=given_rules), NOW + timedelta(hours=offset)
    plain = status(alarm_id, severity)
    once = marked(plain, AlarmSpec(), 1, rules, now)
    assert marked(once, AlarmSpec(), 1, rules, now) == once
    assert marked(once, AlarmSpec(), 1, Rules(), now) == marked(plain, AlarmSpec(), 1, Rules(), now)
    assert once.suppressed is (ALARMS[alarm_id].suppressible and any(h > offset for h in hours))


def test_what_blocks_an_update_is_told_the_worst_first_and_counts_leave_suppressed_ones_out() -> None:
    rules = Rules(suppressions=(suppression("a", "200.004"),))
    told = [
        marked(status(*s), AlarmSpec(acknowledged_by=by), 1, rules, NOW)  # type: ignore[arg-type]
        for *s, by in [
            ("100.101", "major", "ada"),
            ("200.004", "critical", "ada"),
            ("200.005", "critical", ""),
            ("100.103", "critical", ""),
            ("200.001", "warning", ""),
        ]
    ]
    alarms = [Alarm(metadata=Metadata(name=s.alarm_id, namespace="c"), status=s) for s in told]
    assert [a.metadata.name for a in blocks_upgrade(alarms)] == ["200.005", "100.101", "200.001"]
    assert counted(told) == AlarmCounts(
        critical=2, major=1, warning=1, suppressed=1, acknowledged=1, blocking_updates=3
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"until": "tomorrow"}, "spec.until"),
        ({"until": "2026-11-23T04:00:00"}, "spec.until"),
        ({"alarmIds": ["100"]}, "spec.alarmIds"),
        ({"alarmIds": []}, "spec.alarmIds"),
        ({"entity": "host=[a-z]"}, "spec.entity"),
        ({"entity": ""}, "spec.entity"),
        ({"reason": ""}, "spec.reason"),
    ],
)
def test_a_suppression_that_says_nothing_clear_is_refused(change: dict[str, Any], field: str) -> None:
    spec = {"alarmIds": ["100.101"], "reason": "r", "until": "2026-11-23T04:00:00Z"} | change
    _, problems = check(ALARM_SUPPRESSION, {"metadata": {"name": "a"}, "spec": spec})
    assert [p.field.split("[")[0] for p in problems] == [field]


def test_a_policy_names_alarms_that_there_are_and_each_once() -> None:
    rules = [{"alarmId": "100.101"}, {"alarmId": "100.101"}, {"alarmId": "999.999"}]
    _, problems = check(ALARM_POLICY, {"metadata": {"name": "a"}, "spec": {"rules": rules}})
    assert [p.field for p in problems] == ["spec.rules[1].alarmId", "spec.rules[2].alarmId"]
