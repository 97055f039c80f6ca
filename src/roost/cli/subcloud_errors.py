"""`roost subcloud errors`: what fails at which subcloud, the nearest to the cause first.

Put together from what the central cloud knows: incidents and the link, alarms (the site's own, and those here
about it), what of shared intent is not in force, and steps of operations that failed. A link that is down
comes first, for what else is told of that site is then what was last known. Of many subclouds only critical
alarms are told; all are of one that is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from roost.cli import answers, fleetwork, output
from roost.cli.kinds import ALARM, INCIDENT, SUBCLOUD, SUBCLOUD_OPERATION
from roost.cli.problems import OK
from roost.cli.session import CONNECT, SHOW, Connect, Session, Show, opened
from roost.cli.subcloud_operations import steps_of
from roost.cli.tables import Column, Grid

MOST = 200
"""Rows from each source when no subcloud is named."""
OPERATIONS = 20
"""Operations whose failed steps are asked for, the newest."""
SEVERITIES = ("critical", "major", "minor", "warning")


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong at a subcloud: which step or part, on which host, what was seen, what to do.

    `rank` says how near the cause it is, 0 nearest.
    """

    rank: int
    subcloud: str
    where: str
    host: str
    seen: str
    remedy: str
    since: str = ""


def errors(
    name: Annotated[str, Parameter(name="NAME", help="Name of one subcloud.")] = "",
    /,
    *,
    limit: Annotated[int, Parameter(help="So many at most.")] = MOST,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show what fails at which subcloud: where, on which host, what was seen, what to do.

    The nearest to the cause comes first. Without a name: what is offline, out of
    sync, in a critical alarm, or failed in an operation, of all.

    For example:
        roost subcloud errors
        roost subcloud errors harbor
    """
    with opened(connect) as session:
        found = _of_one(session, name) if name else _of_all(session)
    found = sorted(found, key=lambda f: (f.subcloud, f.rank))
    if show.output in ("json", "yaml"):
        output.print_data([_told(f) for f in found[:limit]], show.output)
        return OK
    if show.output == "name":
        for subcloud in dict.fromkeys(f.subcloud for f in found[:limit]):
            output.say(f"subcloud/{subcloud}")
        return OK
    columns = [Column(n) for n in ("Subcloud", "Where", "Host", "Reason", "Repair")]
    columns.insert(3, Column("Since", "date"))
    rows = [[f.subcloud, f.where, f.host, f.since, f.seen, f.remedy] for f in found[:limit]]
    output.print_grid(Grid(columns, rows), headers=show.headers, empty="Nothing is known to fail.")
    if len(found) > limit:
        output.note(f"There is more; --limit {limit * 2} shows more, `roost subcloud errors NAME` one.")
    return OK


def of_subcloud(subcloud: answers.Subcloud) -> Iterator[Finding]:
    """What a Subcloud itself says is wrong. Pure."""
    name, status = subcloud.metadata.name, subcloud.status
    conditions = {c.type: c for c in status.conditions}
    if status.availability == "offline":
        said = conditions.get("Online", answers.Condition()).message or "The link is down."
        remedy = (
            "see that the site has power and its way to here; `roost incident list` tells what went with it"
        )
        yield Finding(1, name, "link", "", said, remedy, status.availability_changed_at)
    elif not status.enrolled:
        yield Finding(
            1, name, "enrolment", "", "It has not enrolled.", f"`roost subcloud token {name}` makes a token"
        )
    synced = conditions.get("InSync")
    if synced is not None and synced.status == "False":
        remedy = f"`roost subcloud show {name}` lists what is out of sync"
        if synced.reason == "LocalOverrides":
            remedy = "`roost override list` shows them; adopt or revert each"
        yield Finding(3, name, "shared intent", "", synced.message, remedy, synced.last_transition_time)


def of_alarm(subcloud: str, alarm: answers.Alarm) -> Finding:
    """An alarm at a subcloud, or about it. Pure."""
    status = alarm.status
    parts = dict(part.partition("=")[::2] for part in status.entity.split("."))
    severity = SEVERITIES.index(status.severity) if status.severity in SEVERITIES else len(SEVERITIES)
    seen = status.reason + (" (as last known)" if status.stale_since else "")
    where = f"alarm {status.alarm_id} {status.severity}"
    return Finding(
        2 if severity < 2 else 5,
        subcloud,
        where,
        parts.get("host", ""),
        seen,
        status.repair,
        status.raised_at,
    )


def of_step(operation: str, action: str, step: dict[str, Any]) -> Finding:
    """A step of an operation that failed. Pure."""
    remedy = f"mend it, then `roost subcloud operation retry {operation}`"
    seen = f"{step.get('reason', '')}: {step.get('message', '')}"
    return Finding(4, step["subcloud"], f"{action} ({operation})", "", seen, remedy, step.get("endedAt", ""))


def of_incident(subcloud: str, incident: answers.Incident) -> Finding:
    """An incident that concerns a subcloud. Pure."""
    status = incident.status
    remedy = f"`roost incident show {incident.metadata.name}` tells what follows from what"
    host = status.name.partition("/")[2] if status.cause == "Host" else ""
    return Finding(
        0, subcloud, f"incident {status.cause} {status.name}", host, status.reason, remedy, status.since
    )


def _of_one(session: Session, name: str) -> list[Finding]:
    client = session.client
    found = list(of_subcloud(client.get(SUBCLOUD, "", name, answers.Subcloud)))
    alarms, _ = client.list_items(ALARM, name, answers.Alarm)
    found += [of_alarm(name, alarm) for alarm in alarms if not alarm.status.suppressed]
    query = {"fieldSelector": f"status.entity=subcloud={name}"}
    about, _ = client.list_items(ALARM, session.namespace, answers.Alarm, query)
    found += [of_alarm(name, a) for a in about if a.status.alarm_id not in _TOLD_OTHERWISE]
    incidents, _ = client.list_items(INCIDENT, None, answers.Incident)
    found += [of_incident(name, i) for i in incidents if name in i.status.concerned]
    found += _steps(session, {"subcloud": name})
    return found


def _of_all(session: Session) -> list[Finding]:
    client = session.client
    found: dict[str, list[Finding]] = {}
    for field in ("status.availability=offline", "status.sync=out-of-sync"):
        some = client.sift(SUBCLOUD, None, answers.Subcloud, {"fieldSelector": field}, _first)
        found |= {s.metadata.name: list(of_subcloud(s)) for s in some}
    rows = [finding for several in found.values() for finding in several]
    query = {"fieldSelector": "status.severity=critical,status.suppressed=false"}
    alarms = client.sift(ALARM, None, answers.Alarm, query, _first)
    rows += [of_alarm(a.metadata.namespace, a) for a in alarms if a.metadata.namespace != session.namespace]
    incidents = client.sift(INCIDENT, None, answers.Incident, {}, _first)
    rows += [
        of_incident(subcloud, incident)
        for incident in incidents
        for subcloud in incident.status.concerned[:1]
    ]
    return [*rows, *_steps(session, {})]


def _steps(session: Session, where: dict[str, str]) -> Iterable[Finding]:
    """Failed steps of the newest operations that have some."""
    operations, _ = session.client.list_items(SUBCLOUD_OPERATION, None, fleetwork.SubcloudOperation, {})
    failing = [o for o in operations if o.status.steps.failed]
    failing.sort(key=lambda o: o.metadata.creation_timestamp or "", reverse=True)
    for operation in failing[:OPERATIONS]:
        name = operation.metadata.name
        steps, _ = steps_of(session, name, {**where, "state": "failed"}, MOST)
        yield from (of_step(name, operation.spec.action, step) for step in steps)


def _first(items: Iterator[Any]) -> list[Any]:
    return list(islice(items, MOST))


def _told(finding: Finding) -> dict[str, Any]:
    raw: dict[str, Any] = msgspec.structs.asdict(finding)
    del raw["rank"]
    return {key: value for key, value in raw.items() if value}


_TOLD_OTHERWISE: Sequence[str] = ("280.001", "280.002")
"""Alarms about a subcloud that say what its own conditions say."""
