"""Lists of any length: of one moment whatever is written meanwhile, in every form, within memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.api import compression, forms, reading, snapshots
from roost.api.access import ADMINISTRATORS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.forms import Form, View
from roost.api.items import Item, Matcher
from roost.api.options import ListOptions, for_list, for_watch, selector_of
from roost.api.reading import Listing
from roost.api.snapshots import Continue, Scope
from roost.api.status import ApiError
from roost.link import exchange
from roost.model.codec import Raw
from roost.model.registry import BY_KIND
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction
from tests.api.client import HOSTS, V1, Answer, Client, host
from tests.support.stores import new_database

NOW = datetime(2026, 11, 23, tzinfo=UTC)
VIEW = View.of(BY_KIND["Host"])


async def many(client: Client, count: int, size: int = 0) -> None:
    for n in range(count):
        body = host(f"h{n:03}")
        body["metadata"] |= {"labels": {"odd": str(n % 2)}, "annotations": {"note": "x" * size}}
        (await client.post(HOSTS, body)).ok(201)


# -- what may be asked for together


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ({}, ListOptions(0, False, 0, None)),
        ({"resourceVersion": "0", "limit": "5"}, ListOptions(0, False, 5, None)),
        ({"resourceVersion": "7"}, ListOptions(7, False, 0, None)),
        ({"resourceVersion": "7", "limit": "5"}, ListOptions(7, True, 5, None)),
        ({"resourceVersion": "7", "resourceVersionMatch": "Exact"}, ListOptions(7, True, 0, None)),
        (
            {"resourceVersion": "7", "limit": "5", "resourceVersionMatch": "NotOlderThan"},
            ListOptions(7, False, 5, None),
        ),
        (
            {"resourceVersion": "0", "continue": Continue(3, "a", "b").token()},
            ListOptions(0, False, 0, Continue(3, "a", "b")),
        ),
    ],
)
def test_what_a_list_asks_for(query: dict[str, str], asked: ListOptions) -> None:
    assert for_list(query) == asked


TOKEN = Continue(3, "a", "b").token()


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ({"resourceVersionMatch": "Exact"}, 422, "resourceVersionMatch: Forbidden"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, "resourceVersionMatch: Forbidden"),
        ({"resourceVersionMatch": "Newest", "resourceVersion": "1"}, 422, 'Unsupported value: "Newest"'),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "1", "continue": TOKEN},
            422,
            "resourceVersionMatch: Forbidden",
        ),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents: Forbidden"),
        ({"resourceVersion": "1", "continue": TOKEN}, 400, "resourceVersion"),
        ({"resourceVersion": "x"}, 400, "resourceVersion"),
        ({"continue": "!"}, 400, "continue"),
    ],
)
def test_what_does_not_go_together(query: dict[str, str], code: int, word: str) -> None:
    with pytest.raises(ApiError) as raised:
        for_list(query)
    assert raised.value.code == code and word in raised.value.message
    if code == 422:
        assert raised.value.message.startswith('ListOptions.meta.k8s.io "" is invalid: ')
        assert raised.value.body()["details"]["causes"]


@pytest.mark.parametrize(
    "query",
    [
        {"sendInitialEvents": "true"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "continue": TOKEN},
    ],
)
def test_what_a_watch_can_not_ask_for(query: dict[str, str]) -> None:
    with pytest.raises(ApiError) as raised:
        for_watch(query)
    assert raised.value.code == 422


def test_what_a_watch_asks_for() -> None:
    initial = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "5"}
    assert for_watch({}).initial and for_watch({"resourceVersion": "0"}).initial
    assert not for_watch({"resourceVersion": "5"}).initial
    assert for_watch(initial).initial and not for_watch(initial).marked
    assert for_watch({**initial, "allowWatchBookmarks": "true"}).marked
    assert not for_watch({**initial, "sendInitialEvents": "false"}).initial
    assert not for_watch({"allowWatchBookmarks": "true"}).marked


# -- revisions that are gone, or not there yet


async def test_a_revision_that_never_comes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.api.waiting.reach.__defaults__", (0.05,))
    for path in (f"{HOSTS}?resourceVersion=99999", f"{HOSTS}/h1?resourceVersion=99999"):
        answer = await client.get(path)
        raw = answer.refused(504, "Too large resource version: 99999, current: ")
        assert raw["reason"] == "Timeout" and raw["details"]["retryAfterSeconds"] == 1
        assert raw["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert "retry-after" not in answer.headers


async def test_a_list_goes_on_after_its_revision_is_gone(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, history=10)
    client = Client(Api(ApiContext(store=store, cloud="central")))
    await many(client, 6)
    first = (await client.get(f"{HOSTS}?limit=2")).ok()
    for n in range(40):
        await client.merge(f"{HOSTS}/h000", {"spec": {"location": str(n)}})
    gone = (await client.get(f"{HOSTS}?limit=2&continue={first['metadata']['continue']}")).refused(410)
    assert gone["reason"] == "Expired"
    token, names = gone["metadata"]["continue"], list[str]()
    while token:
        page = (await client.get(f"{HOSTS}?limit=2&continue={token}")).ok()
        names += [i["metadata"]["name"] for i in page["items"]]
        assert page["metadata"]["resourceVersion"] == str(store.revision)
        token = page["metadata"].get("continue", "")
    assert names == ["h002", "h003", "h004", "h005"]
    exact = await client.get(f"{HOSTS}?resourceVersion=2&resourceVersionMatch=Exact")
    assert "continue" not in exact.refused(410, "resourceVersion is too old")["metadata"]
    await store.close()


async def test_how_many_are_left(client: Client) -> None:
    await many(client, 7)
    left, token = list[int | None](), ""
    while True:
        metadata = (await client.get(f"{HOSTS}?limit=3&continue={token}")).ok()["metadata"]
        left.append(metadata.get("remainingItemCount"))
        token = metadata.get("continue", "")
        if not token:
            break
    assert left == [4, 1, None]
    token = (await client.get(f"{HOSTS}?limit=2")).ok()["metadata"]["continue"]
    assert Continue.parse(token).left == 5
    # Who claims another number, or comes with a token that knows none, is told what is there.
    for claimed in (-1, 0, 2, -7):
        forged = msgspec.structs.replace(Continue.parse(token), left=claimed).token()
        page = (await client.get(f"{HOSTS}?limit=2&continue={forged}")).ok()["metadata"]
        assert page["remainingItemCount"] == 3
    selected = (await client.get(f"{HOSTS}?limit=1&labelSelector=odd%3D1")).ok()["metadata"]
    assert selected["continue"] and "remainingItemCount" not in selected
    everywhere = (await client.get(f"{V1}/hosts?limit=7")).ok()["metadata"]
    assert "continue" not in everywhere


# -- one moment, whatever is written meanwhile


class Write(msgspec.Struct, frozen=True):
    what: str
    namespace: str
    name: str
    tier: str


writes = st.lists(
    st.builds(
        Write,
        st.sampled_from(["put", "put", "remove"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([f"h{n}" for n in range(6)]),
        st.sampled_from(["edge", "core"]),
    ),
    max_size=8,
)
queries = st.sampled_from(
    [
        {},
        {"labelSelector": "tier=edge"},
        {"fieldSelector": "metadata.name=h2"},
        {"fieldSelector": "metadata.namespace!=a"},
    ]
)


def carry_out(tx: Transaction, todo: list[Write]) -> None:
    for write in todo:
        _carry_out(tx, write)


def _carry_out(tx: Transaction, write: Write) -> None:
    found = tx.find("Host", write.namespace, write.name)
    if write.what == "remove":
        if found:
            tx.remove("Host", write.namespace, write.name)
        return
    metadata = {"name": write.name, "namespace": write.namespace, "labels": {"tier": write.tier}}
    raw = {"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": metadata, "spec": {}}
    tx.replace(raw) if found else tx.create(raw)


def shown(items: list[Raw]) -> list[tuple[str, str, str]]:
    metas = [i["metadata"] for i in items]
    return [(m["namespace"], m["name"], m["labels"]["tier"]) for m in metas]


@settings(max_examples=60, deadline=None)
@given(
    writes,
    st.lists(writes, min_size=1, max_size=6),
    queries,
    st.sampled_from(["", "a"]),
    st.sampled_from(["pages", "slices"]),
)
def test_slices_and_pages_are_of_one_moment(
    before: list[Write], between: list[list[Write]], query: dict[str, str], namespace: str, by: str
) -> None:
    async def go() -> None:
        with new_database() as url:
            store = await Store.open(url, inline=True)
            await store.transact(lambda tx: carry_out(tx, before))
            matcher = Matcher(selector_of(VIEW.info, query))

            def truth(tx: Transaction) -> list[Raw]:
                found = (Item(s, VIEW) for s in tx.select("Host", namespace or None))
                return [item.raw for item in found if matcher.matches(item)]

            expected, revision = await store.read(truth), store.revision
            read = {"pages": pages, "slices": slices}[by]
            items, revisions = await read(store, matcher, namespace, between)
            assert shown(items) == shown(expected)
            assert revisions == {str(revision)}
            await store.close()

    asyncio.run(go())


async def slices(
    store: Store, matcher: Matcher, namespace: str, between: list[list[Write]]
) -> tuple[list[Raw], set[str]]:
    """One long answer, with writes between its pieces."""
    listing = Listing(VIEW, Scope(VIEW.sources, namespace), matcher, ListOptions(0, False, 0, None))
    listing._rows = 1
    body, rest = b"", list(between)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "SLICE", 1)
        body += await store.read(lambda tx: listing.first(tx, Form(), NOW, zipped=False))
        while not listing.over:
            todo = rest.pop() if rest else []
            await store.transact(lambda tx: carry_out(tx, todo))  # noqa: B023
            body += await store.read(listing.more)
    raw = json.loads(body)
    return raw["items"], {raw["metadata"]["resourceVersion"]}


async def pages(
    store: Store, matcher: Matcher, namespace: str, between: list[list[Write]]
) -> tuple[list[Raw], set[str]]:
    """Pages of two, with writes between them."""
    items, revisions, start, rest = list[Raw](), set[str](), None, list(between)
    while True:
        listing = Listing(VIEW, Scope(VIEW.sources, namespace), matcher, ListOptions(0, False, 2, start))
        page = json.loads(await store.read(lambda tx: listing.first(tx, Form(), NOW, zipped=False)))  # noqa: B023
        items += page["items"]
        revisions.add(page["metadata"]["resourceVersion"])
        if not page["metadata"].get("continue"):
            return items, revisions
        start = Continue.parse(page["metadata"]["continue"])
        todo = rest.pop() if rest else []
        await store.transact(lambda tx: carry_out(tx, todo))  # noqa: B023


async def test_resources_of_two_kinds_beside_one_another(store: Store) -> None:
    def fill(tx: Transaction) -> None:
        for kind, names in (("Host", "acdf"), ("Network", "abeg")):
            for name in names:
                metadata = {"name": name, "namespace": "central"}
                tx.create({"apiVersion": "roost.edge/v1", "kind": kind, "metadata": metadata, "spec": {}})

    await store.transact(fill)
    scope = Scope(("Host", "Network"), "central")

    def walk(tx: Transaction) -> list[Stored]:
        found, after = list[Stored](), None
        while True:
            part = snapshots.read(tx, scope, tx.revision, after, 2)
            found += part.items
            after = part.upto
            if after is None:
                return found

    assert [s.name for s in await store.read(walk)] == list("aabcdefg")


# -- forms and encodings


async def zipped(client: Client, path: str) -> Answer:
    headers = [("accept-encoding", "gzip")]
    request = exchange.Request(method="GET", path=path, headers=headers, body=b"", caller=client._caller)
    response = await client._ask(request)
    return Answer(response.status, response.headers, b"".join([part async for part in response.body]))


async def test_large_answers_are_compressed_when_asked_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(client, 40, 6000)
    plain = await client.get(HOSTS)
    assert "content-encoding" not in plain.headers
    whole = await zipped(client, HOSTS)
    monkeypatch.setattr(reading, "SLICE", 20_000)
    monkeypatch.setattr(reading, "FIRST_ROWS", 5)
    streamed = await zipped(client, HOSTS)
    for answer in (whole, streamed):
        assert answer.headers["content-encoding"] == "gzip" and answer.headers["vary"] == "Accept-Encoding"
        assert gzip.decompress(answer.body) == plain.body and len(answer.body) < len(plain.body) // 5
    assert "content-length" in whole.headers and "content-length" not in streamed.headers
    monkeypatch.undo()
    small = await zipped(client, f"{HOSTS}?limit=2")
    assert "content-encoding" not in small.headers and len(small.raw["items"]) == 2
    one = await zipped(client, f"{HOSTS}/h001")
    assert "content-encoding" not in one.headers and one.raw["metadata"]["name"] == "h001"


@given(st.lists(st.binary(max_size=300)))
def test_compressing_in_pieces(pieces: list[bytes]) -> None:
    made = compression.Gzip()
    sent = b"".join([made.add(piece) for piece in pieces]) + made.finish()
    assert gzip.decompress(sent) == b"".join(pieces)
    assert gzip.decompress(compression.whole(b"".join(pieces))) == b"".join(pieces)


@pytest.mark.parametrize("header", ["gzip", "deflate, GZIP;q=0.5", "*", "gzip; q=1.0"])
def test_who_takes_gzip(header: str) -> None:
    assert compression.accepted(header)


@pytest.mark.parametrize("header", ["", "identity", "gzip;q=0", "gzip;q=0.000, br", "x-gzip"])
def test_who_does_not_take_gzip(header: str) -> None:
    assert not compression.accepted(header)


async def test_yaml(client: Client) -> None:
    await many(client, 3)
    one = await client.get(f"{HOSTS}/h001", accept="application/yaml")
    assert one.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(one.body) == (await client.get(f"{HOSTS}/h001")).raw
    several = await client.get(HOSTS, accept="application/yaml")
    assert yaml.safe_load(several.body) == (await client.get(HOSTS)).raw
    none = await client.get(f"{HOSTS}?labelSelector=none", accept="application/yaml")
    assert yaml.safe_load(none.body)["items"] == []
    (await client.get(f"{HOSTS}?watch=true", accept="application/yaml")).refused(406)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_the_version_of_meta_that_is_asked_for(client: Client, version: str) -> None:
    await many(client, 2)
    meta = f"meta.k8s.io/{version}"
    table = await client.get(HOSTS, accept=f"application/json;as=Table;v={version};g=meta.k8s.io")
    raw = table.ok()
    assert raw["kind"] == "Table" and raw["apiVersion"] == meta and raw["columnDefinitions"]
    assert [row["cells"][0] for row in raw["rows"]] == ["h000", "h001"]
    assert raw["rows"][0]["object"]["apiVersion"] == meta
    partial = f"application/json;as=PartialObjectMetadataList;v={version};g=meta.k8s.io"
    raw = (await client.get(HOSTS, accept=partial)).ok()
    assert raw["kind"] == "PartialObjectMetadataList" and raw["apiVersion"] == meta
    stored = (await client.get(f"{HOSTS}/h000")).raw
    assert raw["items"][0] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": meta,
        "metadata": stored["metadata"],
    }
    one = f"application/json;as=PartialObjectMetadata;v={version};g=meta.k8s.io"
    assert (await client.get(f"{HOSTS}/h000", accept=one)).ok() == raw["items"][0]


async def test_pretty(client: Client) -> None:
    await many(client, 2)
    for path in (HOSTS, f"{HOSTS}/h000"):
        plain, pretty = await client.get(path), await client.get(f"{path}?pretty=true")
        assert pretty.raw == plain.raw and pretty.body.startswith(b'{\n  "') and pretty.body.endswith(b"}\n")


async def test_answers_of_writes_and_refusals_are_pretty_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(client, 1)
    path, patch = f"{HOSTS}/h000", {"metadata": {"labels": {"a": "b"}}}
    changed = await client.merge(f"{path}?pretty=true", patch)
    missing = await client.get(f"{HOSTS}/none?pretty=1")
    gone = await client.delete(f"{path}?pretty=true")
    unknown = await client.get("/nowhere?pretty=true")
    for answer, code in ((changed, 200), (missing, 404), (gone, 200), (unknown, 404)):
        assert answer.status == code and answer.body.startswith(b'{\n  "') and answer.body.endswith(b"}\n")
        assert int(answer.headers["content-length"]) == len(answer.body)
    assert changed.raw["metadata"]["labels"]["a"] == "b" and missing.raw["kind"] == "Status"
    assert b"\n" not in (await client.get(f"{HOSTS}/none")).body
    monkeypatch.setattr(forms, "INDENTED", 10)
    assert b"\n" not in (await client.get(f"{HOSTS}/none?pretty=true")).body


async def test_long_answers_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await many(client, 30, 500)
    monkeypatch.setattr(reading, "SLICE", 500)
    monkeypatch.setattr(reading, "FIRST_ROWS", 1)
    monkeypatch.setattr(reading, "LONG_ANSWERS", 1)
    slow = await client.open("GET", HOSTS)
    body = aiter(slow.body)
    await anext(body)
    assert (await client.get(HOSTS)).refused(429, "long lists")["details"]["retryAfterSeconds"]
    assert (await client.get(f"{HOSTS}?limit=30")).status == 200
    async for _ in body:
        pass
    assert len((await client.get(HOSTS)).ok()["items"]) == 30


async def test_who_reads_slowly_leaves_room_for_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(client, 30, 500)
    monkeypatch.setattr(reading, "SLICE", 500)
    monkeypatch.setattr(reading, "FIRST_ROWS", 1)
    monkeypatch.setattr(reading, "LONG_ANSWERS", 4)
    bodies = [aiter((await client.open("GET", HOSTS)).body) for _ in range(2)]
    for body in bodies:
        await anext(body)
    (await client.get(HOSTS)).refused(429, "long lists")
    assert len((await client.local("ada", ADMINISTRATORS).get(HOSTS)).ok()["items"]) == 30
    for body in bodies:
        async for _ in body:
            pass
    assert not reading._long.of
    (await client.get(HOSTS)).ok()


async def test_labels_that_are_none(client: Client, store: Store) -> None:
    metadata = {"name": "odd", "namespace": "central", "uid": "u", "labels": {"tier": 3}}
    raw = {"apiVersion": "roost.edge/v9", "kind": "Host", "metadata": metadata, "spec": {}}
    await store.transact(lambda tx: tx.copy(raw, "down:central"))
    found = (await client.get(f"{HOSTS}?labelSelector=tier")).ok()["items"]
    assert [i["metadata"]["name"] for i in found] == ["odd"]
    assert (await client.get(f"{HOSTS}?labelSelector=tier%3Dedge")).ok()["items"] == []


async def test_head_tells_what_get_would(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await many(client, 12, 500)
    body = (await client.get(HOSTS)).body
    head = await client.send("HEAD", HOSTS)
    assert head.status == 200 and head.headers["content-length"] == str(len(body))
    monkeypatch.setattr(reading, "SLICE", 100)
    monkeypatch.setattr(reading, "FIRST_ROWS", 2)
    long = await client.send("HEAD", HOSTS)
    assert long.status == 200 and long.body == b"" and "content-length" not in long.headers


async def test_a_page_may_be_shorter_than_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await many(client, 9, 1000)
    monkeypatch.setattr(reading, "LARGEST_PAGE", 3000)
    names, token, count = list[str](), "", 0
    while True:
        page = (await client.get(f"{HOSTS}?limit=9&continue={token}")).ok()
        names, count = names + [i["metadata"]["name"] for i in page["items"]], count + 1
        assert len(page["items"]) < 9
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"h{n:03}" for n in range(9)] and count > 2


async def test_a_long_list_is_never_whole_in_memory(store: Store) -> None:
    """30 MB are listed; what is held at once is a few slices."""
    pad = "x" * 10_000

    def fill(tx: Transaction) -> None:
        for n in range(tx.count("Host"), tx.count("Host") + 250):
            metadata = {"name": f"h{n:05}", "namespace": "central", "annotations": {"note": pad}}
            raw = {"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": metadata, "spec": {}}
            tx.create(raw)

    for _ in range(12):
        await store.transact(fill)
    client = Client(Api(ApiContext(store=store, cloud="central")))
    response = await client.open("GET", HOSTS)
    tracemalloc.start()
    try:
        before, size = tracemalloc.get_traced_memory()[0], 0
        async for part in response.body:
            size += len(part)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert size > 30_000_000
    assert most < 20_000_000
