"""Two API processes on one PostgreSQL: what one writes of access, the other goes by soon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Client
from tests.api.test_rbac import RBAC, binding_body
from tests.support import postgresql

SOON = 30.0
ACCOUNTS = "/api/v1/namespaces/central/serviceaccounts"


@pytest.fixture
async def two() -> AsyncIterator[tuple[Client, Client]]:
    if postgresql.programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    async with contextlib.AsyncExitStack() as stack:
        url = stack.enter_context(postgresql.database())
        clients: list[Client] = []
        for _ in range(2):
            store = await Store.open(url)
            stack.push_async_callback(store.close)
            if not clients:
                await store.save(Cloud(metadata=Metadata(name="central")))
            clients.append(Client(Api(ApiContext(store=store, cloud="central"))))
        yield clients[0], clients[1]


async def becomes(client: Client, status: int) -> None:
    """Ask until it is answered so."""
    async with asyncio.timeout(SOON):
        while (await client.get(HOSTS)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_rights_given_and_taken_at_one_count_at_the_other(two: tuple[Client, Client]) -> None:
    one, other = two
    eve = other.local("eve")
    (await eve.get(HOSTS)).refused(403)
    (await one.post(f"{RBAC}/clusterrolebindings", binding_body("b", "roost:reader", "eve"))).ok(201)
    await becomes(eve, 200)
    watch = await eve.watch(f"{HOSTS}?watch=1")
    (await one.delete(f"{RBAC}/clusterrolebindings/b")).ok()
    async with asyncio.timeout(SOON):
        await watch.rest()
    await becomes(eve, 403)


async def test_tokens_of_one_are_known_to_the_other(two: tuple[Client, Client]) -> None:
    one, other = two
    (await one.post(ACCOUNTS, {"metadata": {"name": "bot"}})).ok(201)
    token = (await one.post(f"{ACCOUNTS}/bot/token", {})).ok(201)["status"]["token"]
    (await other.bearing(token).get("/apis")).ok()
    (await other.post(f"{ACCOUNTS}/bot/token", {})).ok(201)
    assert len(await _keys(one)) == 1
    (await one.post(f"{V1}/users", {"metadata": {"name": "tom"}, "spec": {"role": "reader"}})).ok(201)
    bearer = (await one.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    tom = other.bearing(bearer)
    await becomes(tom, 200)
    (await one.merge(f"{V1}/users/tom", {"spec": {"disabled": True}})).ok()
    await becomes(tom, 403)


async def _keys(client: Client) -> list[object]:
    published = (await client.get("/openid/v1/jwks")).ok()["keys"]
    return list(published)
