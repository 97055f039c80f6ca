"""What is sent from a change, how much of one cause, when it is tried again: tables and chance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cloud.outlets.merging import MOST_CAUSES, Merged, allowance, merge, portions
from roost.cloud.outlets.messages import AlarmFacts, Message, Scope, count_missed, message_of
from roost.cloud.outlets.pausing import LONGEST_ASKED, Failed, judged, pause, retry_after
from roost.cloud.outlets.progress import Progress
from roost.cloud.outlets.sink import Settings
from roost.model.fault import Alarm, AlarmStatus, LogEntry, LogEntryStatus
from roost.model.meta import Metadata
from roost.model.outlet import ALARM_OUTLET, AlarmOutlet, AlarmOutletSpec, OutletFilter
from roost.store.transaction import Change

NOW = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
LABELS = {"north": {"region": "n"}, "south": {"region": "s"}}


def spec(**filters: Any) -> AlarmOutletSpec:
    wanted = msgspec.convert(filters, OutletFilter)
    return AlarmOutletSpec(type="webhook", endpoint="https://noc.example/", filter=wanted)


def scope(**filters: Any) -> Scope:
    return Scope(spec(**filters), "harbor", "noc", LABELS.get)


def alarm(name: str = "a", cloud: str = "harbor", **status: Any) -> Alarm:
    given_status = {"alarm_id": "100.101", "entity": "host=h1", "severity": "major"} | status
    return Alarm(metadata=Metadata(name=name, namespace=cloud), status=AlarmStatus(**given_status))


def change(before: Alarm | None, after: Alarm | None, revision: int = 7) -> Change:
    there = after or before
    assert there is not None
    meta = there.metadata
    type = "ADDED" if before is None else "DELETED" if after is None else "MODIFIED"
    data = msgspec.json.encode(there).decode()
    previous = msgspec.json.encode(before).decode() if before else ""
    return Change(revision, type, "Alarm", meta.namespace, meta.name, "", data, previous)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("filters", "before", "after", "what"),
    [
        ({}, None, alarm(), "set"),
        ({}, alarm(), None, "clear"),
        ({}, alarm(), alarm(severity="critical"), "changed"),
        ({}, alarm(), alarm(), None),
        ({"severities": ["critical"]}, None, alarm(), None),
        ({"severities": ["critical"]}, alarm(), alarm(severity="critical"), "set"),
        ({"severities": ["critical"]}, alarm(severity="critical"), alarm(), "clear"),
        ({"severities": ["critical"]}, alarm(), None, None),
        ({"alarmIds": ["200.*"]}, None, alarm(), None),
        ({"alarmIds": ["200.*", "100.1?1"]}, None, alarm(), "set"),
        ({"entities": ["host=h*"]}, None, alarm(), "set"),
        ({"clouds": ["north"]}, None, alarm(), None),
        ({"clouds": ["n*"]}, None, alarm(cloud="north"), "set"),
        ({"subcloudSelector": "region=n"}, None, alarm(cloud="north"), "set"),
        ({"subcloudSelector": "region=n"}, None, alarm(cloud="south"), None),
        ({"subcloudSelector": "region=n"}, None, alarm(cloud="unknown"), None),
        ({"subcloudSelector": "region!=n"}, None, alarm(), None),
    ],
)
def test_a_change_is_told_by_what_it_did_to_what_is_shown(
    filters: dict[str, Any], before: Alarm | None, after: Alarm | None, what: str | None
) -> None:
    found = message_of(change(before, after), scope(**filters), "store-id", "now")
    assert (found.what if found else None) == what
    assert found is None or found.id == "store-id-7"


def test_what_is_suppressed_is_cleared_there_and_set_again() -> None:
    silent, loud = alarm(suppressed=True), alarm()
    assert message_of(change(None, silent), scope(), "s", "now") is None
    hidden = message_of(change(loud, silent), scope(), "s", "now")
    shown = message_of(change(silent, loud), scope(), "s", "now")
    assert hidden and shown and (hidden.what, shown.what) == ("clear", "set")


_severities = st.sampled_from(["critical", "major", "minor", "warning"])
_steps = st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), _severities)), min_size=1, max_size=60)


def _told(steps: list[tuple[int, str | None]], wanted: Scope) -> tuple[list[Message], dict[str, str]]:
    """Messages of a history, and what stands and is shown at its end."""
    stands: dict[str, Alarm] = {}
    messages = []
    for revision, (number, severity) in enumerate(steps, 1):
        name = f"a{number}"
        after = alarm(name, severity=severity) if severity else None
        if name not in stands and after is None:
            continue
        found = message_of(change(stands.get(name), after, revision), wanted, "s", "now")
        messages += [found] if found else []
        if after is None:
            del stands[name]
        else:
            stands[name] = after
    return messages, {n: a.status.severity for n, a in stands.items() if wanted.shows(a)}


def _picture(messages: list[Message]) -> dict[str, str]:
    """What a receiver believes that goes by messages alone."""
    believed: dict[str, str] = {}
    for message in messages:
        if message.alarm is None:
            continue
        if message.what == "clear":
            believed.pop(message.alarm.name, None)
        else:
            believed[message.alarm.name] = message.alarm.severity
    return believed


@given(_steps, st.lists(_severities, max_size=3))
def test_a_receiver_that_follows_has_the_right_picture(
    steps: list[tuple[int, str | None]], severities: list[str]
) -> None:
    messages, stands = _told(steps, scope(severities=severities))
    assert _picture(messages) == stands


@given(_steps, st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_whatever_is_cut_off_is_told_again(
    steps: list[tuple[int, str | None]], burst: int, most: int, done: int
) -> None:
    """After any number of acknowledged requests, what is after the position has all that was not sent."""
    messages, _ = _told(steps, scope())
    if not messages:
        return
    upto = len(steps)
    merged = merge(messages, allowance(1, burst), 0.0)
    found = portions(merged, most, upto)
    assert [m for p in found for m in p.messages] == merged.messages
    assert all(len(p.messages) <= most for p in found)
    assert [p.upto for p in found] == sorted(p.upto for p in found) and found[-1].upto == upto
    told = sum(m.summary.count if m.summary else 1 for m in merged.messages)
    assert told == len(messages)
    sent = {m.id for p in found[:done] for m in p.messages}
    position = found[min(done, len(found)) - 1].upto if done else 0
    if done < len(found):
        again = {m.id for m in messages if m.revision > position}
        singly = {m.id for m in merged.messages if m.summary is None}
        assert {m.id for m in messages} - again <= sent & singly


def _set(number: int, cloud: str = "harbor") -> Message:
    facts = AlarmFacts(name=f"a{number}", alarm_id="280.001", severity="critical")
    return Message(id=f"s-{number}", what="set", time="t", cloud=cloud, revision=number, alarm=facts)


def test_beyond_its_burst_a_cause_is_counted_by_cloud() -> None:
    allowed = allowance(10, 5)
    merged = merge([_set(n, f"c{n % 60}") for n in range(1, 206)], allowed, 0.0)
    *single, summary = merged.messages
    assert [m.revision for m in single] == [1, 2, 3, 4, 5] and merged.merged == 200
    told = summary.summary
    assert told and (told.of, told.alarm_id, told.severity, told.count) == ("set", "280.001", "critical", 200)
    assert len(told.clouds) == 50 and told.more_clouds == 10 and sum(told.clouds.values()) < 200
    assert (summary.revision, summary.last, merged.first_merged) == (6, 205, 6)
    # Tokens come back at ten a second, up to the burst.
    later = merge([_set(n) for n in range(300, 320)], allowed, 1.0)
    assert len(later.messages) == 6, "five at once, for that is the burst, and a summary"


def test_causes_are_bounded() -> None:
    allowed = allowance(1, 1)
    for n in range(3 * MOST_CAUSES):
        allowed.take(f"set {n}", 0.0)
    assert len(allowed._left) <= MOST_CAUSES


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_no_more_goes_singly_than_burst_and_rate_allow(gaps: list[float], rate: int, burst: int) -> None:
    allowed, now, single = allowance(rate, burst), 0.0, 0
    for n, gap in enumerate(gaps):
        now += gap
        single += merge([_set(n)], allowed, now).merged == 0
    assert single <= burst + now * rate + 1e-6


def test_what_the_log_is_to_be_told_waits_until_it_was() -> None:
    settings = Settings(namespace="harbor", name="noc", uid="u", generation=1, spec=spec(), credentials={})
    progress = Progress(settings, lambda: NOW)
    progress.unwanted("noc answered 422", "m-1")
    (entry,) = progress.untold
    assert entry[0] == "outlet-refused"
    # The store fails: it is told with the next report.
    assert progress.due(0.0) and progress.untold == [entry]
    progress.reported(0.0)
    assert progress.untold == [] and not progress.due(0.0)


@pytest.mark.parametrize(
    ("status", "means"),
    [
        *((s, "accepted") for s in (200, 202, 204)),
        *((s, "again") for s in (408, 425, 429, 500, 503)),
        *((s, "unwanted") for s in (400, 413, 422)),
        *((s, "halted") for s in (301, 307, 401, 403, 404, 405, 410)),
    ],
)
def test_what_an_answer_means(status: int, means: str) -> None:
    assert judged(status) == means


@given(st.integers(1, 200), st.floats(1, 3600), st.floats(0, 10_000), st.booleans(), st.floats(0, 1))
def test_pauses_grow_are_bounded_and_heed_the_receiver(
    attempt: int,
    longest: float,
    asked: float,
    halted: bool,  # noqa: FBT001 - made by chance
    chance: float,
) -> None:
    failure = Failed("x", "y", retry_after=asked, halted=halted)
    found = pause(attempt, longest, failure, lambda low, high: low + (high - low) * chance)
    assert found >= min(asked, LONGEST_ASKED)
    assert found <= max(longest, LONGEST_ASKED)
    if not asked:
        assert found <= longest and found >= min(longest, 1.0) / 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("Mon, 23 Nov 2026 01:00:30 GMT", 30.0), ("", 0.0), ("soon", 0.0), ("-3", 0.0)],
)
def test_retry_after_is_read(header: str, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


def test_what_was_missed_is_counted_by_severity() -> None:
    entries = [
        LogEntry(
            metadata=Metadata(name=f"log.{n}"),
            status=LogEntryStatus(time=f"2026-11-23T00:00:0{n}.000Z", event=event, severity=severity),  # type: ignore[arg-type]
        )
        for n, (event, severity) in enumerate(
            [("alarm-set", "critical"), ("alarm-set", "minor"), ("alarm-clear", "info"), ("note", "major")]
        )
    ]
    found = count_missed(entries, 9, "now")
    assert (found.number, found.critical, found.minor, found.cleared, found.revisions) == (3, 1, 1, 1, 9)
    assert (found.since[-5:-1], found.until[-5:-1]) == (".000", ".000") and found.since < found.until


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"endpoint": "https://ada:pw@noc.example/"}, "spec.endpoint"),
        ({"endpoint": "https://noc.example/?token=abc"}, "spec.endpoint"),
        ({"endpoint": "ftp://noc.example/"}, "spec.endpoint"),
        ({"endpoint": "https:///in"}, "spec.endpoint"),
        ({"endpoint": "https://noc.example:port/"}, "spec.endpoint"),
        ({"type": "syslog", "endpoint": "tls://noc.example:6514/x"}, "spec.endpoint"),
        ({"type": "alertmanager", "sends": ["log"]}, "spec.sends"),
        ({"sends": []}, "spec.sends"),
        ({"filter": {"alarmIds": ["["]}}, "spec.filter.alarmIds[0]"),
        ({"filter": {"subcloudSelector": "a in b"}}, "spec.filter.subcloudSelector"),
        ({"type": "snmp", "endpoint": "udp://noc.example"}, "spec.secret"),
        ({"type": "snmp", "endpoint": "udp://noc.example", "secret": "s"}, "spec.snmp.user"),
        ({"caBundle": "-----BEGIN CERTIFICATE----- -----BEGIN PRIVATE KEY-----"}, "spec.caBundle"),
    ],
)
def test_bad_configuration_is_refused_with_field_reason_and_remedy(
    changes: dict[str, Any], field: str
) -> None:
    given_spec = {"type": "webhook", "endpoint": "https://noc.example/"} | changes
    outlet = AlarmOutlet(spec=msgspec.convert(given_spec, AlarmOutletSpec))
    found = ALARM_OUTLET.invariants(outlet)
    assert found and found[0].field == field and found[0].reason and found[0].remedy
    assert not any("pw" in p.reason or "abc" in p.reason for p in found)


def test_merged_without_merging_is_sent_as_it_is() -> None:
    assert portions(Merged(messages=[_set(3), _set(9)]), 1, 12)[0].upto == 8
