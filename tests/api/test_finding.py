"""Questions about all objects of a kind, over the API, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from roost.api import finding
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.model.cloud import Cloud
from roost.model.codec import Raw
from roost.model.meta import Metadata
from roost.model.registry import BY_KIND
from roost.sim.crowd import things
from roost.store import statements
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import V1, Client
from tests.support.stores import opened

SITES = [f"site-{n:02}" for n in range(12)]


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """A centre that knows twelve sites with two hosts each, of which some have alarms."""
    async with opened(store_url) as made:
        await made.save(Cloud(metadata=Metadata(name="central")))
        await made.transact(fleet)
        yield made


def fleet(tx: Transaction) -> None:
    for n, site in enumerate(SITES):
        labels = {"region": "north" if n % 2 else "south"}
        spec = {"group": f"g{n % 3}", "managementState": "managed"}
        status = {"sync": "out-of-sync" if n == 5 else "in-sync", "version": f"0.{n}"}
        head = {"apiVersion": "roost.edge/v1", "kind": "Subcloud"}
        tx.create({**head, "metadata": {"name": site, "labels": labels}, "spec": spec, "status": status})
        for entry in things.base(site, 2):
            raw = msgspec.json.decode(entry.data)
            if entry.kind == "Host":
                raw["status"]["availability"] = "degraded" if n == 3 else "available"
                raw["status"]["inventory"]["memory"]["total"] = 1024 * (n + 1)
            tx.copy(raw, f"down:{site}")
        if n < 4:
            tx.copy(
                msgspec.json.decode(things.alarm(site, 0, severity="critical" if n else "minor").data), site
            )


@pytest.fixture
def client(store: Store) -> Client:
    return Client(Api(ApiContext(store=store, cloud="central")))


async def ask(client: Client, plural: str, *where: str, **query: Any) -> Raw:
    return (await client.get(url(plural, *where, **query))).ok()


def url(plural: str, *where: str, **query: Any) -> str:
    pairs = [("where", text) for text in where or ("",)] + [(k, str(v)) for k, v in query.items()]
    return f"{V1}/{plural}?" + "&".join(f"{k}={quote(v)}" for k, v in pairs)


def keys(table: Raw) -> list[str]:
    found = []
    for row in table["rows"]:
        meta = row["object"]["metadata"]
        found.append("/".join(filter(None, (meta.get("namespace"), meta["name"]))))
    return found


@pytest.mark.parametrize(
    ("plural", "where", "query", "expected"),
    [
        ("hosts", ("memory>=11Gi",), {}, 4),
        ("hosts", ("memory>=11Gi", "memory<12Gi"), {}, 2),
        ("hosts", ("availability!=available",), {}, 2),
        ("hosts", ("availability=degraded",), {}, 2),
        ("hosts", ("availability=degraded,available",), {}, 24),
        ("hosts", ("cpu.model~EXAMPLE",), {}, None),
        ("hosts", ("name=controller-0",), {}, 12),
        ("hosts", ("cloud=site-03",), {}, 2),
        ("hosts", ("ports[eth0].speed>=10G",), {}, 24),
        ("hosts", ("ports[eth7]",), {}, 0),
        ("hosts", (), {"inGroup": "g1"}, 8),
        ("hosts", (), {"inSubclouds": "region=north"}, 12),
        ("hosts", (), {"inSubclouds": "region!=north", "inGroup": "g2"}, 4),
        ("hosts", ("availability=degraded",), {"inGroup": "g1"}, 0),
        ("hosts", (), {"inGroup": "none"}, 0),
        ("alarms", ("severity=critical", "id=100.104"), {}, 3),
        ("alarms", ("severity>=minor",), {}, 4),
        ("alarms", ("severity>minor",), {}, 3),
        ("alarms", ("raisedAt>-1h",), {}, 4),
        ("alarms", ("raisedAt<-1h",), {}, 0),
        ("subclouds", ("sync=out-of-sync",), {}, 1),
        ("subclouds", ("version<0.10",), {}, 10),
        ("subclouds", ("version<0.10",), {"inGroup": "g0"}, 4),
        ("subclouds", ("labels.region=north",), {}, 6),
        ("subclouds", (), {"inSubclouds": "region=north"}, 6),
        ("clouds", (), {"inSubclouds": "region=north"}, 6),
    ],
)
async def test_what_fits_is_found(
    client: Client, plural: str, where: tuple[str, ...], query: dict[str, str], expected: int | None
) -> None:
    found = keys(await ask(client, plural, *where, **query))
    if expected is not None:
        assert len(found) == expected, found
    assert found == sorted(found)


async def test_what_was_asked_for_is_shown(client: Client) -> None:
    table = await ask(client, "hosts", "memory>=12Gi", "cloud=site-11", show="memory,cpu.model,ports.name")
    assert table["kind"] == "Table"
    assert [c["name"] for c in table["columnDefinitions"]] == [
        "Name",
        "memory",
        "cpu.model",
        "ports.name",
    ]
    name, memory, model, ports = table["rows"][0]["cells"]
    assert (name, memory, ports) == ("controller-0", 12288, "eth0,eth1") and "GHz" in model
    by_condition = await ask(client, "hosts", "memory>=12Gi", "memory<1Ti", "name=controller-0")
    assert [c["name"] for c in by_condition["columnDefinitions"]] == ["Name", "memory"]


async def test_pages_are_all_of_it_and_nothing_twice(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "PORTION", 8000)
    for query in ({}, {"inSubclouds": "region"}):
        whole, pages, following = keys(await ask(client, "hosts", **query)), list[str](), ""
        while True:
            more = {"continue": following} if following else {}
            table = await ask(client, "hosts", limit=5, **query, **more)
            assert len(table["rows"]) <= 5
            pages += keys(table)
            following = table["metadata"].get("continue", "")
            if not following:
                break
        assert pages == whole and len(whole) == 24


async def test_many_subclouds_are_looked_in_some_at_a_time(store: Store, client: Client) -> None:
    more = [f"z{n:03}" for n in range(2 * statements.AMONG)]

    def add(tx: Transaction) -> None:
        for site in more:
            head = {"apiVersion": "roost.edge/v1", "kind": "Subcloud"}
            tx.create({**head, "metadata": {"name": site}, "spec": {"group": "many"}})
            tx.copy(msgspec.json.decode(things.host(site, 0).data), f"down:{site}")

    await store.transact(add)
    table = await ask(client, "hosts", inGroup="many", show="name")
    assert keys(table) == [f"{site}/controller-0" for site in more]
    counted = await ask(client, "hosts", inGroup="many", countBy="availability")
    assert [r["cells"] for r in counted["rows"]] == [["available", len(more)]]


async def test_objects_are_counted_and_added_up(client: Client) -> None:
    counted = await ask(client, "hosts", countBy="availability")
    assert [r["cells"] for r in counted["rows"]] == [["available", 22], ["degraded", 2]]
    both = await ask(client, "hosts", countBy="availability", sum="memory,threads")
    names = [c["name"] for c in both["columnDefinitions"]]
    assert names == ["availability", "Count", "memory", "threads", "Not known"]
    assert both["rows"][1]["cells"][:3] == ["degraded", 2, 8192]
    alone = await ask(client, "hosts", "availability=failed", sum="memory")
    assert [r["cells"] for r in alone["rows"]] == [[0, 0, 0]]
    several = await ask(client, "hosts", countBy="personalities")
    assert [r["cells"] for r in several["rows"]] == [["controller", 24], ["worker", 24]]


async def test_what_is_not_known_is_told_beside_a_sum(store: Store, client: Client) -> None:
    bare = {
        "apiVersion": "roost.edge/v1",
        "kind": "Host",
        "metadata": {"name": "new", "namespace": "central"},
    }
    await store.transact(lambda tx: tx.create({**bare, "spec": {}, "status": {}}))
    table = await ask(client, "hosts", "cloud=central,site-00", sum="memory")
    assert [r["cells"] for r in table["rows"]] == [[3, 2048, 1]]


async def test_an_object_unlike_its_kind_is_told_apart(store: Store, client: Client) -> None:
    odd = {"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": {"name": "odd", "namespace": "site-00"}}
    await store.transact(lambda tx: tx.copy({**odd, "status": {"inventory": "none"}}, "down:site-00"))
    table = await ask(client, "hosts", "memory>0")
    assert table["unreadable"] == 1 and len(table["rows"]) == 24


async def test_values_beyond_the_bound_are_counted_together(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST_VALUES", 3)
    table = await ask(client, "subclouds", countBy="version")
    assert table["rows"][0]["cells"] == [finding.OTHERS, 9] and len(table["rows"]) == 4


@pytest.mark.parametrize(
    ("plural", "where", "query", "words"),
    [
        ("hosts", ("avalability=x",), {}, ("no field 'avalability'", "availability")),
        ("hosts", ("availability=availble",), {}, ("did you mean available?",)),
        ("hosts", ("memory>=64X",), {}, ("no unit", "MiB")),
        ("hosts", ("=5",), {}, ("is no condition",)),
        ("hosts", ("model=x",), {}, ("may be several fields", "inventory.disks.model")),
        ("hosts", (), {"show": "memory", "countBy": "memory"}, ("show does not go together",)),
        ("hosts", (), {"sum": "availability"}, ("is no number",)),
        ("hosts", (), {"labelSelector": "a=b"}, ("does not go together", "where")),
        ("hosts", (), {"watch": "true"}, ("go with lists",)),
        ("hosts", (), {"continue": "x"}, ("not a token",)),
        ("hosts", (), {"inSubclouds": "a in"}, ("expected '('",)),
        ("uplinks", (), {"inGroup": "g1"}, ("lie in no subcloud",)),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    client: Client, plural: str, where: tuple[str, ...], query: dict[str, str], words: tuple[str, ...]
) -> None:
    (await client.get(url(plural, *where, **query))).refused(400, *words)


async def test_a_deletion_with_conditions_deletes_nothing(client: Client) -> None:
    at = url("namespaces/site-00/alarms", "severity=minor")
    (await client.delete(at)).refused(400, "this would deletecollection alarms")
    assert len((await ask(client, "alarms"))["rows"]) == 4


async def test_fields_are_told(client: Client) -> None:
    table = await ask(client, "hosts", fields="true")
    cells = {row["cells"][0]: row["cells"] for row in table["rows"]}
    assert cells["availability"][1] == "choice" and "degraded" in cells["availability"][3]
    assert cells["inventory.memory.total"][2] == "MiB"


async def test_secret_fields_can_not_be_asked_for(client: Client) -> None:
    at = "/api/v1/secrets?where=" + quote("data.password~a")
    (await client.get(at)).refused(400, "no field")
    assert (await client.get("/api/v1/namespaces?where=name%3Dx")).status == 400


async def test_who_may_not_list_subclouds_may_not_choose_by_them(client: Client, store: Store) -> None:
    rules = [{"apiGroups": ["roost.edge"], "resources": ["hosts"], "verbs": ["list"]}]
    role = {"metadata": {"name": "lister"}, "rules": rules}
    at = "/apis/rbac.authorization.k8s.io/v1"
    (await client.post(f"{at}/clusterroles", role)).ok(201)
    binding = {
        "metadata": {"name": "lister"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lister"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lea"}],
    }
    (await client.post(f"{at}/clusterrolebindings", binding)).ok(201)
    lea = client.local("lea")
    assert (await lea.get(url("hosts"))).status == 200
    assert (await lea.get(url("hosts", inGroup="g1"))).status == 403
    assert (await lea.get(url("alarms"))).status == 403


async def test_questions_at_once_are_bounded(client: Client) -> None:
    with finding._asking.admitted("x"), finding._asking.admitted("x"):
        assert (await client.get(url("hosts"))).status == 200
        with finding._asking.admitted("y"), finding._asking.admitted("y"):
            (await client.get(url("hosts"))).refused(429, "ask again")
    assert (await client.get(url("hosts"))).status == 200


async def test_who_counts_for_too_long_is_told_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "SECONDS", -1.0)
    (await client.get(url("hosts", countBy="availability"))).refused(504, "ask for fewer")
    assert BY_KIND["Host"].plural == "hosts"
