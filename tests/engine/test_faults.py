"""Alarms follow the wanted set whatever came before; the log tells of each coming and going once."""

from __future__ import annotations

import asyncio
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.engine import faults as faults_module
from roost.engine.clock import LoopClock
from roost.engine.faults import SHED, settle, shed, write_log
from roost.model.alarms import ALARMS, Fault, alarm_name
from roost.model.fault import Alarm, LogEntry
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.clock import START, on_fake_time, run
from tests.support.stores import CLOUD, new_database, opened, world

SCOPE = "host.h"


def fault(alarm_id: str, severity: str, instance: str = "") -> Fault:
    entity = f"host=h.filesystem={instance}" if instance else "host=h"
    return Fault(alarm_id=alarm_id, severity=severity, entity=entity, reason="r", instance=instance)  # type: ignore[arg-type]


KEYS = [("100.101", ""), ("100.104", "/var"), ("100.104", "/"), ("200.005", "")]
SETS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["critical", "major"]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(st.tuples(SETS, st.integers(1, 3), st.booleans()), max_size=8))
def test_alarms_equal_the_wanted_set_after_any_history(
    moves: list[tuple[dict[tuple[str, str], str], int, bool]],
) -> None:
    """Each set is settled once or several times, with restarts in between; severities change as well."""

    async def main() -> None:
        with new_database() as url:
            store = await Store.open(url, clock=LoopClock(START), inline=True)
            before: dict[tuple[str, str], str] = {}
            expected: Counter[tuple[str, str, str]] = Counter()
            for wanted, times, restart in moves:
                for _ in range(times):
                    await store.transact(lambda tx, w=wanted: settle(tx, CLOUD, SCOPE, listed(w)))  # type: ignore[misc]
                for key, severity in wanted.items():
                    if before.get(key) != severity:
                        expected["alarm-set", key[0], severity] += 1
                for key in before.keys() - wanted.keys():
                    expected["alarm-clear", key[0], "info"] += 1
                before = wanted
                if restart:
                    await store.close()
                    store = await Store.open(url, clock=LoopClock(START), inline=True)
                found = await store.every(Alarm, CLOUD)
                assert {a.metadata.name: a.status.severity for a in found} == {
                    alarm_name(SCOPE, fault(*key[:1], severity, key[1])): severity
                    for key, severity in wanted.items()
                }
            told = [e.status for e in await store.every(LogEntry, CLOUD)]
            assert Counter((e.event, e.alarm_id, e.severity) for e in told) == expected
            assert [e.sequence for e in told] == list(range(1, len(told) + 1))
            await store.close()

    def listed(wanted: dict[tuple[str, str], str]) -> list[Fault]:
        return [fault(alarm_id, severity, instance) for (alarm_id, instance), severity in wanted.items()]

    run(main())


@on_fake_time
async def test_what_can_not_be_seen_is_kept_stale_and_told_once() -> None:
    async with world() as w:

        async def settled(*wanted: Fault, blind: bool = False) -> list[Alarm]:
            def work(tx: Transaction) -> list[Alarm]:
                return settle(tx, CLOUD, SCOPE, wanted, lambda a: blind and a.alarm_id == "100.101")

            return await w.store.transact(work)

        both = [fault("100.101", "critical"), fault("200.005", "major")]
        raised = {a.status.alarm_id: a.status for a in await settled(*both)}
        await asyncio.sleep(60)
        revision = w.store.revision
        await settled(*both)
        assert w.store.revision == revision, "an alarm that stays is not written again"
        for _ in range(3):
            (stale,) = await settled(blind=True)
            await asyncio.sleep(10)
        assert stale.status.alarm_id == "100.101"
        assert stale.status.stale_since == "2026-03-01T12:01:00.000Z"
        (back,) = await settled(both[0])
        assert back.status == raised["100.101"], "seen again, it is what it was, raised when it was"
        assert await settled() == []
        events = [(e.status.event, e.status.alarm_id) for e in await w.store.every(LogEntry)]
        assert events == [
            ("alarm-set", "100.101"),
            ("alarm-set", "200.005"),
            ("alarm-clear", "200.005"),
            ("alarm-clear", "100.101"),
        ]


