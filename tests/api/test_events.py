"""Events: those of clients are kept, those of the log are shown beside them, in both groups."""

from __future__ import annotations

from typing import Any

from roost.engine.faults import write_log
from roost.model.codec import Raw
from roost.model.host import Host, HostSpec
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import Client

CORE = "/api/v1/namespaces/central/events"
GROUP = "/apis/events.k8s.io/v1/namespaces/central/events"


def event(name: str, **parts: Any) -> Raw:
    """An Event as client-go's recorder sends it."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "central", "creationTimestamp": None},
        "involvedObject": {"apiVersion": "roost.edge/v1", "kind": "Host", "name": "h1", "uid": "u-1"},
        "reason": "Looked",
        "message": "all is well",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "eventTime": None,
        "source": {"component": "test"},
        "reportingComponent": "test",
        "reportingInstance": "",
        **parts,
    }


async def logged(store: Store, name: str = "h1", text: str = "h1 was locked") -> Host:
    """A host, and an entry of the log about it."""
    host = Host(metadata=Metadata(name=name, namespace="central"), spec=HostSpec())
    saved = await store.save(host)
    await store.transact(
        lambda tx: write_log(tx, "central", event="200.001", entity=f"host={name}", text=text)
    )
    return saved


async def test_a_client_posts_and_counts_up(client: Client) -> None:
    made = (await client.post(CORE, event("h1.1"))).ok(201)
    assert (made["message"], made["count"]) == ("all is well", 1)
    again = {"count": 2, "lastTimestamp": "2026-01-01T00:00:09Z"}
    kind = "application/strategic-merge-patch+json"
    patched = (await client.send("PATCH", f"{CORE}/h1.1", again, kind=kind)).ok()
    assert (patched["count"], patched["lastTimestamp"]) == (2, "2026-01-01T00:00:09Z")
    (await client.delete(f"{CORE}/h1.1")).ok()
    assert (await client.get(CORE)).ok()["items"] == []


async def test_no_client_covers_an_entry_of_the_log(client: Client, store: Store) -> None:
    await logged(store)
    (entry,) = (await client.get(CORE)).ok()["items"]
    name = entry["metadata"]["name"]
    await client.post(CORE, event(name))
    assert "h1 was locked" in (await client.get(f"{CORE}/{name}")).ok()["message"]


async def test_both_groups_have_the_same_events(client: Client) -> None:
    (await client.post(CORE, event("h1.1"))).ok(201)
    new = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "h1.2"},
        "regarding": {"kind": "Host", "name": "h1"},
        "eventTime": "2026-01-01T00:00:00.123456Z",
        "note": "it is odd",
        "type": "Warning",
        "reason": "Odd",
        "action": "Look",
        "reportingController": "example.org/test",
        "reportingInstance": "test-1",
    }
    made = (await client.post(GROUP, new)).ok(201)
    assert made["note"] == "it is odd" and made["apiVersion"] == "events.k8s.io/v1"
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}}
    (await client.merge(f"{GROUP}/h1.2", series)).ok()
    core = (await client.get(f"{CORE}/h1.2")).ok()
    assert (core["message"], core["involvedObject"]["name"]) == ("it is odd", "h1")
    assert core["series"]["count"] == 2 and core["reportingComponent"] == "example.org/test"
    shown = (await client.get(f"{GROUP}/h1.1")).ok()
    assert (shown["note"], shown["deprecatedCount"]) == ("all is well", 1)
    chosen = (await client.get(f"{GROUP}?fieldSelector=regarding.name=h1,reason=Odd")).ok()
    assert [i["metadata"]["name"] for i in chosen["items"]] == ["h1.2"]


async def test_the_log_is_shown_beside_them(client: Client, store: Store) -> None:
    host = await logged(store)
    (await client.post(CORE, event("h1.1"))).ok(201)
    listed = (await client.get(CORE)).ok()
    assert [i["metadata"]["name"] for i in listed["items"]] == ["h1.1", "log.0000000001"]
    uid = host.metadata.uid
    about = (
        "involvedObject.name=h1,involvedObject.namespace=central,"
        f"involvedObject.kind=Host,involvedObject.uid={uid}"
    )
    (found,) = (await client.get(f"{CORE}?fieldSelector={about}")).ok()["items"]
    assert (found["message"], found["reason"], found["type"]) == ("h1 was locked", "200.001", "Normal")
    (same,) = (await client.get(f"{GROUP}?fieldSelector=regarding.uid={uid}")).ok()["items"]
    assert same["note"] == "h1 was locked" and same["deprecatedSource"]["component"] == "roost"
    one = (await client.get(f"{CORE}/log.0000000001")).ok()
    assert one["kind"] == "Event"


async def test_pages_go_through_both(client: Client, store: Store) -> None:
    for n in range(3):
        await logged(store, f"h{n}")
        (await client.post(CORE, event(f"m.{n}"))).ok(201)
    found, token = [], ""
    while True:
        page = (await client.get(f"{CORE}?limit=2&continue={token}")).ok()
        found += [i["metadata"]["name"] for i in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert found == [*(f"log.000000000{n}" for n in (1, 2, 3)), "m.0", "m.1", "m.2"]


async def test_a_watch_sees_both(client: Client, store: Store) -> None:
    start = (await client.get(CORE)).ok()["metadata"]["resourceVersion"]
    watch = await client.watch(f"{CORE}?watch=1&resourceVersion={start}")
    grouped = await client.watch(f"{GROUP}?watch=1&resourceVersion={start}&fieldSelector=type=Normal")
    await logged(store)
    (await client.post(CORE, event("h1.1"))).ok(201)
    (await client.delete(f"{CORE}/h1.1")).ok()
    expected = [("ADDED", "log.0000000001"), ("ADDED", "h1.1"), ("DELETED", "h1.1")]
    assert await watch.names(3) == expected
    assert await grouped.names(3) == expected
    await watch.close()
    await grouped.close()


async def test_entries_of_the_log_are_only_read(client: Client, store: Store) -> None:
    await logged(store)
    name = f"{CORE}/log.0000000001"
    for answer in (
        await client.delete(name),
        await client.merge(name, {"message": "it was not me"}),
        await client.put(name, event("log.0000000001")),
        await client.delete(f"{GROUP}/log.0000000001"),
    ):
        answer.refused(403, "entry of the platform's log", "kubectl get logentries log.0000000001")
    (await client.post(CORE, event("log.0000000002"))).refused(422, "entries of the log have such names")
    (await client.delete(CORE)).ok()
    assert [i["metadata"]["name"] for i in (await client.get(CORE)).ok()["items"]] == ["log.0000000001"]


async def test_who_only_looks_posts_nothing(client: Client) -> None:
    (await client.reader().post(CORE, event("h1.1"))).refused(403, "cannot create")
    assert (await client.reader().get(CORE)).ok()["kind"] == "EventList"


async def test_a_table_shows_what_matters(client: Client) -> None:
    (await client.post(CORE, event("h1.1"))).ok(201)
    table = (await client.get(CORE, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).ok()
    names = [c["name"] for c in table["columnDefinitions"] if not c["priority"]]
    assert names == ["Name", "Last seen", "Type", "Reason", "Kind", "Object", "Message"]
    assert table["rows"][0]["cells"][2:6] == ["Normal", "Looked", "Host", "h1"]


async def test_events_about_what_has_no_namespace_are_in_default(client: Client) -> None:
    about = {"kind": "Subcloud", "name": "x", "apiVersion": "roost.edge/v1"}
    body = event("x.1", involvedObject=about, metadata={"name": "x.1", "namespace": "default"})
    (await client.post("/api/v1/namespaces/default/events", body)).ok(201)
    (found,) = (await client.get("/api/v1/events?fieldSelector=involvedObject.kind=Subcloud")).ok()["items"]
    assert found["metadata"]["namespace"] == "default"
    elsewhere = event("x.1", metadata={"name": "x.1", "namespace": "other"})
    (await client.post("/api/v1/namespaces/other/events", elsewhere)).refused(
        403, "belongs to subcloud other"
    )


async def test_when_an_event_was_seen_last_in_whatever_field(client: Client) -> None:
    form = "application/json;as=Table;v=v1;g=meta.k8s.io"
    told = {"firstTimestamp": None, "lastTimestamp": None, "eventTime": "2026-01-01T00:00:00.000001Z"}
    (await client.post(CORE, event("h1.1", **told))).ok(201)
    (row,) = (await client.get(CORE, accept=form)).ok()["rows"]
    assert row["cells"][1].endswith("d")


async def test_there_are_no_services(client: Client) -> None:
    assert (await client.get("/api/v1/services")).ok()["items"] == []
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    (await client.post("/api/v1/namespaces/central/services", body)).refused(405)
