"""Perform a plan on a tree, have laws watch it, heal it, and tell what came of it.

    outcome = run(plan, laws=[...])

First the tree is started and must settle; that is moment 0. Then each event happens at its time, whatever the
others are still at. After `plan.seconds` everything is healed, and all must come to rest: every process up,
both ends of every link in step, and no store written to for QUIET seconds. Then the laws are asked.

Beside what laws find, a run fails when it can't go on (`Wedged`, `OutOfTime`), when it does not come to rest,
and when something went wrong in the product that nobody expected: an error that is logged with its traceback,
or one that nobody handled.

The digest is of the trace and of all that is in the stores at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import structlog

from roost.model import chance
from roost.sim.deterministic.events import Event, Law, Outcome, Plan, Violation
from roost.sim.deterministic.loop import OutOfTime, SimulatedLoop, Wedged, current_process
from roost.sim.deterministic.performing import OPERATIONS as OPERATIONS
from roost.sim.deterministic.performing import perform as perform
from roost.sim.deterministic.tree import Tree
from roost.sim.fleet import NotSettled

OBSERVED_EVERY = 5.0
QUIET = 10.0
SETTLED_WITHIN = 600.0
UNDER_WAY = 30.0
"""How long the healing waits for events that are still at it: healing in the midst of a restore breaks it."""
SAMPLED = 25.0
"""After a change of a machine: alarms go by the median of samples, which nothing is written for."""
LOOK_SECONDS = 1.0
DEADLINE = 60.0
"""Seconds of the wall clock that a run may take."""
BUSY = 500.0
"""A tree at rest makes fewer steps than these in a simulated second."""
BENIGN = (
    "Unavailable(",
    "Overloaded(",
    "ReadFailed(",
    "LeaseLost(",
    "Conflict(",
    "NotFound(",
    "AlreadyExists(",
)
"""Errors with which a controller may fail and try again."""
_REAL_CLOCKS = (("roost.link.digest", "thread_time"),)
"""What the product measures its own use of the processor with, by which it paces itself."""
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def run(
    plan: Plan,
    *,
    laws: Sequence[Law] = (),
    faulty: Callable[[], AbstractContextManager[None]] | None = None,
    deadline: float = DEADLINE,
) -> Outcome:
    """Perform a plan; `faulty` makes the product wrong meanwhile, to see whether laws notice."""
    began = time.perf_counter()
    wrong = faulty() if faulty is not None else contextlib.nullcontext()
    settled = _settled(plan.sites, plan.hosts)
    with _world(plan, settled, deadline) as tree:
        with wrong:
            violations = _performed(tree, _Run(tree, laws).perform())
        violations += _unexpected(tree)
        return Outcome(
            plan=plan,
            digest=_digest(tree),
            trace=tree.trace,
            violations=violations,
            seconds=time.perf_counter() - began,
            simulated=tree.now,
        )


@functools.cache
def _settled(sites: int, hosts: int) -> Mapping[str, bytes]:
    """The databases of a tree that has settled, made once in this process. Raises NotSettled."""
    with _world(Plan(seed=0, sites=sites, hosts=hosts), {}, DEADLINE) as tree:
        broken = _performed(tree, _Run(tree, []).settle()) + _unexpected(tree)
        if broken:
            raise NotSettled("a tree to which nothing has happened", SETTLED_WITHIN, broken[0].message)
        for node in tree.nodes.values():
            node.dispose()
        found = {name: node.disk.path.read_bytes() for name, node in tree.nodes.items()}
    # All that was imported stays for good: no later run looks through it again for what it has left.
    gc.collect()
    gc.freeze()
    return found


@contextlib.contextmanager
def _world(plan: Plan, settled: Mapping[str, bytes], deadline: float) -> Iterator[Tree]:
    """A tree, for as long as its run lasts."""
    source = Random(f"{plan.seed}/product")  # noqa: S311 - a simulation
    with _undisturbed(), tempfile.TemporaryDirectory(dir=_memory()) as directory, chance.seeded(source):
        tree = Tree(plan, SimulatedLoop(deadline=deadline), Path(directory), settled)
        try:
            with _listening(tree.hear):
                sys.unraisablehook = lambda what: tree.problems.append(f"{what.err_msg}: {what.exc_value!r}")
                yield tree
        finally:
            # What dead processes left in the midst of something is unwound now, where nobody hears of it.
            sys.unraisablehook = _nobody_hears
            with _listening(_deaf):
                tree.dispose()
                tree.loop.dispose()
                gc.collect()


def _performed(tree: Tree, work: Coroutine[Any, Any, list[Violation]]) -> list[Violation]:
    try:
        return tree.loop.run_until_complete(work)
    except (Wedged, OutOfTime) as error:
        tree.say(f"{type(error).__name__}")
        return [Violation(type(error).__name__.lower(), tree.now, _plain(str(error)))]


class _Run:
    """One run."""

    def __init__(self, tree: Tree, laws: Sequence[Law]) -> None:
        self._tree, self._laws = tree, laws
        self._going: dict[asyncio.Task[None], None] = {}
        self._machines_at = 0.0

    async def perform(self) -> list[Violation]:
        """All of it; what was broken."""
        tree = self._tree
        if broken := await self.settle():
            return broken
        tree.begin()
        for law in self._laws:
            law.begin(tree)
        await self._events()
        await self._under_way()
        tree.say("heal")
        tree.heal()
        self._observe()
        violations = []
        missing = await self._rest(QUIET)
        if missing:
            tree.say(f"not settled: {missing}")
            violations.append(
                Violation(
                    "settled", tree.now, f"not settled within {SETTLED_WITHIN:g} s of the healing: {missing}"
                )
            )
        else:
            tree.say("settled")
        for task in self._going:
            task.cancel()
        for law in self._laws:
            violations += await law.finish(tree)
        return violations

    async def settle(self) -> list[Violation]:
        """Start everything, and let it come to rest."""
        self._tree.start()
        missing = await self._rest(QUIET / 2)
        return (
            [Violation("settled", self._tree.now, f"it did not settle at first: {missing}")]
            if missing
            else []
        )

    async def _events(self) -> None:
        """Each event at its time; the laws look after each, and now and then."""
        tree, due = self._tree, OBSERVED_EVERY
        for event in sorted(tree.plan.events, key=lambda event: event.at):
            due = await self._until(event.at, due)
            tree.say(str(event))
            if event.action == "machine":
                self._machines_at = tree.now
            task = asyncio.ensure_future(self._one(event))
            self._going[task] = None
            task.add_done_callback(lambda done: self._going.pop(done, None))
            await asyncio.sleep(0)
            self._observe()
        await self._until(tree.plan.seconds, due)

    async def _under_way(self) -> None:
        """Let events come to their end, as far as they do."""
        if self._going:
            await asyncio.wait(list(self._going), timeout=UNDER_WAY)

    async def _one(self, event: Event) -> None:
        try:
            await perform(self._tree, event)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._tree.problems.append(f"event {event}: {error!r}")

    async def _until(self, when: float, due: float) -> float:
        """Let time pass until `when`, with looks from `due` on; when the next look is due."""
        tree = self._tree
        while due < when:
            await asyncio.sleep(max(0.0, due - tree.now))
            self._observe()
            due += OBSERVED_EVERY
        await asyncio.sleep(max(0.0, when - tree.now))
        return due

    def _observe(self) -> None:
        for law in self._laws:
            law.observe(self._tree)

    async def _rest(self, quiet: float) -> str:
        """Wait until all is in step and nothing is written for a while; what is missing after too long."""
        tree, began = self._tree, self._tree.now
        before, since, observed, steps = tree.revisions(), tree.now, tree.now, tree.loop.steps
        while tree.now - began < SETTLED_WITHIN:
            await asyncio.sleep(LOOK_SECONDS)
            revisions, missing = tree.revisions(), tree.unsettled()
            if missing or revisions != before or self._going:
                before, since, steps = revisions, tree.now, tree.loop.steps
            elif tree.now - since >= quiet and tree.now - self._machines_at >= SAMPLED:
                rate = (tree.loop.steps - steps) / (tree.now - since)
                return f"nothing is written, but {rate:.0f} steps a second are made" if rate > BUSY else ""
            if tree.now - observed >= OBSERVED_EVERY:
                observed = tree.now
                self._observe()
        return tree.unsettled() or f"something is written again and again, at last at {since:.1f} s"


# -- what is not of the run


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """When the collector of garbage looks depends on what ran before, and what it finds may be awaited."""
    collects, hook = gc.isenabled(), sys.unraisablehook
    clocks = [(module, name) for module, name in _REAL_CLOCKS if module in sys.modules]
    former = [getattr(sys.modules[module], name) for module, name in clocks]
    gc.disable()
    for module, name in clocks:
        setattr(sys.modules[module], name, _stands_still)
    try:
        yield
    finally:
        for (module, name), clock in zip(clocks, former, strict=True):
            setattr(sys.modules[module], name, clock)
        sys.unraisablehook = hook
        if collects:
            gc.enable()


def _stands_still() -> float:
    return 0.0


def _nobody_hears(_: object) -> None:
    return None


def _deaf(_node: str, _method: str, _entry: Any) -> None:
    return None


def _memory() -> str | None:
    """A directory in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - within is a private directory


