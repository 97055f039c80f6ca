"""Many watchers: encoded once, bounded however slow they are, and each told exactly what it asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.api import encoders, fanout, watching
from roost.api.access import ADMINISTRATORS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.fanout import Feed, Held, never
from roost.api.watching import Watches
from roost.model.codec import Raw
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import HOSTS, V1, Client, Watch, host
from tests.support.stores import new_database

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def watches_of(client: Client) -> Watches:
    app = client.app
    assert isinstance(app, Api)
    return app._watches


async def fed(client: Client, count: int) -> None:
    """Until that many watchers are fed by the hub."""
    hub = watches_of(client).hub
    async with asyncio.timeout(20):
        while sum(len(topic.feeds) for topic in hub._topics.values()) < count:  # noqa: ASYNC110 - the hub tells nobody
            await asyncio.sleep(0)


async def told(client: Client, store: Store) -> None:
    """Until every watcher has sent all there is."""

    def reached(watcher: watching._Watcher) -> int:
        feed = watcher._feed
        return watcher._cursor if feed is None or feed.behind or feed._parts else feed.upto

    async with asyncio.timeout(20):
        while any(reached(w) < store.revision for w in watches_of(client)._running):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_change_is_encoded_once_for_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    plain = encoders.Events.event

    def event(self: encoders.Events, type: Any, item: Any, now: Any) -> bytes:
        made.append(type)
        return plain(self, type, item, now)

    await client.post(HOSTS, host("h1"))
    revision = (await client.get(HOSTS)).raw["metadata"]["resourceVersion"]
    queries = ["", *(f"&labelSelector=tier!%3D{n}" for n in range(20)), *[""] * 20]
    watches = [await client.watch(f"{HOSTS}?watch=1&resourceVersion={revision}{q}") for q in queries]
    others = [
        await client.watch(f"{HOSTS}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name%3Dx{n}")
        for n in range(20)
    ]
    await fed(client, len(watches) + len(others))
    monkeypatch.setattr(encoders.Events, "event", event)
    await client.merge(f"{HOSTS}/h1", {"spec": {"location": "b"}})
    told = [await watch.next() for watch in watches]
    assert all(event == told[0] for event in told) and told[0]["object"]["spec"]["location"] == "b"
    assert made == ["MODIFIED"]
    for watch in (*watches, *others):
        await watch.close()
    hub = watches_of(client).hub
    assert hub._topics == {} and hub._unsubscribe is None


async def test_a_slow_watcher_is_bounded_and_loses_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "BACKLOG", 4000)
    most, put = [0], Feed.put

    def watched_put(self: Feed, revision: int, part: bytes) -> None:
        put(self, revision, part)
        most[0] = max(most[0], self._size)

    monkeypatch.setattr(Feed, "put", watched_put)
    await client.post(HOSTS, host("h1"))
    slow = await client.watch(f"{HOSTS}?watch=1")
    quick = await client.watch(f"{HOSTS}?watch=1")
    await slow.names(1)
    await quick.names(1)
    await fed(client, 2)
    for n in range(60):
        (await client.merge(f"{HOSTS}/h1", {"spec": {"location": str(n)}})).ok()
        assert (await quick.next())["object"]["spec"]["location"] == str(n)
    seen = [(await slow.next())["object"]["spec"]["location"] for _ in range(60)]
    assert seen == [str(n) for n in range(60)]
    assert 4000 < most[0] < 8000
    await client.post(HOSTS, host("h2"))
    assert await slow.names(1) == await quick.names(1) == [("ADDED", "h2")]
    await slow.close()
    await quick.close()


async def test_one_that_falls_behind_history_is_told_so(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "BACKLOG", 2000)
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, history=10)
    client = Client(Api(ApiContext(store=store, cloud="central")))
    await client.post(HOSTS, host("h1"))
    slow = await client.watch(f"{HOSTS}?watch=1")
    await fed(client, 1)
    for n in range(80):
        await client.merge(f"{HOSTS}/h1", {"spec": {"location": str(n)}})
    events = await slow.rest()
    assert events[0]["type"] == "ADDED" and events[-1]["type"] == "ERROR"
    assert events[-1]["object"]["code"] == 410 and events[-1]["object"]["reason"] == "Expired"
    assert all(e["type"] == "MODIFIED" for e in events[1:-1]) and len(events) < 80
    await store.close()


async def test_the_last_word_of_a_watch_is_where_to_go_on(client: Client, store: Store) -> None:
    await client.post(HOSTS, host("h1"))
    query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={store.revision}"
    watch = await client.watch(f"{HOSTS}?{query}")
    silent = await client.watch(f"{HOSTS}?watch=1&timeoutSeconds=1&resourceVersion={store.revision}")
    await fed(client, 2)
    await client.post(f"{V1}/users", {"metadata": {"name": "u"}})
    (last,) = await watch.rest()
    assert last["type"] == "BOOKMARK" and last["object"]["kind"] == "Host"
    assert last["object"]["metadata"]["resourceVersion"] == str(store.revision)
    assert await silent.rest() == []


async def test_the_columns_come_with_the_first_event_of_each_table(client: Client, store: Store) -> None:
    path = f"{HOSTS}?watch=1&resourceVersion={store.revision}"
    first = await client.watch(path, accept=TABLE)
    await fed(client, 1)
    await client.post(HOSTS, host("h1"))
    events = [await first.next()]
    late = await client.watch(f"{HOSTS}?watch=1&resourceVersion={store.revision}", accept=TABLE)
    await fed(client, 2)
    for name in ("h2", "h3"):
        await client.post(HOSTS, host(name))
    events += [await first.next(), await first.next()]
    others = [await late.next(), await late.next()]
    assert [bool(e["object"]["columnDefinitions"]) for e in events] == [True, False, False]
    assert [bool(e["object"]["columnDefinitions"]) for e in others] == [True, False]
    assert [e["object"]["rows"][0]["cells"][0] for e in others] == ["h2", "h3"]
    await first.close()
    await late.close()


async def test_a_watch_ends_with_the_right_to_it(client: Client) -> None:
    watches = watches_of(client)
    watch, other = await client.watch(f"{HOSTS}?watch=1"), await client.watch(f"{V1}/users?watch=1")
    await fed(client, 2)
    watches.still_allowed = lambda caller, target: target.info.kind != "Host"
    watches.review()
    async with asyncio.timeout(20):
        assert await watch.rest() == []
    await client.post(f"{V1}/users", {"metadata": {"name": "u"}})
    assert await other.names(1) == [("ADDED", "u")]
    await other.close()


async def test_there_are_not_more_watches_than_are_served(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST", 2)
    two = [await some.watch(f"{HOSTS}?watch=1") for some in (client, client.reader())]
    answer = await client.get(f"{HOSTS}?watch=1")
    assert answer.refused(429, "watches are running")["details"]["retryAfterSeconds"]
    assert answer.headers["retry-after"]
    for watch in two:
        await watch.close()
    await (await client.watch(f"{HOSTS}?watch=1")).close()


async def test_one_client_has_at_most_half_of_the_watches(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST", 4)
    local = client.local("ann", ADMINISTRATORS)
    two = [await local.watch(f"{HOSTS}?watch=1") for _ in range(2)]
    answer = await local.get(f"{HOSTS}?watch=1")
    assert answer.refused(429, "of this client")["details"]["retryAfterSeconds"]
    assert answer.headers["retry-after"]
    others = [await client.watch(f"{HOSTS}?watch=1") for _ in range(2)]
    for watch in (two.pop(), *others):
        await watch.close()
    await (await local.watch(f"{HOSTS}?watch=1")).close()
    await two.pop().close()
    assert not watches_of(client)._of


# -- what a client knows from its events is what is there


class Write(msgspec.Struct, frozen=True):
    what: str
    name: str
    tier: str


writes = st.lists(
    st.builds(
        Write,
        st.sampled_from(["put", "put", "remove"]),
        st.sampled_from(["h1", "h2", "h3"]),
        st.sampled_from(["edge", "core"]),
    ),
    max_size=5,
)
SELECTORS = [
    "",
    "labelSelector=tier%3Dedge",
    "labelSelector=tier!%3Dedge",
    "fieldSelector=metadata.name%3Dh2",
    "fieldSelector=metadata.name!%3Dh2&labelSelector=tier",
]


def carry_out(tx: Transaction, todo: list[Write]) -> None:
    for write in todo:
        found = tx.find("Host", "central", write.name)
        metadata = {"name": write.name, "namespace": "central", "labels": {"tier": write.tier}}
        raw = {"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": metadata, "spec": {}}
        if write.what == "remove":
            tx.remove("Host", "central", write.name) if found else None
        else:
            tx.replace(raw) if found else tx.create(raw)


@settings(max_examples=40, deadline=None)
@given(writes, st.lists(writes, min_size=1, max_size=8), st.sampled_from([1, 600, 1024 * 1024]))
def test_events_add_up_to_the_list(before: list[Write], groups: list[list[Write]], backlog: int) -> None:
    async def go() -> None:
        with new_database() as url:
            store = await Store.open(url, inline=True)
            client = Client(Api(ApiContext(store=store, cloud="central")))
            await store.transact(lambda tx: carry_out(tx, before))
            mirrors = [await _follow(client, selector) for selector in SELECTORS]
            rests = [asyncio.ensure_future(watch.rest()) for watch, _ in mirrors]
            for todo in groups:
                await store.transact(lambda tx: carry_out(tx, todo))  # noqa: B023
            await client.post(f"{V1}/users", {"metadata": {"name": "end"}})
            await told(client, store)
            watches_of(client).end()
            for selector, (_, known), rest in zip(SELECTORS, mirrors, rests, strict=True):
                for event in await rest:
                    _take(known, event)
                listed = (await client.get(f"{HOSTS}?{selector}")).ok()["items"]
                assert known == {raw["metadata"]["name"]: raw for raw in listed}
            await store.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "BACKLOG", backlog)
        asyncio.run(go())


async def _follow(client: Client, selector: str) -> tuple[Watch, dict[str, Raw]]:
    listed = (await client.get(f"{HOSTS}?{selector}")).ok()
    known = {raw["metadata"]["name"]: raw for raw in listed["items"]}
    revision = listed["metadata"]["resourceVersion"]
    query = f"watch=1&allowWatchBookmarks=1&resourceVersion={revision}&{selector}"
    return await client.watch(f"{HOSTS}?{query}"), known


def _take(known: dict[str, Raw], event: Raw) -> None:
    raw = event["object"]
    if event["type"] == "BOOKMARK":
        return
    name = raw["metadata"]["name"]
    assert (name in known) is (event["type"] != "ADDED")
    if event["type"] == "DELETED":
        assert int(known.pop(name)["metadata"]["resourceVersion"]) < int(raw["metadata"]["resourceVersion"])
    else:
        known[name] = raw


async def test_what_waits_is_sent_past_the_watcher_only_while_it_waits_and_its_client_takes_it() -> None:
    sent: list[bytes] = []
    taking = True

    def at_once(part: bytes) -> bool:
        if taking:
            sent.append(part)
        return taking

    held = Held()
    feed = Feed(1, None, at_once, held)
    feed.put(2, b"before it waits\n")
    feed.deliver()
    assert sent == [] and feed.take() == b"before it waits\n"
    waiting = asyncio.ensure_future(feed.wait())
    await asyncio.sleep(0)
    feed.put(3, b"while it waits\n")
    feed.deliver()
    await asyncio.sleep(0)
    assert sent == [b"while it waits\n"] and not waiting.done()
    assert (feed.cursor, feed.told, feed.take()) == (3, 3, b"")
    taking = False
    feed.put(4, b"not taken\n")
    feed.deliver()
    await waiting
    assert sent == [b"while it waits\n"] and feed.take() == b"not taken\n" and feed.told == 3
    assert held.bytes == 0


def test_all_feeds_together_hold_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "WAITING", 100_000)
    held = Held()
    feeds = [Feed(1, None, never, held) for _ in range(10)]
    for feed in feeds[:4]:
        feed.put(2, b"x" * 20_000)
    assert [feed.full for feed in feeds[:4]] == [False] * 4
    feeds[4].put(2, b"x" * 20_001)
    feeds[5].put(2, b"x")
    assert [feed.full for feed in feeds[:6]] == [True] * 5 + [False]
    for feed in feeds[:3]:
        feed.drop()
    assert held.bytes == 40_002 and not any(feed.full for feed in feeds)
