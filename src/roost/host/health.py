"""Checks of a host: which are due, what the platform's own ones find, and their runs.

A cloud asks with a `CheckRequest` in the HostConfiguration. The agent answers each request once for each
start of the machine (`due`), with a `CheckReport` that names both: first the platform's own checks
(`findings`, pure), which may wait for a while, then the executables of `health.d` one after the other
(hooks.py). A run that another request overtakes is ended. A report is kept with the Host in the agent's
store, so a new agent in the same start goes on from a finished one and repeats one that was cut off.

The hooks of `drain.d` work alike, except that they are asked again while one says no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from roost.host.hooks import Hook, HookKind, Hooks
from roost.model import time
from roost.model.configuration import HostConfiguration, is_in_force
from roost.model.health import LONGEST_LINE, CheckReport, CheckRequest, CheckResult, CheckState
from roost.model.host import Inventory, Reading

FINDING_SECONDS = 60.0
"""How long a check of the platform may wait for what it wants to find."""
TOTAL_SECONDS = 840.0
"""All executables together; the cloud waits a little longer."""
_LOOK = 0.5
_DRAIN_AGAIN = 5.0
_CLOCK_SLACK = timedelta(minutes=5)


class Finding(msgspec.Struct, frozen=True):
    """What a check of the platform finds; one that is `running` may still come out well."""

    name: str
    state: CheckState
    message: str = ""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform's own checks look at."""

    configuration: HostConfiguration | None = None
    inventory: Inventory | None = None
    readings: list[Reading] = []
    certificate_expires_at: str = ""


def due(request: CheckRequest | None, boot_id: str, report: CheckReport) -> bool:
    """Whether the checks have to be run: nobody finished them for this request and start."""
    if request is None:
        return False
    answered = (report.request, report.boot_id) == (request.id, boot_id)
    return not answered or report.state not in ("passed", "failed")


def remembered(report: CheckReport | None) -> CheckReport:
    """What a new agent goes on from: a finished report, or none."""
    return report if report is not None and report.state in ("passed", "failed") else CheckReport()


def findings(known: Known, request: CheckRequest, now: datetime) -> list[Finding]:
    """The platform's own checks."""
    return [_configuration(known.configuration), _readings(known.readings), _clock(known, request, now)]


def _configuration(configuration: HostConfiguration | None) -> Finding:
    name = "configuration"
    if configuration is None:
        return Finding(name, "running", "there is no configuration yet; look at the link")
    generation = configuration.metadata.generation
    bad = [a for a in configuration.status.aspects if a.state in ("failed", "rolled-back")]
    why = "; ".join(f"{a.aspect} {a.state}: {a.message}" for a in bad)
    if is_in_force(configuration):
        return Finding(name, "passed", f"generation {generation} is in force")
    # What was taken back is not tried again soon; what failed is, while we wait.
    final = any(a.state == "rolled-back" and a.generation == generation for a in bad)
    return Finding(name, "failed" if final else "running", why or f"generation {generation} is not in force")


def _readings(readings: list[Reading]) -> Finding:
    name = "readings"
    if not readings:
        return Finding(name, "running", "the monitors have not told anything yet")
    # Busy processors are an alarm, but no reason to keep a host out of service.
    bad = [r for r in readings if r.level == "critical" and r.monitor != "processor"]
    if not bad:
        return Finding(name, "passed", "nothing is critical")
    worst = "; ".join(r.message or f"{r.monitor} {r.instance} is critical" for r in bad)
    return Finding(name, "running", f"{worst}; make room or mend it")


def _clock(known: Known, request: CheckRequest, now: datetime) -> Finding:
    name = "clock"
    if request.requested_at and now < time.parse(request.requested_at) - _CLOCK_SLACK:
        early = (
            f"the clock says {time.seconds(now)}, which is before its cloud asked ({request.requested_at})"
        )
        return Finding(name, "running", f"{early}; set the clock, look at its time servers")
    end = known.certificate_expires_at
    if end and now > time.parse(end):
        late = f"the clock says {time.seconds(now)} and its certificate ended at {end}"
        return Finding(name, "running", f"{late}; set the clock, or enrol the host anew")
    synchronised = known.inventory.clock.synchronised if known.inventory else None
    told = {True: "synchronised", False: "plausible, not synchronised", None: "plausible"}
    return Finding(name, "passed", told[synchronised])


