"""Following long work: which operation belongs to which wish, when it is over, and how it looks.

`Goal` is one host and what it was asked to become. `Progress` is fed what the watches of operations
and hosts bring and says, purely, how each goal stands. An operation belongs to a goal when it is for its
host and action and was not already over when the wish was uttered. A host that is as wanted, says
so of the generation that was asked for, and has no work in hand needed no operation.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from roost.cli import answers, output, tables
from roost.cli.kinds import HOST, OPERATION
from roost.cli.problems import Failed, Problem, TimedOut
from roost.cli.session import Session
from roost.cli.watching import Change, Snapshot, Watches

Outcome = Literal["waiting", "working", "succeeded", "failed", "aborted", "gone"]
OVER = ("succeeded", "failed", "aborted", "gone")
ENDED = ("succeeded", "failed", "aborted")
PATIENCE = 300.0
"""Seconds for which a cloud may be silent while its work is followed: its machine may be restarting."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What one host was asked to become, or the one operation that is followed."""

    host: str
    actions: tuple[str, ...] = ()
    administrative: str = ""
    generation: int = 0
    operation: str = ""
    """Name of the operation to follow; empty: the one that the cloud creates."""


class Standing(msgspec.Struct, frozen=True):
    """How a goal stands."""

    outcome: Outcome
    operation: answers.Operation | None
    message: str


class Progress:
    """All goals of one command. `past` are uids of operations that were over before it."""

    def __init__(self, goals: Iterable[Goal], past: Iterable[str] = ()) -> None:
        self.goals = list(goals)
        self._past = set(past)
        self._operations: dict[str, answers.Operation] = {}
        self._hosts: dict[str, answers.Host] = {}

    def take(self, name: str, event: Snapshot[answers.Item] | Change[answers.Item]) -> None:
        """What a watch brought; `name` is `operations` or `hosts`."""
        if isinstance(event, Snapshot):
            if name == "operations":
                self._operations.clear()
            else:
                self._hosts.clear()
            for item in event.items:
                self._put(item)
        elif event.type == "DELETED":
            self._operations.pop(event.item.metadata.name, None)
            if name == "hosts":
                self._hosts.pop(event.item.metadata.name, None)
        else:
            self._put(event.item)

    def standing(self, goal: Goal) -> Standing:
        """How a goal stands now."""
        operation = self._operation(goal)
        host = self._hosts.get(goal.host)
        if operation is not None:
            state = operation.status.state
            outcome: Outcome = state if state in ENDED else "working"  # type: ignore[assignment]
            return Standing(outcome, operation, operation.status.message)
        if goal.operation:
            return Standing("waiting", None, "The operation has not been seen yet.")
        if host is None:
            return Standing("waiting", None, "Waiting for the cloud's answer.")
        if host.metadata.deletion_timestamp:
            return Standing("gone", None, f"{goal.host} is being deleted.")
        status = host.status
        if (
            goal.administrative
            and status.administrative == goal.administrative
            and status.observed_generation >= goal.generation
            and not status.task
        ):
            return Standing("succeeded", None, f"{goal.host} is {goal.administrative}.")
        told = status.conditions if status.observed_generation >= goal.generation else []
        settled = next((c.message for c in told if c.type == "Settled"), "")
        return Standing("waiting", None, settled or "Waiting for the cloud to start.")

    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return all(self.standing(g).outcome in OVER for g in self.goals)

    def _operation(self, goal: Goal) -> answers.Operation | None:
        if goal.operation:
            return self._operations.get(goal.operation)
        fitting = [
            o
            for o in self._operations.values()
            if o.spec.host == goal.host and o.spec.action in goal.actions and o.metadata.uid not in self._past
        ]
        return max(fitting, key=_order, default=None)

    def _put(self, item: answers.Item) -> None:
        if isinstance(item, answers.Operation):
            self._operations[item.metadata.name] = item
        elif isinstance(item, answers.Host):
            self._hosts[item.metadata.name] = item


def _order(operation: answers.Operation) -> tuple[str, str]:
    return (operation.metadata.creation_timestamp or "", operation.metadata.name)


