"""A node is let in only for the declaration that it enrolled for."""

from __future__ import annotations

import pytest

from roost.link import renewal
from roost.link.errors import Refused
from roost.link.node import Node, host, subcloud
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.fault import LogEntry
from roost.model.host import HOST, Host
from roost.model.meta import Metadata
from roost.program.enrolments import check_enrolment, readmit, remember_enrolment, tell_not_known
from roost.store.store import Store

LONG = "a" * 60
NODES = [subcloud("ridge"), host("central", "worker-0"), host(LONG, LONG)]


async def _declare(store: Store, node: Node) -> None:
    if node.kind == "subcloud":
        await store.save(Subcloud(metadata=Metadata(name=node.name)))
    else:
        await store.save(Host(metadata=Metadata(name=node.name, namespace=node.cloud)))


async def _delete(store: Store, node: Node) -> None:
    key = (SUBCLOUD.kind, "") if node.kind == "subcloud" else (HOST.kind, node.cloud)
    await store.transact(lambda tx: tx.remove(*key, node.name))


async def _check(store: Store, node: Node) -> None:
    await store.read(lambda tx: check_enrolment(tx, node, "central"))


@pytest.mark.parametrize("node", NODES, ids=str)
async def test_an_enrolled_node_comes_in_until_it_is_deleted(store: Store, node: Node) -> None:
    await _declare(store, node)
    with pytest.raises(Refused, match="new token"):
        await _check(store, node)
    await store.transact(lambda tx: remember_enrolment(tx, node, {}))
    await _check(store, node)
    await _delete(store, node)
    with pytest.raises(Refused, match="not declared"):
        await _check(store, node)


@pytest.mark.parametrize("node", NODES, ids=str)
async def test_a_namesake_does_not_let_the_former_node_in(store: Store, node: Node) -> None:
    await _declare(store, node)
    await store.transact(lambda tx: remember_enrolment(tx, node, {}))
    await _delete(store, node)
    await _declare(store, node)
    with pytest.raises(Refused, match="declared anew"):
        await _check(store, node)
    await store.transact(lambda tx: remember_enrolment(tx, node, {}))
    await _check(store, node)


async def test_nobody_enrols_for_what_is_not_declared(store: Store) -> None:
    with pytest.raises(Refused, match="not declared"):
        await store.transact(lambda tx: remember_enrolment(tx, NODES[0], {}))


@pytest.mark.parametrize("node", NODES, ids=str)
async def test_who_was_forgotten_by_a_restore_is_told_of_and_had_in_again(store: Store, node: Node) -> None:
    """Nothing is said of it while no store was restored: then the one way is a token."""
    with pytest.raises(Refused) as plain:
        await _check(store, node)
    assert "readmit" not in plain.value.remedy
    await store.transact(
        lambda tx: tx.set_property("restores", '[{"at": 1, "base": 9, "time": "", "snapshotOf": "s"}]')
    )
    with pytest.raises(Refused) as refused:
        await _check(store, node)
    assert f"roost {node.kind} readmit {node.name}" in refused.value.remedy
    assert 0 < refused.value.retry_after < plain.value.retry_after, "it is back soon"
    await store.transact(lambda tx: tell_not_known(tx, "central", node, refused.value))
    (entry,) = await store.read(lambda tx: tx.every(LogEntry, "central"))
    assert entry.status.event == "node-not-known" and refused.value.remedy in entry.status.text
    with pytest.raises(Refused, match="not declared"):
        await store.transact(lambda tx: readmit(tx, node))
    await _declare(store, node)
    await store.transact(lambda tx: renewal.remember(tx, node, "as of the snapshot"))
    await store.transact(lambda tx: readmit(tx, node))
    await _check(store, node)
    assert await store.read(lambda tx: renewal.known(tx, node)) == ()
