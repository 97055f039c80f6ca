"""Alarms as a function of state, and the log that tells of their coming and going.

A controller computes the faults that should be raised within a scope (one host, one subcloud, one
cloud) from what is observed now; `settle` compares them with the alarms that are and writes the
difference, each with its log entry, in the same transaction. A restart, a lost or doubled message
changes nothing in the end. What could not be observed is neither raised nor cleared: its alarms stay
and are marked stale.

A scope's alarms are named `SCOPE.…`, so they are found without looking at others. What operators say of
alarms (suppressions, policies, acknowledgements) is laid over each in the same transaction (`marking`).

The log is bounded. What is shed past the bound is counted by severity and told by an entry of its own, which
takes the place of the one before, and in the status of the Cloud: so whoever reads the log, here or above,
knows that entries are missing, how many and which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from roost.model import time
from roost.model.alarms import ALARMS, Fault, alarm_name
from roost.model.cloud import LogShed
from roost.model.event import subject
from roost.model.fault import ALARM, LOG_ENTRY, Alarm, AlarmStatus, LogEntry, LogEntryStatus, LogSeverity
from roost.model.host import HOST
from roost.model.marking import Rules, marked
from roost.model.meta import Metadata
from roost.model.suppression import AlarmPolicy, AlarmSuppression
from roost.store.transaction import HERE, Transaction

KEPT = 5_000
"""Log entries kept per cloud whose home is here; past it the least severe and oldest go first."""

SHED = "log-shed"
"""Event of the entry that tells what was shed."""

_PRUNE_EVERY = 256
_RANK: dict[str, int] = {"info": 0, "warning": 1, "minor": 2, "major": 3, "critical": 4}


class _EntryStatus(msgspec.Struct, frozen=True):
    time: str = ""
    sequence: int = 0
    severity: LogSeverity = "info"
    event: str = ""


class _Entry(msgspec.Struct, frozen=True):
    """What of an entry says whether it is shed: all are looked at, and every writer waits for that."""

    status: _EntryStatus = _EntryStatus()


_read = msgspec.json.Decoder(_Entry).decode


def settle(
    tx: Transaction,
    namespace: str,
    scope: str,
    wanted: Iterable[Fault],
    unknown: Callable[[AlarmStatus], bool] = lambda _: False,
) -> list[Alarm]:
    """Make the alarms of a scope equal `wanted`; those for which `unknown` holds stay, marked stale."""
    should = {alarm_name(scope, f): f for f in wanted}
    there = {alarm.metadata.name: alarm for alarm in _alarms(tx, namespace, scope)}
    rules = rules_of(tx, namespace) if should or there else Rules()
    kept: list[Alarm] = []
    for name, alarm in there.items():
        if name in should:
            continue
        if unknown(alarm.status):
            kept.append(_write(tx, alarm, _stale(tx, alarm.status), rules))
            continue
        # Dropped, not removed: no finalizer keeps an alarm whose cause is gone.
        tx.drop(ALARM.kind, namespace, name)
        _tell(tx, alarm, "alarm-clear", f"cleared: {alarm.status.reason}", "info")
    for name, fault in should.items():
        kept.append(_raise(tx, Metadata(name=name, namespace=namespace), fault, there.get(name), rules))
    return kept


def rules_of(tx: Transaction, namespace: str) -> Rules:
    """What operators have decided of a cloud's alarms, there and at the central cloud."""
    return Rules(
        suppressions=tuple(tx.every(AlarmSuppression, namespace)),
        policies=tuple(tx.every(AlarmPolicy, namespace)),
    )


def remark(tx: Transaction, alarm: Alarm, rules: Rules) -> Alarm:
    """Lay anew over an alarm what operators say; nothing is written when that changes nothing."""
    return _write(tx, alarm, alarm.status, rules)


def _alarms(tx: Transaction, namespace: str, scope: str) -> list[Alarm]:
    return [s.typed(Alarm) for s in tx.select(ALARM.kind, namespace, origin=HERE, prefix=f"{scope}.")]


def _raise(tx: Transaction, metadata: Metadata, fault: Fault, current: Alarm | None, rules: Rules) -> Alarm:
    definition = ALARMS[fault.alarm_id]
    status = AlarmStatus(
        alarm_id=fault.alarm_id,
        entity=fault.entity,
        severity=fault.severity,
        reason=fault.reason,
        repair=definition.repair,
        type=definition.type,
        cause=definition.cause,
        service_affecting=definition.service_affecting,
        suppressible=definition.suppressible,
        raised_at=current.status.raised_at if current else time.stamp(tx.now),
        acknowledgement=current.status.acknowledgement if current else None,
    )
    if current is not None:
        saved = _write(tx, current, status, rules)
    else:
        alarm = Alarm(metadata=metadata)
        status = marked(status, alarm.spec, 0, rules, tx.now)
        saved = tx.save(msgspec.structs.replace(alarm, status=status))
    if current is None or current.status.severity != fault.severity:
        _tell(tx, saved, "alarm-set", fault.reason, fault.severity)
    return saved


