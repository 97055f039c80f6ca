"""`roost alarm`: what is wrong now, what alarms mean, and what operators say of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from msgspec import to_builtins
from rich.text import Text

from roost.cli import answers, lastknown, listing, output, suppressions
from roost.cli.client import Client
from roost.cli.hostview import acknowledged, alarm_grid, rank
from roost.cli.kinds import ALARM
from roost.cli.login import whoami
from roost.cli.problems import OK, Misused, NotFound, Problem
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.tables import Column, Grid, age
from roost.model.alarms import ALARMS, AlarmDefinition

alarm = App(name="alarm", help="What is wrong now: look, acknowledge, suppress; what alarms mean.")
alarm.command(suppressions.suppress, name="suppress")
alarm.command(suppressions.unsuppress, name="unsuppress")
alarm.command(suppressions.list_suppressions, name="suppressions")

Name = Annotated[str, Parameter(name="NAME", help="Name of the alarm, or its id where only one has it.")]


@alarm.command(name="list")
def list_alarms(
    *,
    severity: Annotated[
        Literal["critical", "major", "minor", "warning"] | None, Parameter(help="This severity and worse.")
    ] = None,
    suppressed: Annotated[bool, Parameter(help="Those that are suppressed too.")] = False,
    blocking: Annotated[bool, Parameter(help="Only those that software updates wait for.")] = False,
    ids: Annotated[bool, Parameter(help="The ids of all alarms that there can be, without a cloud.")] = False,
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List alarms, the worst first. Suppressed ones are only counted, unless asked for.

    For example:
        roost alarm list
        roost alarm list -A --severity major
        roost alarm list --suppressed -o wide
        roost alarm list --ids
    """
    if ids:
        return _list_ids(show, severity)
    with opened(connect) as session:
        if pick.watch or show.output in ("json", "yaml", "name"):
            return listing.show_list(session, ALARM, pick, show)
        found, _ = session.client.list_items(ALARM, session.scope(pick), answers.Alarm, pick.query())
        if severity is not None:
            found = [a for a in found if rank(a.status.severity) <= rank(severity)]
        if blocking:
            found = [a for a in found if a.status.blocks_updates]
        shown = [a for a in found if suppressed or not a.status.suppressed]
        grid = alarm_grid(shown, wide=show.output == "wide", clouds=pick.all_namespaces)
        output.print_grid(grid, headers=show.headers, empty="No alarms.")
        everywhere = " -A" if pick.all_namespaces else ""
        if len(shown) < len(found):
            output.note(f"{len(found) - len(shown)} suppressed: `roost alarm list{everywhere} --suppressed`")
        lastknown.note_of_alarms(session, pick)
    return OK


@alarm.command(name="explain")
def explain_alarm(
    alarm_id: Annotated[str, Parameter(name="ID", help="NNN.NNN, as `roost alarm list` shows it.")],
    /,
    *,
    show: Show = SHOW,
) -> int:
    """Tell what an alarm means, what suffers from it and what to do. Asks no cloud.

    For example:
        roost alarm explain 100.104
    """
    found = ALARMS.get(alarm_id)
    if found is None:
        raise NotFound(f"no alarm has the id {alarm_id}", "`roost alarm list --ids` shows all")
    if show.output in ("json", "yaml"):
        output.print_data(_data(found), show.output)
        return OK
    degrades, blocks = found.degrades_from, found.blocks_updates_from
    output.print_lines(
        output.fields(
            [
                ("Alarm", f"{found.alarm_id} {found.title}"),
                ("Meaning", found.meaning),
                ("Effect", found.effect),
                ("Repair", found.repair),
                ("Severities", ", ".join(found.severities)),
                ("Entity", found.entity),
                ("Type", found.type),
                ("Cause", found.cause),
                ("Service", "suffers" if found.service_affecting else "does not suffer"),
                ("Degrades", f"its host, from {degrades} on" if degrades else "nothing"),
                ("Updates", f"wait for it, from {blocks} on" if blocks else "do not wait for it"),
                ("Suppressible", "yes" if found.suppressible else "no"),
            ]
        )
    )
    return OK


def _list_ids(show: Show, severity: str | None) -> int:
    least = rank(severity or "warning")
    found = [a for a in ALARMS.values() if any(rank(s) <= least for s in a.severities)]
    if show.output in ("json", "yaml"):
        output.print_data([_data(a) for a in found], show.output)
    elif show.output == "name":
        output.print_lines([Text(a.alarm_id) for a in found])
    else:
        heads = ("Id", "Title", "Severities", "Degrades from", "Updates wait from", "Suppressible")
        rows: list[list[object]] = [
            [
                a.alarm_id,
                a.title,
                ", ".join(a.severities),
                a.degrades_from or "",
                a.blocks_updates_from or "",
                "yes" if a.suppressible else "no",
            ]
            for a in found
        ]
        output.print_grid(Grid([Column(h) for h in heads], rows), headers=show.headers)
    return OK


def _data(definition: AlarmDefinition) -> dict[str, Any]:
    names = {name: _camel(name) for name in definition.__struct_fields__}
    return {names[k]: v for k, v in to_builtins(definition).items() if v is not None}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


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
        facts = (
            ("service affecting", status.service_affecting),
            ("degrades its host", status.degrades_host),
            ("updates wait for it", status.blocks_updates),
        )
        said, by = status.acknowledgement, status.suppression
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
                    ("Acknowledged", acknowledged(found) + (f", {age(said.at, now)} ago" if said else "")),
                    ("Comment", found.spec.comment),
                    ("Suppressed", f"by {by.by}, {by.name}: {by.reason}" if by else ""),
                    ("Counts again", f"at {by.until}" if by else ""),
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
    """Say who has an alarm in hand. It stays until what is wrong has ended, or gets worse than it is now.

    For example:
        roost alarm acknowledge 200.001 --comment "spare part ordered"
    """
    worst = OK
    with opened(connect) as session:
        by = by or whoami(session.client)
        for name in names:
            try:
                found = _find(session.client, session, name)
                spec = {"acknowledgedBy": by, "acknowledgedSeverity": found.status.severity}
                former = found.spec.acknowledged_by
                if comment or former != by:  # nobody's words stand under another's name
                    spec["comment"] = comment
                session.client.patch(ALARM, found.metadata.namespace, found.metadata.name, {"spec": spec})
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            taken = f", who takes it over from {former}" if former not in ("", by) else ""
            output.say(f"{found.status.alarm_id} {found.status.entity} is acknowledged by {by}{taken}.")
    return worst


@alarm.command(name="unacknowledge", alias="unack")
def unacknowledge(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Say that nobody has an alarm in hand any more.

    For example:
        roost alarm unacknowledge 200.001
    """
    with opened(connect) as session:
        found = _find(session.client, session, name)
        if not found.spec.acknowledged_by:
            output.say(f"{found.status.alarm_id} {found.status.entity} was acknowledged by nobody.")
            return OK
        spec = {"acknowledgedBy": "", "acknowledgedSeverity": "", "comment": ""}
        session.client.patch(ALARM, found.metadata.namespace, found.metadata.name, {"spec": spec})
        output.say(f"{found.status.alarm_id} {found.status.entity} is acknowledged by nobody.")
    return OK


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
