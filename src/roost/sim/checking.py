"""Whether all stores of a simulated fleet agree: told by rules of its own, not by the link's.

Over each link (subcloud to centre, host to subcloud) these must hold once it is settled:
- what has its home below and travels up is above, to the letter; and nothing else is above as from there;
- what is intent for the node is below, to the letter but for its status; nothing else is below as from there;
- the status of intent is above what it is below, but for the fields that the fleet writes above.

In each store: every source's log entries are numbered from 1 without gap, and each reached the centre.
And alarms, configurations and counts are functions of state: every controller of every cloud, asked once
more about every key, would write nothing (`unsettled`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import select

from roost.engine.controller import Controller, StoreController
from roost.link.node import Node
from roost.link.node import subcloud as subcloud_node
from roost.model.fault import LOG_ENTRY
from roost.model.kind import Flow
from roost.model.meta import Owner
from roost.model.ownership import status_owners
from roost.model.registry import BY_KIND
from roost.sim.cloud import SimulatedCloud
from roost.sim.fleet import SimulatedFleet
from roost.store.schema import counters, resources
from roost.store.store import Store
from roost.store.transaction import UP, Stored, Transaction

Key = tuple[str, str, str]
Rows = dict[Key, Stored]
_UPWARD = frozenset(k for k, info in BY_KIND.items() if info.flow in (Flow.UP, Flow.BOTH))
_DOWNWARD = frozenset(k for k, info in BY_KIND.items() if info.flow in (Flow.DOWN, Flow.BOTH))
_OF_HOST = frozenset({"Host", "HostConfiguration"})


async def differences(fleet: SimulatedFleet, *, through_cut: bool = False) -> list[str]:
    """Where stores disagree, over every link that is not cut, or over all with `through_cut`."""
    centre = await _rows(fleet.centre.store)
    by_namespace: dict[str, Rows] = {}
    for key, stored in centre.items():
        by_namespace.setdefault(_cloud_of(key), {})[key] = stored
    found = []
    for site in fleet.sites:
        here = await _rows(site.cloud.store)
        found += await _logs(site.cloud.store, here)
        if through_cut or not site.way.is_cut:
            found += link_differences(subcloud_node(site.name), by_namespace.get(site.name, {}), here)
        for host in site.hosts:
            below = await _rows(host.store)
            found += await _logs(host.store, below)
            found += link_differences(host.node, here, below)
    return found


def link_differences(node: Node, above: Rows, below: Rows) -> list[str]:
    """Where the two stores of one link disagree. Pure."""
    mirrored = {k: s.data for k, s in above.items() if s.origin == node.origin}
    homes = {k: s.data for k, s in below.items() if s.origin != UP and _goes_up(node, k)}
    found = [f"{node}: mirror of {_name(k)} {why}" for k, why in _compare(homes, mirrored)]
    intent = {k: s for k, s in above.items() if s.origin != node.origin and _is_intent(node, k)}
    copies = {k: s for k, s in below.items() if s.origin == UP}
    found += [f"{node}: copy of {_name(k)} {why}" for k, why in _compare(_without(intent), _without(copies))]
    for key in intent.keys() & copies.keys():
        if _told(node, intent[key]) != _told(node, copies[key]):
            found.append(f"{node}: status of {_name(key)} differs")
    return found


async def unsettled(cloud: SimulatedCloud) -> list[str]:
    """What the controllers of a cloud would write if they were asked about everything once more."""
    found = []
    for controller in cloud.controllers:
        keys = controller.all_keys
        if not isinstance(controller, StoreController):
            continue
        if type(controller).decide is StoreController.decide:
            wrote = await _asked(cloud.store, controller)
            found += [f"{cloud.name}: {controller.name} has written {name}" for name in wrote]
        else:
            try:
                await cloud.store.transact(partial(_ask_all, keys, controller.decide))
            except _Undone as undone:
                found += [f"{cloud.name}: {controller.name} would write {name}" for name in undone.wrote]
    return found


async def _asked(store: Store, controller: Controller) -> list[str]:
    """Ask a controller of several transactions about everything, in earnest; what it wrote."""
    before = store.revision
    for key in await store.read(lambda tx: list(controller.all_keys(tx))):
        await controller.reconcile(store, key)
    batch = await store.changes(before)
    return [f"{c.type} {_name((c.kind, c.namespace, c.name))}" for c in batch.changes]


class _Undone(Exception):
    """Ends a trial transaction, so that nothing of it stays."""

    def __init__(self, wrote: list[str]) -> None:
        super().__init__(wrote)
        self.wrote = wrote


def _ask_all(
    keys: Callable[[Transaction], Iterable[tuple[str, str]]],
    decide: Callable[[Transaction, tuple[str, str]], object],
    tx: Transaction,
) -> None:
    for key in list(keys(tx)):
        decide(tx, key)
    raise _Undone([f"{c.type} {_name((c.kind, c.namespace, c.name))}" for c in tx.changes])


async def _rows(store: Store) -> Rows:
    def work(tx: Transaction) -> Rows:
        rows = (Stored(*row) for row in tx.connection.execute(select(resources)))
        return {(s.kind, s.namespace, s.name): s for s in rows}

    return await store.read(work)


async def _logs(store: Store, rows: Rows) -> list[str]:
    """Whether each source here has numbered its entries without gap up to its counter."""

    def work(tx: Transaction) -> dict[str, int]:
        query = select(counters.c.name, counters.c.value).where(counters.c.name.like("log:%"))
        return {str(name)[4:]: int(value) for name, value in tx.connection.execute(query)}

    told: dict[str, list[int]] = {}
    for key, stored in rows.items():
        if key[0] == LOG_ENTRY.kind:
            status = stored.raw["status"]
            told.setdefault(status["source"], []).append(status["sequence"])
    found = []
    for source, count in (await store.read(work)).items():
        if sorted(told.get(source, [])) != list(range(1, count + 1)):
            found.append(f"{source}: {count} log entries were numbered, {len(told.get(source, []))} are here")
    return found


def _cloud_of(key: Key) -> str:
    return key[1] or (key[2] if key[0] == "Cloud" else "")


def _goes_up(node: Node, key: Key) -> bool:
    kind, namespace, name = key
    if node.kind == "host":
        return kind == LOG_ENTRY.kind and namespace == node.cloud
    return kind in _UPWARD and (namespace == node.cloud or (kind, name) == ("Cloud", node.cloud))


def _is_intent(node: Node, key: Key) -> bool:
    kind, namespace, name = key
    if node.kind == "host":
        return kind in _OF_HOST and (namespace, name) == (node.cloud, node.name)
    return kind in _DOWNWARD and namespace == node.cloud


def _compare(wanted: dict[Key, Any], found: dict[Key, Any]) -> Iterable[tuple[Key, str]]:
    for key in wanted.keys() - found.keys():
        yield key, "is missing"
    for key in found.keys() - wanted.keys():
        yield key, "should not be there"
    for key in wanted.keys() & found.keys():
        if wanted[key] != found[key] and _parsed(wanted[key]) != _parsed(found[key]):
            yield key, "differs"


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _without(rows: Rows) -> dict[Key, Any]:
    """Objects without status and revision."""
    return {k: _intent(msgspec.json.decode(s.data)) for k, s in rows.items()}


def _intent(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in raw.items() if k != "status"}


def _told(node: Node, stored: Stored) -> dict[str, Any]:
    """The part of a status that the lower node writes."""
    owners = status_owners(BY_KIND[stored.kind])
    status = msgspec.json.decode(stored.data).get("status") or {}
    if node.kind == "host":
        return {k: v for k, v in status.items() if owners.get(k) is Owner.HOST}
    return {k: v for k, v in status.items() if owners.get(k) is not Owner.FLEET}


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}/{key[2]}"
