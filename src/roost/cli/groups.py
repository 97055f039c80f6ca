"""`roost subcloud group`: subclouds that are treated alike."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from roost.cli import answers, listing, output
from roost.cli.hostwork import object_of
from roost.cli.kinds import SUBCLOUD, SUBCLOUD_GROUP
from roost.cli.problems import OK, Misused, Problem
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened

group = App(
    name="group",
    help="""Subclouds that are treated alike: declare, change, look.

    For example:
        roost subcloud group add north --max-parallel 50
    """,
)

Name = Annotated[str, Parameter(name="NAME", help="Name of the group.")]
Description = Annotated[str | None, Parameter(help="For people.")]
Apply = Annotated[
    Literal["serial", "parallel"] | None,
    Parameter(help="Work on its subclouds one after the other, or several at once (default: parallel)."),
]
Parallel = Annotated[int | None, Parameter(help="How many at once, when parallel (default: 2).")]
Budget = Annotated[
    str | None, Parameter(help="How many may fail before work halts, as 3 or 5% (default: 0).")
]


@group.command(name="list")
def list_groups(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List groups with how work over them goes and how their subclouds are.

    For example:
        roost subcloud group list
    """
    with opened(connect) as session:
        empty = "No groups; `roost subcloud group add NAME` declares one."
        return listing.show_list(session, SUBCLOUD_GROUP, pick, show, empty=empty)


@group.command(name="show")
def show_group(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one group and the subclouds in it that are not as they should be.

    For example:
        roost subcloud group show north
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, SUBCLOUD_GROUP, name, show)
        found = session.client.get(SUBCLOUD_GROUP, "", name, answers.SubcloudGroup)
        query = {"fieldSelector": f"spec.group={name}"}
        members, _ = session.client.list_items(SUBCLOUD, None, answers.Subcloud, query)
        spec, several = found.spec, found.spec.apply_type == "parallel"
        offline = [m.metadata.name for m in members if m.status.availability == "offline"]
        late = [m.metadata.name for m in members if m.status.sync == "out-of-sync"]
        pairs: list[tuple[str, Any]] = [
            ("Name", name),
            ("Description", spec.description),
            ("Apply", f"{spec.max_parallel} at once" if several else "one after the other"),
            ("Failure budget", spec.failure_budget),
            (
                "Subclouds",
                f"{len(members)}, {sum(m.spec.management_state == 'managed' for m in members)} managed",
            ),
            ("Offline", _some(offline)),
            ("Out of sync", _some(late)),
        ]
        output.print_lines(output.fields(pairs))
    return OK


@group.command(name="add")
def add_group(
    name: Name,
    /,
    *,
    description: Description = None,
    apply: Apply = None,
    max_parallel: Parallel = None,
    failure_budget: Budget = None,
    connect: Connect = CONNECT,
) -> int:
    """Declare a group.

    For example:
        roost subcloud group add north --max-parallel 50 --failure-budget 2%
        roost subcloud group add first --apply serial
    """
    spec = _spec(description, apply, max_parallel, failure_budget)
    with opened(connect) as session:
        session.client.create(SUBCLOUD_GROUP, "", object_of("SubcloudGroup", {"name": name}, spec))
        output.say(
            f"Group {name} is declared; `roost subcloud update NAME --group {name}` puts subclouds in."
        )
    return OK


@group.command(name="update")
def update_group(
    name: Name,
    /,
    *,
    description: Description = None,
    apply: Apply = None,
    max_parallel: Parallel = None,
    failure_budget: Budget = None,
    connect: Connect = CONNECT,
) -> int:
    """Change a group.

    For example:
        roost subcloud group update north --max-parallel 100
    """
    spec = _spec(description, apply, max_parallel, failure_budget)
    if not spec:
        raise Misused(
            "nothing to change is named", "`roost subcloud group update --help` tells what there is"
        )
    with opened(connect) as session:
        session.client.patch(SUBCLOUD_GROUP, "", name, {"spec": spec})
        output.say(f"Group {name} is changed.")
    return OK


@group.command(name="delete")
def delete_groups(
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of groups.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Delete groups that hold no subclouds.

    For example:
        roost subcloud group delete north
    """
    worst = OK
    with opened(connect) as session:
        for name in names:
            try:
                session.client.delete(SUBCLOUD_GROUP, "", name)
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
            else:
                output.say(f"Group {name} is deleted.")
    return worst


def _spec(
    description: str | None, apply: str | None, max_parallel: int | None, failure_budget: str | None
) -> dict[str, Any]:
    spec = {
        "description": description,
        "applyType": apply,
        "maxParallel": max_parallel,
        "failureBudget": failure_budget,
    }
    return {k: v for k, v in spec.items() if v is not None}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
