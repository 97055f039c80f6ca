"""An event loop whose time is simulated and whose every run is the same; and the processes that live on it.

Time stands still while anything can run, and jumps to the next timer when nothing can. There are no sockets,
no threads and no signals: whoever asks for them gets `RealWorld`. What is ready runs first come, first
served, as asyncio promises; which of several things happens first is up to the timers, whose delays are drawn
from seeded chance by whoever makes them. Sets of tasks are ordered by the tasks' numbers, not by addresses.

A `Process` stands for one run of a program. What is begun within it (tasks, timers, callbacks) is bound to it
by its context, and stays so through all that it begins in turn. `Process.kill` is a kill -9: from that moment
the loop runs nothing that is bound to it. Nothing is unwound: no `except`, no `finally`, no callback of a
dead process ever runs, so nothing of it can reach a disk, a network or a store. Its tasks are kept to the end
of the run, so that the interpreter does not unwind them either.

A run that can't go on ends with an error that says so, never with a hang: `Wedged` when simulated time does
not pass over too many steps, or nothing is left that could ever happen; `OutOfTime` at a deadline of the wall
clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import time
from asyncio import base_events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

STARTS_AT = 1000.0
"""A monotonic clock never stands at zero."""
STEPS = 200_000
"""More than these within a simulated second are a wedge."""
LOOK_EVERY = 1024
"""Steps between looks at the wall clock."""
SHOWN = 12

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar(
    "roost-simulated-process", default=None
)


class RealWorld(RuntimeError):
    """Simulated code asked for something real."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is real, and a simulation has nothing real; give what needs it a simulated one"
        )
        self.what = what


class Wedged(RuntimeError):
    """Simulated time passes no more."""


class OutOfTime(RuntimeError):
    """The run took more time of the wall clock than it may."""


class ProcessEnded(ConnectionError):
    """A process ended while something outside waited for what it did within."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the process of {name} has ended")
        self.name = name


class OrderedTask(asyncio.Task[Any]):
    """A task with a number, by which sets order it, and the process it belongs to."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        number: int,
        process: Process | None,
        *,
        loop: SimulatedLoop,
        name: str,
        context: contextvars.Context | None,
    ) -> None:
        self.number, self.process = number, process
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class Process:
    """One run of a program, until it is killed. Enter work with `begin` or `call`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)
        self._kept: list[OrderedTask] = []
        self._awaited: dict[asyncio.Future[Any], None] = {}

    def begin(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Run a coroutine as a task of this process."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context.copy())

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function as this process would."""
        return self.context.copy().run(function, *arguments)

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something within the process and wait for it outside; raises ProcessEnded if it dies."""
        if not self.alive:
            work.close()
            raise ProcessEnded(self.name)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._awaited[answer] = None

        def done(task: asyncio.Task[T]) -> None:
            if answer.done():
                return
            if task.cancelled():
                answer.cancel()
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        task = self.begin(work)
        task.add_done_callback(done)
        try:
            return await answer
        finally:
            self._awaited.pop(answer, None)
            if not task.done():
                task.cancel()

    def kill(self) -> None:
        """Let nothing of it ever run again. What it was in the midst of stays as it is."""
        if not self.alive:
            return
        self.alive = False
        self._kept = [t for t in asyncio.all_tasks() if isinstance(t, OrderedTask) and t.process is self]
        for answer in self._awaited:
            if not answer.done():
                answer.set_exception(ProcessEnded(self.name))

    def forget(self) -> None:
        """Let go of what was kept; after the run, when nothing is on the loop any more."""
        for task in self._kept:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._kept.clear()


def current_process() -> Process | None:
    """The process within which this runs; None outside of all."""
    return _PROCESS.get()


class SimulatedDevice(Executor):
    """What an executor must be to do work in simulated time."""

    def run(self, loop: SimulatedLoop, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Begin the work; its outcome comes in time."""
        raise NotImplementedError


