"""`roost operation`: long work, looked at, followed, paused, aborted."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from roost.cli import answers, listing, output, progress
from roost.cli.kinds import OPERATION
from roost.cli.problems import FAILED, INTERRUPTED, OK, TimedOut
from roost.cli.progress import Goal, Progress
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened

operation = App(name="operation", alias="op", help="Long work on hosts, step by step.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the operation.")]


@operation.command(name="list")
def list_operations(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List operations.

    For example:
        roost operation list
        roost operation list --field-selector status.state=running --watch
    """
    with opened(connect) as session:
        return listing.show_list(session, OPERATION, pick, show)


@operation.command(name="show")
def show_operation(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one operation and its steps.

    For example:
        roost operation show unlock-controller-0-2-1
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, OPERATION, name, show)
        found = session.client.get(OPERATION, session.namespace, name, answers.Operation)
        status, now = found.status, output.now()
        times = [(k, v) for k, v in (("Started", status.started_at), ("Finished", status.finished_at)) if v]
        wishes = [w for w, on in (("paused", found.spec.paused), ("aborted", found.spec.aborted)) if on]
        pairs = [("Name", name), ("Asked", wishes), ("Message", status.message), *times]
        output.print_lines(output.fields(pairs))
        standing = progress.Standing("working", found, status.message)
        output.print_lines(progress.picture(Goal(host=found.spec.host), standing, now))
    return OK


@operation.command(name="watch")
def watch_operation(
    name: Name,
    /,
    *,
    timeout: Annotated[float, Parameter(help="Seconds to follow.")] = 3600.0,
    connect: Connect = CONNECT,
) -> int:
    """Follow one operation until it is over; exits with 1 when it failed.

    For example:
        roost operation watch unlock-controller-0-2-1
    """
    with opened(connect) as session:
        found = session.client.get(OPERATION, session.namespace, name, answers.Operation)
        goal = Goal(host=found.spec.host, actions=(found.spec.action,), operation=name)
        course = Progress([goal])
        try:
            progress.pursue(session, course, timeout, quiet=False)
        except TimedOut as error:
            message = course.standing(goal).message
            raise TimedOut(f"operation {name} is not over after {timeout:g} seconds: {message}") from error
        except KeyboardInterrupt:
            output.note(f"operation {name} goes on in the cloud.")
            return INTERRUPTED
        problem = progress.verdict(goal, course.standing(goal), session.namespace)
        if problem is not None:
            output.show_problem(problem)
            return FAILED
        output.say(f"{name} succeeded.")
    return OK


@operation.command(name="abort")
def abort(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """End an operation after the step that runs.

    For example:
        roost operation abort unlock-controller-0-2-1
    """
    return _set(name, "aborted", connect, wanted=True, done="will end after the step that runs")


@operation.command(name="pause")
def pause(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Start no further step of an operation.

    For example:
        roost operation pause unlock-controller-0-2-1
    """
    return _set(name, "paused", connect, wanted=True, done="starts no further step")


@operation.command(name="resume")
def resume(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Let a paused operation go on.

    For example:
        roost operation resume unlock-controller-0-2-1
    """
    return _set(name, "paused", connect, wanted=False, done="goes on")


def _set(name: str, field: str, connect: Connect, *, wanted: bool, done: str) -> int:
    with opened(connect) as session:
        session.client.patch(OPERATION, session.namespace, name, {"spec": {field: wanted}})
        output.say(f"Operation {name} {done}.")
    return OK