class View:
    """The live picture of a Progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for goal in self._progress.goals:
            yield from picture(goal, self._progress.standing(goal), output.now())


def picture(goal: Goal, standing: Standing, now: datetime) -> list[Text]:
    """One goal: a heading, and its steps under it."""
    operation = standing.operation
    heading = Text(goal.host, "bold")
    if operation is None:
        heading.append(f"  {standing.outcome}", tables.style_of(standing.outcome))
        heading.append(f"  {standing.message}", "dim")
        return [heading]
    status = operation.status
    heading.append(f"  {operation.spec.action}  ")
    heading.append(status.state, tables.style_of(status.state))
    if status.steps_total:
        heading.append(f"  {status.steps_done}/{status.steps_total}")
    if status.started_at and not status.finished_at:
        heading.append(f"  {tables.age(status.started_at, now)}", "dim")
    return [heading, *(_step(step, now) for step in status.steps)]


def _step(step: answers.Step, now: datetime) -> Text:
    marks = {"succeeded": "+", "failed": "x", "running": ">", "aborted": "x", "skipped": "-"}
    line = Text(f"  {marks.get(step.state, ' ')} ")
    line.append(f"{step.name:<12} ")
    line.append(f"{step.state:<10}", tables.style_of(step.state))
    if step.message:
        line.append(f" {step.message}", "dim" if step.state == "succeeded" else "")
    if step.state == "running":
        told = [f"attempt {step.attempt}"] if step.attempt > 1 else []
        left = _left(step.deadline, now)
        told += [f"{left} left"] if left else []
        if told:
            line.append(f" ({', '.join(told)})", "dim")
    took = _took(step)
    if took:
        line.append(f" (took {took})", "dim")
    line.rstrip()
    return line


def _took(step: answers.Step) -> str:
    """How long a step that is over took; empty for others."""
    from roost.api.tables import human
    from roost.model import time as points

    try:
        return human(points.parse(step.finished_at) - points.parse(step.started_at))
    except ValueError:
        return ""


def _left(deadline: str, now: datetime) -> str:
    from roost.api.tables import human
    from roost.model import time as points

    try:
        left = points.parse(deadline) - now
    except ValueError:
        return ""
    return human(left) if left.total_seconds() > 0 else ""


class Lines:
    """Progress where there is no terminal: one line for each step that moves."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def news(self, progress: Progress) -> list[str]:
        """What has changed since last asked."""
        news = []
        for goal in progress.goals:
            standing = progress.standing(goal)
            if standing.operation is None:
                if standing.outcome == "waiting":
                    news += self._tell(goal.host, f"{goal.host}: {standing.message}")
                continue
            for step in standing.operation.status.steps:
                if step.state != "pending":
                    text = f"{goal.host}: {step.name}: {step.state}"
                    key = f"{goal.host}/{standing.operation.metadata.name}/{step.name}"
                    news += self._tell(key, f"{text}: {step.message}" if step.message else text)
        return news

    def _tell(self, key: str, text: str) -> list[str]:
        if self._told.get(key) == text:
            return []
        self._told[key] = text
        return [text]


def pursue(session: Session, progress: Progress, timeout: float, *, quiet: bool) -> None:
    """Follow until every goal is over. Raises TimedOut; what runs goes on in the cloud."""
    deadline = time.monotonic() + timeout
    screen = output.console()
    with Watches(session.client, patience=PATIENCE) as watches:
        watches.add("operations", OPERATION, session.namespace, answers.Operation)
        watches.add("hosts", HOST, session.namespace, answers.Host)
        if screen.is_terminal and not quiet:
            from rich.live import Live

            with Live(View(progress), console=screen, refresh_per_second=4) as live:
                _feed(progress, watches, deadline)
                live.refresh()
            return
        lines = Lines()
        _feed(progress, watches, deadline, lines=None if quiet else lines)


def _feed(progress: Progress, watches: Watches, deadline: float, lines: Lines | None = None) -> None:
    seen: set[str] = set()
    while len(seen) < 2 or not progress.over():
        taken = watches.take(max(0.0, deadline - time.monotonic()))
        if taken is None:
            raise TimedOut("not over in time", "it goes on in the cloud")
        name, event = taken
        seen.add(name)
        progress.take(name, event)
        for line in lines.news(progress) if lines and len(seen) == 2 else []:
            output.say(line)


def verdict(goal: Goal, standing: Standing, namespace: str) -> Problem | None:
    """What to say when a goal was not reached; None when it was."""
    operation = standing.operation
    if standing.outcome == "succeeded":
        return None
    name = operation.metadata.name if operation else ""
    following = f"`roost operation show {name} -n {namespace}` shows its steps" if name else ""
    what = operation.spec.action if operation else "the change"
    if standing.outcome in ENDED:
        failed = (s for s in operation.status.steps if s.state == "failed") if operation else ()
        why = next((f"{s.name}: {s.message}" for s in failed), standing.message)
        return Failed(f"{what} of {goal.host} {standing.outcome}: {why}", following)
    return Failed(f"{goal.host}: {standing.message}", following)
