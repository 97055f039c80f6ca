"""`roost alarm`: what is wrong now."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from roost.cli import answers, listing, output
from roost.cli.client import Client
from roost.cli.hostview import alarm_grid, rank
from roost.cli.kinds import ALARM
from roost.cli.login import whoami
from roost.cli.problems import OK, Misused, NotFound, Problem
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.tables import age

alarm = App(name="alarm", help="What is wrong now: look, acknowledge.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the alarm, or its id where only one has it.")]


@alarm.command(name="list")
def list_alarms(
    *,
    severity: Annotated[
        Literal["critical", "major", "minor", "warning"] | None, Parameter(help="This severity and worse.")
    ] = None,
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List alarms, the worst first.

    For example:
        roost alarm list
        roost alarm list -A --severity major
        roost alarm list -o wide
    """
    with opened(connect) as session:
        if pick.watch or show.output in ("json", "yaml", "name"):
            return listing.show_list(session, ALARM, pick, show)
        found, _ = session.client.list_items(ALARM, session.scope(pick), answers.Alarm, pick.query())
        if severity is not None:
            found = [a for a in found if rank(a.status.severity) <= rank(severity)]
        grid = alarm_grid(found, wide=show.output == "wide", clouds=pick.all_namespaces)
        output.print_grid(grid, headers=show.headers, empty="No alarms.")
    return OK


@alarm.command(name="show")
def show_alarm(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one alarm: reason, proposed repair, since when, who has it in hand.

    For example:
        roost alarm show 200.001
    """
    with opened(connect) as session:
        found = _find(session.client, session, name)
        if show.output != "table":
            return listing.show_one(session, ALARM, found.metadata.name, show)
        status, now = found.status, output.now()
        stale = (
            f"not observable for {age(status.stale_since, now)}; it may have ended"
            if status.stale_since
            else ""
        )
        facts = (("service affecting", status.service_affecting), ("degrades its host", status.degrades_host))
        output.print_lines(
            output.fields(
                [
                    ("Alarm", status.alarm_id),
                    ("Name", found.metadata.name),
                    ("Cloud", found.metadata.namespace),
                    ("Severity", status.severity),
                    ("Entity", status.entity),
                    ("Reason", status.reason),
                    ("Repair", status.repair),
                    ("Type", status.type),
                    ("Cause", status.cause),
                    ("Effect", [word for word, holds in facts if holds]),
                    ("Raised", f"{status.raised_at} ({age(status.raised_at, now)} ago)"),
                    ("Stale", stale),
                    ("Acknowledged", found.spec.acknowledged_by),
                    ("Comment", found.spec.comment),
                ]
            )
        )
    return OK


@alarm.command(name="acknowledge", alias="ack")
def acknowledge(
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Names or ids of alarms.")],
    /,
    *,
    by: Annotated[str, Parameter(help="Who takes it in hand; default: you.")] = "",
    comment: Annotated[str, Parameter(help="For the next reader.")] = "",
    connect: Connect = CONNECT,
) -> int:
    """Say who has an alarm in hand. It stays until what is wrong has ended.

    For example:
        roost alarm acknowledge 200.001 --comment "spare part ordered"
    """
    worst = OK
    with opened(connect) as session:
        spec = {"acknowledgedBy": by or whoami(session.client)}
        if comment:
            spec["comment"] = comment
        for name in names:
            try:
                found = _find(session.client, session, name)
                session.client.patch(ALARM, found.metadata.namespace, found.metadata.name, {"spec": spec})
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            output.say(
                f"{found.status.alarm_id} {found.status.entity} is acknowledged by {spec['acknowledgedBy']}."
            )
    return worst


def _find(client: Client, session: Session, name: str) -> answers.Alarm:
    """The alarm called `name`, or the only one with that id."""
    found, _ = client.list_items(ALARM, session.namespace, answers.Alarm)
    named = [a for a in found if a.metadata.name == name]
    fitting = named or [a for a in found if a.status.alarm_id == name]
    if not fitting:
        raise NotFound(
            f"there is no alarm {name!r} in {session.namespace}", "`roost alarm list -o wide` shows names"
        )
    if len(fitting) > 1:
        names = ", ".join(a.metadata.name for a in fitting[:10])
        raise Misused(f"{len(fitting)} alarms have the id {name}", f"name one of: {names}")
    return fitting[0]
