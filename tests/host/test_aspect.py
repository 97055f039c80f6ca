"""Trial and rollback, on a fake world with a fake clock: every path by table, every order by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roost.host.aspect import (
    AUDIT_SECONDS,
    AspectError,
    AspectFacts,
    AspectOutcome,
    MemoryFile,
    Recollection,
    TrialRunner,
    boot_id,
    boottime,
)
from roost.host.trial import RETRY_PAUSES, Current, LinkProof, Memory, Version, Wanted
from roost.model.configuration import AspectStatus

CONFIRM = 20.0


class Killed(BaseException):
    """The process dies here."""


class World:
    """What a kernel holds; content is `good-*` or `bad-*`, and under bad no new connection gets through."""

    def __init__(self) -> None:
        self.content: str | None = None
        self.tampered = False
        self.installs: list[str | None] = []
        self.broken: AspectError | None = None
        self.refuses: set[str] = set()
        self.die: str = ""
        self.on_install: Any = None

    async def read(self) -> Current:
        if self.broken:
            raise self.broken
        if self.content is None:
            return Current(False)
        digest = "" if self.tampered else f"digest of {self.content}"
        return Current(True, digest, f"fingerprint of {self.content} {self.tampered}", self.content)

    async def check(self, version: Version) -> None:
        if version.content in self.refuses:
            raise AspectError("no such thing", "say it otherwise")

    async def install(self, version: Version) -> None:
        if self.broken:
            raise self.broken
        if self.die == "before":
            raise Killed
        if self.on_install:
            self.on_install(version)
        self.content, self.tampered = version.content, False
        self.installs.append(version.content)
        if self.die == "after":
            raise Killed

    def lines(self, current: Current, version: Version) -> Sequence[str]:
        return [f"{current.content} becomes {version.content}"]


class MemoryDisk(MemoryFile):
    """A disk that is a variable."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.full = False

    def load(self) -> Recollection | None:
        return None if self.data is None else msgspec.json.decode(self.data, type=Recollection)

    def save(self, recollection: Recollection) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.data = msgspec.json.encode(recollection)


class Host:
    """A process with a TrialRunner on a machine that may be killed, restarted, cut off."""

    def __init__(self) -> None:
        self.world, self.disk = World(), MemoryDisk()
        self.time, self.boot, self.wall = 1000.0, "first", 1_700_000_000.0
        self.link_up = True
        self.proof: LinkProof | None = None
        self.runner = self.start()

    def start(self) -> TrialRunner:
        self.proof = None
        self.world.die = ""
        self.runner = TrialRunner("fake", self.world, self.disk, lambda: self.time)
        return self.runner

    def reboot(self) -> None:
        self.world.content, self.boot, self.time = None, self.boot + "+", 5.0
        self.start()

    def prove(self) -> None:
        """Dial anew; it gets through unless what is in force forbids it."""
        self.time += 0.1
        if self.link_up and not (self.world.content or "").startswith("bad"):
            self.proof = LinkProof(self.time, self.time)

    def facts(self) -> AspectFacts:
        return AspectFacts(
            now=datetime.fromtimestamp(self.wall + self.time, UTC),
            boottime=self.time,
            boot_id=self.boot,
            link_up=self.link_up,
            link_proof=self.proof,
        )

    async def want(self, generation: int, content: str | None) -> AspectStatus:
        return (await self.outcome(generation, content)).status

    async def outcome(self, generation: int, content: str | None) -> AspectOutcome:
        digest = "" if content is None else f"digest of {content}"
        wanted = Wanted(Version(generation, digest, content), CONFIRM)
        return await self.runner.reconcile(wanted, self.facts())

    async def settle(self, generation: int, content: str) -> None:
        """Bring a good version to `applied`."""
        await self.want(generation, content)
        self.time += 1
        self.prove()
        assert (await self.want(generation, content)).state == "applied"

    def memory(self) -> Memory:
        recollection = self.disk.load()
        assert recollection is not None
        return recollection.memory


@pytest.fixture
def host() -> Host:
    return Host()


