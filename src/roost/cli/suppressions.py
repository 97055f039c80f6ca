"""`roost alarm suppress` and its kin: keep alarms from counting for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from roost.cli import lastknown, listing, output
from roost.cli.kinds import ALARM_SUPPRESSION
from roost.cli.login import whoami
from roost.cli.problems import OK, Misused
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened
from roost.cli.spans import after, span
from roost.model import time
from roost.model.meta import API_VERSION

USUAL = "8h"
"""How long alarms are suppressed when nothing is said of it."""


def suppress(
    ids: Annotated[tuple[str, ...], Parameter(name="ID", help="Ids of alarms, as 100.104.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; the next reader will want to know.")],
    entity: Annotated[
        str, Parameter(help="Entity instances, as 'host=worker-*'; * for anything, ? for one character.")
    ] = "*",
    for_: Annotated[str, Parameter(name="--for", help=f"How long: 90s, 30m, 8h, 7d; default: {USUAL}.")] = "",
    until: Annotated[
        str, Parameter(help="Until when, as 18:00 or 2026-11-23T18:00:00Z; instead of --for.")
    ] = "",
    name: Annotated[str, Parameter(help="Name of the suppression; one is made up if left out.")] = "",
    connect: Connect = CONNECT,
) -> int:
    """Keep alarms from counting for a while: they stay listed and logged, degrade nothing, are sent nowhere.

    They count again by themselves. With -n SUBCLOUD at a central cloud it flows down, and holds there though
    the link be cut.

    For example:
        roost alarm suppress 100.104 --entity 'host=worker-*' --for 8h --reason "disks are exchanged"
        roost alarm suppress 100.101 100.103 --until 2026-11-23T18:00:00Z --reason "load test"
    """
    if not ids:
        raise Misused("no alarm is named", "name ids: `roost alarm list --ids` shows all")
    if for_ and until:
        raise Misused("--for and --until exclude each other", "give one of them")
    now = output.now()
    end = after("--until", until, now) if until else now + _length(for_ or USUAL)
    metadata = {"name": name} if name else {"generateName": f"suppress-{ids[0].replace('.', '-')}-"}
    with opened(connect) as session:
        spec = {
            "alarmIds": list(dict.fromkeys(ids)),
            "entity": entity,
            "reason": reason,
            "until": time.seconds(end),
            "by": whoami(session.client),
        }
        body = {
            "apiVersion": API_VERSION,
            "kind": ALARM_SUPPRESSION.kind,
            "metadata": metadata,
            "spec": spec,
        }
        made = session.client.create(ALARM_SUPPRESSION, session.namespace, body)
        called = made["metadata"]["name"]
        output.say(
            f"{', '.join(spec['alarmIds'])} at {entity} does not count until {spec['until']}: {called}."
        )
    return OK


def unsuppress(
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of suppressions.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """End suppressions now.

    For example:
        roost alarm unsuppress disks
    """
    with opened(connect) as session:
        for name in names:
            session.client.delete(ALARM_SUPPRESSION, session.namespace, name)
            output.say(f"{name.rpartition('/')[2]} suppresses nothing any more.")
    return OK


def list_suppressions(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List suppressions: what does not count, until when, and who said so.

    For example:
        roost alarm suppressions
        roost alarm suppressions -o wide
    """
    with opened(connect) as session:
        code = listing.show_list(session, ALARM_SUPPRESSION, pick, show, empty="No suppressions.")
        if (
            show.output in ("table", "wide")
            and not pick.watch
            and session.namespace != lastknown.own(session)
        ):
            name = session.namespace
            output.note(f"What they do there {name} tells: roost --cloud {name} alarm suppressions")
        return code


def _length(text: str) -> timedelta:
    found = span(text)
    if found is None or not found:
        what = "is no span of time" if found is None else "would end at once"
        raise Misused(f"--for {text} {what}", "write 90s, 30m, 8h, 1d12h or 7d")
    return found
