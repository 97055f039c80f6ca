"""Watches: nothing lost, nothing twice, and the end of each told rightly."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.model.codec import Raw
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Client, Watch, host

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def test_state_first_then_changes(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    watch = await client.watch(f"{HOSTS}?watch=true")
    assert await watch.names(1) == [("ADDED", "h1")]
    await client.post(HOSTS, host("h2"))
    await client.merge(f"{HOSTS}/h1", {"spec": {"location": "b"}})
    await client.delete(f"{HOSTS}/h2")
    assert await watch.names(3) == [("ADDED", "h2"), ("MODIFIED", "h1"), ("DELETED", "h2")]
    await watch.close()


async def test_from_a_revision(client: Client, store: Store) -> None:
    await client.post(HOSTS, host("h1"))
    then = store.revision
    await client.post(HOSTS, host("h2"))
    watch = await client.watch(f"{HOSTS}?watch=1&resourceVersion={then}")
    event = await watch.next()
    assert event["type"] == "ADDED" and event["object"]["metadata"]["name"] == "h2"
    assert event["object"]["metadata"]["resourceVersion"] == str(then + 1)
    await watch.close()


async def test_only_its_own_kind_and_namespace(client: Client, store: Store) -> None:
    watch = await client.watch(f"{HOSTS}?watch=true")
    everywhere = await client.watch(f"{V1}/hosts?watch=true")
    raw = {**host("h9"), "metadata": {"name": "h9", "namespace": "harbor", "uid": "u"}}
    await store.transact(lambda tx: tx.copy(raw, "down:harbor"))
    await client.post(f"{V1}/users", {"metadata": {"name": "u"}})
    await client.post(HOSTS, host("h1"))
    assert await watch.names(1) == [("ADDED", "h1")]
    assert await everywhere.names(2) == [("ADDED", "h9"), ("ADDED", "h1")]
    await watch.close()
    await everywhere.close()


async def test_selectors_make_their_own_events(client: Client) -> None:
    async def label(name: str, value: str | None, location: str = "") -> None:
        change = {"metadata": {"labels": {"tier": value}}, "spec": {"location": location}}
        (await client.merge(f"{HOSTS}/{name}", change)).ok()

    for name in ("h1", "h2"):
        await client.post(HOSTS, host(name))
    watch = await client.watch(f"{HOSTS}?watch=true&labelSelector=tier%3Dedge")
    await label("h1", "edge")
    await label("h1", "edge", "moved")
    await label("h2", "core")
    await label("h1", "core", "moved")
    await label("h1", "edge")
    await client.delete(f"{HOSTS}/h2")
    await client.delete(f"{HOSTS}/h1")
    events = [await watch.next() for _ in range(5)]
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert all(e["object"]["metadata"]["name"] == "h1" for e in events)
    left = events[2]["object"]
    assert left["metadata"]["labels"] == {"tier": "edge"} and left["spec"]["location"] == "moved"
    assert int(left["metadata"]["resourceVersion"]) > int(events[1]["object"]["metadata"]["resourceVersion"])
    await watch.close()


async def test_field_selector_on_one_name(client: Client) -> None:
    watch = await client.watch(f"{HOSTS}?watch=true&fieldSelector=metadata.name%3Dh2")
    for name in ("h1", "h2", "h3"):
        await client.post(HOSTS, host(name))
    await client.delete(f"{HOSTS}/h2")
    assert await watch.names(2) == [("ADDED", "h2"), ("DELETED", "h2")]
    await watch.close()


async def test_tables(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    await client.post(HOSTS, host("h2"))
    watch = await client.watch(f"{HOSTS}?watch=true", accept=TABLE)
    first, second = await watch.next(), await watch.next()
    assert first["object"]["kind"] == "Table" and first["object"]["columnDefinitions"]
    assert second["object"]["columnDefinitions"] == [] and second["object"]["rows"][0]["cells"][0] == "h2"
    await watch.close()


async def test_bookmarks(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.api.watching.BOOKMARKS", 0.0)
    watch = await client.watch(f"{HOSTS}?watch=true&allowWatchBookmarks=true")
    made = (await client.post(f"{V1}/users", {"metadata": {"name": "u"}})).ok(201)
    event = await watch.next()
    assert event["type"] == "BOOKMARK" and event["object"]["kind"] == "Host"
    assert event["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await watch.close()


async def test_watch_list(client: Client, store: Store) -> None:
    await client.post(HOSTS, host("h1"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    watch = await client.watch(f"{HOSTS}?{query}&resourceVersion={store.revision}")
    assert await watch.names(1) == [("ADDED", "h1")]
    end = (await watch.next())["object"]["metadata"]
    assert end["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert end["resourceVersion"] == str(store.revision)
    await watch.close()
    (await client.get(f"{HOSTS}?watch=true&sendInitialEvents=true")).refused(422, "NotOlderThan")


async def test_a_revision_of_another_life(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.api.waiting.reach.__defaults__", (0.05,))
    (await client.get(f"{HOSTS}?watch=true&resourceVersion=999999")).refused(410, "list anew")
    (await client.get(f"{HOSTS}?watch=true&resourceVersion=abc")).refused(400, "resourceVersion")


async def test_a_revision_that_is_just_coming(client: Client, store: Store) -> None:
    ahead = store.revision + 1
    waiting = asyncio.ensure_future(client.get(f"{HOSTS}/h1?resourceVersion={ahead}"))
    listing = asyncio.ensure_future(client.get(f"{HOSTS}?resourceVersion={ahead}"))
    await asyncio.sleep(0)
    await client.post(HOSTS, host("h1"))
    assert (await waiting).ok()["metadata"]["name"] == "h1"
    assert len((await listing).ok()["items"]) == 1


async def test_history_that_is_gone(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, history=10)
    client = Client(Api(ApiContext(store=store, cloud="central")))
    await client.post(HOSTS, host("h1"))
    for n in range(40):
        await client.merge(f"{HOSTS}/h1", {"spec": {"location": str(n)}})
    events = await (await client.watch(f"{HOSTS}?watch=true&resourceVersion=1")).rest()
    assert [e["type"] for e in events] == ["ERROR"]
    assert events[0]["object"]["code"] == 410 and events[0]["object"]["reason"] == "Expired"
    await store.close()


async def test_it_ends_by_its_deadline_and_with_the_server(client: Client, store: Store) -> None:
    assert await (await client.watch(f"{HOSTS}?watch=true&timeoutSeconds=1")).rest() == []
    watch = await client.watch(f"{HOSTS}?watch=true")
    rest = asyncio.ensure_future(watch.rest())
    await client.post(HOSTS, host("h1"))
    app = client.app
    assert isinstance(app, Api)
    app.end_watches()
    async with asyncio.timeout(5):
        assert len(await rest) <= 1
        assert await (await client.watch(f"{HOSTS}?watch=true&resourceVersion=1")).rest() == []


class Mirror:
    """What a client knows from lists and watches alone; every event is checked against it."""

    def __init__(self) -> None:
        self.objects: dict[str, Raw] = {}
        self.revision = 0

    def take(self, event: Raw) -> None:
        raw = event["object"]
        name, revision = raw["metadata"]["name"], int(raw["metadata"]["resourceVersion"])
        assert revision > self.revision, "an event came twice or out of order"
        self.revision = revision
        match event["type"]:
            case "ADDED":
                assert name not in self.objects, f"{name} was added twice"
                self.objects[name] = raw
            case "MODIFIED":
                assert name in self.objects, f"{name} was changed but never added"
                self.objects[name] = raw
            case "DELETED":
                del self.objects[name]
            case other:
                raise AssertionError(other)


async def write(client: Client, seed: int, count: int) -> None:
    chance = random.Random(seed)
    for n in range(count):
        name = f"h{chance.randrange(12)}"
        label = chance.choice(["edge", "core"])
        change = {"metadata": {"labels": {"tier": label}}, "spec": {"location": f"{seed}-{n}"}}
        match chance.randrange(4):
            case 0:
                await client.delete(f"{HOSTS}/{name}")
            case 1:
                await client.post(
                    HOSTS, {**host(name), "metadata": {"name": name, "labels": {"tier": label}}}
                )
            case _:
                await client.merge(f"{HOSTS}/{name}", change)


async def follow(client: Client, selector: str, seed: int, done: asyncio.Event, store: Store) -> Mirror:
    """List once, then watch; go away at random and come back at the last revision seen."""
    chance = random.Random(seed)
    mirror = Mirror()
    listed = (await client.get(f"{HOSTS}?{selector}")).ok()
    mirror.objects = {i["metadata"]["name"]: i for i in listed["items"]}
    mirror.revision = int(listed["metadata"]["resourceVersion"])
    while True:
        last = done.is_set()
        final = store.revision
        query = f"watch=true&resourceVersion={mirror.revision}&{selector}"
        watch = await client.watch(f"{HOSTS}?{query}" + ("&timeoutSeconds=1" if last else ""))
        if last:
            for event in await watch.rest():
                mirror.take(event)
            assert store.revision == final
            return mirror
        await take_some(watch, mirror, chance.randrange(1, 20), done)
        await watch.close()


async def take_some(watch: Watch, mirror: Mirror, count: int, done: asyncio.Event) -> None:
    ended = asyncio.ensure_future(done.wait())
    for _ in range(count):
        event = asyncio.ensure_future(watch.next())
        await asyncio.wait({event, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not event.done():
            event.cancel()
            break
        mirror.take(event.result())
    ended.cancel()


@pytest.mark.parametrize("selector", ["", "labelSelector=tier%3Dedge"])
async def test_nothing_is_lost_or_doubled_over_reconnects(
    client: Client, store: Store, selector: str
) -> None:
    done = asyncio.Event()
    followers = [asyncio.ensure_future(follow(client, selector, seed, done, store)) for seed in range(5)]
    await asyncio.gather(*(write(client, seed, 80) for seed in range(3)))
    done.set()
    mirrors = await asyncio.gather(*followers)
    truth = {i["metadata"]["name"]: i for i in (await client.get(f"{HOSTS}?{selector}")).ok()["items"]}
    for mirror in mirrors:
        assert mirror.objects == truth
