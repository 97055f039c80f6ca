"""Deleting with a propagation policy over the API, with the collector at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from roost.engine.controller import Runner
from roost.engine.garbage import GarbageController
from roost.model.codec import Raw
from roost.store.store import Store
from tests.api.client import Client

MAPS = "/api/v1/namespaces/central/configmaps"


@pytest.fixture(autouse=True)
async def collector(store: Store) -> AsyncIterator[None]:
    task = asyncio.create_task(Runner(store, GarbageController("central", {})).run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def add(client: Client, name: str, *owners: Raw) -> Raw:
    """A ConfigMap that depends on others, which wait for it."""
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for o in owners
    ]
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": references},
    }
    return (await client.post(MAPS, body)).ok(201)


async def names(client: Client) -> list[str]:
    return [i["metadata"]["name"] for i in (await client.get(MAPS)).ok()["items"]]


async def come_to(client: Client, *expected: str) -> None:
    """Wait until these are left."""
    async with asyncio.timeout(30):
        while await names(client) != list(expected):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_dependents_go_too(client: Client, policy: str) -> None:
    owner = await add(client, "owner")
    middle = await add(client, "middle", owner)
    await add(client, "leaf", middle)
    await add(client, "other")
    answer = await client.delete(f"{MAPS}/owner?propagationPolicy={policy}")
    if policy == "Foreground":
        assert answer.ok()["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert answer.status == 200
    await come_to(client, "other")


async def test_dependents_stay_when_they_are_orphaned(client: Client) -> None:
    await add(client, "leaf", await add(client, "owner"))
    (await client.delete(f"{MAPS}/owner", {"propagationPolicy": "Orphan"})).ok()
    await come_to(client, "leaf")
    left = (await client.get(f"{MAPS}/leaf")).ok()
    assert not left["metadata"].get("ownerReferences")


async def test_what_blocks_a_foreground_deletion_is_waited_for(client: Client) -> None:
    await add(client, "leaf", await add(client, "owner"))
    hold = {"metadata": {"finalizers": ["example.org/hold"]}}
    (await client.merge(f"{MAPS}/leaf", hold)).ok()
    (await client.delete(f"{MAPS}/owner?propagationPolicy=Foreground")).ok()
    async with asyncio.timeout(30):
        while "deletionTimestamp" not in (await client.get(f"{MAPS}/leaf")).ok()["metadata"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await names(client) == ["leaf", "owner"]
    (await client.merge(f"{MAPS}/leaf", {"metadata": {"finalizers": None}})).ok()
    await come_to(client)
