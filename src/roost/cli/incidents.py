"""`roost incident`: alarms of the fleet that have one cause, shown as one."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from roost.cli import answers, listing, output
from roost.cli.kinds import INCIDENT
from roost.cli.problems import OK
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened
from roost.cli.tables import age

incident = App(name="incident", help="What has happened in the fleet: alarms of one cause, shown as one.")

FIRST = 20


@incident.command(name="list")
def list_incidents(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List what has happened: each cause once, with what it explains.

    For example:
        roost incident list
        roost incident list --field-selector status.cause=Uplink
        roost incident list --watch
    """
    with opened(connect) as session:
        return listing.show_list(session, INCIDENT, pick, show, empty="No incidents.")


@incident.command(name="show")
def show_incident(
    name: Annotated[str, Parameter(name="NAME", help="Name of the incident.")],
    /,
    *,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show one incident: its cause, what follows from what, and which subclouds it concerns.

    For example:
        roost incident show uplink.router-a
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, INCIDENT, name, show)
        found = session.client.get(INCIDENT, "", name, answers.Incident).status
        since = f"{found.since} ({age(found.since, output.now())} ago)" if found.since else ""
        more = found.subclouds - len(found.concerned[:FIRST])
        pairs: list[tuple[str, Any]] = [
            ("Name", name),
            ("Cause", f"{found.cause} {found.name}"),
            ("Certainty", found.certainty),
            ("Severity", found.severity),
            ("Since", since),
            ("Reason", found.reason),
            ("Chain", " -> ".join(found.chain)),
            ("Alarms", str(found.alarms)),
            ("Subclouds", ", ".join(found.concerned[:FIRST]) + (f" and {more} more" if more > 0 else "")),
        ]
        output.print_lines(output.fields(pairs))
    return OK
