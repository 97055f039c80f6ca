"""Checks of a host: which are due, what the platform's own find, and runs that are cut off or overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec
import pytest

from roost.engine.clock import LoopClock
from roost.host.health import FINDING_SECONDS, CheckLoop, Known, due, findings, remembered
from roost.host.hooks import Hook, HookKind
from roost.model import time
from roost.model.configuration import (
    AspectStatus,
    HostConfiguration,
    HostConfigurationSpec,
    HostConfigurationStatus,
)
from roost.model.health import CheckReport, CheckRequest, CheckResult
from roost.model.host import Reading
from roost.model.meta import Metadata
from tests.support.clock import START, on_fake_time

WELL = [Reading(monitor="memory", level="normal")]


def configured(
    request: str = "", *, drain: str = "", applied: int = 1, aspects: Sequence[AspectStatus] = ()
) -> HostConfiguration:
    return HostConfiguration(
        metadata=Metadata(name="h", namespace="harbor", generation=1),
        spec=HostConfigurationSpec(
            health=CheckRequest(id=request, deadline_seconds=7, requested_at=time.stamp(START))
            if request
            else None,
            drain=CheckRequest(id=drain) if drain else None,
        ),
        status=HostConfigurationStatus(applied_generation=applied, aspects=list(aspects)),
    )


class Hooks:
    """Executables that take their time and say what they are told to."""

    def __init__(self, *names: str) -> None:
        self.names, self.seconds = names, 1.0
        self.says: dict[str, CheckResult] = {}
        self.ran: list[tuple[str, float]] = []
        self.cut = 0

    async def listed(self, kind: HookKind) -> Sequence[Hook]:
        return [Hook(n) for n in self.names]

    async def run(self, hook: Hook, seconds: float, environment: Mapping[str, str]) -> CheckResult:
        if hook.problem:
            return CheckResult(name=hook.name, state="failed", message=hook.problem)
        self.ran.append((hook.name, seconds))
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        return self.says.get(hook.name, CheckResult(name=hook.name, state="passed"))


class Bench:
    """A CheckLoop at work; `reports` is what it told."""

    def __init__(self, kind: HookKind, hooks: Hooks, configuration: HostConfiguration) -> None:
        self.known = Known(configuration=configuration, readings=WELL)
        self.boot, self.reports = "boot-1", list[CheckReport]()
        self.loop = CheckLoop(
            kind,
            hooks,
            boot_id=lambda: self.boot,
            incarnation="i",
            environment={},
            clock=LoopClock(START),
            known=lambda: self.known,
            publish=self._publish,
        )
        self.task = asyncio.ensure_future(self.loop.run())

    async def _publish(self) -> None:
        self.reports.append(self.loop.report)

    def configure(self, configuration: HostConfiguration) -> None:
        self.known = msgspec.structs.replace(self.known, configuration=configuration)
        self.loop.wake()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def states(report: CheckReport) -> dict[str, str]:
    return {c.name: c.state for c in report.checks}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (CheckReport(), True),
        (CheckReport(request="r", boot_id="b", state="passed"), False),
        (CheckReport(request="r", boot_id="b", state="failed"), False),
        (CheckReport(request="r", boot_id="b", state="running"), True),
        (CheckReport(request="q", boot_id="b", state="passed"), True),
        (CheckReport(request="r", boot_id="a", state="passed"), True),
    ],
)
def test_each_request_is_answered_once_for_each_start(report: CheckReport, expected: bool) -> None:  # noqa: FBT001
    assert due(CheckRequest(id="r"), "b", report) is expected
    assert not due(None, "b", report)


def test_a_run_that_was_cut_off_is_not_remembered() -> None:
    for state in ("idle", "running"):
        assert remembered(CheckReport(request="r", state=state)) == CheckReport()
    done = CheckReport(request="r", state="failed")
    assert remembered(done) == done and remembered(None) == CheckReport()


def found(known: Known, late: float = 0.0) -> dict[str, str]:
    request = CheckRequest(id="r", requested_at=time.stamp(START))
    return {f.name: f.state for f in findings(known, request, START + timedelta(seconds=late))}


def test_what_the_platform_finds() -> None:
    well = Known(configuration=configured("r"), readings=WELL)
    assert set(found(well).values()) == {"passed"}
    assert found(Known(readings=WELL))["configuration"] == "running"
    assert found(msgspec.structs.replace(well, readings=[]))["readings"] == "running"
    full = [Reading(monitor="memory", level="critical"), Reading(monitor="processor", level="critical")]
    assert found(msgspec.structs.replace(well, readings=full))["readings"] == "running"
    assert found(msgspec.structs.replace(well, readings=full[1:]))["readings"] == "passed"
    behind = configured("r", applied=0)
    assert found(msgspec.structs.replace(well, configuration=behind))["configuration"] == "running"
    bad = AspectStatus(aspect="firewall", state="rolled-back", generation=1, message="the link died")
    back = configured("r", applied=0, aspects=[bad])
    (first, *_) = findings(msgspec.structs.replace(well, configuration=back), CheckRequest(id="r"), START)
    assert (first.state, first.message) == ("failed", "firewall rolled-back: the link died")
    assert found(well, late=-200)["clock"] == "passed"
    assert found(well, late=-400)["clock"] == "running", "a clock that is behind its cloud's request"
    ended = msgspec.structs.replace(well, certificate_expires_at=time.seconds(START))
    assert found(ended, late=10)["clock"] == "running"


@on_fake_time
async def test_checks_run_one_after_the_other_and_each_is_told() -> None:
    hooks = Hooks("10-a", "20-b")
    it = Bench("health", hooks, configured("r"))
    await asyncio.sleep(0.5)
    assert states(it.loop.report) == {
        "configuration": "passed",
        "readings": "passed",
        "clock": "passed",
        "10-a": "running",
        "20-b": "pending",
    }
    await asyncio.sleep(1)
    assert states(it.loop.report)["20-b"] == "running"
    await asyncio.sleep(1)
    report = it.loop.report
    assert (report.state, report.request, report.boot_id, report.incarnation) == (
        "passed",
        "r",
        "boot-1",
        "i",
    )
    assert hooks.ran == [("10-a", 7.0), ("20-b", 7.0)]
    told = len(it.reports)
    await asyncio.sleep(3600)
    it.loop.wake()
    await asyncio.sleep(60)
    assert len(it.reports) == told, "once"
    it.boot = "boot-2"
    it.loop.wake()
    await asyncio.sleep(10)
    assert it.loop.report.boot_id == "boot-2" and len(hooks.ran) == 4, "once for each start"
    await it.stop()


@on_fake_time
async def test_one_that_fails_fails_all_and_the_others_are_run_all_the_same() -> None:
    hooks = Hooks("10-a", "20-b", "30-c")
    hooks.says["20-b"] = CheckResult(name="20-b", state="timed-out", message="late")
    it = Bench("health", hooks, configured("r"))
    await asyncio.sleep(10)
    assert it.loop.report.state == "failed"
    assert states(it.loop.report)["30-c"] == "passed"
    await it.stop()


@on_fake_time
async def test_what_waits_too_long_has_failed() -> None:
    it = Bench("health", Hooks(), configured("r", applied=0))
    await asyncio.sleep(FINDING_SECONDS - 5)
    assert states(it.loop.report)["configuration"] == "running"
    await asyncio.sleep(10)
    assert it.loop.report.state == "failed" and states(it.loop.report)["configuration"] == "failed"
    it.configure(configured("s", applied=0))
    await asyncio.sleep(5)
    it.configure(configured("s"))
    await asyncio.sleep(5)
    assert set(states(it.loop.report).values()) == {"passed"}, "it came into force while it was waited for"
    await it.stop()


@on_fake_time
async def test_another_request_ends_the_run_of_the_one_before() -> None:
    hooks = Hooks("10-a")
    hooks.seconds = 100.0
    it = Bench("health", hooks, configured("r"))
    await asyncio.sleep(5)
    it.configure(configured("s"))
    await asyncio.sleep(5)
    assert (it.loop.report.request, hooks.cut, len(hooks.ran)) == ("s", 1, 2)
    await it.stop()
    assert hooks.cut == 2, "an agent that ends leaves nothing running"


@on_fake_time
async def test_all_together_may_take_so_long_only() -> None:
    hooks = Hooks(*(f"{n:02}" for n in range(20)))
    hooks.seconds = 100.0
    it = Bench("health", hooks, configured("r"))
    await asyncio.sleep(3600)
    late = [c for c in it.loop.report.checks if c.state == "timed-out"]
    assert len(hooks.ran) == 9 and len(late) == 11 and "not run" in late[0].message
    await it.stop()


@on_fake_time
async def test_an_executable_with_the_name_of_a_check_of_the_platform_hides_nothing() -> None:
    hooks = Hooks("readings", "clock")
    it = Bench("health", hooks, configured("r"))
    await asyncio.sleep(10)
    assert states(it.loop.report) == {
        "configuration": "passed",
        "readings": "passed",
        "clock": "passed",
        "readings (executable)": "failed",
        "clock (executable)": "failed",
    }
    await it.stop()


@on_fake_time
async def test_drain_hooks_are_asked_until_all_has_left_or_nobody_wants_it() -> None:
    hooks = Hooks("50-move")
    hooks.says["50-move"] = CheckResult(name="50-move", state="failed", message="two pods left")
    it = Bench("drain", hooks, configured(drain="d"))
    await asyncio.sleep(60)
    assert it.loop.report.state == "running" and it.loop.report.checks[0].message == "two pods left"
    assert 5 < len(hooks.ran) < 15
    hooks.says.clear()
    await asyncio.sleep(10)
    assert (it.loop.report.state, it.loop.report.request) == ("passed", "d")
    hooks.says["50-move"] = CheckResult(name="50-move", state="failed")
    it.configure(configured(drain="e"))
    await asyncio.sleep(30)
    ran = len(hooks.ran)
    it.configure(configured())
    await asyncio.sleep(300)
    assert len(hooks.ran) <= ran + 1, "nobody wants it any more"
    await it.stop()


@on_fake_time
async def test_a_host_without_drain_hooks_has_nothing_that_has_to_leave() -> None:
    it = Bench("drain", Hooks(), configured(drain="d"))
    await asyncio.sleep(1)
    assert it.loop.report.state == "passed"
    await it.stop()
