"""Suppressions, policies and acknowledgements on a cloud at work: they do what they say, end by themselves,
and survive restarts and whatever order things come in."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from roost.cloud import alarms as alarms_module
from roost.cloud.alarms import AlarmController, Marked
from roost.cloud.suppressing import rules as admission
from roost.engine.admission import Refused, Request
from roost.engine.clock import LoopClock
from roost.engine.faults import settle
from roost.model import time
from roost.model.alarms import Fault
from roost.model.cloud import AlarmCounts, Cloud
from roost.model.fault import Alarm, AlarmStatus, LogEntry
from roost.model.host import Reading
from roost.model.meta import Metadata
from roost.model.suppression import (
    ALARM_SUPPRESSION,
    AlarmPolicy,
    AlarmPolicySpec,
    AlarmRule,
    AlarmSuppression,
    AlarmSuppressionSpec,
)
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.cloud.site import Site, site
from tests.support.clock import START, on_fake_time, run
from tests.support.stores import CLOUD, new_database, world

FULL = [Reading(monitor="memory", level="critical")]


def suppression(name: str, until: str, *ids: str, entity: str = "*") -> AlarmSuppression:
    spec = AlarmSuppressionSpec(alarm_ids=list(ids), entity=entity, reason="works", until=until, by="ada")
    return AlarmSuppression(metadata=Metadata(name=name, namespace=CLOUD), spec=spec)


def in_seconds(s: Site, seconds: float) -> str:
    return time.stamp(s.clock() + timedelta(seconds=seconds))


async def the_alarm(s: Site, alarm_id: str) -> Alarm:
    (found,) = [a for a in await s.store.every(Alarm, CLOUD) if a.status.alarm_id == alarm_id]
    return found


async def spoken(s: Site, name: str, **spec: Any) -> None:
    """An operator says something of an alarm."""

    def work(tx: Transaction) -> None:
        raw = tx.get("Alarm", CLOUD, name).raw
        tx.replace({**raw, "spec": {**raw["spec"], **spec}})

    await s.store.transact(work)


@on_fake_time
async def test_a_suppressed_alarm_is_kept_degrades_nothing_and_counts_again_by_itself() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.tell(readings=FULL)
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "degraded")
        raised = (await the_alarm(s, "100.103")).status.raised_at
        end = in_seconds(s, 600)
        await s.store.save(suppression("works", end, "100.103", entity="host=*"))
        await asyncio.sleep(1)
        alarm = (await the_alarm(s, "100.103")).status
        assert alarm.suppressed and alarm.suppression is not None and not alarm.degrades_host
        told = (alarm.suppression.name, alarm.suppression.by, alarm.suppression.until, alarm.raised_at)
        assert told == ("works", "ada", end, raised)
        assert await s.state() == ("unlocked", "enabled", "available")
        cloud = await s.store.load(Cloud, "", CLOUD)
        assert cloud.status.alarms == AlarmCounts(suppressed=1)
        now = (await s.store.load(AlarmSuppression, CLOUD, "works")).status
        assert (now.state, now.alarms) == ("active", 1) and end in now.message
        # The controllers are away when it ends.
        await s.stop()
        await asyncio.sleep(900)
        s.work()
        s.up("h")
        await asyncio.sleep(5)
        assert not (await the_alarm(s, "100.103")).status.suppressed
        assert await s.state() == ("unlocked", "enabled", "degraded")
        now = (await s.store.load(AlarmSuppression, CLOUD, "works")).status
        assert (now.state, now.alarms) == ("expired", 0)
        events = [e[0] for e in await s.events()]
        assert events.count("suppression-active") == events.count("suppression-expired") == 1


@on_fake_time
async def test_a_suppression_ends_in_time_and_one_that_is_deleted_ends_at_once() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.tell(readings=FULL)
        await s.store.save(suppression("a", in_seconds(s, 100), "100.103"))
        await asyncio.sleep(99)
        assert (await the_alarm(s, "100.103")).status.suppressed
        await asyncio.sleep(2)
        assert not (await the_alarm(s, "100.103")).status.suppressed
        await s.store.save(suppression("b", in_seconds(s, 100), "100.103"))
        await asyncio.sleep(1)
        assert (await the_alarm(s, "100.103")).status.suppressed
        await s.store.transact(lambda tx: tx.remove(ALARM_SUPPRESSION.kind, CLOUD, "b"))
        await asyncio.sleep(1)
        assert not (await the_alarm(s, "100.103")).status.suppressed
        revision = s.store.revision
        await asyncio.sleep(4000)
        assert s.store.revision == revision, "nothing happens, nothing is written"


@on_fake_time
async def test_what_is_said_of_all_alarms_is_laid_over_a_page_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms_module, "PAGE", 10)
    largest, real = [0], AlarmController._mark

    def mark(self: AlarmController, tx: Transaction, before: Marked) -> Marked:
        done = real(self, tx, before)
        largest.append(sum(c.kind == "Alarm" for c in tx.changes))
        return done

    monkeypatch.setattr(AlarmController, "_mark", mark)
    async with world() as w:
        for n in range(35):
            fault = Fault(alarm_id="100.103", severity="major", entity=f"host=h{n}", reason="r")
            await w.store.transact(lambda tx, n=n, f=fault: settle(tx, CLOUD, f"host.h{n}", [f]))  # type: ignore[misc]
        w.start([AlarmController(CLOUD)])
        until = time.seconds(w.clock() + timedelta(hours=1))
        await w.store.save(suppression("works", until, "100.103", entity="host=h*"))
        await asyncio.sleep(5)
        assert all(a.status.suppressed for a in await w.store.every(Alarm, CLOUD))
        assert (await w.store.load(AlarmSuppression, CLOUD, "works")).status.alarms == 35
        assert max(largest) == 10
        await w.store.transact(lambda tx: tx.remove(ALARM_SUPPRESSION.kind, CLOUD, "works"))
        await asyncio.sleep(5)
        assert not any(a.status.suppressed for a in await w.store.every(Alarm, CLOUD))


@on_fake_time
async def test_an_alarm_that_comes_while_its_suppression_is_in_force_never_counts() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.store.save(suppression("a", in_seconds(s, 100), "100.103"))
        await asyncio.sleep(1)
        await s.tell(readings=FULL)
        await asyncio.sleep(1)
        assert (await the_alarm(s, "100.103")).status.suppressed
        availabilities = [text for event, _, text in await s.events() if event == "host-availability"]
        assert not any("degraded" in text for text in availabilities)
        assert (await s.store.load(AlarmSuppression, CLOUD, "a")).status.alarms == 1


@on_fake_time
async def test_a_policy_has_another_severity_degrade_and_block() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.tell(readings=[Reading(monitor="memory", level="major")])
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "available")
        rule = AlarmRule(alarm_id="100.103", degrades_from="major", blocks_updates_from="minor")
        spec = AlarmPolicySpec(rules=[rule])
        await s.store.save(AlarmPolicy(metadata=Metadata(name="strict", namespace=CLOUD), spec=spec))
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "degraded")
        assert (await the_alarm(s, "100.103")).status.blocks_updates
        await s.store.transact(lambda tx: tx.remove("AlarmPolicy", CLOUD, "strict"))
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert not (await the_alarm(s, "100.103")).status.blocks_updates


@on_fake_time
async def test_an_acknowledgement_is_stamped_logged_once_and_ends_when_it_gets_worse() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.tell(readings=[Reading(monitor="memory", level="major")])
        await asyncio.sleep(1)
        name = (await the_alarm(s, "100.103")).metadata.name
        await spoken(s, name, acknowledgedBy="ada", comment="spare ordered")
        await asyncio.sleep(1)
        told = (await the_alarm(s, "100.103")).status
        assert told.acknowledged and told.acknowledgement is not None
        assert told.acknowledgement.at > told.raised_at
        await s.stop()
        s.work()
        s.up("h")
        await s.tell(readings=FULL)
        await asyncio.sleep(5)
        assert not (await the_alarm(s, "100.103")).status.acknowledged
        await s.tell(readings=[Reading(monitor="memory", level="normal")])
        await asyncio.sleep(1)
        await s.tell(readings=[Reading(monitor="memory", level="major")])
        await asyncio.sleep(1)
        alarm = await the_alarm(s, "100.103")
        assert not alarm.spec.acknowledged_by, "another alarm, nobody has it in hand"
        said = [text for event, _, text in await s.events() if event == "alarm-acknowledged"]
        assert said == ["ada has it in hand: spare ordered"]


KEYS = [("100.101", ""), ("100.104", "/var"), ("200.005", "")]
WANTED = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["critical", "major"]), max_size=3)
MOVES = st.one_of(
    st.tuples(st.just("facts"), WANTED, st.booleans()),
    st.tuples(st.just("suppress"), st.sampled_from(["a", "b"]), st.integers(1, 40)),
    st.tuples(st.just("unsuppress"), st.sampled_from(["a", "b"]), st.none()),
    st.tuples(st.just("acknowledge"), st.sampled_from(KEYS), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 60), st.none()),
    st.tuples(st.just("look"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


def fault(key: tuple[str, str], severity: str) -> Fault:
    entity = f"host=h.filesystem={key[1]}" if key[1] else "host=h"
    return Fault(alarm_id=key[0], severity=severity, entity=entity, reason="r", instance=key[1])  # type: ignore[arg-type]


class _Book:
    """What operators say, and what the facts were last."""

    def __init__(self) -> None:
        self.wanted: dict[tuple[str, str], str] = {}
        self.blind = False
        self.ends: dict[str, float] = {}
        self.passed = 0.0


@settings(max_examples=50, deadline=None)
@given(moves=st.lists(MOVES, max_size=14))
def test_any_order_of_facts_words_and_restarts_ends_in_the_same_alarms(moves: list[Any]) -> None:
    """Facts come any number of times, in between operators speak, time passes, processes end. In the end the
    alarms are those of the last facts, and what is said of each follows from the last words and the time: the
    same as in a store that was only told these."""

    async def main() -> None:
        with new_database() as url:
            clock, book = LoopClock(START), _Book()
            store = await Store.open(url, clock=clock, inline=True)
            for what, one, other in moves:
                if what == "restart":
                    await store.close()
                    store = await Store.open(url, clock=clock, inline=True)
                elif what == "wait":
                    clock.jump(one)
                    book.passed += one
                else:
                    await store.transact(lambda tx, w=what, o=one, p=other: _do(tx, book, w, o, p))  # type: ignore[misc]
            book.blind = False
            await store.transact(lambda tx: _settled(tx, book))
            await store.transact(_looked)
            alarms = {a.metadata.name: a for a in await store.every(Alarm, CLOUD)}
            logged = [e.status for e in await store.every(LogEntry, CLOUD)]
            await store.close()
        active = {n for n, end in book.ends.items() if end > book.passed}
        for key, severity in book.wanted.items():
            (alarm,) = [
                a
                for a in alarms.values()
                if a.status.entity == fault(key, "major").entity and a.status.alarm_id == key[0]
            ]
            assert alarm.status.severity == severity and not alarm.status.stale_since
            assert alarm.status.suppressed is bool(active)
            said = alarm.status.acknowledgement
            assert (said is not None) is bool(alarm.spec.acknowledged_by)
            assert alarm.status.acknowledged is (
                said is not None and not (severity == "critical" and said.severity == "major")
            )
        assert len(alarms) == len(book.wanted)
        for key in KEYS:
            mine = [e.event for e in logged if (e.alarm_id, e.entity) == (key[0], fault(key, "major").entity)]
            assert mine.count("alarm-set") >= mine.count("alarm-clear"), "no clear without its set"
            last = [e for e in mine if e in ("alarm-set", "alarm-clear")][-1:]
            assert last == (["alarm-set"] if key in book.wanted else ["alarm-clear"] if mine else [])

    run(main())


def _do(tx: Transaction, book: _Book, what: str, one: Any, other: Any) -> None:
    if what == "facts":
        # While blind nothing is observed: what the facts are is not known.
        book.blind = other
        if not other:
            book.wanted = one
        _settled(tx, book)
    elif what == "suppress":
        book.ends[one] = book.passed + other
        until = time.stamp(START + timedelta(seconds=book.ends[one]))
        tx.save(suppression(one, until, *(key[0] for key in KEYS)))
    elif what == "unsuppress" and one in book.ends:
        del book.ends[one]
        tx.remove(ALARM_SUPPRESSION.kind, CLOUD, one)
    elif what == "acknowledge":
        for stored in tx.select("Alarm", CLOUD):
            alarm = stored.typed(Alarm)
            if alarm.status.entity == fault(one, "major").entity and alarm.status.alarm_id == one[0]:
                spec = msgspec.structs.replace(
                    alarm.spec, acknowledged_by="ada", acknowledged_severity=alarm.status.severity
                )
                tx.save(msgspec.structs.replace(alarm, spec=spec))
    elif what == "look":
        _looked(tx)


def _settled(tx: Transaction, book: _Book) -> None:
    faults = [] if book.blind else [fault(key, severity) for key, severity in book.wanted.items()]
    settle(tx, CLOUD, "host.h", faults, lambda _: book.blind)


def _looked(tx: Transaction) -> None:
    AlarmController(CLOUD).decide(tx, ("", "all"))


@pytest.mark.parametrize(
    ("ids", "hours", "user", "told"),
    [
        (["200.001"], 1.0, "ada", "can't be suppressed"),
        (["999.999"], 1.0, "ada", "no alarm has the id"),
        (["100.101"], -1.0, "ada", "is past"),
        (["100.101"], 24.0 * 400, "ada", "more than 366 days"),
        (["100.101"], 1.0, "eve", "you are eve, not ada"),
    ],
)
@on_fake_time
async def test_what_may_not_be_suppressed_is_refused_with_reason_and_remedy(
    ids: list[str], hours: float, user: str, told: str
) -> None:
    async with world() as w:
        new = suppression("a", time.stamp(w.clock() + timedelta(hours=hours)), *ids)
        request = Request(operation="create", info=ALARM_SUPPRESSION, user=user, new=new)
        _, rule = admission(CLOUD)[ALARM_SUPPRESSION.kind]
        with pytest.raises(Refused, match=told) as refused:
            await w.store.transact(lambda tx: rule(tx, request))
        assert refused.value.remedy and refused.value.field


@on_fake_time
async def test_what_comes_from_above_may_not_suppress_more() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await asyncio.sleep(1)
        assert await s.alarms() == {"200.001": "warning"}
        far = suppression("far", in_seconds(s, 100), "200.001", "999.999", "100.101")
        raw = msgspec.json.decode(msgspec.json.encode(far)) | {"kind": "AlarmSuppression"}
        raw["metadata"]["uid"] = "u"
        await s.store.transact(lambda tx: tx.copy(raw, "up"))
        await asyncio.sleep(1)
        assert not (await the_alarm(s, "200.001")).status.suppressed
        status = (await s.store.load(AlarmSuppression, CLOUD, "far")).status
        assert status.state == "active" and "Not suppressible here: 200.001, 999.999." in status.message


def test_a_status_from_before_these_fields_is_read() -> None:
    old = msgspec.json.decode(b'{"alarmId": "100.101", "degradesHost": true}', type=AlarmStatus)
    assert (old.suppressed, old.acknowledged, old.suppression) == (False, False, None)
