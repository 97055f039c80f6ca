"""Which hosts are looked at when something changes: those concerned, each by itself."""

from __future__ import annotations

from typing import Any

from roost.cloud.hosts import HostController, operations_of
from roost.cloud.watching import Watch
from roost.engine.presence import PresenceBook
from roost.store.store import Store
from roost.store.transaction import UP, Transaction
from tests.support.stores import CLOUD, history, raw


def controller() -> HostController:
    return HostController(CLOUD, Watch(CLOUD, PresenceBook(lambda: 0.0)))


async def keys(store: Store, hosts: HostController, work: Any) -> set[str]:
    """Hosts that are looked at because of what a piece of work changes."""
    before = store.revision
    await store.transact(work)
    return {name for change in await history(store, before) for _, name in hosts.concerned(change)}


def network(type: str, **status: object) -> dict[str, Any]:
    metadata = {"uid": "a-network", "generation": 1}
    spec = {"type": type, "subnets": ["192.0.2.0/24"]}
    return raw("PlatformNetwork", "oam", metadata=metadata, spec=spec, status=status)


async def test_a_network_of_whichever_home_concerns_every_host_but_not_by_its_status(store: Store) -> None:
    await store.transact(lambda tx: tx.create(raw("Host", "worker-0", spec={})))
    hosts = controller()
    assert await store.read(lambda tx: list(hosts.all_keys(tx))) == [(CLOUD, "worker-0")]
    assert await keys(store, hosts, lambda tx: tx.create(raw("Host", "worker-1", spec={}))) == {"worker-1"}
    both = {"worker-0", "worker-1"}
    assert await keys(store, hosts, lambda tx: tx.copy(network("oam"), UP)) == both
    assert await keys(store, hosts, lambda tx: tx.copy(network("oam", hosts=2), UP)) == set()
    assert await keys(store, hosts, lambda tx: tx.copy(network("mgmt", hosts=2), UP)) == both
    await keys(store, hosts, lambda tx: tx.drop("Host", CLOUD, "worker-0"))
    assert await keys(store, hosts, lambda tx: tx.drop("PlatformNetwork", CLOUD, "oam")) == {"worker-1"}


async def test_what_a_site_overrides_of_a_network_concerns_every_host(store: Store) -> None:
    await store.transact(lambda tx: tx.create(raw("Host", "worker-0", spec={})))
    hosts = controller()
    await store.read(lambda tx: list(hosts.all_keys(tx)))
    target = {"kind": "PlatformNetwork", "name": "oam"}
    override = raw("LocalOverride", "o", spec={"target": target, "patch": {"type": "mgmt"}})
    assert await keys(store, hosts, lambda tx: tx.create(override)) == {"worker-0"}
    assert await keys(store, hosts, lambda tx: tx.drop("LocalOverride", CLOUD, "o")) == {"worker-0"}


async def test_operations_of_one_host(store: Store) -> None:
    def work(tx: Transaction) -> None:
        for host in ("worker-0", "worker-1"):
            for n in range(3):
                tx.create(raw("Operation", f"reboot-{host}-{n}", spec={"action": "reboot", "host": host}))

    await store.transact(work)
    found = await store.read(lambda tx: operations_of(tx, CLOUD, "worker-1"))
    assert [o.metadata.name for o in found] == [f"reboot-worker-1-{n}" for n in range(3)]
