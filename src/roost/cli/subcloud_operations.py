"""`roost subcloud operation`: one thing done at many subclouds, within a window and a budget of failures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from roost.cli import fleetwork, listing, output
from roost.cli.client import path
from roost.cli.fleetwork import SubcloudOperation
from roost.cli.hostwork import object_of
from roost.cli.kinds import SUBCLOUD_OPERATION
from roost.cli.problems import FAILED, INTERRUPTED, OK, Misused
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.spans import span
from roost.cli.tables import Column, Grid

operation = App(
    name="operation",
    alias="op",
    help="""One thing done at many subclouds: start, follow, pause, abort, retry.

    For example:
        roost subcloud operation start manage --in-group north
    """,
)

Name = Annotated[str, Parameter(name="NAME", help="Name of the operation.")]
Timeout = Annotated[float, Parameter(help="Seconds to follow.")]
PAGE = 500
_COLUMNS = [
    Column("Subcloud"),
    Column("State"),
    Column("Attempt", "integer"),
    Column("Reason"),
    Column("Started", "date"),
    Column("Message"),
]


@operation.command(name="start")
def start(
    action: Annotated[Literal["manage", "unmanage", "label"], Parameter(name="ACTION", help="What to do.")],
    names: Annotated[
        tuple[str, ...], Parameter(name="NAME", help="Subclouds, if not chosen otherwise.")
    ] = (),
    /,
    *,
    selector: Annotated[
        str, Parameter(name=("--selector", "-l"), help="Subclouds with these labels, as region=north.")
    ] = "",
    in_group: Annotated[tuple[str, ...], Parameter(help="Subclouds in this group; may be repeated.")] = (),
    all_: Annotated[bool, Parameter(name="--all", help="All subclouds.")] = False,
    label: Annotated[tuple[str, ...], Parameter(help="For label: what to set, as rollout=a.")] = (),
    order: Annotated[
        tuple[str, ...], Parameter(help="A group that comes first; repeated, one after the other.")
    ] = (),
    max_parallel: Annotated[int | None, Parameter(help="How many at once (default: as groups say).")] = None,
    serial: Annotated[bool, Parameter(help="One after the other.")] = False,
    failure_budget: Annotated[
        str | None, Parameter(help="How many may fail before it halts, as 3 or 2% (default: as groups say).")
    ] = None,
    deadline: Annotated[str, Parameter(help="How long one subcloud may take, as 30m.")] = "30m",
    retries: Annotated[int, Parameter(help="How often one that misses its deadline is tried again.")] = 0,
    name: Annotated[str, Parameter(help="Name of the operation (default: made of the action).")] = "",
    watch: Annotated[bool, Parameter(name=("--watch", "-w"), help="Follow it.")] = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Do one thing at many subclouds, so many at once, and halt when too many fail.

    manage, unmanage: over at a subcloud when its site says that it is. label: sets
    labels; over when what is shared with who has them is in force at the site.

    For example:
        roost subcloud operation start manage --in-group north
        roost subcloud operation start manage --all --max-parallel 500 --failure-budget 2%
        roost subcloud operation start label --all --label rollout=a --order canary --watch
    """
    spec: dict[str, Any] = {
        "action": action,
        "subclouds": _selection(names, selector, in_group, everything=all_),
        "labels": dict(_label(text) for text in label),
        "order": list(order),
        "maxParallel": max_parallel,
        "applyType": "serial" if serial else "",
        "failureBudget": failure_budget,
        "deadlineSeconds": _seconds(deadline),
        "retries": retries,
    }
    metadata = {"name": name} if name else {"generateName": f"{action}-"}
    body = object_of("SubcloudOperation", metadata, {k: v for k, v in spec.items() if v})
    with opened(connect) as session:
        made = session.client.create(SUBCLOUD_OPERATION, "", body)
        name = made["metadata"]["name"]
        if show.output == "table":
            output.say(f"Operation {name} has begun; `roost subcloud operation watch {name}` follows it.")
        elif show.output == "name":
            output.say(f"{SUBCLOUD_OPERATION.singular}/{name}")
        else:
            output.print_data(made, show.output)
        return _follow(session, name, 86400.0) if watch else OK