def _stale(tx: Transaction, status: AlarmStatus) -> AlarmStatus:
    if status.stale_since:
        return status
    return msgspec.structs.replace(status, stale_since=time.stamp(tx.now))


def _write(tx: Transaction, alarm: Alarm, status: AlarmStatus, rules: Rules) -> Alarm:
    """Write an alarm's status with all that follows from what operators say, and log who took it in hand."""
    before = alarm.status
    status = marked(status, alarm.spec, alarm.metadata.generation, rules, tx.now)
    if status == before:
        return alarm
    saved = tx.report(msgspec.structs.replace(alarm, status=status))
    said = status.acknowledgement
    if said is not None and said != before.acknowledgement:
        comment = f": {said.comment}" if said.comment else ""
        _tell(tx, saved, "alarm-acknowledged", f"{said.by} has it in hand{comment}", "info")
    return saved


def _tell(tx: Transaction, alarm: Alarm, event: str, text: str, severity: LogSeverity) -> None:
    write_log(
        tx,
        alarm.metadata.namespace,
        event=event,
        severity=severity,
        entity=alarm.status.entity,
        alarm_id=alarm.status.alarm_id,
        text=text,
    )


def write_log(
    tx: Transaction,
    namespace: str,
    *,
    event: str,
    text: str,
    entity: str = "",
    severity: LogSeverity = "info",
    alarm_id: str = "",
    host: str = "",
) -> None:
    """Write a log entry of a cloud, or of one of its hosts; numbered without gaps per source."""
    source = f"{namespace}/{host}" if host else namespace
    sequence = tx.next_number(f"log:{source}")
    prefix = f"{host}-" if host else "log."
    entry = LogEntry(
        metadata=Metadata(name=f"{prefix}{sequence:010d}", namespace=namespace),
        status=LogEntryStatus(
            time=time.stamp(tx.now),
            source=source,
            sequence=sequence,
            severity=severity,
            event=event,
            alarm_id=alarm_id,
            entity=entity,
            entity_uid=_uid(tx, namespace, entity),
            text=text[:2048],
        ),
    )
    tx.save(entry)
    if sequence % _PRUNE_EVERY == 0:
        _prune(tx, namespace, host)


def _uid(tx: Transaction, namespace: str, entity: str) -> str:
    """Identity of the resource that an entity lies in; empty when it is not there."""
    kind, name = subject(entity)
    stored = tx.find(kind, namespace if kind == HOST.kind else "", name) if kind else None
    return stored.uid if stored else ""


def _prune(tx: Transaction, namespace: str, host: str) -> None:
    """Shed log entries past the bound, least severe and oldest first; count them, and tell of them."""
    entries = {s.name: _read(s.data).status for s in tx.select(LOG_ENTRY.kind, namespace, origin=HERE)}
    if len(entries) <= KEPT:
        return
    former = [name for name, entry in entries.items() if entry.event == SHED]
    order = sorted(
        (_RANK[e.severity], e.time, e.sequence, name) for name, e in entries.items() if e.event != SHED
    )
    # One place is for the entry that tells of it.
    going = [name for *_, name in order[: max(0, len(order) + 1 - KEPT)]]
    for name in (*going, *former):
        # Dropped, not removed: a finalizer does not make the log larger than it may be.
        tx.drop(LOG_ENTRY.kind, namespace, name)
    gone = int(tx.property(f"log-shed:{namespace}") or "0") + len(going) + len(former)
    tx.set_property(f"log-shed:{namespace}", str(gone))
    told = counted(shed(tx, namespace), Counter(entries[name].severity for name in going), time.stamp(tx.now))
    tx.set_property(f"log-shed-by-severity:{namespace}", msgspec.json.encode(told).decode())
    write_log(tx, namespace, event=SHED, severity="warning", text=shed_text(told), host=host)


def shed(tx: Transaction, namespace: str) -> LogShed:
    """What was shed of a cloud's log in this store."""
    kept = tx.property(f"log-shed-by-severity:{namespace}")
    return msgspec.json.decode(kept, type=LogShed) if kept else LogShed()


def counted(before: LogShed, going: Counter[LogSeverity], now: str) -> LogShed:
    """The counts with entries that go, by severity. Pure."""
    counts = {severity: getattr(before, severity) + going[severity] for severity in _RANK}  # type: ignore[index]
    return LogShed(**counts, total=before.total + going.total(), since=before.since or now, last_at=now)


def shed_text(told: LogShed) -> str:
    """What the log says of its own gaps."""
    parts = ", ".join(f"{getattr(told, s)} {s}" for s in reversed(_RANK) if getattr(told, s))
    return (
        f"{told.total} entries of this log were shed for want of room since {told.since}: {parts}. "
        f"The least severe and oldest go first; {KEPT} are kept."
    )