class CheckLoop:
    """Answers the requests of one kind. `run` until cancelled; `wake` when the configuration has changed."""

    def __init__(
        self,
        kind: HookKind,
        hooks: Hooks,
        *,
        boot_id: Callable[[], str],
        incarnation: str,
        environment: Mapping[str, str],
        clock: Callable[[], datetime],
        known: Callable[[], Known],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._kind, self._hooks, self._boot_id, self._incarnation = kind, hooks, boot_id, incarnation
        self._environment = {**environment, "ROOST_CHECK": kind}
        self._clock, self._known, self._publish = clock, known, publish
        self._wake = asyncio.Event()
        self.report = CheckReport()

    def wake(self) -> None:
        """The configuration has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Answer each request."""
        running: asyncio.Task[None] | None = None
        answering: tuple[str, str] = ("", "")
        try:
            while True:
                self._wake.clear()
                request, boot = self._request(), self._boot_id()
                wanted = (request.id, boot) if request is not None else ("", "")
                if running is not None and (wanted != answering or running.done()):
                    await _end(running)
                    running = None
                if running is None and request is not None and due(request, boot, self.report):
                    answering = wanted
                    running = asyncio.create_task(self._answer(request, boot))
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({woken, running} if running else {woken}, return_when="FIRST_COMPLETED")
                await _end(woken)
        finally:
            if running is not None:
                await _end(running)

    def _request(self) -> CheckRequest | None:
        configuration = self._known().configuration
        if configuration is None:
            return None
        return configuration.spec.health if self._kind == "health" else configuration.spec.drain

    async def _answer(self, request: CheckRequest, boot: str) -> None:
        self.report = CheckReport(
            request=request.id,
            boot_id=boot,
            incarnation=self._incarnation,
            state="running",
            started_at=time.stamp(self._clock()),
        )
        await self._publish()
        if self._kind == "health":
            await self._find(request)
            await self._run_hooks(request)
            return await self._finish()
        while True:
            await self._run_hooks(request)
            if all(c.state == "passed" for c in self.report.checks):
                return await self._finish()
            await asyncio.sleep(_DRAIN_AGAIN)

    async def _finish(self) -> None:
        passed = all(c.state == "passed" for c in self.report.checks)
        await self._tell(state="passed" if passed else "failed", finished_at=time.stamp(self._clock()))

    async def _find(self, request: CheckRequest) -> None:
        """The platform's own checks, until none waits or their time is over."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            found = findings(self._known(), request, self._clock())
            waits = any(f.state == "running" for f in found)
            over = loop.time() - started >= FINDING_SECONDS
            if over or not waits:
                found = [
                    msgspec.structs.replace(f, state="failed") if f.state == "running" else f for f in found
                ]
            took = round(loop.time() - started, 1) if over or not waits else 0.0
            checks = [
                CheckResult(name=f.name, state=f.state, message=f.message[:LONGEST_LINE], seconds=took)
                for f in found
            ]
            if checks != self.report.checks:
                await self._tell(checks=checks)
            if over or not waits:
                return
            await asyncio.sleep(_LOOK)

    async def _run_hooks(self, request: CheckRequest) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + TOTAL_SECONDS
        own = [c for c in self.report.checks if self._kind == "health"]
        hooks = [_apart(h, own) for h in await self._hooks.listed(self._kind)]
        results = {h.name: CheckResult(name=h.name, state="pending") for h in hooks}
        for hook in hooks:
            left = ends - loop.time()
            results[hook.name] = CheckResult(name=hook.name, state="running")
            await self._tell(checks=[*own, *results.values()])
            if left <= 0:
                late = f"not run: all checks together may take {TOTAL_SECONDS:.0f} seconds; make them shorter"
                results[hook.name] = CheckResult(name=hook.name, state="timed-out", message=late)
            else:
                seconds = min(float(request.deadline_seconds), left)
                results[hook.name] = await self._hooks.run(hook, seconds, self._environment)
        await self._tell(checks=[*own, *results.values()])

    async def _tell(self, **changes: object) -> None:
        self.report = msgspec.structs.replace(self.report, **changes)
        await self._publish()


def _apart(hook: Hook, own: list[CheckResult]) -> Hook:
    """One with a name of the platform's own checks would hide that check, or be hidden by it."""
    if hook.name not in {c.name for c in own}:
        return hook
    problem = f"{hook.path} has the name of a check of the platform's own; rename it"
    return Hook(f"{hook.name} (executable)", hook.path, problem)


async def _end(task: asyncio.Task[Any]) -> None:
    """End a task and wait for it; what it failed with is raised."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