async def test_a_new_version_is_on_trial_until_the_link_is_proven(host: Host) -> None:
    outcome = await host.outcome(1, "good-a")
    assert outcome.status.state == "trial" and outcome.link_proof_wanted
    assert outcome.again_seconds == CONFIRM
    assert outcome.status.plan == ["None becomes good-a"]
    host.time += 1
    host.prove()
    outcome = await host.outcome(1, "good-a")
    assert outcome.status.state == "applied" and not outcome.link_proof_wanted
    assert outcome.again_seconds == AUDIT_SECONDS
    assert outcome.status.plan == ["None becomes good-a"]
    assert host.world.installs == ["good-a"]


async def test_an_established_connection_proves_nothing(host: Host) -> None:
    host.proof = LinkProof(host.time, host.time)
    host.time += 1
    await host.want(1, "bad-a")
    host.time += 5
    host.proof = LinkProof(dialled_at=1000.0, completed_at=host.time)
    assert (await host.want(1, "bad-a")).state == "trial"


async def test_without_proof_the_former_version_returns(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "bad-b")
    host.time += CONFIRM - 0.5
    assert (await host.want(2, "bad-b")).state == "trial"
    host.time += 0.5
    status = await host.want(2, "bad-b")
    assert status.state == "rolled-back" and host.world.content == "good-a"
    assert "20 seconds" in status.message and "try 2 of 4" in status.message
    assert status.plan == ["take back the trial", "bad-b becomes good-a"]
    assert status.tries == 1 and status.next_try_at
    for _ in range(3):
        host.time += 15
        again = await host.want(2, "bad-b")
        assert (again.state, again.next_try_at) == ("rolled-back", status.next_try_at), "told once"
    host.start()
    assert (await host.want(2, "bad-b")).state == "rolled-back"
    assert host.world.installs == ["good-a", "bad-b", "good-a"]
    await host.settle(3, "good-c")


async def rolled_back(host: Host, generation: int, content: str) -> AspectStatus:
    """Go on until a trial has ended without proof."""
    assert (await host.want(generation, content)).state == "trial"
    host.time += CONFIRM
    status = await host.want(generation, content)
    assert status.state == "rolled-back"
    return status


async def test_what_was_taken_back_by_chance_is_in_force_at_the_next_try(host: Host) -> None:
    await host.settle(1, "good-a")
    host.link_up = True
    await rolled_back(host, 2, "good-b")
    host.link_up = False
    host.time += RETRY_PAUSES[0] + 1
    outcome = await host.outcome(2, "good-b")
    assert outcome.status.state == "rolled-back" and not outcome.link_proof_wanted, "there is no link to ask"
    host.link_up = True
    outcome = await host.outcome(2, "good-b")
    assert outcome.status.state == "rolled-back" and outcome.link_proof_wanted, (
        "a new connection is asked for"
    )
    host.prove()
    assert (await host.want(2, "good-b")).state == "trial"
    host.time += 1
    host.prove()
    status = await host.want(2, "good-b")
    assert (status.state, status.tries, status.next_try_at) == ("applied", 0, "")
    assert host.world.content == "good-b" and host.memory().refused == ()


async def test_what_cuts_the_link_is_tried_so_often_with_growing_pauses_and_never_again(host: Host) -> None:
    await host.settle(1, "good-a")
    await rolled_back(host, 2, "bad-b")
    for number, pause in enumerate(RETRY_PAUSES, 2):
        host.time += pause - 1
        host.prove()
        assert (await host.want(2, "bad-b")).state == "rolled-back", "not before its time"
        host.start()
        host.time += 2
        host.prove()
        # Whatever else changes in the configuration: this is the same that was taken back.
        status = await rolled_back(host, 2 + number, "bad-b")
        assert status.tries == number
    assert "After 4 tries it is not tried again" in status.message and not status.next_try_at
    installs = len(host.world.installs)
    for _ in range(20):
        host.time += 100_000
        host.prove()
        outcome = await host.outcome(9, "bad-b")
        assert outcome.status.state == "rolled-back" and not outcome.link_proof_wanted
    assert len(host.world.installs) == installs
    await host.settle(10, "good-a")
    assert (await host.want(11, "bad-b")).state == "trial", "it was given up, and is asked for anew"


