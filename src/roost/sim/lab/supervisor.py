"""The supervisor: starts processes in the order they need one another, and again when they end.

Each process is one task that goes round: wait for what it needs, start, wait until it is ready or
has ended, wait for its end, decide (see `restarts`), pause. Nothing else changes its state but the
verbs: kill, halt, pause, resume, stop. Whoever waits for a state waits in `until`, woken at every change.

What was needed for the first start is not waited for again: processes that lose one another must
find one another again by themselves, and here they are made to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from roost.sim.lab.enter import CANNOT_ENTER
from roost.sim.lab.errors import LabError, ProcessFailed
from roost.sim.lab.ground import NOTIFY
from roost.sim.lab.logs import Log
from roost.sim.lab.namespaces import SEARCH_PATH
from roost.sim.lab.notices import NoticeSocket
from roost.sim.lab.restarts import Again, End, History, after_end, describe
from roost.sim.lab.spawn import Child, Place, spawn

State = Literal["waiting", "starting", "ready", "resting", "paused", "failed", "halted", "stopped"]

_SETTLING = 1.0
_FILE_LOOK = 0.05
_AFTER_KILL = 3.0
_MAXIMUM_PROCESSES = 512


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process to be kept running.

    `host` names the namespace it runs in; empty is the one the laboratory was started in.
    `after` names processes that must be ready before the first start.
    `pass_fds` are sockets it finds from descriptor 3 upwards (LISTEN_FDS, LISTEN_FDNAMES).
    `ready` is how its readiness is known: `notify` by READY=1 to $NOTIFY_SOCKET, a path by that file
    appearing, `started` by living for a second.
    """

    name: str
    argv: tuple[str, ...]
    host: str = ""
    environment: dict[str, str] = {}
    after: tuple[str, ...] = ()
    pass_fds: dict[str, int] = {}
    ready: Literal["notify", "started"] | Path = "notify"
    ready_within: float = 30.0


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a process now. `since` is when it came into this state, in Unix seconds."""

    name: str
    host: str
    state: State
    pid: int = 0
    restarts: int = 0
    reboots: int = 0
    since: float = 0.0
    last_end: str = ""
    message: str = ""
    log: str = ""


class _Supervised:
    """One process and its present life."""

    def __init__(self, process: Process, log: Log) -> None:
        self.process = process
        self.log = log
        self.history = History()
        self.state: State = "waiting"
        self.since = time.time()
        self.child: Child | None = None
        self.was_ready = False
        self.halted = False
        self.notified = asyncio.Event()
        self.wake = asyncio.Event()
        self.last_end = ""
        self.message = ""
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps processes running. `report` receives sentences for the operator; all get `environment`."""

    def __init__(
        self,
        directory: Path,
        place: Callable[[str], Place | None],
        report: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        self._directory = directory
        self._place = place
        self._report = report
        self._common = environment
        self._all: dict[str, _Supervised] = {}
        self._stopping = False
        self._changed = asyncio.Event()
        (directory / "log").mkdir(mode=0o700, exist_ok=True)
        self._notices = NoticeSocket(directory / NOTIFY, self._notice)

    # Waiting and telling

    def _change(self, item: _Supervised, state: State) -> None:
        item.state = state
        item.since = time.time()
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(
        self, condition: Callable[[], bool], *, within: float, what: str = "the condition"
    ) -> None:
        """Wait until the condition, looked at after every change of state, holds."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            states = ", ".join(f"{status.name} {status.state}" for status in self.status())
            raise LabError(
                f"{what} did not come within {within:g} s ({states})",
                f"read the logs in {self._directory / 'log'}",
            ) from None

    async def ready(self, *names: str, within: float) -> None:
        """Wait until the processes, all if none is named, are ready; raise when one is given up."""
        wanted = [self._get(name) for name in names] or list(self._all.values())

        def settled() -> bool:
            for item in wanted:
                if item.state == "failed":
                    raise self._failure(item)
            return all(item.state == "ready" for item in wanted)

        await self.until(settled, within=within, what="readiness of every process")

    def status(self) -> list[ProcessStatus]:
        """Every process, in the order they were added."""
        return [self._status(item) for item in self._all.values()]

    def process(self, name: str) -> ProcessStatus:
        """One process by its name."""
        return self._status(self._get(name))

    def _status(self, item: _Supervised) -> ProcessStatus:
        return ProcessStatus(
            name=item.process.name,
            host=item.process.host,
            state=item.state,
            pid=item.child.pid if item.child is not None else 0,
            restarts=item.history.restarts,
            reboots=item.history.reboots,
            since=item.since,
            last_end=item.last_end,
            message=item.message,
            log=str(item.log.path),
        )

    def _get(self, name: str) -> _Supervised:
        try:
            return self._all[name]
        except KeyError:
            known = ", ".join(self._all) or "none has been added"
            raise LabError(f"there is no process named {name}", f"choose one of: {known}") from None

    def _failure(self, item: _Supervised) -> ProcessFailed:
        reason = f"was given up after it {item.last_end} before it was ready, several times"
        return ProcessFailed(item.process.name, reason, item.log.tail(), str(item.log.path))

    def _notice(self, pid: int, notice: dict[str, str]) -> None:
        for item in self._all.values():
            if item.child is not None and item.child.pid == pid:
                item.message = notice.get("STATUS", item.message)
                if notice.get("READY") == "1":
                    item.notified.set()

    # The life of a process

    def add(self, process: Process) -> None:
        """Take a process on; it starts as soon as those it needs are ready."""
        if process.name in self._all:
            raise LabError(
                f"a process named {process.name} is there already", "give every process its own name"
            )
        if len(self._all) >= _MAXIMUM_PROCESSES:
            raise LabError(f"there are {_MAXIMUM_PROCESSES} processes already", "use fewer hosts")
        for name in process.after:
            self._get(name)
        if process.host:
            self._place(process.host)  # refuses a host that is not there
        item = _Supervised(process, Log(self._directory / "log" / f"{process.name}.log"))
        self._all[process.name] = item
        item.task = asyncio.create_task(self._keep(item), name=f"keep {process.name}")
        item.task.add_done_callback(lambda task: self._kept(item, task))
        self._wake_waiters()

    def _kept(self, item: _Supervised, task: asyncio.Task[None]) -> None:
        """Say so when keeping a process failed by itself: it is then kept no longer."""
        if not task.cancelled() and (error := task.exception()) is not None:
            item.last_end = f"was lost by the supervisor ({error!r})"
            self._change(item, "failed")
            self._report(f"{item.process.name} {item.last_end}")

    async def _keep(self, item: _Supervised) -> None:
        needed = [self._all[name] for name in item.process.after]
        while not all(other.state == "ready" for other in needed):
            await self._changed.wait()
        while not self._stopping:
            end = await self._live(item)
            if self._stopping:
                break
            if item.halted:
                item.log.note(f"{item.last_end}; halted")
                self._change(item, "halted")
                item.wake.clear()
                await item.wake.wait()
                item.halted, item.history = False, History(item.history.restarts + 1, item.history.reboots)
                continue
            decision = after_end(item.history, end, time.monotonic())
            item.history = decision.history
            item.wake.clear()
            if isinstance(decision, Again):
                item.log.note(f"{item.last_end}; starts again in {decision.pause:g} s")
                self._change(item, "resting")
                await _wait_at_most(item.wake, decision.pause)
            else:
                item.log.note(f"{item.last_end}; given up")
                self._change(item, "failed")
                self._report(str(self._failure(item)))
                await item.wake.wait()
                item.history = History(item.history.restarts, item.history.reboots)
        self._change(item, "stopped")

    async def _live(self, item: _Supervised) -> End:
        """One life of a process, from its start to its end."""
        process = item.process
        item.notified.clear()
        item.was_ready, item.message = False, ""
        if isinstance(process.ready, Path):
            process.ready.unlink(missing_ok=True)
        born = time.monotonic()
        try:
            child = spawn(
                process.argv,
                place=self._place(process.host) if process.host else None,
                environment=self._environment(process.environment),
                directory=self._directory,
                output=item.log.write,
                listening=process.pass_fds,
            )
        except LabError as error:
            item.last_end = f"could not be started ({error.reason})"
            return End(CANNOT_ENTER, 0.0, was_ready=False)
        item.child = child
        item.log.note(f"started as process {child.pid}")
        self._change(item, "starting")
        watching = asyncio.create_task(self._watch_readiness(item, child))
        try:
            code = await asyncio.shield(child.ended)
        finally:
            watching.cancel()
            if not child.ended.done():
                child.signal_group(signal.SIGKILL)
        item.last_end = describe(code)
        item.child = None
        return End(code, time.monotonic() - born, item.was_ready)

    async def _watch_readiness(self, item: _Supervised, child: Child) -> None:
        process = item.process
        try:
            async with asyncio.timeout(process.ready_within):
                if process.ready == "notify":
                    await item.notified.wait()
                elif process.ready == "started":
                    await asyncio.sleep(min(_SETTLING, process.ready_within / 2))
                else:
                    await _appearance(process.ready)
        except TimeoutError:
            item.log.note(f"not ready within {process.ready_within:g} s; killed")
            child.signal_group(signal.SIGKILL)
            return
        item.was_ready = True
        if item.state == "starting":
            self._change(item, "ready")

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """What a process finds in its environment: little, so that nothing depends on who started us."""
        return {
            "PATH": SEARCH_PATH,
            "HOME": os.environ.get("HOME", "/"),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "PYTHONUNBUFFERED": "1",
            **own,
            "NOTIFY_SOCKET": str(self._notices.path),
            **self._common,
        }

    # Verbs

    def _running(self, name: str) -> tuple[_Supervised, Child]:
        item = self._get(name)
        if item.child is None:
            raise LabError(f"{name} is not running ({item.state})", "see `roost demo status`")
        return item, item.child

    def kill(self, name: str) -> int:
        """End a process as a crash would, its children with it; it is started again. Returns its number."""
        _, child = self._running(name)
        child.signal_group(signal.SIGKILL)
        return child.pid

    def halt(self, name: str) -> int:
        """End a process as a crash would, and leave it dead until it is resumed. Returns its number."""
        item, child = self._running(name)
        item.halted = True
        child.signal_group(signal.SIGKILL)
        return child.pid

    def pause(self, name: str) -> None:
        """Stop a process where it stands, as a machine that hangs."""
        item, child = self._running(name)
        child.signal_group(signal.SIGSTOP)
        self._change(item, "paused")

    def resume(self, name: str) -> None:
        """Let a paused process go on, or start one that rests, was halted or was given up."""
        item = self._get(name)
        if item.state == "paused" and item.child is not None:
            item.child.signal_group(signal.SIGCONT)
            self._change(item, "ready" if item.was_ready else "starting")
        item.wake.set()

    def hurry(self) -> None:
        """End everything now."""
        self._stopping = True
        for item in self._all.values():
            if item.child is not None:
                item.child.signal_group(signal.SIGKILL)

    async def stop(self, *, within: float = 6.0) -> None:
        """Ask every process to end; kill what has not at the deadline."""
        self._stopping = True
        for item in self._all.values():
            if item.child is not None:
                item.child.send(signal.SIGTERM)
                item.child.signal_group(signal.SIGCONT)
            elif item.task is not None:
                item.task.cancel()
        tasks = [item.task for item in self._all.values() if item.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            if late:
                self.hurry()
                _, late = await asyncio.wait(tasks, timeout=_AFTER_KILL)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for item in self._all.values():
            self._change(item, "stopped")
            item.log.close()
        self._notices.close()


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _appearance(path: Path) -> None:
    """Wait until a file is there; the caller sets the deadline."""
    appears = path.exists
    while not appears():  # noqa: ASYNC110  nothing tells of a file but the file
        await asyncio.sleep(_FILE_LOOK)