class SimulatedLoop(base_events.BaseEventLoop):
    """The loop. `deadline` is in seconds of the wall clock, from when it is made."""

    def __init__(self, *, deadline: float = 60.0) -> None:
        super().__init__()
        self._now = STARTS_AT
        self._until = time.monotonic() + deadline
        self._deadline = deadline
        self._steps, self._mark, self.steps = 0, STARTS_AT, 0
        self._tasks_made = 0
        self.problems: list[str] = []
        """What nobody handled: errors of callbacks, and of tasks that nobody asked."""
        self.set_exception_handler(self._keep_problem)

    def time(self) -> float:
        """Simulated seconds."""
        return self._now

    # -- one round

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._advance(scheduled)
        now = self._now
        while scheduled and scheduled[0]._when <= now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                ready.append(handle)
        count = len(ready)
        self._count(count)
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is None or process.alive:
                handle._run()

    def _advance(self, scheduled: Any) -> None:
        """Let time pass to the next timer."""
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            raise Wedged(f"at {self._now:.3f} s nothing is left that could ever happen\n{self._waiting()}")
        self._now = max(self._now, scheduled[0]._when)
        if self._now - self._mark >= 1.0:
            self._steps, self._mark = 0, self._now

    def _count(self, count: int) -> None:
        self._steps += count
        before, self.steps = self.steps, self.steps + count
        if self._steps > STEPS:
            raise Wedged(f"{STEPS} steps, and still at {self._now:.6f} s; next are\n{self._next()}")
        if before // LOOK_EVERY != self.steps // LOOK_EVERY and time.monotonic() > self._until:
            raise OutOfTime(
                f"at {self._now:.3f} s after {self._deadline:g} s of the wall clock; next are\n{self._next()}"
            )

    def _next(self) -> str:
        handles = list(self._ready)[:SHOWN]  # type: ignore[attr-defined]
        return "\n".join(repr(handle) for handle in handles)

    def _waiting(self) -> str:
        tasks = sorted(
            (t for t in asyncio.all_tasks(self) if isinstance(t, OrderedTask)), key=lambda t: t.number
        )
        return "\n".join(repr(task) for task in tasks[:SHOWN])

    # -- what others ask of a loop

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> Any:
        self._tasks_made += 1
        number = self._tasks_made
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        return OrderedTask(coro, number, process, loop=self, name=name or f"task-{number}", context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Work of a simulated device takes simulated time; all other is done in place, at once."""
        if isinstance(executor, SimulatedDevice):
            return executor.run(self, func, *args)
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def _write_to_self(self) -> None:
        return None

    def _process_events(self, event_list: object) -> None:
        return None

    def _keep_problem(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context.get('message', '')}: {error!r}")

    # -- the end

    def dispose(self) -> None:
        """Let go of everything that has not come to an end; nothing of it runs."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()


_REAL = {
    "getaddrinfo": "looking up a name",
    "getnameinfo": "looking up an address",
    "create_connection": "a connection over a socket",
    "create_server": "listening on a socket",
    "create_datagram_endpoint": "a socket for datagrams",
    "create_unix_connection": "a connection over a Unix socket",
    "create_unix_server": "listening on a Unix socket",
    "start_tls": "TLS",
    "sendfile": "sending a file",
    "subprocess_exec": "another program",
    "subprocess_shell": "another program",
    "connect_read_pipe": "a pipe",
    "connect_write_pipe": "a pipe",
    "add_reader": "a file descriptor",
    "add_writer": "a file descriptor",
    "add_signal_handler": "a signal",
    "sock_recv": "a socket",
    "sock_sendall": "a socket",
    "sock_connect": "a socket",
    "sock_accept": "a socket",
}


def _refusing(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RealWorld(what)

    return refuse


for _name, _what in _REAL.items():
    setattr(SimulatedLoop, _name, _refusing(_what))
