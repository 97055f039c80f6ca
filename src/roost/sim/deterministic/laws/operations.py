"""Every operation ends, and every host is brought to where its operator wants it, or says why not.

Of a site that is healed and quiet: no operation is under way but those that people have paused and those that
wait for what only people can change (a host that nobody can reach, a machine that is critically full); no row
of a step is open whose operation is over; no wait is past its deadline.
"""

from __future__ import annotations

from collections.abc import Mapping

from roost.sim.deterministic.laws.alarms import Alarms, Machine
from roost.sim.deterministic.laws.books import HERE, Book, Row

OVER = ("succeeded", "failed", "skipped", "aborted")
ENDED = ("succeeded", "failed", "aborted")
GRACE = 60.0
"""Seconds by which a deadline may be passed before that is called stuck: an attempt under way may finish."""


def unended(site: str, book: Book, machines: Mapping[str, Machine], alarms: Alarms, now: float) -> list[str]:
    """What is still under way and should not be; `now` is the site's clock in seconds since the epoch."""
    found = []
    steps: dict[str, list[Mapping[str, object]]] = {}
    for step in book.table("steps"):
        steps.setdefault(str(step["operation"]), []).append(step)
    for row in book.of("Operation", origin=HERE):
        mine = steps.pop(row.uid, [])
        open_steps = [s for s in mine if s["state"] not in OVER]
        state = str(row.status.get("state", "pending"))
        if state in ENDED:
            if open_steps:
                found.append(
                    f"{site}: {row.name} is {state}, and its step {open_steps[0]['name']} is not over"
                )
            continue
        late = [s for s in open_steps if _seconds(s["deadline"]) and now > _seconds(s["deadline"]) + GRACE]
        if late and not row.spec.get("paused"):
            found.append(f"{site}: {row.name} waits at {late[0]['name']} past its deadline")
        elif not _may_wait(row, machines, alarms):
            found.append(f"{site}: {row.name} is still {state}: {row.status.get('message', '')}")
    found += [f"{site}: steps of an operation that is not there: {uid}" for uid in sorted(steps)]
    return found


def unsettled(site: str, book: Book, machines: Mapping[str, Machine], alarms: Alarms) -> list[str]:
    """Hosts that are not where their operators want them, without anything to say why."""
    found = []
    operations = book.of("Operation", origin=HERE)
    for row in book.of("Host", origin=HERE):
        wanted = str(row.spec.get("administrativeState", "locked"))
        if row.status.get("administrative", "locked") == wanted:
            continue
        mine = [o for o in operations if o.spec.get("host") == row.name]
        if any(o.spec.get("paused") and o.status.get("state") not in ENDED for o in mine):
            continue
        if any(o.status.get("state") in ("failed", "aborted") for o in mine) and _says_why(row):
            # It is tried again after a pause that grows.
            continue
        if row.name not in machines or _is_full(row.name, alarms):
            continue
        found.append(f"{site}: {row.name} should be {wanted} and is not")
    return found


def _may_wait(row: Row, machines: Mapping[str, Machine], alarms: Alarms) -> bool:
    host = str(row.spec.get("host"))
    return bool(row.spec.get("paused")) or host not in machines or _is_full(host, alarms)


def _is_full(host: str, alarms: Alarms) -> bool:
    """Whether something of a host other than its processors is critical: nothing unlocks it then."""
    return any(
        severity == "critical" and alarm_id in ("100.103", "100.104") and entity.startswith(f"host={host}")
        for (alarm_id, entity), severity in alarms.items()
    )


def _says_why(row: Row) -> bool:
    return any(c.get("type") == "Settled" and c.get("message") for c in row.status.get("conditions") or ())


def _seconds(value: object) -> float:
    return float(str(value or 0))
