"""lightkube: every call it has for custom resources, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from lightkube import AsyncClient, Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import CascadeType, PatchType

from tests.clients.policies import policy
from tests.support.api import ApiServer

Policy = create_namespaced_resource("roost.edge", "v1", "FirewallPolicy", "firewallpolicies")


@pytest.fixture
def client(server: ApiServer) -> Client:
    return Client(config=KubeConfig.from_file(server.administrator), field_manager="lightkube-test")


def names(items: Iterable[Any]) -> list[str]:
    return [item.metadata.name for item in items]


def test_write_and_read(client: Client) -> None:
    made = client.create(Policy.from_dict(policy("edge", labels={"tier": "a"})))
    assert made.metadata is not None and made.metadata.generation == 1 and made.metadata.uid
    assert client.get(Policy, "edge", namespace="central").spec["order"] == 100

    made.spec["order"] = 200
    replaced = client.replace(made)
    assert replaced.metadata is not None and replaced.metadata.generation == 2
    with pytest.raises(ApiError) as stale:
        client.replace(made)
    assert stale.value.status.code == 409 and stale.value.status.reason == "Conflict"

    steps = [{"op": "replace", "path": "/spec/order", "value": 300}]
    assert (
        client.patch(Policy, "edge", steps, namespace="central", patch_type=PatchType.JSON).spec["order"]
        == 300
    )
    merge = {"metadata": {"annotations": {"note": "x"}}}
    assert (
        client.patch(Policy, "edge", merge, namespace="central", patch_type=PatchType.MERGE).spec["order"]
        == 300
    )

    with pytest.raises(ApiError) as invalid:
        client.create(Policy.from_dict({**policy("bad"), "spec": {"networks": ["nowhere"]}}))
    assert invalid.value.status.code == 422
    client.delete(Policy, "edge", namespace="central", cascade=CascadeType.BACKGROUND)
    with pytest.raises(ApiError) as gone:
        client.get(Policy, "edge", namespace="central")
    assert gone.value.status.code == 404


def test_list_in_pages_with_selectors(client: Client) -> None:
    for number in range(7):
        tier = "a" if number % 2 else "b"
        client.create(Policy.from_dict(policy(f"p{number}", number, labels={"tier": tier})))
    assert names(client.list(Policy, namespace="central", chunk_size=2)) == [f"p{n}" for n in range(7)]
    chosen = client.list(Policy, namespace="*", labels={"tier": "a"})
    assert names(chosen) == ["p1", "p3", "p5"]
    assert names(client.list(Policy, namespace="central", fields={"metadata.name": "p4"})) == ["p4"]
    client.deletecollection(Policy, namespace="central")
    assert names(client.list(Policy, namespace="central")) == []


def test_apply_by_two_managers(client: Client) -> None:
    base = policy("shared")
    client.apply(Policy.from_dict(base), field_manager="one")
    other = {**base, "spec": {**base["spec"], "order": 5}}
    with pytest.raises(ApiError) as conflict:
        client.apply(Policy.from_dict(other), field_manager="two")
    assert conflict.value.status.code == 409
    assert client.apply(Policy.from_dict(other), field_manager="two", force=True).spec["order"] == 5


def test_watch_sees_what_happens(client: Client) -> None:
    first = client.create(Policy.from_dict(policy("before")))
    assert first.metadata is not None

    def write() -> None:
        client.create(Policy.from_dict(policy("during")))
        client.patch(
            Policy, "during", {"spec": {"order": 7}}, namespace="central", patch_type=PatchType.MERGE
        )
        client.delete(Policy, "during", namespace="central")

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    for event, item in client.watch(
        Policy, namespace="central", resource_version=first.metadata.resourceVersion, server_timeout=60
    ):
        seen.append((event, item.metadata.name if item.metadata else ""))
        if event == "DELETED":
            break
    writer.join()
    assert seen == [("ADDED", "during"), ("MODIFIED", "during"), ("DELETED", "during")]


async def test_asynchronous_client(server: ApiServer) -> None:
    client = AsyncClient(config=KubeConfig.from_file(server.administrator))
    await asyncio.gather(*(client.create(Policy.from_dict(policy(f"q{n}", n))) for n in range(20)))
    found = [
        p.metadata and p.metadata.name async for p in client.list(Policy, namespace="central", chunk_size=6)
    ]
    assert sorted(map(str, found)) == sorted(f"q{n}" for n in range(20))
    await client.close()