async def test_a_restart_of_the_machine_neither_forgets_tries_nor_hurries_them(host: Host) -> None:
    await host.settle(1, "good-a")
    await rolled_back(host, 2, "bad-b")
    host.time += RETRY_PAUSES[0] - 1
    host.reboot()
    host.time += 30
    host.prove()
    status = await host.want(2, "bad-b")
    assert (status.state, status.tries) == ("rolled-back", 1)
    assert host.world.content == "good-a"
    host.time += RETRY_PAUSES[0]
    host.prove()
    assert (await rolled_back(host, 2, "bad-b")).tries == 2


async def test_memory_of_a_version_that_did_not_count_tries_is_kept_to(host: Host) -> None:
    await host.settle(1, "good-a")
    await rolled_back(host, 2, "bad-b")
    assert host.disk.data is not None
    raw = msgspec.json.decode(host.disk.data)
    for refusal in raw["memory"]["refused"]:
        for name in ("tries", "boot_id", "at"):
            del refusal[name]
    host.disk.data = msgspec.json.encode(raw)
    host.start()
    host.time += 10_000
    host.prove()
    assert (await host.want(2, "bad-b")).state == "rolled-back"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "prove", "cut", "mend", "restart", "reboot"]),
            st.floats(0.1, 5000),
        ),
        max_size=60,
    )
)
@settings(deadline=None, max_examples=60)
def test_whatever_happens_bad_content_is_tried_so_often_only(events: list[tuple[str, float]]) -> None:
    async def live() -> None:
        host = Host()
        await host.settle(1, "good-a")
        for generation, (event, seconds) in enumerate(events, 2):
            if event in ("cut", "mend"):
                host.link_up = event == "mend"
            elif event == "restart":
                host.start()
            elif event == "reboot":
                host.reboot()
            else:
                host.time += seconds
            if event == "prove":
                host.prove()
            outcome = await host.outcome(generation, "bad-b")
            waits = outcome.status.state in ("trial", "rolled-back", "pending")
            assert waits and outcome.status.message and outcome.again_seconds is not None
        assert host.world.installs.count("bad-b") <= len(RETRY_PAUSES) + 1

    asyncio.run(live())


async def test_the_first_version_rolls_back_to_nothing(host: Host) -> None:
    await host.want(1, "bad-a")
    host.time += CONFIRM
    assert (await host.want(1, "bad-a")).state == "rolled-back"
    assert host.world.content is None


async def test_proof_that_came_after_the_deadline_is_too_late(host: Host) -> None:
    await host.want(1, "good-a")
    host.time += CONFIRM + 1
    host.prove()
    assert (await host.want(1, "good-a")).state == "rolled-back"


async def test_proof_in_time_counts_even_when_asked_late(host: Host) -> None:
    await host.want(1, "good-a")
    host.time += 1
    host.prove()
    host.time += CONFIRM
    assert (await host.want(1, "good-a")).state == "applied"


@pytest.mark.parametrize("jump", [-1e6, 1e6])
async def test_the_wall_clock_does_not_matter(host: Host, jump: float) -> None:
    await host.want(1, "bad-a")
    host.wall += jump
    host.time += CONFIRM - 1
    assert (await host.want(1, "bad-a")).state == "trial"
    host.time += 1
    assert (await host.want(1, "bad-a")).state == "rolled-back"


async def test_no_trial_begins_without_a_link(host: Host) -> None:
    await host.settle(1, "good-a")
    host.link_up = False
    status = await host.want(2, "good-b")
    assert status.state == "pending" and status.plan == ["good-a becomes good-b"]
    assert "link" in status.message and "generation 1" in status.message
    assert host.world.content == "good-a"
    host.link_up = True
    assert (await host.want(2, "good-b")).state == "trial"