@contextlib.contextmanager
def _listening(heard: Callable[[str, str, Any], None]) -> Iterator[None]:
    """Within, hear what the product logs from warnings on: the process, the level, and what it says."""
    former = structlog.get_config()

    def hear(_logger: object, method: str, entry: Any) -> Any:
        process = current_process()
        heard(process.name if process else "", method, entry)
        raise structlog.DropEvent

    structlog.configure(
        processors=[hear],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**former)


def _unexpected(tree: Tree) -> list[Violation]:
    """What went wrong in a way that nobody expected, each kind once."""
    found = [(tree.now, text) for text in (*tree.problems, *tree.loop.problems)]
    for said in tree.said:
        failed = str(said.fields.get("error", ""))
        if said.traceback:
            found.append((said.at, f"{said.node}: {said.event}: {said.traceback}"))
        elif said.event == "reconcile failed" and not failed.startswith(BENIGN):
            found.append((said.at, f"{said.node}: {said.event}: {said.fields}"))
    once = {_plain(text): at for at, text in reversed(found)}
    return [Violation("unexpected", at, text) for text, at in sorted(once.items())]


def _plain(text: str) -> str:
    """Without addresses in memory."""
    return _ADDRESS.sub("0x", text)


def _digest(tree: Tree) -> str:
    digest = hashlib.sha256("\n".join(tree.trace).encode())
    for node in tree.nodes.values():
        digest.update(node.name.encode() + msgspec.json.encode(node.rows()))
    return digest.hexdigest()
