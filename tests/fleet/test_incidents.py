"""Incidents at a central cloud: one for many losses that have one cause, and gone when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from roost.engine.controller import Key
from roost.fleet import incidents as incidents_module
from roost.fleet import summing
from roost.fleet.causes import Cause
from roost.fleet.incidents import named
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.fault import Alarm, AlarmStatus, Severity
from roost.model.incident import Incident, IncidentStatus, Uplink, UplinkSpec, UplinkStatus
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.fleet.centre import Centre, centre
from tests.support.clock import on_fake_time


async def declare(c: Centre, uplinks: dict[str, str], sites: dict[str, str]) -> None:
    """Uplinks with what they are behind, and linked subclouds with their uplinks."""

    def work(tx: Transaction) -> None:
        for name, behind in uplinks.items():
            tx.save(Uplink(metadata=Metadata(name=name), spec=UplinkSpec(behind=behind)))
        for name, uplink in sites.items():
            spec = SubcloudSpec(uplink=uplink, management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=name), spec=spec))

    await c.store.transact(work)
    c.work()
    for name in sites:
        c.link(name, up=True)
    await asyncio.sleep(2)


async def told(c: Centre) -> dict[str, IncidentStatus]:
    return {i.metadata.name: i.status for i in await c.store.every(Incident)}


async def alarm(
    c: Centre,
    site: str,
    host: str,
    number: int,
    severity: Severity = "major",
    *,
    raised_at: str = "2026-03-01T12:00:00Z",
    entity: str = "",
) -> None:
    status = AlarmStatus(
        alarm_id="100.104",
        entity=entity or f"host={host}.filesystem=/data{number}",
        severity=severity,
        reason=f"/data{number} is full.",
        raised_at=raised_at,
    )
    metadata = Metadata(name=f"a{number}", namespace=site, uid=f"u-{site}-{number}")
    raw = msgspec.to_builtins(Alarm(metadata=metadata, status=status))
    await c.store.transact(lambda tx: tx.copy({"kind": "Alarm", **raw}, f"down:subcloud/{site}"))


SITES = {f"site-{n:02}": "router-a" if n < 20 else "router-b" for n in range(40)}


@on_fake_time
async def test_a_dead_router_is_one_incident_and_who_fails_for_itself_is_another() -> None:
    async with centre() as c:
        await declare(c, {"core": "", "router-a": "core", "router-b": "core"}, SITES)
        assert await told(c) == {}
        for number, name in enumerate(SITES):
            if SITES[name] == "router-a" or name == "site-33":
                c.link(name, up=False)
                await asyncio.sleep(0.1 if number % 3 == 0 else 0)
        await asyncio.sleep(6)
        assert "uplink.router-a" not in await told(c), "losses still come in"
        await asyncio.sleep(6)
        found = await told(c)
        assert sorted(found) == ["subcloud.site-33", "uplink.router-a"]
        dead = found["uplink.router-a"]
        assert (dead.cause, dead.name, dead.subclouds, dead.alarms) == ("Uplink", "router-a", 20, 20)
        assert dead.chain == ["uplink router-a is down", "20 subclouds are offline"]
        assert dead.concerned == sorted(s for s in SITES if SITES[s] == "router-a")
        uplinks = {u.metadata.name: u.status for u in await c.store.every(Uplink)}
        assert uplinks["core"] == UplinkStatus(subclouds=40, offline=21)
        assert uplinks["router-b"] == UplinkStatus(subclouds=20, offline=1)
        for number, name in enumerate(SITES):
            if number != 7:
                c.link(name, up=True)
                await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        found = await told(c)
        assert list(found) == ["uplink.router-a"], "until the last is back"
        assert (found["uplink.router-a"].subclouds, found["uplink.router-a"].most) == (1, 20)
        assert found["uplink.router-a"].reason.endswith("19 are back.")
        c.link("site-07", up=True)
        await asyncio.sleep(2)
        assert await told(c) == {}
        events = [text for event, text in await c.events() if event.startswith("incident")]
        assert events == [dead.reason, f"over: {dead.reason[:-1]}; 19 are back."]


@on_fake_time
async def test_alarms_of_a_host_are_one_incident_until_its_site_is_lost() -> None:
    async with centre() as c:
        await declare(c, {"router-a": ""}, {"site-00": "router-a", "site-01": "router-a"})
        for number in range(3):
            await alarm(c, "site-00", "controller-0", number, "critical" if number == 1 else "major")
        await alarm(c, "site-00", "controller-1", 7, "minor")
        await asyncio.sleep(1)
        found = await told(c)
        assert list(found) == ["host.site-00.controller-0"]
        status = found["host.site-00.controller-0"]
        assert (status.severity, status.alarms, status.reason) == (
            "critical",
            3,
            "/data1 is full., and 2 alarms more",
        )
        c.link("site-00", up=False)
        await asyncio.sleep(10)
        assert list(await told(c)) == ["subcloud.site-00"], "what it told is what was last known"


@on_fake_time
async def test_incidents_outlive_a_restart_and_uplinks_may_come_later() -> None:
    async with centre() as c:
        await declare(c, {}, {f"site-{n:02}": "router-a" for n in range(4)})
        for number in range(4):
            c.link(f"site-{number:02}", up=False)
        await asyncio.sleep(12)
        assert len(await told(c)) == 4, "nothing is known of their uplink"
        await c.store.save(Uplink(metadata=Metadata(name="router-a")))
        await asyncio.sleep(1)
        assert list(await told(c)) == ["uplink.router-a"]
        before = (await c.store.load(Incident, "", "uplink.router-a")).metadata
        await c.stop()
        c.work()
        await asyncio.sleep(5)
        after = (await c.store.load(Incident, "", "uplink.router-a")).metadata
        assert after == before, "a restart writes nothing anew"


HOSTILE = [
    ("host=" + "a" * 200, "2026-03-01T12:00:00Z"),
    ("host=Foo /..", "2026-03-01T12:00:00Z"),
    ("host=a\0b", "2026-03-01T12:00:00Z"),
    ("host=", "2026-03-01T12:00:00Z"),
    ("host=old", "0001-01-01T00:00:00+14:00"),
    ("host=late", "9999-12-31T23:59:59-14:00"),
    ("host=none", "nonsense"),
]


@on_fake_time
async def test_what_a_hostile_subcloud_says_stops_nobody_s_incidents() -> None:
    async with centre() as c:
        await declare(c, {"router-a": ""}, {"site-00": "router-a", "site-01": "router-a", "evil": ""})
        for number, (entity, raised_at) in enumerate(HOSTILE):
            await alarm(c, "evil", "", number, "critical", raised_at=raised_at, entity=entity)
        for number in range(100):
            await alarm(c, "evil", f"h{number:03}", 1000 + number, "critical")
        await asyncio.sleep(1)
        found = await told(c)
        assert len(found) == incidents_module.HOSTS
        assert all(name.startswith("host.evil.") for name in found)
        assert sum("hosts more" in status.reason for status in found.values()) == 1
        for name in ("site-00", "site-01"):
            c.link(name, up=False)
        await asyncio.sleep(12)
        assert "uplink.router-a" in await told(c)
        assert not [e for e, _ in await c.events() if e == "incident" and "evil" in _]


@on_fake_time
async def test_a_certificate_that_ends_long_after_is_no_cause() -> None:
    async with centre() as c:
        await declare(c, {}, {"site-00": ""})
        c.up("site-00", namespace="", version="1", certificate_expires_at="2026-03-01T13:00:00Z")
        await asyncio.sleep(1)
        c.link("site-00", up=False)
        await asyncio.sleep(10)
        assert list(await told(c)) == ["subcloud.site-00"]
        await asyncio.sleep(7200)
        await c.stop()
        c.work()
        await asyncio.sleep(70)
        assert list(await told(c)) == ["subcloud.site-00"]


def cause(name: str, since: float, sites: int = 1) -> Cause:
    return Cause(
        kind="Uplink",
        name=name,
        sites=tuple(f"s{n}" for n in range(sites)),
        since=since,
        severity="critical",
        alarms=sites,
        reason="r",
        chain=(),
    )


def test_two_times_of_one_cause_have_two_names_and_the_widest_are_shown() -> None:
    found = named([cause("a", 5.0), cause("a", 1.0), cause("b", 1.0, 3)])
    assert list(found) == ["uplink.b", "uplink.a", "uplink.a.2"]
    assert found["uplink.a"].since < found["uplink.a.2"].since
    most = named(cause(f"u{n}", 1.0, n % 7 + 1) for n in range(incidents_module.MOST + 50))
    assert len(most) == incidents_module.MOST
    assert min(status.subclouds for status in most.values()) == 1
    assert len(next(iter(named([cause("a", 1.0, 500)]).values())).concerned) == incidents_module.SHOWN


@on_fake_time
async def test_many_incidents_are_written_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = incidents_module.IncidentController.write

    def write(self: incidents_module.IncidentController, tx: Transaction, rows: Sequence[Key]) -> None:
        before = tx.revision
        real(self, tx, rows)
        written.append((len(rows), tx.revision - before))

    monkeypatch.setattr(incidents_module.IncidentController, "write", write)
    async with centre() as c:
        sites = {f"site-{n:03}": "" for n in range(120)}
        await declare(c, {}, sites)
        for up in (False, True):
            for name in sites:
                c.link(name, up=up)
            await asyncio.sleep(30)
            assert len(await told(c)) == (0 if up else len(sites))
    assert max(rows for rows, _ in written) == summing.WRITTEN
    assert sum(changes for _, changes in written) == 2 * len(sites), "each is written once, and goes once"