async def test_the_former_version_is_on_disk_before_the_world_changes(host: Host) -> None:
    await host.settle(1, "good-a")
    seen = []
    host.world.on_install = lambda version: seen.append(host.memory())
    await host.want(2, "good-b")
    (memory,) = seen
    assert memory.baseline.content == "good-a"
    assert memory.trial is not None and memory.trial.version.content == "good-b"


async def test_a_disk_that_is_full_stops_the_change(host: Host) -> None:
    await host.settle(1, "good-a")
    host.disk.full = True
    status = await host.want(2, "good-b")
    assert status.state == "failed" and "No space left" in status.message
    assert host.world.content == "good-a"
    host.disk.full = False
    assert (await host.want(2, "good-b")).state == "trial"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("die", ["before", "after"])
async def test_killed_at_the_install_the_next_process_carries_on(host: Host, die: str, late: bool) -> None:  # noqa: FBT001
    await host.settle(1, "good-a")
    host.world.die = die
    with pytest.raises(Killed):
        await host.want(2, "bad-b")
    host.start()
    host.time += CONFIRM + 1 if late else 1
    status = await host.want(2, "bad-b")
    if die == "after" and late:
        assert status.state == "rolled-back" and host.world.content == "good-a"
        return
    assert status.state == "trial" and host.world.content == "bad-b"
    host.time += CONFIRM
    assert (await host.want(2, "bad-b")).state == "rolled-back"
    assert host.world.content == "good-a"


async def test_killed_during_the_trial_the_deadline_stays(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "good-b")
    host.time += CONFIRM / 2
    host.start()
    outcome = await host.outcome(2, "good-b")
    assert outcome.status.state == "trial" and outcome.again_seconds == CONFIRM / 2
    host.prove()
    assert (await host.want(2, "good-b")).state == "applied"


async def test_killed_during_the_trial_past_the_deadline_it_rolls_back_first(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "good-b")
    host.time += CONFIRM + 1
    host.start()
    host.prove()
    assert (await host.want(3, "good-c")).state == "trial"
    assert host.world.installs == ["good-a", "good-b", "good-a", "good-c"]


async def test_a_restart_of_the_machine_puts_back_what_was_proven_without_link_or_trial(host: Host) -> None:
    await host.settle(1, "good-a")
    host.reboot()
    host.link_up = False
    assert (await host.want(2, "good-b")).state == "pending"
    assert host.world.content == "good-a"
    host.reboot()
    status = (await host.runner.hold(host.facts(), None, None)).status
    assert status.state == "applied" and status.generation == 1 and host.world.content == "good-a"


async def test_a_restart_of_the_machine_ends_a_trial(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "good-b")
    host.reboot()
    status = await host.want(2, "good-b")
    assert status.state == "rolled-back" and "restarted" in status.message
    assert host.world.content == "good-a"


async def test_tampering_is_repaired_without_trial(host: Host) -> None:
    await host.settle(1, "good-a")
    host.world.tampered = True
    host.link_up = False
    status = await host.want(1, "good-a")
    assert status.state == "applied" and not host.world.tampered
    host.world.content = None
    assert (await host.want(1, "good-a")).state == "applied"
    assert host.world.installs == ["good-a"] * 3


async def test_tampering_during_a_trial_ends_it(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "good-b")
    host.world.tampered = True
    status = await host.want(2, "good-b")
    assert status.state == "rolled-back" and "another program" in status.message
    assert host.world.content == "good-a" and not host.world.tampered


async def test_the_same_content_under_a_new_generation_executes_nothing(host: Host) -> None:
    await host.settle(1, "good-a")
    host.link_up = False
    status = await host.want(2, "good-a")
    assert status.state == "applied" and status.generation == 2
    assert host.world.installs == ["good-a"]


async def test_a_newer_generation_waits_for_the_end_of_a_trial(host: Host) -> None:
    await host.want(1, "good-a")
    assert (await host.want(2, "good-b")).state == "trial"
    assert host.world.content == "good-a"
    host.time += 1
    host.prove()
    assert (await host.want(2, "good-b")).state == "trial"
    assert host.world.content == "good-b"


