"""A node is let in only for the declaration that it enrolled for."""

from __future__ import annotations

import pytest

from roost.link.errors import Refused
from roost.link.node import Node, host, subcloud
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.host import HOST, Host
from roost.model.meta import Metadata
from roost.program.enrolments import check_enrolment, remember_enrolment
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
