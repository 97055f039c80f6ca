"""What a list does not show: that it is of a time gone by, or that more is elsewhere.

Of a subcloud that is offline the central cloud shows what was last known, and a site that is cut off shows
nothing to its central cloud. Both are said beside the list, on standard error; who may not read what tells
of it gets the list alone.
"""

from __future__ import annotations

import msgspec

from roost.cli import answers, output
from roost.cli.client import Page, path
from roost.cli.hostview import SEVERITIES
from roost.cli.kinds import CLOUD, SUBCLOUD
from roost.cli.problems import Problem
from roost.cli.session import Pick, Session
from roost.cli.tables import age

NAMED = 5


def note_of_list(session: Session, pick: Pick) -> None:
    """Say which of the clouds in a list are offline."""
    try:
        if pick.all_namespaces:
            _note(offline(_offline(session)))
        elif session.namespace != own(session):
            raw = session.client.seek(SUBCLOUD, "", session.namespace)
            found = msgspec.convert(raw, answers.Subcloud) if raw else None
            _note(offline([found] if found and found.status.availability != "online" else []))
    except Problem:
        return


def note_of_alarms(session: Session, pick: Pick) -> None:
    """Say of a list of alarms, besides, whether the centre hears of them, and whether subclouds have some."""
    note_of_list(session, pick)
    if pick.all_namespaces or session.namespace != own(session):
        return
    try:
        raw = session.client.seek(CLOUD, "", session.namespace)
    except Problem:
        return
    if raw:
        for line in own_lines(msgspec.convert(raw, answers.Cloud)):
            output.note(line)


def own_lines(cloud: answers.Cloud) -> list[str]:
    """What a cloud's own alarms do not tell. Pure."""
    status, lines = cloud.status, []
    if status.upper and not status.upper_connected and not cloud.spec.stands_alone:
        lines.append(f"The link to {status.upper} is down: it hears nothing of this until the link is back.")
    below = sum(getattr(status.fleet.alarms, s) for s in SEVERITIES) if status.fleet else 0
    if below:
        have = "Subclouds have 1 alarm" if below == 1 else f"Subclouds have {below} alarms"
        lines.append(f"{have} of their own: `roost alarm list -A`")
    return lines


def offline(found: list[answers.Subcloud]) -> str:
    """That subclouds are shown as they were. Pure but for the time."""
    named = [
        f"{s.metadata.name} is {s.status.availability}"
        + (f" for {age(s.status.availability_changed_at, output.now())}" if _since(s) else "")
        for s in found[:NAMED]
    ]
    more = " and more" if len(found) > NAMED else ""
    return f"{', '.join(named)}{more}: what is shown of it is as last known." if named else ""


def _since(subcloud: answers.Subcloud) -> bool:
    return bool(subcloud.status.availability_changed_at)


def _offline(session: Session) -> list[answers.Subcloud]:
    query = {"fieldSelector": "status.availability=offline", "limit": str(NAMED + 1)}
    body = session.client.request("GET", path(SUBCLOUD, None), query=query, doing="list subclouds")
    return [
        msgspec.json.decode(raw, type=answers.Subcloud) for raw in msgspec.json.decode(body, type=Page).items
    ]


def own(session: Session) -> str:
    """The cloud that is meant when no other is named."""
    target = session.client.target
    return target.namespace or target.name


def _note(line: str) -> None:
    if line:
        output.note(line)