async def test_absence_is_brought_about_at_once(host: Host) -> None:
    await host.settle(1, "good-a")
    host.link_up = False
    status = await host.want(2, None)
    assert status.state == "applied" and host.world.content is None
    assert status.plan == ["good-a becomes None"]
    installs = list(host.world.installs)
    assert (await host.want(3, None)).generation == 3
    assert host.world.installs == installs
    host.link_up = True
    await host.want(4, "bad-b")
    assert (await host.want(5, None)).state == "applied"
    assert host.world.content is None and host.memory().trial is None


async def test_what_cannot_be_checked_is_never_put_into_force(host: Host) -> None:
    await host.settle(1, "good-a")
    host.world.refuses = {"good-b"}
    outcome = await host.outcome(2, "good-b")
    assert outcome.status.state == "failed" and "say it otherwise" in outcome.status.message
    assert outcome.again_seconds and host.world.installs == ["good-a"]
    host.world.refuses = set()
    assert (await host.want(2, "good-b")).state == "trial"


async def test_a_failure_during_a_trial_is_told_and_tried_again_soon(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "bad-b")
    host.time += CONFIRM
    host.world.broken = AspectError("it is gone", "install it")
    outcome = await host.outcome(2, "bad-b")
    assert outcome.status.state == "failed" and "install it" in outcome.status.message
    assert outcome.again_seconds is not None and outcome.again_seconds < 5
    host.world.broken = None
    assert (await host.want(2, "bad-b")).state == "rolled-back"
    assert host.world.content == "good-a"


async def test_intent_that_cannot_be_understood_leaves_the_trial_its_course(host: Host) -> None:
    await host.settle(1, "good-a")
    await host.want(2, "bad-b")
    problem = AspectError("not a port", "write a port")
    assert (await host.runner.hold(host.facts(), 3, problem)).status.state == "trial"
    host.time += CONFIRM
    status = (await host.runner.hold(host.facts(), 3, problem)).status
    assert status.state == "failed" and status.generation == 3 and "write a port" in status.message
    assert host.world.content == "good-a"


async def test_lost_memory_takes_the_world_as_found(host: Host) -> None:
    await host.settle(1, "good-a")
    host.disk.data = None
    host.start()
    assert (await host.want(1, "good-a")).state == "applied"
    assert host.world.installs == ["good-a"]
    host.disk.data = None
    host.start()
    await host.want(2, "bad-b")
    host.time += CONFIRM
    assert (await host.want(2, "bad-b")).state == "rolled-back"
    assert host.world.content == "good-a"


async def test_the_time_of_change_moves_only_with_the_state(host: Host) -> None:
    await host.settle(1, "good-a")
    first = await host.want(1, "good-a")
    host.time += 500
    host.start()
    assert await host.want(1, "good-a") == first


