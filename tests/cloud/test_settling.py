"""A host's life in any order of events, purely: it settles, its waits have ends, restarts have a bound.

The machine here is the decision alone: `care_for` and `decide` are taken again and again, as the controller
does, and what they ask for is answered by a host that chance drives.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roost.cloud.care import Care, care_for
from roost.cloud.contact import Contact
from roost.cloud.examination import ASKED_SECONDS, EXAMINATION_SECONDS, WAITS
from roost.cloud.lifecycle import Known, Plan, decide
from roost.cloud.recovery import LONGEST_PAUSE, RESTART_SECONDS, STEADY_SECONDS
from roost.cloud.states import TESTED
from roost.model import time
from roost.model.configuration import HostConfiguration, HostConfigurationSpec
from roost.model.health import CheckReport, CheckResult, DegradedReason, RecoveryPolicy
from roost.model.host import AdministrativeState, AgentState, Host, HostSpec, HostStatus, Inventory
from roost.model.meta import Metadata
from tests.support.clock import START

TRIES, RESTARTS = 2, 2
DAY = 86400.0
AT_ONE_MOMENT = 6
"""Steps in which everything that follows from the facts of one moment has been said."""


class Life(RuleBasedStateMachine):
    """One host, its configuration, and the clock."""

    @initialize(
        administrative=st.sampled_from(["locked", "unlocked"]),
        knows=st.booleans(),
        tries=st.integers(0, TRIES),
        restarts=st.integers(0, RESTARTS),
    )
    def begin(
        self,
        administrative: AdministrativeState,
        knows: bool,  # noqa: FBT001
        tries: int,
        restarts: int,
    ) -> None:
        self.now, self.boots, self.contact = START, 1, "present"
        self.ordered: list[str] = []
        self.passed: set[tuple[str, str]] = set()
        self.allowances = 1
        self.host = Host(
            metadata=Metadata(name="h", namespace="harbor", generation=1),
            spec=HostSpec(
                administrative_state=administrative,
                recovery=RecoveryPolicy(tries=tries, restarts=restarts),
            ),
            status=HostStatus(
                administrative=administrative,
                inventory=Inventory(),
                health=CheckReport() if knows else None,
                agent=AgentState(boot_id="boot-1"),
            ),
        )
        self.configuration = HostConfiguration(
            metadata=Metadata(name="h", namespace="harbor", generation=1), spec=HostConfigurationSpec()
        )
        self.settle()

    # -- what the controller does

    def step(self) -> tuple[Care, Plan]:
        contact: Contact = self.contact  # type: ignore[assignment]
        before = self.host.status
        care = care_for(self.host, self.configuration, contact, self.now)
        spec = self.configuration.spec
        if care.request is not None:
            spec = msgspec.structs.replace(spec, health=care.request)
        if care.restart:
            assert contact == "present" and before.operational == "disabled", "what serves is not restarted"
            assert before.administrative == "unlocked"
            spec = msgspec.structs.replace(spec, reboot_from=before.agent.boot_id)
            self.ordered.append(before.agent.boot_id)
        self.configuration = msgspec.structs.replace(self.configuration, spec=spec)
        reasons = [DegradedReason(reason=f.alarm_id) for f in care.faults if f.alarm_id == "200.201"]
        known = Known(
            contact=contact, examination=care.examination, recovery=care.recovery, reasons=tuple(reasons)
        )
        plan = decide(self.host, [], known, self.now)
        if before.recovery.counts and not plan.status.recovery.counts:
            self.allowances += 1
        self.host = msgspec.structs.replace(self.host, status=plan.status)
        return care, plan

    def settle(self) -> None:
        """What follows from one moment comes to an end, whatever happened before."""
        for _ in range(AT_ONE_MOMENT):
            before = (self.host, self.configuration)
            care, plan = self.step()
            if (self.host, self.configuration) == before:
                self.again = min((d for d in (care.again_in, plan.again_in) if d is not None), default=None)
                return
        raise AssertionError(f"it does not settle: {self.host.status}")

    # -- what happens

    @rule(seconds=st.floats(0.1, 4000))
    def wait(self, seconds: float) -> None:
        """Time passes; the controller looks when it said it would."""
        end = self.now + timedelta(seconds=seconds)
        for _ in range(200):
            if self.again is None or self.now + timedelta(seconds=self.again) > end:
                break
            self.now += timedelta(seconds=max(self.again, 0.001))
            self.settle()
        else:
            raise AssertionError(f"it looks again without an end: {self.host.status}")
        self.now = end
        self.settle()

    @rule(jump=st.floats(-DAY, DAY))
    def set_the_clock(self, jump: float) -> None:
        self.now += timedelta(seconds=jump)
        self.settle()

    @rule(contact=st.sampled_from(["present", "late", "lost"]))
    def hear(self, contact: Contact) -> None:
        self.contact = contact
        self.settle()

    @rule(state=st.sampled_from(["running", "passed", "failed"]), old=st.booleans())
    def report(self, state: Literal["running", "passed", "failed"], old: bool) -> None:  # noqa: FBT001
        """The host speaks, perhaps of what was asked long ago."""
        request = self.configuration.spec.health
        assume(self.host.status.health is not None and request is not None and self.contact == "present")
        assert request is not None
        name = "long ago" if old else request.id
        check = CheckResult(name="50-raid", state=state)
        said = CheckReport(request=name, boot_id=f"boot-{self.boots}", state=state, checks=[check])
        self.say(health=said)

    @rule()
    def start_anew(self) -> None:
        self.boots += 1
        self.say(agent=AgentState(boot_id=f"boot-{self.boots}"))

    @rule()
    def obey(self) -> None:
        """The host takes the command to restart, if it has one."""
        if self.configuration.spec.reboot_from == f"boot-{self.boots}":
            self.boots += 1
            self.say(agent=AgentState(boot_id=f"boot-{self.boots}"))

    @rule()
    def people_begin_anew(self) -> None:
        self.allowances += 1
        spec = msgspec.structs.replace(self.host.spec, recovery_round=self.host.spec.recovery_round + 1)
        self.host = msgspec.structs.replace(self.host, spec=spec)
        self.settle()

    @rule(state=st.sampled_from(["locked", "unlocked"]))
    def people_lock_or_unlock(self, state: AdministrativeState) -> None:
        """An operation has ended."""
        self.allowances += 1
        spec = msgspec.structs.replace(self.host.spec, administrative_state=state)
        self.host = msgspec.structs.replace(self.host, spec=spec)
        self.say(administrative=state)

    def say(self, **status: object) -> None:
        said = status.get("health")
        if isinstance(said, CheckReport) and said.state == "passed":
            self.passed.add((said.request, said.boot_id))
        changed = msgspec.structs.replace(self.host.status, **status)
        self.host = msgspec.structs.replace(self.host, status=changed)
        self.settle()

    # -- what always holds

    @invariant()
    def restarts_have_a_bound(self) -> None:
        if hasattr(self, "host"):
            most = self.host.spec.recovery.restarts * self.allowances
            assert len(self.ordered) <= most, f"{len(self.ordered)} restarts, {most} allowed"

    @invariant()
    def every_wait_has_a_reason_and_an_end(self) -> None:
        if not hasattr(self, "host"):
            return
        status = self.host.status
        examination, unlocked = status.examination, status.administrative == "unlocked"
        told = next((c for c in status.conditions if c.type == "Healthy"), None)
        if examination.state != "none":
            assert told is not None and told.message
        if unlocked and self.contact == "present" and examination.state in WAITS:
            longest = ASKED_SECONDS if examination.state == "asked" else EXAMINATION_SECONDS
            assert self.again is not None and self.again <= longest + 1
            assert time.parse(examination.deadline) - self.now <= timedelta(seconds=longest + 1)
        if unlocked and self.contact == "present" and examination.state in ("failed", "unwell"):
            on = [c for c in status.recovery.counts if not c.off and c.cause != "heartbeat"]
            off = [c for c in status.recovery.counts if c.off]
            assert on or off
            if on:
                assert self.again is not None and self.again <= max(LONGEST_PAUSE, RESTART_SECONDS) + 1
            else:
                assert told is not None and "recover" in told.message

    @invariant()
    def it_serves_only_what_was_found_fit(self) -> None:
        if not hasattr(self, "host"):
            return
        status = self.host.status
        if status.operational == "enabled":
            assert status.administrative == "unlocked" and self.contact != "lost"
            assert status.examination.state not in (*TESTED, "failed")
        if status.examination.state == "passed":
            verdict = (status.examination.request, status.agent.boot_id)
            assert verdict in self.passed, "an old verdict was taken for a new one"
        if status.availability == "intest":
            assert status.task

    def teardown(self) -> None:
        """Left alone, a host that answers well serves; one that answers ill rests, and is told."""
        if not hasattr(self, "host"):
            return
        self.hear("present")
        self.people_lock_or_unlock("unlocked")
        for _ in range(12):
            self.answer("failed")
            self.wait(LONGEST_PAUSE + 1)
            self.obey()
        # An agent that starts and never says anything more: that comes to an end too.
        self.start_anew()
        for _ in range(12):
            self.wait(LONGEST_PAUSE + 1)
        restarts = len(self.ordered)
        status = self.host.status
        if status.health is not None:
            assert status.availability == "failed" and any(c.off for c in status.recovery.counts), status
        for _ in range(6):
            self.answer("failed")
            self.wait(LONGEST_PAUSE + 1)
        assert len(self.ordered) == restarts, "a loop of restarts"
        self.people_begin_anew()
        for _ in range(3):
            self.answer("passed")
            self.wait(STEADY_SECONDS)
        assert self.host.status.availability == "available", self.host.status
        assert not self.host.status.recovery.counts

    def answer(self, state: Literal["passed", "failed"]) -> None:
        request, said = self.configuration.spec.health, self.host.status.health
        boot = f"boot-{self.boots}"
        if said is None or request is None:
            return
        if (said.request, said.boot_id, said.state) != (request.id, boot, state):
            check = CheckResult(name="50-raid", state=state)
            self.say(health=CheckReport(request=request.id, boot_id=boot, state=state, checks=[check]))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
