"""Operations over subclouds at a central cloud on fake time, with sites that answer when they like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType

import msgspec
import pytest

from roost.fleet.operations import looking, planning
from roost.fleet.operations.actions import Facts, Impossible, Label, Manage, Missing, Reached, Shared
from roost.fleet.operations.controller import SubcloudOperationController
from roost.model.cloud import Cloud, CloudStatus, Subcloud, SubcloudSpec
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudGroup, SubcloudGroupSpec, SubcloudSelector
from roost.model.meta import Condition, Metadata
from roost.model.override import MANAGEMENT, Management
from roost.model.subcloud_operation import (
    SubcloudOperation,
    SubcloudOperationSpec,
    SubcloudOperationStatus,
    SubcloudStepCounts,
)
from roost.store import subcloud_steps
from roost.store.subcloud_steps import SubcloudStep
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time


class Sites:
    """Sites that take what the centre tells them and say so after `delay` seconds; the deaf ones never do."""

    def __init__(self, c: Centre, *, delay: float = 1.0, deaf: Iterable[str] = ()) -> None:
        self.c, self.delay, self.deaf = c, delay, set(deaf)
        self.most_running = 0

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for batch in self.c.store.watch(0):
                for change in batch.changes:
                    if change.kind == MANAGEMENT.kind and change.namespace not in self.deaf:
                        group.create_task(self.answer(change.namespace))
                    if change.kind == "SubcloudOperation":
                        status = change.stored().typed(SubcloudOperation).status
                        self.most_running = max(self.most_running, status.steps.running)

    async def answer(self, site: str) -> None:
        await asyncio.sleep(self.delay)

        def work(tx: Transaction) -> None:
            told = tx.load(Management, site, CENTRE).spec.management_state
            copy = tx.seek(Cloud, "", site) or Cloud(metadata=Metadata(name=site))
            tx.save(msgspec.structs.replace(copy, status=CloudStatus(management_state=told)))

        await self.c.store.transact(work)


@contextlib.asynccontextmanager
async def fleet(
    number: int,
    *,
    delay: float = 1.0,
    deaf: Iterable[str] = (),
    offline: Iterable[str] = (),
    groups: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[tuple[Centre, Sites]]:
    async with centre() as c:
        names = [f"s{n:02}" for n in range(number)]

        def declare(tx: Transaction) -> None:
            for name in names:
                tx.save(Subcloud(metadata=Metadata(name=name), spec=SubcloudSpec(group=groups.get(name, ""))))

        await c.store.transact(declare)
        c.work()
        for name in names:
            c.link(name, up=True)
        await asyncio.sleep(1)
        for name in offline:
            c.link(name, up=False)
        await asyncio.sleep(10)
        sites = Sites(c, delay=delay, deaf=deaf)
        following = asyncio.create_task(sites.follow())
        try:
            yield c, sites
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def start(c: Centre, **spec: object) -> None:
    made = msgspec.convert(
        {"action": "manage", "maxParallel": 3, "deadlineSeconds": 60, **spec}, SubcloudOperationSpec
    )
    await c.store.save(SubcloudOperation(metadata=Metadata(name="op"), spec=made))


async def tell(c: Centre, **spec: object) -> None:
    def work(tx: Transaction) -> None:
        current = tx.load(SubcloudOperation, "", "op")
        tx.save(msgspec.structs.replace(current, spec=msgspec.structs.replace(current.spec, **spec)))

    await c.store.transact(work)


async def seen(c: Centre) -> SubcloudOperationStatus:
    """The status; its counts are those of the rows."""

    def work(tx: Transaction) -> tuple[SubcloudOperation, list[SubcloudStep]]:
        operation = tx.load(SubcloudOperation, "", "op")
        return operation, subcloud_steps.page(tx, operation.metadata.uid, limit=10_000)

    operation, steps = await c.store.read(work)
    states = [s.state for s in steps]
    if operation.status.phase != "planned":
        counted = {state: states.count(state) for state in set(states)}
        assert operation.status.steps == SubcloudStepCounts(total=len(steps), **counted)
    return operation.status


async def rows(c: Centre) -> dict[str, SubcloudStep]:
    def work(tx: Transaction) -> list[SubcloudStep]:
        uid = tx.load(SubcloudOperation, "", "op").metadata.uid
        return subcloud_steps.page(tx, uid, limit=10_000)

    return {s.subcloud: s for s in await c.store.read(work)}


@on_fake_time
async def test_the_window_slides_and_every_end_is_what_the_site_said() -> None:
    async with fleet(10) as (c, sites):
        await start(c)
        await asyncio.sleep(0.9)
        status = await seen(c)
        assert (status.phase, status.steps.running, status.steps.waiting) == ("running", 3, 7)
        assert status.window == 3 and "3 run, 7 wait" in status.message
        await asyncio.sleep(2)
        status = await seen(c)
        assert status.rate > 0 and status.expected_end
        await asyncio.sleep(5)
        status = await seen(c)
        assert (status.phase, status.steps.done, sites.most_running) == ("done", 10, 3)
        ready = {c.type: c.status for c in status.conditions}
        assert ready == {"Progressing": "False", "Succeeded": "True"}
        assert all(s.spec.management_state == "managed" for s in await c.store.every(Subcloud))
        assert [e for e, _ in await c.events()].count("subcloud-operation-done") == 1


@on_fake_time
async def test_what_is_right_already_is_skipped_and_what_is_selected_is_done() -> None:
    async with fleet(6) as (c, _):
        await start(c, subclouds={"names": ["s00", "s01"]})
        await asyncio.sleep(5)
        assert (await seen(c)).steps == SubcloudStepCounts(total=2, done=2)
        await c.store.transact(lambda tx: tx.remove("SubcloudOperation", "", "op"))
        await start(c, subclouds={"names": ["s01", "s02", "nobody"]})
        await asyncio.sleep(5)
        assert (await seen(c)).steps == SubcloudStepCounts(total=2, done=1, skipped=1)
        assert (await rows(c))["s01"].message == "it was as wanted already"


@on_fake_time
async def test_it_halts_at_its_budget_and_goes_on_when_that_is_raised_or_the_failed_are_retried() -> None:
    deaf = {"s00", "s01", "s03"}
    async with fleet(12, deaf=deaf) as (c, sites):
        await start(c, failureBudget="1")
        await asyncio.sleep(59)
        assert (await seen(c)).phase == "running"
        await asyncio.sleep(5)
        status = await seen(c)
        assert status.phase == "halted" and status.steps.failed >= 2
        started = {name for name, s in (await rows(c)).items() if s.started_at}
        (error,) = status.errors
        assert (error.reason, error.count, error.subcloud) == ("NotObserved", status.steps.failed, "s00")
        assert "not within 60 seconds" in error.message and "spec.retry" in status.message
        await asyncio.sleep(100)
        assert {name for name, s in (await rows(c)).items() if s.started_at} == started
        sites.deaf.clear()
        for site in deaf:
            asyncio.ensure_future(sites.answer(site))  # noqa: RUF006 - it ends within the test
        await tell(c, retry=1)
        await asyncio.sleep(20)
        status = await seen(c)
        assert (status.phase, status.steps.failed, status.retried) == ("done", 0, 1)
        assert status.steps.done + status.steps.skipped == 12 and not status.errors


@on_fake_time
async def test_a_raised_budget_lets_it_go_on() -> None:
    async with fleet(6, deaf={"s00"}) as (c, _):
        await start(c, failureBudget="0", maxParallel=1, deadlineSeconds=5)
        await asyncio.sleep(8)
        assert (await seen(c)).phase == "halted"
        await tell(c, failure_budget="50%")
        await asyncio.sleep(15)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.failed) == ("done", 5, 1)


@on_fake_time
async def test_a_missed_deadline_is_tried_again_in_its_place() -> None:
    async with fleet(3, deaf={"s00"}) as (c, _):
        await start(c, retries=2, deadlineSeconds=10, failureBudget="1")
        await asyncio.sleep(25)
        assert (await rows(c))["s00"].attempt == 3
        await asyncio.sleep(10)
        assert ((await rows(c))["s00"].state, (await seen(c)).phase) == ("failed", "done")


@on_fake_time
async def test_offline_subclouds_take_no_place_are_said_so_and_waited_for() -> None:
    async with fleet(6, offline=("s00", "s01", "s02")) as (c, _):
        await start(c, maxParallel=2, failureBudget="3")
        await asyncio.sleep(6)
        status = await seen(c)
        assert (status.steps.offline, status.steps.done) == (3, 3)
        assert "3 are offline" in status.message
        row = (await rows(c))["s01"]
        assert row.reason == "Offline" and "its link is down since" in row.message
        c.link("s01", up=True)
        await asyncio.sleep(3)
        assert (await rows(c))["s01"].state == "done"
        await asyncio.sleep(60)
        status = await seen(c)
        assert (status.phase, status.steps.failed) == ("done", 2)
        assert [(e.reason, e.count) for e in status.errors] == [("Offline", 2)]


@on_fake_time
async def test_pause_starts_nothing_resume_goes_on_and_abort_ends() -> None:
    async with fleet(12, delay=2, offline=("s11",)) as (c, _):
        await start(c)
        await asyncio.sleep(1)
        await tell(c, paused=True)
        await asyncio.sleep(10)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.running) == ("paused", 3, 0)
        assert not status.expected_end and not status.rate
        await tell(c, paused=False)
        await asyncio.sleep(1)
        status = await seen(c)
        assert (status.phase, status.steps.running) == ("running", 3)
        await tell(c, aborted=True)
        await asyncio.sleep(0.5)
        status = await seen(c)
        assert (status.phase, status.steps.running, status.steps.aborted) == ("aborting", 3, 6)
        await asyncio.sleep(5)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.aborted) == ("aborted", 6, 6)
        assert status.finished_at
        managed = [s for s in await c.store.every(Subcloud) if s.spec.management_state == "managed"]
        assert len(managed) == 6


@on_fake_time
async def test_paused_offline_steps_are_as_never_tried() -> None:
    async with fleet(2, offline=("s00",)) as (c, _):
        await start(c)
        await asyncio.sleep(5)
        assert (await rows(c))["s00"].state == "offline"
        await tell(c, paused=True)
        await asyncio.sleep(500)
        row = (await rows(c))["s00"]
        assert (row.state, row.deadline) == ("waiting", 0.0)
        assert (await seen(c)).phase == "paused"


@on_fake_time
async def test_groups_come_in_order_each_as_it_says() -> None:
    groups = {f"s{n:02}": "north" for n in range(4)} | {"s04": "canary", "s05": "canary"}
    async with fleet(8, deaf={"s05"}, groups=groups) as (c, sites):
        for name, budget, apply in (("canary", "50%", "serial"), ("north", "0", "parallel")):
            spec = SubcloudGroupSpec(failure_budget=budget, apply_type=apply, max_parallel=4)  # type: ignore[arg-type]
            await c.store.save(SubcloudGroup(metadata=Metadata(name=name), spec=spec))
        await start(c, maxParallel=0, order=["canary"])
        await asyncio.sleep(1)
        status = await seen(c)
        assert [(s.group, s.total) for s in status.stages] == [("canary", 2), ("north", 4), ("", 2)]
        assert (status.stage, status.window, status.steps.running) == (0, 1, 1)
        await asyncio.sleep(30)
        assert (await seen(c)).steps == SubcloudStepCounts(total=8, waiting=6, running=1, done=1)
        await asyncio.sleep(60)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.failed) == ("done", 7, 1)
        assert sites.most_running == 4 and status.stage == 2


@on_fake_time
async def test_any_process_may_die_at_any_point_and_another_carries_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looking, "BATCH", 2)
    async with fleet(30, delay=0.7, deaf={"s05"}) as (c, sites):
        await start(c, deadlineSeconds=20, failureBudget="1", maxParallel=5)
        for _ in range(60):
            await asyncio.sleep(0.37)
            await c.stop()
            await asyncio.sleep(0.05)
            c.work()
            for n in range(30):
                c.link(f"s{n:02}", up=True)
            await seen(c)
        await asyncio.sleep(60)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.failed) == ("done", 29, 1)
        assert sites.most_running <= 5


@on_fake_time
async def test_a_death_between_two_parts_of_the_rows_leaves_none_twice() -> None:
    async with fleet(5) as (c, _):
        await c.stop()
        await start(c)
        uid = (await c.store.load(SubcloudOperation, "", "op")).metadata.uid
        half = [SubcloudStep(uid, n, 0, f"s{n:02}") for n in range(3)]
        await c.store.transact(lambda tx: subcloud_steps.add(tx, half))
        c.work()
        for n in range(5):
            c.link(f"s{n:02}", up=True)
        await asyncio.sleep(10)
        assert (await seen(c)).steps == SubcloudStepCounts(total=5, done=5)


@on_fake_time
async def test_a_subcloud_that_goes_needs_nothing_and_rows_go_with_the_operation() -> None:
    async with fleet(3, delay=5) as (c, _):
        await start(c, maxParallel=1)
        await asyncio.sleep(1)
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "s00"))
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "s01"))
        await asyncio.sleep(1)
        found = await rows(c)
        assert [(s.state, s.reason) for s in found.values()][:2] == [("skipped", "Gone")] * 2
        uid = found["s02"].operation
        await c.store.transact(lambda tx: tx.remove("SubcloudOperation", "", "op"))
        await asyncio.sleep(1)
        assert await c.store.read(lambda tx: subcloud_steps.page(tx, uid, limit=5)) == []


@on_fake_time
async def test_what_does_not_concern_it_costs_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(40, delay=1000) as (c, _):
        await start(c, deadlineSeconds=5000)
        await asyncio.sleep(2)
        looked: list[str] = []
        before = looking._Look._see

        def noted(self: looking._Look, step: SubcloudStep) -> None:
            looked.append(step.subcloud)
            before(self, step)

        monkeypatch.setattr(looking._Look, "_see", noted)
        revision = c.store.revision
        await asyncio.sleep(500)
        assert not looked and c.store.revision == revision, "nothing changes, nothing is looked at"
        await c.label("s39", tier="forest")
        await c.label("s01", tier="forest")
        await asyncio.sleep(1)
        assert looked == ["s01"], "s39 has not begun"
        assert c.store.revision == revision + 2


@on_fake_time
async def test_nothing_selected_is_over_at_once() -> None:
    async with fleet(1) as (c, _):
        await start(c, subclouds={"names": ["nobody"]})
        await asyncio.sleep(1)
        status = await seen(c)
        assert (status.phase, status.message) == ("done", "No subcloud was selected.")


@on_fake_time
async def test_a_label_takes_a_shared_policy_out_within_the_window() -> None:
    async with centre() as c:
        c.work()
        for n in range(6):
            await c.declare(f"s{n}", managed=n != 5)
            c.link(f"s{n}", up=True)
        selector = SubcloudSelector(labels={"rollout": "a"})
        spec = FirewallPolicySpec(networks=["oam"], subclouds=selector)
        await c.store.save(FirewallPolicy(metadata=Metadata(name="ssh", namespace=CENTRE), spec=spec))
        await asyncio.sleep(3)
        await start(c, action="label", labels={"rollout": "a"}, maxParallel=2, failureBudget="2")
        await asyncio.sleep(3)
        copies = [p.metadata.namespace for p in await c.store.every(FirewallPolicy)]
        assert sorted(copies) == ["central", "s0", "s1"], "two at once"
        await c.report("s0", f"ssh.{CENTRE}", ready="True")
        await c.report("s1", f"ssh.{CENTRE}", ready="False")
        await asyncio.sleep(3)
        found = await rows(c)
        assert (found["s0"].state, found["s1"].reason) == ("done", "NotInForce")
        assert "policy ssh is not in force there" in found["s1"].message
        for n in range(1, 5):
            await asyncio.sleep(2)
            await c.report(f"s{n}", f"ssh.{CENTRE}", ready="True")
        await asyncio.sleep(3)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.failed) == ("done", 5, 1)
        assert [(e.reason, e.subcloud) for e in status.errors] == [("NotManaged", "s5")]


SITE = Subcloud(metadata=Metadata(name="s", labels={"a": "b"}), spec=SubcloudSpec(management_state="managed"))
OTHER = Subcloud(metadata=Metadata(name="s"))
LATE = Shared("ssh", "late", Condition(type="Ready", status="False", reason="Refused", message="port 22"))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(subcloud=SITE), (Missing, Reached)),
        (Facts(subcloud=SITE, told="managed"), (Reached, Reached)),
        (Facts(subcloud=OTHER, told="managed"), (Missing, Impossible)),
        (Facts(subcloud=SITE, shared=(Shared("ssh", "in-force"),)), (Missing, Reached)),
        (Facts(subcloud=SITE, shared=(Shared("ssh", "in-force"), LATE)), (Missing, Missing)),
    ],
)
@on_fake_time
async def test_what_counts_as_reached(facts: Facts, expected: tuple[type, type]) -> None:
    async with centre() as c:

        def judged(tx: Transaction) -> tuple[type, type]:
            both = (Manage(tx, "manage"), Label(tx, {"a": "b"}, CENTRE))
            manage, label = (action.reached(facts) for action in both)
            if isinstance(label, Missing):
                assert "ssh" in label.message and "port 22" in label.message
            return type(manage), type(label)

        assert await c.store.read(judged) == expected


@on_fake_time
async def test_a_site_that_is_not_understood_holds_up_no_other() -> None:
    async with fleet(4, deaf={"s01"}) as (c, _):

        def strange(tx: Transaction) -> None:
            stored = tx.copy(
                {
                    "apiVersion": "roost.edge/v1",
                    "kind": "Cloud",
                    "metadata": {"name": "s01", "uid": "u1"},
                    "spec": {},
                    "status": {"managementState": "borrowed"},
                },
                "down:s01",
            )
            assert stored.name == "s01"

        await c.store.transact(strange)
        await start(c, deadlineSeconds=10, failureBudget="1")
        await asyncio.sleep(15)
        status = await seen(c)
        assert (status.phase, status.steps.done, status.steps.failed) == ("done", 3, 1)
        assert status.errors[0].reason == "NotUnderstood" and "managementState" in status.errors[0].message


@on_fake_time
async def test_two_processes_that_both_believe_themselves_active_start_no_more_than_the_window() -> None:
    async with fleet(25, delay=0.4) as (c, sites):
        c.start([SubcloudOperationController(CENTRE)])
        await start(c, maxParallel=4)
        for _ in range(40):
            await asyncio.sleep(0.1)
            assert (await seen(c)).steps.running <= 4
        await asyncio.sleep(10)
        status = await seen(c)
        assert (status.phase, status.steps.done, sites.most_running) == ("done", 25, 4)


@on_fake_time
async def test_planning_beside_another_leaves_whole_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(5, delay=1000) as (c, _):
        await c.stop()
        await start(c)
        before = await c.store.load(SubcloudOperation, "", "op")
        await planning.plan(c.store, before)
        await planning.plan(c.store, before)
        assert len(await rows(c)) == 5

        await c.store.transact(lambda tx: tx.report(before))
        monkeypatch.setattr(planning, "_parts", lambda uid, made: iter([]))
        with pytest.raises(planning.Disturbed, match="planned anew"):
            await planning.plan(c.store, before)
        assert (await c.store.load(SubcloudOperation, "", "op")).status.phase == "planned"