def test_memory_is_durable_private_and_put_aside_when_unreadable(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "state" / "fake.json")
    assert file.load() is None
    kept = Recollection(Memory(Version(1, "d", ["x"])), AspectStatus(aspect="fake", state="applied"))
    file.save(kept)
    assert file.load() == kept
    path = tmp_path / "state" / "fake.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"{")
    assert file.load() is None
    assert path.with_suffix(".unreadable").read_bytes() == b"{"


def test_the_clock_of_the_machine() -> None:
    assert boottime() <= boottime()
    assert len(boot_id()) == 36
    facts = AspectFacts.gather(link_up=True, link_proof=None)
    assert facts.boot_id == boot_id() and facts.now.tzinfo is UTC


class Life(RuleBasedStateMachine):
    """A host's life in any order of events. Contents are good or bad; the process may die anywhere."""

    @initialize()
    def begin(self) -> None:
        self.host = Host()
        self.generation = 0
        self.content: str | None = None
        self.state = ""
        self.loop = asyncio.new_event_loop()
        self.dialled: set[str | None] = set()
        self.proven: str | None = None
        self.asked_at = 0.0
        self.host.world.on_install = self.watch

    def watch(self, version: Version) -> None:
        """Called by the world before each installation."""
        memory = self.host.memory()
        trial = memory.trial
        if version.content == (trial.version.content if trial else None) and trial and not trial.applied_at:
            refusal = next((r for r in memory.refused if r.digest == version.digest), None)
            if refusal is not None:
                assert refusal.tries <= len(RETRY_PAUSES), "one trial too many"
                proof = self.host.proof
                assert proof is not None and self.host.time >= proof.dialled_at, "the link may be dead"
                began = refusal.at if refusal.boot_id == self.host.boot else 0.0
                assert proof.dialled_at >= began + RETRY_PAUSES[refusal.tries - 1], "too soon"
            assert self.host.link_up, "a trial without a link"
            former = self.host.world.content
            assert former == memory.baseline.content, "the former version is not the one on disk"
        elif version.content is not None:
            assert version.content == memory.baseline.content, "neither on trial nor proven"
        assert memory.baseline.content is None or memory.baseline.content in self.dialled, "never proven"

    def ask(self) -> None:
        try:
            status = self.loop.run_until_complete(self.host.want(self.generation, self.content))
        except Killed:
            self.host.start()
            self.state = "killed"
            return
        self.state, self.asked_at = status.state, self.host.time
        memory = self.host.memory()
        self.proven = memory.baseline.content
        if memory.trial is None:
            assert self.host.world.content == self.proven

    @rule(name=st.sampled_from(["good-a", "good-b", "bad-a", "bad-b", None]))
    def intend(self, name: str | None) -> None:
        self.generation += 1
        self.content = name
        self.ask()

    @rule()
    def again(self) -> None:
        self.ask()

    @rule(seconds=st.floats(0.1, 3 * CONFIRM))
    def wait(self, seconds: float) -> None:
        self.host.time += seconds
        self.ask()

    @rule()
    def prove(self) -> None:
        self.prove_under()
        self.ask()

    def prove_under(self) -> None:
        before = self.host.proof
        self.host.prove()
        if self.host.proof is not before:
            self.dialled.add(self.host.world.content)

    @rule(up=st.booleans())
    def link(self, up: bool) -> None:  # noqa: FBT001
        self.host.link_up = up

    @rule(jump=st.floats(-1e6, 1e6))
    def jump(self, jump: float) -> None:
        self.host.wall += jump

    @rule()
    def restart(self) -> None:
        self.host.start()
        self.ask()

    @rule()
    def reboot(self) -> None:
        self.host.reboot()
        self.ask()

    @rule(die=st.sampled_from(["before", "after"]))
    def kill_at_the_next_install(self, die: str) -> None:
        self.host.world.die = die

    @rule(gone=st.booleans())
    def tamper(self, gone: bool) -> None:  # noqa: FBT001
        if self.host.world.content is not None:
            self.host.world.tampered = True
            if gone:
                self.host.world.content = None

    @invariant()
    def never_on_trial_past_the_deadline(self) -> None:
        if self.state == "trial":
            trial = self.host.memory().trial
            assert trial is not None and self.asked_at < trial.deadline <= self.asked_at + CONFIRM

    @invariant()
    def nothing_bad_is_ever_proven(self) -> None:
        assert not (self.proven or "").startswith("bad")

    def teardown(self) -> None:
        """Left alone with a link, every life settles."""
        if not hasattr(self, "loop"):
            return
        try:
            self.settle()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def settle(self) -> None:
        self.host.world.die, self.host.link_up = "", True
        retries = [seconds for pause in RETRY_PAUSES for seconds in (pause, CONFIRM)]
        for pause in (*[CONFIRM] * 4, *retries, *retries):
            self.ask()
            for _ in range(2):
                self.prove_under()
                self.ask()
            self.host.time += pause
        self.ask()
        given_up = [r for r in self.host.memory().refused if r.digest == f"digest of {self.content}"]
        refused = bool(given_up)
        assert all(r.tries == len(RETRY_PAUSES) + 1 for r in given_up), "it is still to be tried"
        assert self.state == ("rolled-back" if refused else "applied")
        if not refused:
            assert self.host.world.content == self.content


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
