"""Every write and every denied request leaves its record, and no secret or flood gets into the audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from roost.api import auditing, audits
from roost.api.access import CALLER
from roost.api.app import Api
from roost.api.auditing import Gathered, key_of
from roost.api.context import ApiContext
from roost.api.through import handler
from roost.engine.clock import LoopClock
from roost.link import exchange
from roost.model.audit import Entry, Head, Record, verify
from roost.model.cloud import Cloud
from roost.model.codec import Raw
from roost.model.host import Host, HostSpec
from roost.model.meta import Metadata
from roost.store import audit
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Answer, Client, host
from tests.support.api import ApiServer
from tests.support.clock import START, on_fake_time
from tests.support.stores import new_database, opened


@pytest.fixture
def api(store: Store) -> Api:
    return Api(ApiContext(store=store, cloud="central"))


@pytest.fixture
def client(api: Api) -> Client:
    return Client(api)


async def records(store: Store) -> list[Record]:
    """The whole audit, after a look that its chain holds."""
    entries = await store.read(lambda tx: audit.entries_after(tx.connection, 0, 100_000))
    verify(Head(), entries)
    return [msgspec.json.decode(e.data, type=Record) for e in entries]


def lines(answer: Answer) -> tuple[Raw, list[Raw]]:
    """The first line of an audit and the others."""
    assert answer.status == 200, answer.body
    first, *rest = [msgspec.json.decode(line) for line in answer.body.splitlines()]
    return first["audit"], rest


async def test_each_write_is_recorded_with_who_what_and_what_changed(client: Client, store: Store) -> None:
    made = await client.post(HOSTS, host("a", location="rack 1"))
    changed = await client.merge(
        f"{HOSTS}/a", {"spec": {"location": "rack 2"}, "metadata": {"labels": {"x": "1"}}}
    )
    await client.delete(f"{HOSTS}/a")
    create, patch, delete = await records(store)
    assert (create.user, create.groups, create.verb, create.code) == (
        "ada",
        ["administrators"],
        "create",
        201,
    )
    assert (create.group, create.resource, create.kind) == ("roost.edge", "hosts", "Host")
    assert (create.namespace, create.name) == ("central", "a")
    assert create.revision == int(made.raw["metadata"]["resourceVersion"])
    assert create.audit_id == made.headers["audit-id"] and create.time.endswith("Z")
    assert ("spec.location", msgspec.UNSET, "rack 1") in [(c.path, c.old, c.new) for c in create.changes]
    assert (patch.verb, patch.code, patch.audit_id) == ("patch", 200, changed.headers["audit-id"])
    assert sorted((c.path, c.old, c.new) for c in patch.changes if c.path.startswith("spec")) == [
        ("spec.location", "rack 1", "rack 2")
    ]
    assert [(c.path, c.new) for c in patch.changes if c.path.startswith("metadata")] == [
        ("metadata.labels.x", "1")
    ]
    assert (delete.verb, delete.name) == ("delete", "a")
    assert ("spec.location", "rack 2") in [(c.path, c.old) for c in delete.changes]


async def test_what_fails_is_denied_or_changes_nothing_is_recorded_too(
    client: Client, api: Api, store: Store
) -> None:
    await client.post(HOSTS, host("a"))
    await client.post(HOSTS, host("a"))
    await client.merge(f"{HOSTS}/a", {})
    await client.post(f"{HOSTS}?dry%52un=All", host("b"))
    await client.reader().delete(f"{HOSTS}/a")
    await client.post(f"{HOSTS}?fieldManager=dryRun=All", host("c"))
    await client.send("DELETE", f"{HOSTS}/c", {"kind": "DeleteOptions", "dryRun": ["All"]})
    await api.close()
    found = [(r.user, r.verb, r.name, r.code, r.dry_run, bool(r.changes)) for r in await records(store)]
    assert found == [
        ("ada", "create", "a", 201, False, True),
        ("ada", "create", "c", 201, False, True),
        ("ada", "create", "", 409, False, False),
        ("ada", "patch", "a", 200, False, False),
        ("ada", "create", "", 201, True, False),
        ("rita", "delete", "a", 403, False, False),
        ("ada", "delete", "c", 200, True, False),
    ]
    conflict, denied = (await records(store))[2::3][:2]
    assert "already exists" in conflict.reason and "cannot delete" in denied.reason


async def test_who_may_not_act_as_another_is_named(client: Client, api: Api, store: Store) -> None:
    await client.reader().sending(impersonate_user="ada").delete(f"{HOSTS}/a")
    await api.close()
    (denied,) = await records(store)
    assert (denied.user, denied.code) == ("rita", 403) and "cannot impersonate" in denied.reason


async def test_several_deletions_of_one_request_are_told_one_by_one(client: Client, store: Store) -> None:
    for name in "abc":
        await client.post(HOSTS, host(name))
    answer = await client.delete(HOSTS)
    found = [r for r in await records(store) if r.verb == "deletecollection"]
    assert [r.name for r in found] == ["a", "b", "c"]
    assert {r.audit_id for r in found} == {answer.headers["audit-id"]}


async def test_a_made_token_is_told_without_its_hash(client: Client, store: Store) -> None:
    user = {"apiVersion": "roost.edge/v1", "kind": "User", "metadata": {"name": "bob"}, "spec": {}}
    await client.post(f"{V1}/users", user)
    answer = await client.post(f"{V1}/users/bob/token", {})
    token = answer.ok(201)["status"]["token"]
    made = (await records(store))[-1]
    assert (made.kind, made.path) == ("Credential", f"{V1}/users/bob/token")
    stored = await store.read(lambda tx: tx.select("Credential"))
    text = msgspec.json.encode(made).decode()
    assert token not in text and stored[0].raw["spec"]["digest"] not in text


async def test_reviews_are_no_writes(client: Client, api: Api, store: Store) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "hosts", "group": "roost.edge"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await client.post(path, review)).status == 201
    await api.close()
    assert await records(store) == []


async def test_administrators_read_the_audit_and_that_is_recorded(
    client: Client, api: Api, store: Store
) -> None:
    for n in range(5):
        await client.post(HOSTS, host(f"h{n}"))
    about, found = lines(await client.get("/audit"))
    assert about["cloud"] == "central" and about["store"] == store.identity and about["pruned"] == 0
    entries = [Entry(e["sequence"], "", e["digest"]) for e in found]
    assert [e.sequence for e in entries] == [1, 2, 3, 4, 5]
    assert about["head"]["digest"] == entries[-1].digest
    assert [e["sequence"] for e in lines(await client.get("/audit?after=2&limit=2"))[1]] == [3, 4]
    assert [e["sequence"] for e in lines(await client.get("/audit?newest=2"))[1]] == [4, 5]
    assert [e["record"]["name"] for e in lines(await client.get("/audit?name=h3"))[1]] == ["h3"]
    (await client.reader().get("/audit")).refused(403, "/audit")
    (await client.get("/audit?after=99")).refused(400, "reached 5")
    (await client.get("/audit?since=yesterday")).refused(400, "since")
    await api.close()
    read = [r for r in await records(store) if r.path == "/audit"]
    assert [(r.user, r.verb, r.code, r.count) for r in read] == [
        ("ada", "get", 200, 1),
        ("rita", "get", 403, 1),
        ("ada", "get", 400, 1),
        ("ada", "get", 200, 3),
        ("ada", "get", 400, 1),
    ]
    denied = lines(await client.get("/audit?denied=true"))[1]
    assert [e["record"]["user"] for e in denied] == ["rita"]


async def test_who_follows_the_audit_sees_what_comes_and_is_let_go_at_the_end(
    client: Client, api: Api
) -> None:
    watch = await client.watch("/audit?follow=true&kind=host")
    assert "audit" in await watch.next()
    await client.post(HOSTS, host("a"))
    assert (await watch.next())["record"]["name"] == "a"
    api.end_watches()
    assert await watch.rest() == []


@on_fake_time
async def test_who_follows_the_audit_is_woken_and_looks_seldom_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, looks = asyncio.get_running_loop(), list[float]()
    entries_after = audit.entries_after

    def counted(connection: Connection, after: int, limit: int) -> list[Entry]:
        looks.append(loop.time())
        return entries_after(connection, after, limit)

    monkeypatch.setattr(audit, "entries_after", counted)
    with new_database() as url:
        async with opened(url, inline=True) as store:
            await store.save(Cloud(metadata=Metadata(name="central")))
            api = Api(ApiContext(store=store, cloud="central"))
            client = Client(api)
            watch = await client.watch("/audit?follow=true")
            assert "audit" in await watch.next()
            seen = list[tuple[float, int]]()

            async def read_on() -> None:
                with suppress(StopAsyncIteration):
                    while True:
                        record = (await watch.next())["record"]
                        seen.append((loop.time(), record["code"]))

            coming = asyncio.ensure_future(read_on())
            await asyncio.sleep(602)
            assert abs(len(looks) - 602 / audits.LOOK_EVERY) <= 2
            # A write is told as soon as it is committed, a refusal as soon as it is recorded.
            began = loop.time()
            await client.post(HOSTS, host("a"))
            await asyncio.sleep(10)
            assert seen[-1][1] == 201 and seen[-1][0] - began <= audits.SOON
            began = loop.time()
            await client.reader().post(HOSTS, host("b"))
            await asyncio.sleep(10)
            assert seen[-1][1] == 403 and seen[-1][0] - began <= auditing.GATHER + audits.RARELY + 0.1
            # What the platform writes wakes too, in vain: no more often than once in a while.
            before = len(looks)
            for n in range(1_000):
                await store.save(Host(metadata=Metadata(name=f"p{n}", namespace="central"), spec=HostSpec()))
                await asyncio.sleep(0.01)
            assert 10 <= len(looks) - before <= 10 / audits.RARELY + 2
            # Many writes together are few looks, and none is missing.
            before, known = len(looks), len(seen)
            for n in range(200):
                await client.post(HOSTS, host(f"w{n}"))
                await asyncio.sleep(0.005)
            await asyncio.sleep(1)
            assert len(seen) - known == 200 and len(looks) - before <= 2 / audits.SOON
            api.end_watches()
            await coming
            await api.close()


async def test_who_follows_the_audit_is_woken_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "LOOK_EVERY", 3600.0)
    with new_database("postgresql") as url:
        async with opened(url) as here, opened(url) as there:
            await here.save(Cloud(metadata=Metadata(name="central")))
            ours, theirs = (Api(ApiContext(store=s, cloud="central")) for s in (here, there))
            async with asyncio.timeout(120):
                watch = await Client(ours).watch("/audit?follow=true&kind=host")
                assert "audit" in await watch.next()
                for name in ("a", "b"):
                    await Client(theirs).post(HOSTS, host(name))
                    assert (await watch.next())["record"]["name"] == name
                await watch.close()
            await ours.close()
            await theirs.close()


async def test_who_follows_the_audit_is_let_go_when_he_may_no_longer(client: Client) -> None:
    (await client.post(f"{V1}/users", {"metadata": {"name": "ann"}, "spec": {"role": "administrator"}})).ok(
        201
    )
    watch = await client.local("ann").watch("/audit?follow=true&kind=host")
    assert "audit" in await watch.next()
    (await client.merge(f"{V1}/users/ann", {"spec": {"disabled": True}})).ok()
    async with asyncio.timeout(30):
        assert await watch.rest() == []


async def test_so_many_follow_the_audit_and_no_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "FOLLOWERS", 1)
    first = await client.watch("/audit?follow=true&kind=host")
    assert "audit" in await first.next()
    refused = await client.get("/audit?follow=true")
    refused.refused(429, "follow the audit")
    assert refused.headers["retry-after"]
    assert (await client.get("/audit")).status == 200
    await first.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(f"sqlite:///{tmp_path / 'site.db'}", inline=True) as store:
        yield store


async def test_a_forwarded_write_is_recorded_here_and_there_under_one_id(store: Store, site: Store) -> None:
    below = Api(ApiContext(store=site, cloud="harbor"))

    async def call(name: str, request: exchange.Request) -> exchange.Response:
        assert name == "harbor"
        return await handler(below)(request)

    centre = Api(ApiContext(store=store, cloud="central", call_cloud=call))
    client = Client(centre)
    path = f"{V1}/namespaces/harbor/hosts"
    answer = await client.post(f"/clouds/harbor{path}", host("a"))
    assert answer.status == 201, answer.body
    await centre.close()
    there, here = (await records(site))[-1], (await records(store))[-1]
    assert (there.user, there.verb, there.name, there.code) == ("ada", "create", "a", 201)
    assert there.through.endswith("central")
    assert (here.user, here.verb, here.cloud, here.code) == ("ada", "create", "harbor", 201)
    assert here.path == f"/clouds/harbor{path}"
    assert here.audit_id == there.audit_id == answer.headers["audit-id"]


async def test_a_client_can_not_say_whom_its_request_came_through(store: Store) -> None:
    """The headers that clouds add are taken from links alone, and never passed on from a client."""
    app = Api(ApiContext(store=store, cloud="central"))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"roost-through", b"elsewhere"), (b"roost-address", b"192.0.2.9"), (b"audit-id", b"mine")]
    headers += [(b"x-request-id", b"r" * 500), (b"user-agent", b"a" * 500 + b"\x1b")]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": HOSTS,
        "query_string": b"",
        "headers": headers,
    }
    scope |= {"raw_path": HOSTS.encode(), "client": ("198.51.100.7", 4), "server": None, "root_path": ""}
    await app({**scope, "http_version": "1.1", "scheme": "https"}, receive, send)
    await app.close()
    (denied,) = await records(store)
    assert CALLER not in scope
    assert (denied.code, denied.user, denied.through, denied.address) == (401, "", "", "198.51.100.7")
    assert denied.audit_id != "mine" and denied.request_id == "r" * 128 and denied.agent == "a" * 80


# -- floods


def refusal(user: str = "", address: str = "", name: str = "", code: int = 403) -> Record:
    return Record(user=user, address=address, name=name, verb="delete", resource="hosts", code=code)


def test_what_a_denied_caller_makes_up_makes_no_difference() -> None:
    assert key_of(refusal("rita", name="a")) == key_of(refusal("rita", name="b"))
    assert key_of(refusal("rita")) != key_of(refusal("bob"))
    a, b, token = (msgspec.structs.replace(refusal("rita"), subresource=s) for s in ("a", "b", "token"))
    assert key_of(a) == key_of(b) != key_of(token)
    other = msgspec.structs.replace(refusal(address="a", code=401), verb="get", path="/x")
    assert key_of(other) == key_of(refusal(address="a", code=401))


@pytest.mark.looptime
async def test_a_flood_of_denied_requests_is_counted_and_bounded(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'a.db'}", inline=True, clock=LoopClock(START)) as store:
        gathered = Gathered(store, LoopClock(START))
        for n in range(20_000):
            gathered.add(refusal("rita", name=f"host-{n}"))
        await asyncio.sleep(120)
        first, rest = await records(store)
        assert (first.count, first.name, rest.count, rest.name) == (1, "host-0", 19_999, "host-0")
        assert rest.until >= rest.time
        for n in range(20_000):
            gathered.add(refusal(address=f"2001:db8::{n:x}", code=401))
        await asyncio.sleep(200)
        found = (await records(store))[2:]
        told = [r for r in found if r.verb == "shed"]
        kept = [r for r in found if r.verb != "shed"]
        assert len(kept) <= 330
        assert sum(r.count for r in told) + sum(r.count for r in kept) == 20_000
        assert gathered._task is not None and gathered._task.done(), "nothing is left, nothing runs"


@pytest.mark.looptime
async def test_what_the_store_does_not_take_is_tried_again(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'a.db'}", inline=True, clock=LoopClock(START)) as store:
        gathered = Gathered(store, LoopClock(START))
        store._closed = True
        gathered.add(refusal("rita"))
        await asyncio.sleep(5)
        store._closed = False
        await asyncio.sleep(5)
        assert [r.user for r in await records(store)] == ["rita"]
        await gathered.close()


def test_over_a_real_socket_with_kubectl(tmp_path: Path) -> None:
    with ApiServer(tmp_path) as server:
        done = server.kubectl("create", "-f", "-", stdin=msgspec.json.encode(host("a")).decode())
        assert done.returncode == 0, done.stderr
        refused = server.kubectl("delete", "host", "a", kubeconfig=server.reader)
        assert refused.returncode != 0
        raw = server.kubectl("get", "--raw", "/audit")
        server.do(server.app.close())
        found = server.do(records(server.store))
        create = next(r for r in found if r.verb == "create")
        assert create.user == "admin" and create.address == "127.0.0.1" and create.agent.startswith("kubectl")
        assert [(r.user, r.code) for r in found if r.code == 403] == [("rita", 403)]
        assert '"verb":"create"' in raw.stdout
