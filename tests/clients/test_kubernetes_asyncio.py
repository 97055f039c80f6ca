"""kubernetes-asyncio: the generated client, its dynamic client (by discovery), its watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.dynamic import DynamicClient

from tests.clients.policies import policy
from tests.support.api import ApiServer

WHERE = ("roost.edge", "v1", "central", "firewallpolicies")


@contextlib.asynccontextmanager
async def connected(server: ApiServer) -> AsyncIterator[Any]:
    """A client from the administrator's kubeconfig."""
    configuration = client.Configuration()
    await config.load_kube_config(str(server.administrator), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield api


async def test_custom_objects(server: ApiServer) -> None:
    async with connected(server) as api:
        objects = client.CustomObjectsApi(api)
        made = await objects.create_namespaced_custom_object(*WHERE, policy("edge"))
        assert made["metadata"]["generation"] == 1
        made["spec"]["order"] = 3
        assert (await objects.replace_namespaced_custom_object(*WHERE, "edge", made))["spec"]["order"] == 3
        steps = [{"op": "replace", "path": "/spec/order", "value": 4}]
        patched = await objects.patch_namespaced_custom_object(*WHERE, "edge", steps)
        assert patched["spec"]["order"] == 4
        with pytest.raises(ApiException) as stale:
            await objects.replace_namespaced_custom_object(*WHERE, "edge", made)
        assert stale.value.status == 409
        assert (await objects.delete_namespaced_custom_object(*WHERE, "edge"))["status"] == "Success"


async def test_watch_and_bookmarked_end(server: ApiServer) -> None:
    async with connected(server) as api:
        objects = client.CustomObjectsApi(api)
        listed = await objects.list_namespaced_custom_object(*WHERE)
        revision = listed["metadata"]["resourceVersion"]
        seen = []

        async def follow() -> None:
            async with watch.Watch().stream(
                objects.list_namespaced_custom_object, *WHERE, resource_version=revision, timeout_seconds=60
            ) as events:
                async for event in events:
                    seen.append((event["type"], event["raw_object"]["metadata"]["name"]))
                    if len(seen) == 2:
                        return

        following = asyncio.create_task(follow())
        await objects.create_namespaced_custom_object(*WHERE, policy("one"))
        await objects.delete_namespaced_custom_object(*WHERE, "one")
        await asyncio.wait_for(following, 60)
        assert seen == [("ADDED", "one"), ("DELETED", "one")]


async def test_dynamic_client_finds_kinds_by_discovery(server: ApiServer) -> None:
    async with connected(server) as api:
        dynamic = await DynamicClient(api)
        policies = await dynamic.resources.get(api_version="roost.edge/v1", kind="FirewallPolicy")
        assert policies.name == "firewallpolicies" and policies.namespaced
        await policies.create(body=policy("edge"), namespace="central")
        found = await policies.get(namespace="central")
        assert [item.metadata.name for item in found.items] == ["edge"]
        applied = await policies.server_side_apply(
            body=policy("edge", 9), namespace="central", field_manager="dynamic", force_conflicts=True
        )
        assert applied.spec.order == 9
        await policies.delete(name="edge", namespace="central")


async def test_who_am_i_and_may_i(server: ApiServer) -> None:
    async with connected(server) as api:
        review = await client.AuthenticationV1Api(api).create_self_subject_review(
            client.V1SelfSubjectReview()
        )
        assert review.status.user_info.username == "admin"
        asked = client.V1ResourceAttributes(
            group="roost.edge", resource="hosts", verb="delete", namespace="central"
        )
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
        answer = await client.AuthorizationV1Api(api).create_self_subject_access_review(
            client.V1SelfSubjectAccessReview(spec=spec)
        )
        assert answer.status.allowed
