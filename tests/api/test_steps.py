"""Steps of operations over subclouds at the API: pages, selection, refusals, and what may be changed."""

from __future__ import annotations

from typing import Any

from roost.model.subcloud_operation import SubcloudOperation
from roost.store import subcloud_steps
from roost.store.store import Store
from roost.store.subcloud_steps import SubcloudStep
from tests.api.client import V1, Client

OPERATIONS = f"{V1}/subcloudoperations"


def body(name: str = "op", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "roost.edge/v1",
        "kind": "SubcloudOperation",
        "metadata": {"name": name},
        "spec": {"action": "manage", **spec},
    }


async def with_steps(client: Client, store: Store) -> None:
    (await client.post(OPERATIONS, body())).ok(201)
    uid = (await store.load(SubcloudOperation, "", "op")).metadata.uid
    steps = [
        SubcloudStep(
            uid, n, 0, f"s{n}", "failed" if n % 2 else "done", 1, 1e9, 1e9, 1e9, "Offline" if n % 2 else ""
        )
        for n in range(5)
    ]
    await store.transact(lambda tx: subcloud_steps.add(tx, [*steps, SubcloudStep(uid, 5, 0, "s5")]))


async def test_steps_come_page_by_page(client: Client, store: Store) -> None:
    await with_steps(client, store)
    page = (await client.get(f"{OPERATIONS}/op/steps?limit=4")).ok()
    assert page["kind"] == "StepList" and [s["subcloud"] for s in page["items"]] == ["s0", "s1", "s2", "s3"]
    assert page["items"][1] == {
        "number": 1,
        "stage": 0,
        "subcloud": "s1",
        "state": "failed",
        "attempt": 1,
        "reason": "Offline",
        "message": "",
        "deadline": "2001-09-09T01:46:40.000Z",
        "startedAt": "2001-09-09T01:46:40.000Z",
        "endedAt": "2001-09-09T01:46:40.000Z",
    }
    token = page["metadata"]["continue"]
    page = (await client.get(f"{OPERATIONS}/op/steps?limit=4&continue={token}")).ok()
    assert [s["subcloud"] for s in page["items"]] == ["s4", "s5"] and page["metadata"] == {}
    assert "deadline" not in page["items"][1]


async def test_steps_are_selected_by_field(client: Client, store: Store) -> None:
    await with_steps(client, store)

    async def chosen(selector: str) -> list[str]:
        found = (await client.get(f"{OPERATIONS}/op/steps?fieldSelector={selector}")).ok()
        return [s["subcloud"] for s in found["items"]]

    assert await chosen("state=failed") == ["s1", "s3"]
    assert await chosen("state==failed,subcloud=s3") == ["s3"]
    assert await chosen("reason=Offline") == ["s1", "s3"]
    assert await chosen("state=running") == []
    for wrong in ("message=x", "state", "state!=done", "state=done,state=failed"):
        refused = await client.get(f"{OPERATIONS}/op/steps?fieldSelector={wrong}")
        refused.refused(400, "is not understood; write FIELD=VALUE with state, subcloud, reason")


async def test_steps_are_only_read_and_only_these_have_some(client: Client, store: Store) -> None:
    await with_steps(client, store)
    (await client.delete(f"{OPERATIONS}/op/steps")).refused(405, "")
    (await client.get(f"{OPERATIONS}/other/steps")).refused(404, '"other" not found')
    (await client.get(f"{V1}/subclouds/s0/steps")).refused(404, "")
    (await client.get(f"{OPERATIONS}/op/steps?limit=x")).refused(400, "limit")
    listed = (await client.get(V1)).ok()["resources"]
    assert [r["name"] for r in listed if r["name"].endswith("/steps")] == ["subcloudoperations/steps"]


async def test_what_was_decided_when_it_began_stays(client: Client) -> None:
    (await client.post(OPERATIONS, body(maxParallel=5))).ok(201)
    for spec in ({"action": "unmanage"}, {"subclouds": {"groups": ["north"]}}, {"order": ["north"]}):
        (await client.merge(f"{OPERATIONS}/op", {"spec": spec})).refused(422, "it was decided when")
    (await client.merge(f"{OPERATIONS}/op", {"spec": {"maxParallel": 9, "paused": True, "retry": 2}})).ok()
    (await client.merge(f"{OPERATIONS}/op", {"spec": {"retry": 1}})).refused(422, "it only counts up")
    (await client.merge(f"{OPERATIONS}/op", {"spec": {"paused": False, "aborted": True}})).ok()
    (await client.merge(f"{OPERATIONS}/op", {"spec": {"aborted": False}})).refused(422, "aborted for good")


async def test_what_makes_no_sense_is_refused(client: Client) -> None:
    for spec, why in (
        ({"action": "label"}, "nothing to set"),
        ({"labels": {"a": "b"}}, "manage sets none"),
        ({"action": "label", "labels": {"a b": "c"}}, "not a label key"),
        ({"action": "label", "labels": {"a": "b c"}}, "not a label value"),
        ({"failureBudget": "101%"}, "failureBudget"),
        ({"maxParallel": 5001}, "maxParallel"),
        ({"deadlineSeconds": 0}, "deadlineSeconds"),
        ({"action": "dance"}, "action"),
    ):
        (await client.post(OPERATIONS, body(**spec))).refused(422, why)