@operation.command(name="list")
def list_operations(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List operations over subclouds.

    For example:
        roost subcloud operation list
        roost subcloud operation list --field-selector status.phase=running --watch
    """
    with opened(connect) as session:
        empty = "No operations; `roost subcloud operation start` starts one."
        return listing.show_list(session, SUBCLOUD_OPERATION, pick, show, empty=empty)


@operation.command(name="show")
def show_operation(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one operation: how far it is, how fast, and why steps failed.

    For example:
        roost subcloud operation show manage-7k2
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, SUBCLOUD_OPERATION, name, show)
        found = session.client.get(SUBCLOUD_OPERATION, "", name, SubcloudOperation)
        output.print_lines(fleetwork.picture(found, output.now()))
        output.say(f"  {found.status.message}")
    return OK


@operation.command(name="steps")
def list_steps(
    name: Name,
    /,
    *,
    state: Annotated[
        Literal["", "waiting", "offline", "running", "done", "failed", "skipped", "aborted"],
        Parameter(help="Only these."),
    ] = "",
    subcloud: Annotated[str, Parameter(help="Only the one at this subcloud.")] = "",
    reason: Annotated[str, Parameter(help="Only those with this reason, as Offline.")] = "",
    limit: Annotated[int, Parameter(help="So many at most.")] = 1000,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List the steps of an operation: each subcloud, where it stands there, and why.

    For example:
        roost subcloud operation steps manage-7k2 --state failed
        roost subcloud operation steps manage-7k2 --subcloud harbor -o json
    """
    if limit < 1:
        raise Misused(f"--limit {limit} is no number of steps", "write 1 or more")
    where = {"state": state, "subcloud": subcloud, "reason": reason}
    with opened(connect) as session:
        found, more = steps_of(session, name, where, limit)
    if show.output in ("json", "yaml"):
        body = {"apiVersion": "roost.edge/v1", "kind": "StepList", "items": found}
        output.print_data(body, show.output)
    elif show.output == "name":
        for step in found:
            output.say(f"subcloud/{step['subcloud']}")
    else:
        rows = [
            [s["subcloud"], s["state"], s["attempt"], s["reason"], s.get("startedAt", ""), s["message"]]
            for s in found
        ]
        output.print_grid(Grid(_COLUMNS, rows), headers=show.headers, empty="No steps are so.")
    if more:
        output.note(f"There are more; --limit {limit * 2} shows more, --state failed what failed.")
    return OK


@operation.command(name="watch")
def watch_operation(name: Name, /, *, timeout: Timeout = 86400.0, connect: Connect = CONNECT) -> int:
    """Follow one operation until it is over, or rests; exits with 1 when something failed.

    For example:
        roost subcloud operation watch manage-7k2
    """
    with opened(connect) as session:
        session.client.get(SUBCLOUD_OPERATION, "", name, SubcloudOperation)
        return _follow(session, name, timeout)


@operation.command(name="pause")
def pause(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Start no further step of an operation; those that run go on.

    For example:
        roost subcloud operation pause manage-7k2
    """
    return _set(name, {"paused": True}, "starts no further step", connect)


@operation.command(name="resume")
def resume(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Let a paused operation go on.

    For example:
        roost subcloud operation resume manage-7k2
    """
    return _set(name, {"paused": False}, "goes on", connect)


@operation.command(name="abort")
def abort(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Start no further step of an operation, for good; it is over when those that run are.

    For example:
        roost subcloud operation abort manage-7k2
    """
    return _set(name, {"aborted": True}, "is over when the steps that run are", connect)


@operation.command(name="retry")
def retry(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Try again, from the beginning, all steps of an operation that failed.

    For example:
        roost subcloud operation retry manage-7k2
    """
    with opened(connect) as session:
        found = session.client.get(SUBCLOUD_OPERATION, "", name, SubcloudOperation)
        if found.spec.aborted:
            raise Misused(f"{name} is aborted for good", "start another operation")
        if not found.status.steps.failed:
            output.say(f"No step of {name} has failed.")
            return OK
        session.client.patch(SUBCLOUD_OPERATION, "", name, {"spec": {"retry": found.spec.retry + 1}})
        output.say(f"Operation {name} tries {found.status.steps.failed} failed steps again.")
    return OK


def steps_of(
    session: Session, name: str, where: dict[str, str], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """The first steps of an operation whose fields are so, as the API has them; whether there are more."""
    found: list[dict[str, Any]] = []
    query = {"fieldSelector": ",".join(f"{field}={value}" for field, value in where.items() if value)}
    after = ""
    while len(found) < limit:
        asked = {**query, "limit": str(min(PAGE, limit - len(found)))} | (
            {"continue": after} if after else {}
        )
        at = f"{path(SUBCLOUD_OPERATION, '', name)}/steps"
        body = session.client.request("GET", at, query=asked, doing=f"read the steps of {name}")
        page = msgspec.json.decode(body, type=dict[str, Any])
        found += page["items"]
        after = page["metadata"].get("continue", "")
        if not after:
            break
    return found, bool(after)


def _follow(session: Session, name: str, timeout: float) -> int:
    try:
        problem = fleetwork.verdict(fleetwork.pursue(session, name, timeout))
    except KeyboardInterrupt:
        output.note(
            f"operation {name} goes on in the cloud; `roost subcloud operation watch {name}` follows it, "
            f"`roost subcloud operation pause {name}` holds it."
        )
        return INTERRUPTED
    if problem is not None:
        output.show_problem(problem)
        return FAILED
    output.say(f"{name} is done.")
    return OK


def _set(name: str, spec: dict[str, bool], done: str, connect: Connect) -> int:
    with opened(connect) as session:
        session.client.patch(SUBCLOUD_OPERATION, "", name, {"spec": spec})
        output.say(f"Operation {name} {done}.")
    return OK


def _selection(
    names: tuple[str, ...], selector: str, groups: tuple[str, ...], *, everything: bool
) -> dict[str, Any]:
    """Which subclouds, as spec has it. Raises Misused."""
    labels: dict[str, str] = {}
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or key.endswith("!") or value.startswith("="):
            raise Misused(f"-l {part} is no label and its value", "write KEY=VALUE; several go with commas")
        labels[key] = value
    every = {"names": list(dict.fromkeys(names)), "labels": labels, "groups": list(groups)}
    chosen = {k: v for k, v in every.items() if v}
    if chosen and everything:
        raise Misused("--all and a choice exclude each other", "leave one of them out")
    if not chosen and not everything:
        raise Misused("no subcloud is named", "name some, choose them by -l or --in-group, or say --all")
    return chosen


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Misused(f"--label {text} sets nothing", "write KEY=VALUE")
    return key, value


def _seconds(text: str) -> int:
    found = span(text)
    if found is None or found.total_seconds() < 1:
        raise Misused(f"--deadline {text[:100]} is no span", "write one as 90s, 30m or 2h")
    return int(found.total_seconds())
