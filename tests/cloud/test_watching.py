"""Contact, states and alarms of hosts that are watched by heartbeat, on fake time with all controllers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from roost.cloud.contact import RETURN, contact_due, contact_held, contact_of
from roost.cloud.controllers import controllers
from roost.cloud.heartbeat import NOT_WATCHED, HostHeartbeat, NetworkHeartbeat, NetworkState, Verdict
from roost.cloud.watching import Watch, silence_of
from roost.engine.presence import Presence
from roost.model.cloud import Cloud
from roost.model.fault import Alarm
from roost.model.host import HostStatus
from roost.model.meta import Condition
from tests.cloud.site import PORTS, Site, network, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD

MGMT, CLUSTER, STORAGE = "mgmt0", "cluster0", "storage0"
SERVING = HostStatus(administrative="unlocked", operational="enabled", connected=True)
UP, DOWN = Presence(connected=True), Presence(connected=False, silent=12.0)
UNMET = Presence(connected=False, silent=12.0, met=False)


def beats(verdict: Verdict, **states: NetworkState) -> HostHeartbeat:
    networks = tuple(NetworkHeartbeat(n, s, beats=s == "well") for n, s in states.items())
    return HostHeartbeat(verdict, networks, 1.2 if verdict in ("failed", "suspect") else 0.0)


@pytest.mark.parametrize(
    ("presence", "verdict", "contact"),
    [
        (UP, "alive", "present"),
        (UP, "failed", "lost"),
        (UP, "suspect", "present"),
        (UP, "unknown", "present"),
        (DOWN, "alive", "present"),
        (msgspec.structs.replace(DOWN, silent=RETURN), "alive", "late"),
        (msgspec.structs.replace(DOWN, silent=1e6), "alive", "late"),
        (DOWN, "failed", "lost"),
        (DOWN, "suspect", "lost"),
        (DOWN, "unknown", "lost"),
        (DOWN, "none", "lost"),
        (UNMET, "none", "present"),
        (msgspec.structs.replace(UNMET, silent=RETURN), "none", "lost"),
    ],
)
def test_heartbeats_say_more_than_the_link(presence: Presence, verdict: Verdict, contact: str) -> None:
    heartbeat = beats(verdict)
    found = contact_of(presence, SERVING, heartbeat)
    assert found == contact
    due = contact_due(presence, found, heartbeat)
    if due is not None:
        assert 0 < due <= RETURN + 1


@pytest.mark.parametrize(
    ("operational", "contact", "held"),
    [
        ("enabled", "lost", "late"),
        ("enabled", "late", "late"),
        ("enabled", "present", "present"),
        ("disabled", "lost", "lost"),
    ],
)
def test_who_is_held_is_not_failed_and_who_has_failed_stays_so(
    operational: str, contact: str, held: str
) -> None:
    status = HostStatus(administrative="unlocked", operational=operational)  # type: ignore[arg-type]
    assert contact_held(contact, status) == held  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("presence", "heartbeat", "silent"),
    [
        (UP, NOT_WATCHED, None),
        (DOWN, NOT_WATCHED, 12.0),
        (Presence(connected=False, silent=2.0), NOT_WATCHED, None),
        (UNMET, NOT_WATCHED, None),
        (msgspec.structs.replace(UNMET, silent=31.0), NOT_WATCHED, 31.0),
        (UP, beats("failed"), 1.2),
        (UP, beats("suspect"), 1.2),
        (DOWN, beats("alive"), None),
    ],
)
def test_for_how_long_a_host_is_silent(
    presence: Presence, heartbeat: HostHeartbeat, silent: float | None
) -> None:
    assert silence_of(presence, heartbeat) == silent


class Watched(Site):
    """A site whose hosts are watched; `beat` says what their heartbeats are."""

    beating: dict[str, HostHeartbeat]
    machine_up = float("inf")

    def work(self, holder: str = "one") -> None:
        presence = lambda name: self.presence(name)  # noqa: E731 - the book changes with a restart
        watch = Watch(
            CLOUD,
            presence,
            lambda name: self.beating.get(name, NOT_WATCHED),
            uptime=lambda: self.machine_up,
        )
        self.start(controllers(CLOUD, "1", presence, PORTS, holder, {}, watch=watch).values())
        if self._agents is None:
            self._agents = asyncio.ensure_future(self._obey())

    def beat(self, name: str, verdict: Verdict, **states: NetworkState) -> None:
        self.beating[name] = beats(verdict, **states)
        self._wake(CLOUD, name)

    async def raised(self) -> dict[tuple[str, str], str]:
        return {
            (a.status.alarm_id, a.status.entity): "stale" if a.status.stale_since else a.status.severity
            for a in await self.store.every(Alarm, CLOUD)
        }

    async def condition(self) -> Condition | None:
        cloud = await self.store.load(Cloud, "", CLOUD)
        return next((c for c in cloud.status.conditions if c.type == "FailureAvoidance"), None)


@contextlib.asynccontextmanager
async def watched(*hosts: str) -> AsyncIterator[Watched]:
    async with site() as made:
        made.__class__ = Watched
        s: Watched = made  # type: ignore[assignment]
        s.beating = {}
        s.work()
        for name, kind in ((MGMT, "mgmt"), (CLUSTER, "cluster-host"), (STORAGE, "storage")):
            await s.store.save(network(name, kind, "203.0.113.0/24"))
        for host in hosts:
            await s.unlocked(host)
            s.beat(host, "alive", mgmt0="well", cluster0="well", storage0="well")
        await asyncio.sleep(1)
        assert await s.raised() == {}
        yield s


@on_fake_time
async def test_each_network_has_its_alarm_and_degrades() -> None:
    async with watched("h") as s:
        s.beat("h", "alive", mgmt0="degraded", cluster0="failed", storage0="failed")
        await asyncio.sleep(0.1)
        assert await s.raised() == {
            ("200.005", "host=h"): "major",
            ("200.009", "host=h"): "critical",
            ("200.202", "host=h.network=storage0"): "critical",
        }
        assert await s.state("h") == ("unlocked", "enabled", "degraded")
        s.beat("h", "alive", mgmt0="well", cluster0="well", storage0="well")
        await asyncio.sleep(0.1)
        assert await s.raised() == {}
        assert await s.state("h") == ("unlocked", "enabled", "available")


@on_fake_time
async def test_what_cannot_be_judged_is_neither_raised_nor_cleared() -> None:
    async with watched("h") as s:
        s.beat("h", "alive", mgmt0="well", cluster0="failed", storage0="well")
        await asyncio.sleep(0.1)
        s.beat("h", "alive", mgmt0="unknown", cluster0="unknown", storage0="unknown")
        await asyncio.sleep(60)
        assert await s.raised() == {("200.009", "host=h"): "stale"}
        s.beating["h"] = HostHeartbeat(awaited=True)
        s._wake(CLOUD, "h")
        await asyncio.sleep(1)
        assert await s.raised() == {("200.009", "host=h"): "stale"}
        s.beat("h", "alive", mgmt0="well", cluster0="failed", storage0="well")
        await asyncio.sleep(0.1)
        assert await s.raised() == {("200.009", "host=h"): "critical"}


@on_fake_time
async def test_silence_on_all_networks_fails_a_host_whose_link_still_seems_up() -> None:
    async with watched("h", "other") as s:
        s.beat("h", "suspect", mgmt0="degraded", cluster0="degraded", storage0="degraded")
        await asyncio.sleep(0.1)
        assert await s.state("h") == ("unlocked", "enabled", "degraded")
        s.beat("h", "failed", mgmt0="failed", cluster0="failed", storage0="failed")
        await asyncio.sleep(0.1)
        assert await s.state("h") == ("unlocked", "disabled", "failed")
        raised = await s.raised()
        assert raised[("200.004", "host=h")] == raised[("200.005", "host=h")] == "critical"
        assert await s.state("other") == ("unlocked", "enabled", "available")
        assert await s.condition() is None
        s.beat("h", "alive", mgmt0="well", cluster0="well", storage0="well")
        await asyncio.sleep(30)
        assert (await s.state("h"))[1] == "enabled"
        assert await s.raised() == {}


@on_fake_time
async def test_a_host_that_beats_is_late_without_its_link_and_never_lost() -> None:
    async with watched("h") as s:
        s.down("h")
        await asyncio.sleep(RETURN - 1)
        assert await s.raised() == {}
        await asyncio.sleep(2)
        assert await s.state("h") == ("unlocked", "enabled", "degraded")
        await asyncio.sleep(600)
        assert await s.state("h") == ("unlocked", "enabled", "degraded")
        assert list(await s.raised()) == [("200.005", "host=h")]


@on_fake_time
async def test_many_silent_at_once_are_one_event_until_its_deadline() -> None:
    async with watched("a", "b", "c") as s:
        for host in "ab":
            s.beat(host, "suspect", mgmt0="degraded")
        await asyncio.sleep(0.2)
        for host in "ab":
            s.beat(host, "failed", mgmt0="failed")
        await asyncio.sleep(1.5)
        for host in "ab":
            assert await s.state(host) == ("unlocked", "enabled", "degraded")
        raised = await s.raised()
        assert raised[("200.203", f"cloud={CLOUD}")] == "critical"
        assert raised[("200.005", "host=a")] == "major", "the event's alarm is the grave one"
        told = await s.condition()
        assert told is not None and (told.status, told.reason) == ("True", "MultiNodeFailure")
        assert "a, b" in told.message and "until 2026-03-01T" in told.message
        # The silence goes on, as seconds since its beginning, until nobody can wait longer.
        for host in "ab":
            s.down(host)
            s.beating[host] = msgspec.structs.replace(s.beating[host], silent=130.0)
        await asyncio.sleep(130)
        for host in "ab":
            assert (await s.state(host))[2] == "failed"
        assert ("200.203", f"cloud={CLOUD}") not in await s.raised()
        ended = await s.condition()
        assert ended is not None and ended.status == "False"
        events = [e for e, _, _ in await s.events()]
        assert events.count("failure-avoidance") == events.count("failure-avoidance-over") == 1


@on_fake_time
async def test_an_event_ends_when_hosts_return() -> None:
    async with watched("a", "b") as s:
        for host in "ab":
            s.beat(host, "failed", mgmt0="failed")
        await asyncio.sleep(2)
        for host in "ab":
            s.beat(host, "alive", mgmt0="well")
        await asyncio.sleep(2)
        assert await s.raised() == {}
        for host in "ab":
            assert await s.state(host) == ("unlocked", "enabled", "available")


@on_fake_time
async def test_a_site_that_is_powered_up_together_has_its_time() -> None:
    async with watched("a", "b") as s:
        for host in "ab":
            s.down(host)
            s.beating.pop(host)
        await s.stop()
        began = asyncio.get_running_loop().time()
        type(s).machine_up = property(lambda _: 40 + asyncio.get_running_loop().time() - began)  # type: ignore[assignment]
        try:
            s.work("two")
            await asyncio.sleep(900)
            told = await s.condition()
            assert told is not None and told.reason == "DeadOffice"
            for host in "ab":
                assert (await s.state(host))[1] == "enabled"
            await asyncio.sleep(200)
            for host in "ab":
                assert (await s.state(host))[2] == "failed", "each wait ends"
        finally:
            type(s).machine_up = float("inf")
