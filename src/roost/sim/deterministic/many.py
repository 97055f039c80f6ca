"""Many runs over worker processes: which seeds break which law, how fast, and the shortest plan of a failure.

Each worker is an interpreter of its own with PYTHONHASHSEED=0, for only then the same plan gives the same
run, and takes seeds in small portions, so that none waits for another. `hunt` yields what workers report and
ends them whenever it is left, whether it was done, closed or interrupted.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import IO

import msgspec

from roost.sim.deterministic.events import Outcome, Plan, Violation
from roost.sim.deterministic.plans import plan as plan_of
from roost.sim.deterministic.shrink import Shrunk, shrink

PORTION = 4
"""Seeds that a worker is given at once."""
WORKER = "import sys; from roost.sim.deterministic.many import work; sys.exit(work(sys.argv[1:]))"
ENDS_WITHIN = 5.0

Faulty = Callable[[], AbstractContextManager[None]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave."""

    seed: int
    digest: str
    seconds: float
    simulated: float
    violations: list[Violation] = []
    error: str = ""
    """Why the run came to no end; empty when it did."""

    @property
    def broken(self) -> str:
        """The law that was broken first; empty when none was."""
        if self.error:
            return "the run ends"
        first = min(self.violations, key=lambda v: v.at, default=None)
        return first.law if first else ""


class Workers(Exception):
    """A worker ended that should not have."""


def one(plan: Plan, faulty: Faulty | None = None) -> Outcome:
    """Run one plan with all laws watching."""
    from roost.sim.deterministic import operators  # noqa: F401 - its verbs
    from roost.sim.deterministic.laws.watching import every
    from roost.sim.deterministic.run import run

    return run(plan, laws=every(), faulty=faulty)


def report(plan: Plan, faulty: Faulty | None = None) -> Report:
    """Run one plan; a run that comes to no end is a failure of its own."""
    began = time.perf_counter()
    try:
        outcome = one(plan, faulty)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        return Report(
            seed=plan.seed, digest="", seconds=time.perf_counter() - began, simulated=0.0, error=words[:2000]
        )
    return Report(
        seed=plan.seed,
        digest=outcome.digest,
        seconds=outcome.seconds,
        simulated=outcome.simulated,
        violations=outcome.violations,
    )


def breaks(law: str, faulty: Faulty | None = None) -> Callable[[Plan], bool]:
    """Whether a plan breaks a law."""

    def fails(plan: Plan) -> bool:
        found = report(plan, faulty)
        return (law == "the run ends" and bool(found.error)) or any(v.law == law for v in found.violations)

    return fails


def shortest(plan: Plan, law: str, *, seconds: float, faulty: Faulty | None = None) -> Shrunk:
    """The shortest plan found that breaks the same law."""
    return shrink(plan, breaks(law, faulty), seconds=seconds)


# -- workers


def hunt(seeds: Sequence[int], workers: int, planted: str = "") -> Generator[Report, None, None]:
    """Reports of all seeds, in the order in which they come. `planted` names a bug of `planted.BUGS`."""
    waiting = list(reversed(seeds))
    count = min(workers, max(1, len(waiting)))
    with _started(count, planted) as running, selectors.DefaultSelector() as selector:
        due: dict[int, int] = {}
        for worker in running:
            selector.register(_out(worker), selectors.EVENT_READ, worker)
            due[worker.pid] = 0
            _give(worker, waiting, due)
        while any(due.values()):
            for key, _ in selector.select():
                worker = key.data
                line = _out(worker).readline()
                if not line:
                    if due[worker.pid]:
                        raise Workers(f"a worker ended with exit code {worker.wait()}")
                    selector.unregister(_out(worker))
                    continue
                due[worker.pid] -= 1
                if not due[worker.pid]:
                    _give(worker, waiting, due)
                yield msgspec.json.decode(line, type=Report)


def _give(worker: subprocess.Popen[bytes], waiting: list[int], due: dict[int, int]) -> None:
    """Give a worker its next seeds, or nothing more."""
    portion = [waiting.pop() for _ in range(min(PORTION, len(waiting)))]
    due[worker.pid] += len(portion)
    stream = worker.stdin
    if stream is None or stream.closed:
        return
    if portion:
        stream.write(msgspec.json.encode(portion) + b"\n")
        stream.flush()
    else:
        stream.close()


def _out(worker: subprocess.Popen[bytes]) -> IO[bytes]:
    if worker.stdout is None:
        raise Workers("a worker has no output")
    return worker.stdout


@contextmanager
def _started(count: int, planted: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", WORKER, *([planted] if planted else [])]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            running.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
        yield running
    finally:
        for worker in running:
            worker.terminate()
        for worker in running:
            try:
                worker.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None and not stream.closed:
                    stream.close()


def work(arguments: Sequence[str]) -> int:
    """A worker: lists of seeds or plans come in, one a line, and a line goes out for each run; to the end."""
    import signal

    # Ctrl-C goes to everybody at a terminal; whoever started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulty: Faulty | None = None
    if arguments:
        from roost.sim.deterministic.planted import BUGS

        faulty = BUGS[arguments[0]].plant
    quiet()
    for line in sys.stdin.buffer:
        asked = msgspec.json.decode(line, type=list[int] | Plan)
        for plan in [asked] if isinstance(asked, Plan) else map(plan_of, asked):
            found = report(plan, faulty)
            sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
            sys.stdout.buffer.flush()
    return 0


def quiet() -> None:
    """Let the simulated processes log nothing: thousands of faults are their daily bread."""
    import logging

    import structlog

    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
    )
