"""The sender on real sockets, and its registration over a link that comes and goes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from roost.engine.heartbeat import Registered, Registration, claimed_id, new_id, new_secret, unseal
from roost.host.heartbeat import Plan, Registrar, Sender, next_due
from roost.link.exchange import Request, Response, Unreachable
from roost.model.configuration import HostConfiguration, HostConfigurationSpec
from roost.model.heartbeat import HeartbeatConfiguration, HeartbeatNetwork
from roost.model.meta import Metadata
from tests.support.stores import CLOUD, new_database, opened

WITHIN = 20.0


@given(
    due=st.floats(min_value=0, max_value=1e6),
    late=st.floats(min_value=-1, max_value=1e4),
    period=st.sampled_from([0.1, 0.25, 1.0]),
)
def test_the_schedule_neither_drifts_nor_catches_up(due: float, late: float, period: float) -> None:
    now = due + late
    following = next_due(due, period, now)
    assert following > min(now, due) - 1e-6
    assert following <= max(now, due) + period + 1e-6
    beats = (following - due) / period
    assert beats == pytest.approx(round(beats), abs=1e-3) and round(beats) >= 1


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(WITHIN)
        yield made


def configuration(port: int, *names: str, target: str = "127.0.0.1") -> HeartbeatConfiguration:
    networks = [HeartbeatNetwork(network=n, ports=["lo"], targets=[target]) for n in names]
    return HeartbeatConfiguration(period_milliseconds=100, port=port, networks=networks)


def test_each_network_gets_its_beats_in_order(listener: socket.socket) -> None:
    sender, secret = Sender(), new_secret()
    plan = Plan(id=new_id(), secret=secret, configuration=configuration(listener.getsockname()[1], "a", "b"))
    try:
        sender.carry(plan)
        beats = [unseal(listener.recv(200), secret) for _ in range(12)]
    finally:
        sender.stop()
    for name in ("a", "b"):
        sequences = [b.sequence for b in beats if b.network == name]
        assert sequences == list(range(1, len(sequences) + 1)) and len(sequences) >= 5
    assert repr(secret) not in repr(plan)


def test_a_new_plan_takes_the_place_of_the_old(listener: socket.socket) -> None:
    sender, port = Sender(), listener.getsockname()[1]
    first = Plan(id=new_id(), secret=new_secret(), configuration=configuration(port, "a"))
    second = Plan(id=new_id(), secret=new_secret(), configuration=configuration(port, "b"))
    try:
        sender.carry(first)
        assert claimed_id(listener.recv(200)) == first.id
        sender.carry(second)
        deadline = time.monotonic() + WITHIN
        while claimed_id(datagram := listener.recv(200)) != second.id:
            assert time.monotonic() < deadline
        assert unseal(datagram, second.secret).sequence == 1
    finally:
        sender.stop()
    assert threading.active_count() < 50


def test_a_cloud_that_does_not_listen_is_found_again() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    sender, secret = Sender(), new_secret()
    try:
        sender.carry(Plan(id=new_id(), secret=secret, configuration=configuration(port, "a")))
        time.sleep(0.5)  # What is sent meanwhile is refused.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.bind(("127.0.0.1", port))
            late.settimeout(WITHIN)
            assert unseal(late.recv(200), secret).sequence > 1
    finally:
        sender.stop()


class Cloud:
    """What answers registrations."""

    def __init__(self) -> None:
        self.up, self.status = True, 200
        self.asked: list[tuple[str, Registration | None]] = []

    async def call(self, request: Request) -> Response:
        if not self.up:
            raise Unreachable("the upper cloud", "the link is down")
        body = msgspec.msgpack.decode(request.body, type=Registration) if request.body else None
        self.asked.append((request.method, body))
        return Response(self.status, [], _once(msgspec.msgpack.encode(Registered(id=new_id()))))


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text


class Carried(Sender):
    """A sender that only remembers its plans."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[Plan | None] = []

    def carry(self, plan: Plan | None) -> None:
        self.plans.append(plan)


async def test_with_each_link_comes_a_fresh_key() -> None:
    cloud, sender = Cloud(), Carried()
    with new_database() as url:
        async with opened(url) as store:

            async def declare(heartbeat: HeartbeatConfiguration | None) -> None:
                spec = HostConfigurationSpec(heartbeat=heartbeat)
                await store.save(HostConfiguration(metadata=Metadata(name="h", namespace=CLOUD), spec=spec))

            async def until(count: int) -> None:
                async with asyncio.timeout(WITHIN):
                    while len(sender.plans) < count:  # noqa: ASYNC110 - any fact, not only events
                        await asyncio.sleep(0.01)

            registrar = Registrar(store, CLOUD, "h", call=cloud.call, link_up=lambda: cloud.up, sender=sender)
            running = asyncio.create_task(registrar.run())
            try:
                await declare(configuration(7444, "a", "b"))
                await until(1)
                assert cloud.asked[0][0] == "POST"
                first = cloud.asked[0][1]
                assert first is not None and first.networks == ["a", "b"]
                cloud.up = False
                registrar.notice()
                cloud.up = True
                registrar.notice()
                await until(2)
                second = cloud.asked[-1][1]
                assert second is not None and second.secret != first.secret
                await declare(None)
                await until(3)
                assert sender.plans[-1] is None
                assert cloud.asked[-1] == ("DELETE", None)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
