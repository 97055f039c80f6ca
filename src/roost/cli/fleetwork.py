"""How an operation over subclouds looks: its state as lines, live on a terminal or line by line elsewhere."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from roost.cli import answers, output, tables
from roost.cli.kinds import SUBCLOUD_OPERATION
from roost.cli.problems import Failed, NotFound, Problem, TimedOut
from roost.cli.session import Session
from roost.cli.watching import Snapshot, Watches

PATIENCE = 300.0
"""Seconds for which a cloud may be silent while its work is followed."""
BETWEEN = 2.0
"""Seconds between two lines of progress where there is no terminal."""
WIDE = 30
OVER = ("done", "failed", "aborted")
STATES = ("done", "skipped", "failed", "running", "offline", "waiting", "aborted")


class Counts(answers.Answer, frozen=True, kw_only=True):
    total: int = 0
    waiting: int = 0
    offline: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    aborted: int = 0

    @property
    def ended(self) -> int:
        """Steps that are over."""
        return self.done + self.failed + self.skipped + self.aborted


class Stage(answers.Answer, frozen=True, kw_only=True):
    group: str = ""
    total: int = 0


class Error(answers.Answer, frozen=True, kw_only=True):
    reason: str = ""
    count: int = 0
    subcloud: str = ""
    message: str = ""


class Spec(answers.Answer, frozen=True, kw_only=True):
    action: str = ""
    labels: dict[str, str] = {}
    paused: bool = False
    aborted: bool = False
    retry: int = 0


class Status(answers.Answer, frozen=True, kw_only=True):
    phase: str = "planned"
    message: str = ""
    steps: Counts = Counts()
    stages: list[Stage] = []
    stage: int = 0
    window: int = 0
    budget: int = 0
    rate: float = 0.0
    expected_end: str = ""
    started_at: str = ""
    finished_at: str = ""
    errors: list[Error] = []


class SubcloudOperation(answers.Item, frozen=True, kw_only=True):
    """One thing done at many subclouds."""

    spec: Spec = Spec()
    status: Status = Status()


def rests(operation: SubcloudOperation) -> bool:
    """Whether nothing more happens of itself."""
    status = operation.status
    return status.phase in OVER or (status.phase in ("halted", "paused") and not status.steps.running)


def picture(operation: SubcloudOperation, now: datetime) -> list[Text]:
    """An operation in some lines. Pure."""
    status = operation.status
    steps = status.steps
    heading = Text(operation.metadata.name, "bold")
    heading.append(f"  {operation.spec.action}  ")
    heading.append(status.phase, tables.STYLES.get(status.phase, ""))
    if len(status.stages) > 1 and status.stage < len(status.stages):
        group = status.stages[status.stage].group
        heading.append(f"  stage {status.stage + 1}/{len(status.stages)}", "dim")
        heading.append(f" ({group})" if group else "", "dim")
    if status.started_at and not status.finished_at:
        heading.append(f"  {tables.age(status.started_at, now)}", "dim")
    filled = WIDE * steps.ended // steps.total if steps.total else 0
    bar = Text(f"  [{'#' * filled}{'.' * (WIDE - filled)}] {steps.ended}/{steps.total}")
    if status.rate:
        bar.append(f"  {status.rate:g} a minute", "dim")
    if status.expected_end:
        bar.append(f", over at {_clock(status.expected_end)}", "dim")
    told = Text("  ")
    for state in STATES:
        if number := getattr(steps, state):
            told.append(f"{number} {state}  ", tables.STYLES.get(state, ""))
    told.append(f"(window {status.window}, {status.budget} may fail)" if status.window else "", "dim")
    told.rstrip()
    lines = [heading, bar, told]
    lines += [
        Text(f"  {error.count} {error.reason}, first {error.subcloud}: {error.message}")
        for error in status.errors
    ]
    return lines


def line(operation: SubcloudOperation) -> str:
    """An operation in one line, for where there is no terminal."""
    status, steps = operation.status, operation.status.steps
    counts = ", ".join(f"{getattr(steps, s)} {s}" for s in STATES if getattr(steps, s))
    return f"{operation.metadata.name} {status.phase}: {steps.ended}/{steps.total}" + (
        f" ({counts})" if counts else ""
    )


def verdict(operation: SubcloudOperation) -> Problem | None:
    """What to say when it did not end well, or rests; None when it is done without failures."""
    name, status = operation.metadata.name, operation.status
    if status.phase == "done" and not status.steps.failed:
        return None
    look = f"`roost subcloud operation steps {name} --state failed` shows what failed"
    if status.phase == "paused":
        look = f"`roost subcloud operation resume {name}` lets it go on"
    elif status.phase in ("halted", "done", "failed"):
        look += f", `roost subcloud operation retry {name}` tries it again"
    return Failed(f"{name} is {status.phase}: {status.message}", look)


class _View:
    """The picture, laid out anew at each refresh, so that ages go on."""

    def __init__(self) -> None:
        self.operation = SubcloudOperation()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from picture(self.operation, output.now())


def pursue(session: Session, name: str, timeout: float) -> SubcloudOperation:
    """Follow an operation until it is over, or rests. Raises TimedOut, NotFound; it goes on in the cloud."""
    deadline, screen = time.monotonic() + timeout, output.console()
    with Watches(session.client, patience=PATIENCE) as watches:
        query = {"fieldSelector": f"metadata.name={name}"}
        watches.add("operation", SUBCLOUD_OPERATION, None, SubcloudOperation, query)
        if not screen.is_terminal:
            return _lines(name, watches, deadline)
        from rich.live import Live

        view = _View()
        with Live(view, console=screen, refresh_per_second=4) as live:
            while True:
                view.operation = _next(name, watches, deadline)
                if rests(view.operation):
                    live.refresh()
                    return view.operation


def _lines(name: str, watches: Watches, deadline: float) -> SubcloudOperation:
    told, phase = -BETWEEN, ""
    while True:
        operation = _next(name, watches, deadline)
        moved = operation.status.phase != phase
        if moved or rests(operation) or time.monotonic() - told >= BETWEEN:
            told, phase = time.monotonic(), operation.status.phase
            output.say(line(operation))
        if rests(operation):
            return operation


def _next(name: str, watches: Watches, deadline: float) -> SubcloudOperation:
    while True:
        taken = watches.take(max(0.0, deadline - time.monotonic()))
        if taken is None:
            raise TimedOut(f"{name} is not over in time", "it goes on in the cloud")
        event = taken[1]
        if isinstance(event, Snapshot):
            items = event.items
        else:
            items = [] if event.type == "DELETED" else [event.item]
        if not items:
            raise NotFound(f"operation {name} is not there", "`roost subcloud operation list` shows all")
        found: SubcloudOperation = items[-1]
        return found


def _clock(stamp: str) -> str:
    """A time of day in the zone of this machine; the text itself when it is no time."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M")
    except ValueError:
        return stamp
