"""The past as a subresource: lists of changes, states, refusals, and what must not be shown."""

from __future__ import annotations

from urllib.parse import quote

from sqlalchemy import delete, update

from roost.api import history
from roost.store.schema import changes
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import HOSTS, V1, Client, host

H = f"{HOSTS}/h"
MINUTE = 60.0
START = 1_795_406_400.0  # 2026-11-23T04:00:00Z


async def lived(client: Client, store: Store) -> list[str]:
    """A host created, changed, deleted, and created again; the revisions."""
    first = (await client.post(HOSTS, host("h", location="a"))).ok(201)
    changed = (await client.merge(H, {"spec": {"location": "b"}})).ok()
    (await client.delete(H)).ok()
    gone = store.revision
    again = (await client.post(HOSTS, host("h", location="c"))).ok(201)
    made = [r["metadata"]["resourceVersion"] for r in (first, changed, again)]
    return [made[0], made[1], str(gone), made[2]]


async def dated(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.wrote = True
        values = {"recorded_at": START + MINUTE * changes.c.revision}
        tx.connection.execute(update(changes).values(values))

    await store.transact(work)


async def forgotten(store: Store, revision: int) -> None:
    def work(tx: Transaction) -> None:
        tx.wrote = True
        tx.connection.execute(delete(changes).where(changes.c.revision <= revision))

    await store.transact(work)


async def test_changes_the_newest_first_page_by_page(client: Client, store: Store) -> None:
    made = await lived(client, store)
    await dated(store)
    whole = (await client.get(f"{H}/history")).ok()
    assert whole["kind"] == "ChangeList"
    assert [i["revision"] for i in whole["items"]] == made[::-1]
    assert [i["type"] for i in whole["items"]] == ["ADDED", "DELETED", "MODIFIED", "ADDED"]
    assert whole["items"][2]["fields"] == ["spec.location"]
    assert whole["items"][3]["time"].startswith("2026-11-23T04:0")
    assert "continue" not in whole["metadata"]
    pages, token = [], ""
    while True:
        page = (await client.get(f"{H}/history?limit=3&continue={token}")).ok()
        pages += page["items"]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert pages == whole["items"]
    uids = [i["uid"] for i in whole["items"]]
    assert uids[1] == uids[2] == uids[3] != uids[0]
    mine = (await client.get(f"{H}/history?uid={uids[1]}")).ok()
    assert [i["revision"] for i in mine["items"]] == made[2::-1]


async def test_states_by_revision_and_by_time(client: Client, store: Store) -> None:
    made = await lived(client, store)
    await dated(store)
    for revision, location in ((made[0], "a"), (made[1], "b"), (made[3], "c")):
        told = (await client.get(f"{H}/history/{revision}")).ok()
        assert told["spec"]["location"] == location
        assert told["metadata"]["resourceVersion"] == revision
    when = quote(f"2026-11-23T05:{int(made[1]):02}:30+01:00", safe="")
    assert (await client.get(f"{H}/history/{when}")).ok()["spec"]["location"] == "b"
    (await client.get(f"{H}/history/{made[2]}")).refused(404, "deleted at revision", "created at revision")
    (await client.get(f"{H}/history/0")).refused(404, f"created at revision {made[0]}")
    (await client.get(f"{H}/history/99999")).refused(404, "has not been reached")
    (await client.get(f"{H}/history/yesterday")).refused(400, "neither a revision nor a time")
    (await client.get(f"{H}/history/2026-11-23T04:00:00")).refused(400, "neither")


async def test_a_deleted_resource_has_a_past_and_one_that_never_was_has_none(
    client: Client, store: Store
) -> None:
    await lived(client, store)
    (await client.delete(H)).ok()
    (await client.get(H)).refused(404)
    assert (await client.get(f"{H}/history")).ok()["items"][0]["type"] == "DELETED"
    (await client.get(f"{HOSTS}/never/history")).refused(404, "not found")
    (await client.get(f"{HOSTS}/never/history/3")).refused(404, "no history that is kept")


async def test_what_is_no_longer_kept_is_said(client: Client, store: Store) -> None:
    made = await lived(client, store)
    await dated(store)
    await forgotten(store, int(made[2]))
    gone = (await client.get(f"{H}/history/{made[0]}")).refused(410, "no longer kept", f"revision {made[2]}")
    assert gone["reason"] == "Expired"
    (await client.get(f"{H}/history/2026-11-23T04:00:30Z")).refused(
        410, "the oldest that is kept", "2026-11-23"
    )
    assert [i["revision"] for i in (await client.get(f"{H}/history")).ok()["items"]] == [made[3]]


async def test_it_is_only_read_and_by_who_may(client: Client, store: Store) -> None:
    await lived(client, store)
    assert (await client.reader().get(f"{H}/history")).ok()["items"]
    nobody = Client(client._app, name="nora", groups=())
    (await nobody.get(f"{H}/history")).refused(403, "hosts/history")
    for answer in (await client.delete(f"{H}/history"), await client.post(f"{H}/history", {})):
        answer.refused(405)
    listed = (await client.get(V1)).ok()["resources"]
    assert next(r for r in listed if r["name"] == "hosts/history")["verbs"] == ["get"]


def test_paths_of_the_past() -> None:
    assert history.split(["namespaces", "a", "hosts", "h", "history", "7"]) == (
        ["namespaces", "a", "hosts", "h", "history"],
        "7",
    )
    assert history.split(["clouds", "c", "history", "7"]) == (["clouds", "c", "history"], "7")
    for other in (
        ["namespaces", "a", "hosts", "history"],
        ["namespaces", "a", "hosts", "history", "status"],
        ["namespaces", "a", "history", "x"],
        ["clouds", "c", "history"],
    ):
        assert history.split(other) == (other, "")
