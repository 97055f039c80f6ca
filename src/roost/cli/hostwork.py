"""Work asked of hosts from a terminal: one request each, then all of it followed to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roost.cli import answers, output, progress
from roost.cli.kinds import OPERATION
from roost.cli.problems import FAILED, INTERRUPTED, NOT_FOUND, OK, TIMED_OUT, Problem, TimedOut
from roost.cli.progress import Goal, Progress
from roost.cli.session import Session, Show


def each(
    session: Session,
    names: Sequence[str],
    ask: Callable[[str], Goal],
    verb: str,
    *,
    wait: bool,
    timeout: float,
    show: Show,
) -> int:
    """Ask it of every host, then follow those that were not refused; the worst exit code."""
    before, _ = session.client.list_items(OPERATION, session.namespace, answers.Operation)
    past = [o.metadata.uid for o in before if o.status.state in progress.ENDED]
    goals: list[Goal] = []
    worst = OK
    for name in dict.fromkeys(names):
        try:
            goals.append(ask(name))
        except Problem as problem:
            output.show_problem(problem)
            worst = max(worst, problem.code)
    if not goals:
        return worst
    if not wait:
        for goal in goals:
            output.say(f"{verb} of {goal.host} is under way.")
        return worst
    return max(worst, _follow(session, Progress(goals, past), verb, timeout, show))


def _follow(session: Session, course: Progress, verb: str, timeout: float, show: Show) -> int:
    hosts = ", ".join(g.host for g in course.goals)
    follow = f"follow it with `roost operation list -n {session.namespace} --watch`"
    quiet = show.output not in ("table", "wide")
    try:
        progress.pursue(session, course, timeout, quiet=quiet)
    except TimedOut:
        for goal in course.goals:
            standing = course.standing(goal)
            if standing.outcome not in progress.OVER:
                text = f"{verb} of {goal.host} is not over after {timeout:g} seconds: {standing.message}"
                output.show_problem(TimedOut(text, f"it goes on; {follow}"))
        return TIMED_OUT
    except KeyboardInterrupt:
        output.note(f"{verb} of {hosts} goes on in the cloud; {follow}.")
        return INTERRUPTED
    if quiet:
        operations = [course.standing(g).operation for g in course.goals]
        _print_operations([o for o in operations if o], show)
    worst = OK
    for goal in course.goals:
        problem = progress.verdict(goal, course.standing(goal), session.namespace)
        if problem is None:
            if not quiet:
                output.say(_done(goal))
        else:
            output.show_problem(problem)
            worst = max(worst, NOT_FOUND if course.standing(goal).outcome == "gone" else FAILED)
    return worst


def _done(goal: Goal) -> str:
    if goal.administrative:
        return f"{goal.host} is {goal.administrative}."
    return f"{goal.host}: {goal.actions[0] if goal.actions else 'the operation'} succeeded."


def _print_operations(operations: list[answers.Operation], show: Show) -> None:
    if show.output == "name":
        for operation in operations:
            output.say(f"operation/{operation.metadata.name}")
    else:
        output.print_data(operations, show.output)


def object_of(kind: str, meta: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A new object of a kind."""
    return {"apiVersion": "roost.edge/v1", "kind": kind, "metadata": meta, "spec": spec}
