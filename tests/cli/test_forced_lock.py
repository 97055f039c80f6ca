"""A lock by force that overtakes one that waits: what was asked for is followed, not what it overtook."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from roost.model.host import Host, HostSpec, HostStatus
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationAction, OperationSpec
from tests.cli.conftest import Roost
from tests.cli.test_hosts import status, succeed
from tests.support.api import ApiServer

NAME = "controller-0"


def operation(action: OperationAction, number: int) -> Operation:
    meta = Metadata(name=f"{action}-{NAME}-{number}-1", namespace="central")
    return Operation(metadata=meta, spec=OperationSpec(action=action, host=NAME))


@pytest.fixture
def waiting(server: ApiServer) -> Operation:
    """The lock under way, of a host that is to be locked."""
    host = Host(
        metadata=Metadata(name=NAME, namespace="central"),
        spec=HostSpec(administrative_state="locked"),
        status=HostStatus(observed_generation=1, administrative="unlocked", operational="enabled"),
    )
    server.do(server.store.save(host))
    lock = server.do(server.store.save(operation("lock", 1)))
    running = status("running", ("drain", "running", "Waiting for what runs there to leave."))
    return server.do(server.store.save(msgspec.structs.replace(lock, status=running)))


@contextlib.contextmanager
def overtaking(server: ApiServer, lock: Operation) -> Iterator[None]:
    """A controller that ends the lock when one by force is asked for, and then does that."""

    async def play() -> None:
        async for _ in server.store.watch(0):
            host = await server.store.load(Host, "central", NAME)
            if host.spec.force_lock:
                break
        ended = status("failed", ("drain", "failed", "A lock by force was asked for."))
        await server.store.save(msgspec.structs.replace(lock, status=ended))
        await asyncio.sleep(0.5)
        forced = await server.store.save(operation("force-lock", 2))
        for step in succeed(forced):
            await server.store.save(msgspec.structs.replace(forced, status=step))

    task = asyncio.run_coroutine_threadsafe(play(), server.loop)
    try:
        yield
    finally:
        task.cancel()


def test_a_lock_that_was_overtaken_is_no_failure_of_the_one_by_force(
    roost: Roost, server: ApiServer, waiting: Operation
) -> None:
    with overtaking(server, waiting):
        result = roost("host", "lock", NAME, "--force", "--timeout", "60")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == f"{NAME} is locked."
    assert "failed" not in result.err
