"""Operations step by step: outcomes, deadlines, pauses, aborts, the death of their process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import func, select

from roost.engine import procedures as procedures_module
from roost.engine.procedures import (
    ATTEMPT_SECONDS,
    LEASE_SECONDS,
    Done,
    Failed,
    OperationController,
    Outcome,
    Step,
    Wait,
    read_steps,
)
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationSpec
from roost.store.schema import steps
from roost.store.store import Store
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD, World, world


class Script:
    """What attempts answer, by step; each call is recorded."""

    def __init__(self, world: World, **answers: Callable[[int], Outcome]) -> None:
        self.world, self.answers = world, answers
        self.calls: list[str] = []

    def step(self, name: str, timeout: float = 60.0) -> Step:
        async def attempt(store: Store, operation: Operation) -> Outcome:
            self.calls.append(name)
            answer = self.answers.get(name)
            return answer(self.calls.count(name)) if answer else Done(f"{name} is done")

        return Step(name, timeout, attempt)

    def controller(self, *steps: Step, holder: str = "one") -> OperationController:
        return OperationController({"reboot": steps}, holder)


async def start(store: Store, name: str = "op") -> None:
    metadata = Metadata(name=name, namespace=CLOUD)
    await store.save(Operation(metadata=metadata, spec=OperationSpec(action="reboot", host="h")))


async def look(store: Store, name: str = "op") -> Operation:
    return await store.load(Operation, CLOUD, name)


async def specify(store: Store, *, paused: bool = False, aborted: bool = False, name: str = "op") -> None:
    operation = await look(store, name)
    spec = msgspec.structs.replace(operation.spec, paused=paused, aborted=aborted)
    await store.save(msgspec.structs.replace(operation, spec=spec))


def states(operation: Operation) -> list[str]:
    return [s.state for s in operation.status.steps]


@on_fake_time
async def test_steps_run_in_order_and_the_summary_follows() -> None:
    async with world() as w:
        script = Script(w, second=lambda n: Done("there") if n == 3 else Wait("not yet", 2.0))
        w.start([script.controller(*(script.step(n) for n in ("first", "second", "third")))])
        await start(w.store)
        await asyncio.sleep(1)
        half = await look(w.store)
        assert states(half) == ["succeeded", "running", "pending"]
        assert (half.status.state, half.status.message) == ("running", "not yet")
        assert (half.status.steps_done, half.status.steps_total, half.status.finished_at) == (1, 3, "")
        await asyncio.sleep(30)
        done = await look(w.store)
        assert script.calls == ["first", "second", "second", "second", "third"]
        assert (done.status.state, states(done)) == ("succeeded", ["succeeded"] * 3)
        assert done.status.steps[1].attempt == 3 and done.status.finished_at > done.status.started_at
        calls = len(script.calls)
        await asyncio.sleep(1000)
        assert len(script.calls) == calls, "an operation that has ended is left alone"


@on_fake_time
async def test_a_failed_step_ends_the_operation() -> None:
    async with world() as w:
        script = Script(w, first=lambda _: Failed("no power"))
        w.start([script.controller(script.step("first"), script.step("second"))])
        await start(w.store)
        await asyncio.sleep(10)
        operation = await look(w.store)
        assert (operation.status.state, operation.status.message) == ("failed", "no power")
        assert states(operation) == ["failed", "skipped"]
        assert script.calls == ["first"]


@on_fake_time
async def test_a_step_is_given_up_at_its_deadline_with_what_it_waited_for() -> None:
    async with world() as w:
        script = Script(w, first=lambda _: Wait("the host is silent", 7.0))
        w.start([script.controller(script.step("first", 60.0))])
        await start(w.store)
        await asyncio.sleep(59)
        assert (await look(w.store)).status.state == "running"
        await asyncio.sleep(3)
        operation = await look(w.store)
        assert operation.status.state == "failed"
        assert operation.status.message == "gave up after 60 seconds: the host is silent"


@on_fake_time
async def test_an_attempt_that_raises_or_hangs_is_repeated() -> None:
    async with world() as w:
        calls: list[str] = []

        async def attempt(store: Store, operation: Operation) -> Outcome:
            calls.append("x")
            if len(calls) == 1:
                raise LookupError("lost my keys")
            if len(calls) == 2:
                await asyncio.sleep(10_000)
            return Done()

        w.start([OperationController({"reboot": (Step("only", 300.0, attempt),)}, "one")])
        await start(w.store)
        await asyncio.sleep(1)
        assert "lost my keys" in (await look(w.store)).status.message
        await asyncio.sleep(5 + ATTEMPT_SECONDS)
        assert "took more than" in (await look(w.store)).status.message
        await asyncio.sleep(10)
        assert (await look(w.store)).status.state == "succeeded"
        assert ATTEMPT_SECONDS < LEASE_SECONDS


@on_fake_time
async def test_another_process_takes_over_when_the_lease_has_run_out() -> None:
    """The first process dies between an attempt and its record."""
    async with world() as w:
        script = Script(w)
        controller = script.controller(script.step("first"), script.step("second"))
        await start(w.store)
        claimed = await w.store.transact(lambda tx: controller._claim(tx, (CLOUD, "op")))
        assert claimed[1] is not None and claimed[1].holder == "one"
        other = script.controller(script.step("first"), script.step("second"), holder="two")
        w.start([other])
        await asyncio.sleep(LEASE_SECONDS - 1)
        assert script.calls == [], "the lease is respected"
        await asyncio.sleep(5)
        operation = await look(w.store)
        assert (operation.status.state, script.calls) == ("succeeded", ["first", "second"])
        assert operation.status.steps[0].attempt == 2
        row = claimed[1]
        late = await w.store.transact(lambda tx: controller._record(tx, (CLOUD, "op"), row, Failed("late")))
        assert late == 0.0
        assert (await look(w.store)).status.state == "succeeded", "a late record changes nothing"


@on_fake_time
async def test_a_record_of_an_earlier_attempt_of_ones_own_is_refused() -> None:
    async with world() as w:
        script = Script(w)
        controller = script.controller(script.step("first"))
        await start(w.store)
        _, old, _ = await w.store.transact(lambda tx: controller._claim(tx, (CLOUD, "op")))
        _, new, _ = await w.store.transact(lambda tx: controller._claim(tx, (CLOUD, "op")))
        assert old is not None and new is not None and new.attempt == old.attempt + 1
        await w.store.transact(lambda tx: controller._record(tx, (CLOUD, "op"), old, Failed("old")))
        assert states(await look(w.store)) == ["running"]


@on_fake_time
async def test_a_restart_goes_on_from_the_row() -> None:
    async with world() as w:
        script = Script(w, second=lambda n: Done() if n > 3 else Wait("not yet", 1.0))
        procedure = [script.step("first"), script.step("second")]
        w.start([script.controller(*procedure)])
        await start(w.store)
        await asyncio.sleep(1.5)
        await w.stop()
        w.start([script.controller(*procedure)])
        await asyncio.sleep(10)
        assert (await look(w.store)).status.state == "succeeded"
        assert script.calls.count("first") == 1


@on_fake_time
async def test_pause_stops_before_the_next_attempt_and_stops_the_clock() -> None:
    async with world() as w:
        script = Script(w, first=lambda n: Done() if n > 5 else Wait("not yet", 10.0))
        w.start([script.controller(script.step("first", 60.0), script.step("second"))])
        await start(w.store)
        await asyncio.sleep(15)
        await specify(w.store, paused=True)
        await asyncio.sleep(1)
        calls = len(script.calls)
        assert (await look(w.store)).status.state == "paused"
        await asyncio.sleep(100_000)
        assert len(script.calls) == calls
        await specify(w.store, paused=False)
        await asyncio.sleep(55)
        assert (await look(w.store)).status.state == "succeeded", "the deadline ran on while it was paused"


@on_fake_time
async def test_abort_ends_what_is_open() -> None:
    async with world() as w:
        script = Script(w, second=lambda _: Wait("not yet", 1.0))
        w.start([script.controller(*(script.step(n) for n in ("first", "second", "third")))])
        await start(w.store)
        await asyncio.sleep(3)
        await specify(w.store, aborted=True)
        await asyncio.sleep(3)
        operation = await look(w.store)
        assert (operation.status.state, states(operation)) == ("aborted", ["succeeded", "aborted", "aborted"])
        assert operation.status.message == "aborted by the operator"
        calls = len(script.calls)
        await asyncio.sleep(100)
        assert len(script.calls) == calls


@on_fake_time
async def test_a_paused_operation_can_be_aborted() -> None:
    async with world() as w:
        script = Script(w)
        w.start([script.controller(script.step("first"))])
        metadata = Metadata(name="op", namespace=CLOUD)
        spec = OperationSpec(action="reboot", host="h", paused=True)
        await w.store.save(Operation(metadata=metadata, spec=spec))
        await asyncio.sleep(3)
        assert ((await look(w.store)).status.state, script.calls) == ("paused", [])
        await specify(w.store, paused=True, aborted=True)
        await asyncio.sleep(3)
        assert (await look(w.store)).status.state == "aborted"


@on_fake_time
async def test_a_deleted_operation_forgets_its_rows() -> None:
    async with world() as w:
        script = Script(w, first=lambda _: Wait("not yet", 1.0))
        w.start([script.controller(script.step("first"))])
        await start(w.store, "gone")
        await start(w.store, "kept")
        await asyncio.sleep(3)
        kept = (await look(w.store, "kept")).metadata.uid
        await w.store.transact(lambda tx: tx.remove("Operation", CLOUD, "gone"))
        await asyncio.sleep(10)
        found = await w.store.read(
            lambda tx: list(tx.connection.execute(select(steps.c.operation)).scalars())
        )
        assert found == [kept]


@on_fake_time
async def test_only_so_many_finished_operations_are_kept() -> None:
    async with world() as w:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(procedures_module, "KEPT", 4)
            script = Script(w)
            w.start([script.controller(script.step("first"), script.step("second"))])
            for n in range(9):
                await start(w.store, f"op-{n}")
                await asyncio.sleep(5)
            left = await w.store.every(Operation)
            assert [o.metadata.name for o in left] == [f"op-{n}" for n in range(5, 9)]
            rows = await w.store.read(
                lambda tx: tx.connection.execute(select(func.count()).select_from(steps)).scalar_one()
            )
            assert rows == 8


@on_fake_time
async def test_what_this_version_can_not_do_fails_and_says_so() -> None:
    async with world() as w:
        script = Script(w)
        metadata = Metadata(name="op", namespace=CLOUD)
        await w.store.save(Operation(metadata=metadata, spec=OperationSpec(action="swact", host="h")))
        await start(w.store, "older")
        older = script.controller(script.step("a-step-of-before"), script.step("second"))
        await w.store.transact(lambda tx: older._claim(tx, (CLOUD, "older")))
        w.start([script.controller(script.step("first"), script.step("second"))])
        await asyncio.sleep(10)
        unknown, old = await look(w.store), await look(w.store, "older")
        assert (unknown.status.state, unknown.status.message) == ("failed", "this version can't do swact")
        assert unknown.status.finished_at
        assert old.status.state == "failed" and "'a-step-of-before'" in old.status.message


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
@on_fake_time
async def test_a_clock_that_is_set_stalls_nothing(jump: float) -> None:
    async with world() as w:
        script = Script(w, first=lambda n: Done() if n > 4 else Wait("not yet", 10.0))
        w.start([script.controller(script.step("first", 300.0), script.step("second"))])
        await start(w.store)
        await asyncio.sleep(15)
        w.clock.jump(jump)
        await asyncio.sleep(120)
        operation = await look(w.store)
        if jump < 0:
            assert operation.status.state == "succeeded"
        else:
            assert operation.status.state in ("succeeded", "failed"), "given up, but not stuck"
            assert operation.status.finished_at


@on_fake_time
async def test_a_lease_of_a_dead_process_from_before_the_clock_was_set_back_holds_nobody_up() -> None:
    async with world() as w:
        script = Script(w)
        controller = script.controller(script.step("first"))
        await start(w.store)
        await w.store.transact(lambda tx: controller._claim(tx, (CLOUD, "op")))
        w.clock.jump(-86400.0)
        w.start([script.controller(script.step("first"), holder="two")])
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert (await look(w.store)).status.state == "succeeded"
        rows = await w.store.read(lambda tx: read_steps(tx, "none"))
        assert rows == []


@on_fake_time
async def test_a_reason_of_any_length_ends_the_operation_all_the_same() -> None:
    async with world() as w:
        script = Script(w, told=lambda _: Wait("y" * 5000))
        w.start([script.controller(script.step("told", timeout=5.0))])
        await start(w.store)
        await asyncio.sleep(60)
        waited = await look(w.store)
    assert waited.status.state == "failed"
    assert waited.status.message.startswith("gave up after 5 seconds: yyy")
    assert waited.status.steps[0].message == waited.status.message