@on_fake_time
async def test_an_alarm_carries_what_the_dictionary_says_and_keeps_what_people_said() -> None:
    async with world() as w:
        critical = fault("100.101", "critical")
        await w.store.transact(lambda tx: settle(tx, CLOUD, SCOPE, [critical]))
        (alarm,) = await w.store.every(Alarm)
        definition = ALARMS["100.101"]
        assert (alarm.status.repair, alarm.status.type, alarm.status.cause) == (
            definition.repair,
            definition.type,
            definition.cause,
        )
        assert alarm.status.degrades_host and alarm.status.suppressible

        def acknowledge(tx: Transaction) -> None:
            current = tx.get("Alarm", CLOUD, alarm.metadata.name).raw
            metadata = {**current["metadata"], "finalizers": ["somebody"]}
            tx.replace({**current, "metadata": metadata, "spec": {"acknowledgedBy": "ada"}})

        await w.store.transact(acknowledge)
        await w.store.transact(lambda tx: settle(tx, CLOUD, SCOPE, [fault("100.101", "major")]))
        (alarm,) = await w.store.every(Alarm)
        assert (alarm.spec.acknowledged_by, alarm.status.severity) == ("ada", "major")
        assert not alarm.status.degrades_host
        for _ in range(3):
            await w.store.transact(lambda tx: settle(tx, CLOUD, SCOPE, []))
        assert await w.store.every(Alarm) == [], "no finalizer keeps an alarm"
        events = [e.status.event for e in await w.store.every(LogEntry)]
        assert events == ["alarm-set", "alarm-acknowledged", "alarm-set", "alarm-clear"]


@on_fake_time
async def test_scopes_do_not_touch_each_other() -> None:
    async with world() as w:
        for scope in ("host.a", "host.a-b", "host.ab"):
            await w.store.transact(lambda tx, s=scope: settle(tx, CLOUD, s, [fault("100.101", "major")]))  # type: ignore[misc]
        await w.store.transact(lambda tx: tx.copy(far_alarm(), "down:subcloud/valley"))
        await w.store.transact(lambda tx: settle(tx, CLOUD, "host.a", []))
        names = {(a.metadata.namespace, a.metadata.name) for a in await w.store.every(Alarm)}
        assert names == {
            (CLOUD, "host.a-b.100.101"),
            (CLOUD, "host.ab.100.101"),
            ("valley", "host.a.100.101"),
        }


def far_alarm() -> dict[str, object]:
    return {"kind": "Alarm", "metadata": {"name": "host.a.100.101", "namespace": "valley", "uid": "u"}}


async def test_the_log_sheds_the_least_severe_and_oldest_first_and_counts() -> None:
    with pytest.MonkeyPatch.context() as patch, new_database() as url:
        patch.setattr(faults_module, "KEPT", 100)
        patch.setattr(faults_module, "_PRUNE_EVERY", 50)
        clock = LoopClock(START)
        async with opened(url, clock=clock, inline=True) as store:

            def fill(tx: Transaction) -> None:
                for n in range(200):
                    severity = "critical" if n % 10 == 0 else "major" if n % 10 == 1 else "info"
                    write_log(tx, CLOUD, event="e", text=str(n), severity=severity)  # type: ignore[arg-type]

            def fill_host(tx: Transaction) -> None:
                for n in range(50):
                    write_log(tx, CLOUD, event="e", text=f"host {n}", host="h")

            await store.transact(fill)
            clock.jump(60)
            await store.transact(fill_host)
            entries = [e.status for e in await store.every(LogEntry)]
            assert len(entries) == 100
            assert sum(e.severity == "critical" for e in entries) == 20
            assert sum(e.severity == "major" for e in entries) == 20
            told = [e for e in entries if e.event == SHED]
            assert len(told) == 1, "one entry tells of all that is missing"
            counts = await store.read(lambda tx: shed(tx, CLOUD))
            assert counts.total == counts.info == 250 + 1 - 100, counts
            assert f"{counts.total} entries" in told[0].text and f"{counts.info} info" in told[0].text
            assert counts.since < counts.last_at == told[0].time
            # Every number that is missing is counted: the former entries that told of gaps too.
            sequences = await store.read(lambda tx: tx.property(f"log-shed:{CLOUD}"))
            assert int(sequences) == counts.total + 2
            sources = {e.source for e in entries}
            assert sources <= {CLOUD, f"{CLOUD}/h"}
            newest = max(e.sequence for e in entries if e.source == f"{CLOUD}/h")
            assert newest == 51, "the entry that tells of it is the last"
