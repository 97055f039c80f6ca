"""Applied configurations and the owners of fields, through the API as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from roost.api import bodies
from roost.api.app import Api
from roost.api.apply import migration
from roost.api.context import ApiContext
from roost.engine import admission
from roost.model.codec import Raw
from roost.model.fault import Alarm, AlarmSpec
from roost.model.host import Host
from roost.model.meta import Metadata
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import HOSTS, V1, Answer, Client, host

APPLY = "application/apply-patch+yaml"
POLICIES = f"{V1}/namespaces/central/firewallpolicies"


async def apply(client: Client, body: Any, manager: str = "m", path: str = "", query: str = "") -> Answer:
    name = body["metadata"]["name"] if isinstance(body, dict) else "h1"
    where = f"{path or HOSTS}/{name}?fieldManager={manager}{query}"
    return await client.send("PATCH", where, body, kind=APPLY)


def policy(name: str, **spec: Any) -> Raw:
    return {**host(name), "kind": "FirewallPolicy", "spec": spec}


def owned(raw: Raw, manager: str) -> Raw:
    (entry,) = (e for e in raw["metadata"]["managedFields"] if e["manager"] == manager)
    fields: Raw = entry["fieldsV1"]
    return fields


async def test_apply_creates_and_owns_what_it_says(client: Client) -> None:
    made = (await apply(client, host("h1", location="here", interfaces=[{"port": "eth0"}]))).ok(201)
    assert made["spec"]["administrativeState"] == "locked" and made["metadata"]["uid"]
    (entry,) = made["metadata"]["managedFields"]
    assert {k: v for k, v in entry.items() if k not in ("time", "fieldsV1")} == {
        "manager": "m",
        "operation": "Apply",
        "apiVersion": "roost.edge/v1",
        "fieldsType": "FieldsV1",
    }
    assert entry["time"].endswith("Z")
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:location": {},
            "f:interfaces": {'k:{"port":"eth0"}': {".": {}, "f:port": {}}},
        }
    }
    again = (await apply(client, host("h1", location="here", interfaces=[{"port": "eth0"}]))).ok()
    assert again == made


async def test_conflict_force_and_sharing(client: Client) -> None:
    await apply(client, host("h1", location="here"), "a")
    refused = (await apply(client, host("h1", location="there"), "b")).refused(
        409, 'Apply failed with 1 conflict: conflict with "a": .spec.location'
    )
    assert refused["reason"] == "Conflict"
    assert refused["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".spec.location"}
    ]
    shared = (await apply(client, host("h1", location="here"), "b")).ok()
    assert owned(shared, "a") == owned(shared, "b") == {"f:spec": {"f:location": {}}}
    taken = (await apply(client, host("h1", location="there"), "b", query="&force=true")).ok()
    assert [e["manager"] for e in taken["metadata"]["managedFields"]] == ["b"]
    assert taken["spec"]["location"] == "there"
    gone = (await apply(client, host("h1"), "b")).ok()
    assert gone["spec"]["location"] == ""


async def test_a_plain_write_is_an_owner_too(client: Client) -> None:
    made = (await client.post(f"{HOSTS}?fieldManager=maker", host("h1", location="here"))).ok(201)
    assert "f:location" in owned(made, "maker")["f:spec"]
    refused = (await apply(client, host("h1", location="there"))).refused(409)
    assert refused["details"]["causes"][0]["message"] == 'conflict with "maker" using roost.edge/v1'
    await client.merge(f"{HOSTS}/h1?fieldManager=editor", {"spec": {"location": "elsewhere"}})
    stored = (await client.get(f"{HOSTS}/h1")).ok()
    assert owned(stored, "editor") == {"f:spec": {"f:location": {}}}
    assert "f:location" not in owned(stored, "maker")["f:spec"]
    moved = {"metadata": {"name": "h1", "labels": {"a": "b"}}}
    (
        await client.patch(
            f"{HOSTS}/h1?fieldManager=editor", [{"op": "add", "path": "/metadata/labels", "value": {}}]
        )
    ).ok()
    assert (await client.merge(f"{HOSTS}/h1?fieldManager=labeller", moved)).ok()["metadata"]["labels"] == {
        "a": "b"
    }


async def test_rules_are_one_field_and_said_defaults_are_no_change(client: Client) -> None:
    rule = {"action": "allow", "protocol": "tcp", "ports": ["22"]}
    made = (await apply(client, policy("p", networks=["oam"], rules=[rule]), "a", POLICIES)).ok(201)
    same = {**rule, "direction": "ingress", "peers": []}
    shared = (await apply(client, policy("p", networks=["oam"], rules=[same]), "b", POLICIES)).ok()
    assert shared["metadata"]["generation"] == made["metadata"]["generation"]
    other = policy("p", networks=["mgmt"], rules=[{"action": "deny"}])
    (await apply(client, other, "c", POLICIES)).refused(409, 'conflicts with "a":\n- .spec.rules', '"b"')
    grown = (await apply(client, policy("p", networks=["mgmt"]), "c", POLICIES)).ok()
    assert grown["spec"]["networks"] == ["oam", "mgmt"] and grown["spec"]["rules"] == made["spec"]["rules"]


async def test_owners_in_two_versions_of_a_kind_meet(client: Client) -> None:
    newer = POLICIES.replace("/v1/", "/v2alpha1/")
    rule = {"action": "allow", "protocol": "tcp", "ports": ["22"]}
    await apply(client, policy("p", networks=["oam"], order=5, rules=[rule]), "one", POLICIES)
    ordered = {**policy("p", order=6), "apiVersion": "roost.edge/v2alpha1"}
    (await apply(client, ordered, "two", newer)).refused(409, 'conflict with "one": .spec.order')
    taken = (await apply(client, ordered, "two", newer, "&force=true")).ok()
    assert [e["apiVersion"] for e in taken["metadata"]["managedFields"]] == [
        "roost.edge/v1",
        "roost.edge/v2alpha1",
    ]
    # The rules look otherwise in the other version, yet nobody has changed them.
    assert set(owned(taken, "one")["f:spec"]) == {"f:networks", "f:rules"}
    stored = (await client.get(f"{POLICIES}/p")).ok()
    assert stored["spec"]["order"] == 6 and stored["spec"]["rules"][0]["ports"] == ["22"]
    assert (await apply(client, policy("p", networks=["oam"], rules=[rule]), "one", POLICIES)).ok() == stored


async def test_metadata_is_applied_by_key(client: Client) -> None:
    body = host("h1")
    body["metadata"] |= {"labels": {"a": "1"}, "annotations": {"n": "x"}, "finalizers": ["roost.edge/a"]}
    await apply(client, body, "a")
    body["metadata"] |= {"labels": {"b": "2"}, "annotations": {}, "finalizers": ["roost.edge/b"]}
    both = (await apply(client, body, "b")).ok()["metadata"]
    assert both["labels"] == {"a": "1", "b": "2"}
    assert both["finalizers"] == ["roost.edge/a", "roost.edge/b"]
    alone = (await apply(client, host("h1"), "a")).ok()["metadata"]
    assert alone["labels"] == {"b": "2"} and alone["finalizers"] == ["roost.edge/b"]
    assert "annotations" not in alone


async def test_status_is_not_applied(client: Client) -> None:
    body = {
        "apiVersion": "roost.edge/v1",
        "kind": "Host",
        "metadata": {"name": "h1"},
        "status": {"task": "x"},
    }
    made = (await apply(client, body)).ok(201)
    assert made["status"]["task"] == "" and "managedFields" not in made["metadata"]


async def test_preconditions(client: Client) -> None:
    absent = host("h1")
    absent["metadata"]["uid"] = "u"
    (await apply(client, absent)).refused(409, "uid mismatch", "no existing object was found")
    absent["metadata"] = {"name": "h1", "resourceVersion": "7"}
    (await apply(client, absent)).refused(409, "no existing object was found")
    made = (await apply(client, host("h1"))).ok(201)
    wrong = host("h1", location="x")
    wrong["metadata"]["uid"] = "other"
    (await apply(client, wrong)).refused(422, "metadata.uid", "field is immutable")
    wrong["metadata"] = {"name": "h1", "resourceVersion": "1"}
    (await apply(client, wrong)).refused(409, "has changed")
    wrong["metadata"] = {k: made["metadata"][k] for k in ("name", "uid", "resourceVersion")}
    assert (await apply(client, wrong)).ok()["spec"]["location"] == "x"


APPLY_REFUSALS: list[tuple[Any, str, int, str]] = [
    (host("h1"), "", 422, "fieldManager: Required value: is required for apply patch"),
    (host("h1"), "?fieldManager=" + "m" * 129, 422, "Too long: may not be more than 128 bytes"),
    (host("h1"), "?fieldManager=a%0Ab", 422, "should only contain printable characters"),
    (host("h1"), "?fieldManager=m&fieldValidation=Loud", 422, 'Unsupported value: "Loud"'),
    ({**host("h1"), "metadata": {"name": "h1", "managedFields": []}}, "?fieldManager=m", 400, "must be nil"),
    ({**host("h1"), "apiVersion": "roost.edge/v9"}, "?fieldManager=m", 400, "apiVersion is 'roost.edge/v9'"),
    ({"metadata": {"name": "h1"}, "kind": "Host"}, "?fieldManager=m", 400, "apiVersion must be set"),
    (host("h2"), "?fieldManager=m", 400, "does not match the name on the URL"),
    (host("h1", location=5), "?fieldManager=m", 422, "spec.location"),
    (host("h1", personalities=["worker", "worker"]), "?fieldManager=m", 422, "spec.personalities"),
    (
        host("h1", interfaces=[{"port": "a", "networks": ["x", "x"]}]),
        "?fieldManager=m",
        422,
        'spec.interfaces[0].networks[1]: Duplicate value: "x"',
    ),
    (b"- a\n", "?fieldManager=m", 400, "must be a YAML mapping"),
    (b"a: [", "?fieldManager=m", 400, "error decoding YAML"),
    (b"a: !!python/object/apply:os.system [x]\n", "?fieldManager=m", 400, "is not taken"),
    (b"a: !x y\n", "?fieldManager=m", 400, "is not taken"),
    (b"a: 1\n---\nb: 1\n", "?fieldManager=m", 400, "one YAML document"),
    (b"a: *b\n", "?fieldManager=m", 400, "error decoding YAML"),
    (b"[" * 5000, "?fieldManager=m", 400, "deeper than 64 levels"),
    (b"? [a]\n: b\n", "?fieldManager=m", 400, "a key must be plain text"),
    (b"a: .inf\n", "?fieldManager=m", 400, "not a number that JSON has"),
    (b"\xff\xfe\x00", "?fieldManager=m", 400, "error decoding YAML"),
    (b"x" * (bodies.LARGEST + 1), "?fieldManager=m", 413, "larger than"),
]


@pytest.mark.parametrize(("body", "query", "code", "words"), APPLY_REFUSALS)
async def test_apply_refuses(client: Client, body: Any, query: str, code: int, words: str) -> None:
    (await client.send("PATCH", f"{HOSTS}/h1{query}", body, kind=APPLY)).refused(code, words)
    (await client.get(f"{HOSTS}/h1")).refused(404)


async def test_an_alias_can_not_stand_for_gigabytes(client: Client) -> None:
    lines = ["a: &a [" + ",".join(["lol"] * 9) + "]"]
    for n in range(1, 20):
        before, now = chr(96 + n), chr(97 + n)
        lines.append(f"{now}: &{now} [" + ",".join([f"*{before}"] * 9) + "]")
    bomb = "\n".join(lines).encode()
    (await client.send("PATCH", f"{HOSTS}/h1?fieldManager=m", bomb, kind=APPLY)).refused(
        413, "stands for more"
    )


async def test_yaml_with_anchors_and_merges(client: Client) -> None:
    body = b"""
apiVersion: roost.edge/v1
kind: Host
metadata: {name: h1, annotations: &notes {on: "yes", 1: "2020-01-01"}, labels: {<<: *notes, on: "no"}}
spec: {location: 2020-01-01}
"""
    made = (await apply(client, body)).ok(201)
    assert made["metadata"]["annotations"] == {"true": "yes", "1": "2020-01-01"}
    assert set(made["metadata"]["labels"].values()) == {"no", "2020-01-01"}
    assert made["spec"]["location"] == "2020-01-01"


@pytest.mark.parametrize("validation", ["", "Warn", "Strict", "Ignore"])
async def test_what_is_unknown_or_written_twice(client: Client, validation: str) -> None:
    query = f"&fieldValidation={validation}" if validation else ""
    body = b"apiVersion: roost.edge/v1\nkind: Host\nspec:\n  lokation: a\n  location: a\n  location: b\n"
    answer = await apply(client, body, query=query)
    if validation == "Strict":
        answer.refused(400, 'line 6: key "location" already set in map', 'unknown field "spec.lokation"')
        return
    made = answer.ok(201)
    assert made["spec"]["location"] == "b" and owned(made, "m") == {"f:spec": {"f:location": {}}}
    assert len(answer.warnings) == (0 if validation == "Ignore" else 2)


@pytest.mark.parametrize("validation", ["Warn", "Strict", "Ignore"])
async def test_json_that_says_a_field_twice(client: Client, validation: str) -> None:
    head = b'{"kind":"Host","metadata":{"name":"h1"},"spec":'
    body = head + b'{"location":"a","location" :"b","interfaces":[{"port":"a","port":"a"}]}}'
    answer = await client.send("POST", f"{HOSTS}?fieldValidation={validation}", body)
    if validation == "Strict":
        words = 'duplicate field "spec.location"', 'duplicate field "spec.interfaces[0].port"'
        answer.refused(400, "strict decoding error", *words)
        return
    assert answer.ok(201)["spec"]["location"] == "b"
    assert len(answer.warnings) == (0 if validation == "Ignore" else 2)
    patch = b'{"spec":{"location":"c","location":"d"}}'
    kind = "application/merge-patch+json"
    answer = await client.send("PATCH", f"{HOSTS}/h1?fieldValidation={validation}", patch, kind=kind)
    assert answer.ok()["spec"]["location"] == "d"
    assert len(answer.warnings) == (0 if validation == "Ignore" else 1)


async def test_text_that_looks_like_a_key_is_none(client: Client) -> None:
    body = host("h1", location='a":"b", "location": "c"')
    answer = await client.post(f"{HOSTS}?fieldValidation=Strict", body)
    assert answer.ok(201)["spec"] and answer.warnings == []


async def test_a_dry_run_applies_nothing(client: Client, store: Store) -> None:
    revision = store.revision
    planned = (await apply(client, host("h1", location="x"), query="&dryRun=All")).ok(201)
    assert planned["spec"]["location"] == "x" and "resourceVersion" not in planned["metadata"]
    assert store.revision == revision
    made = (await apply(client, host("h1", location="x"))).ok(201)
    planned = (await apply(client, host("h1", location="y"), query="&dryRun=All")).ok()
    assert planned["spec"]["location"] == "y"
    assert (await client.get(f"{HOSTS}/h1")).ok() == made


async def test_rules_and_homes_hold_for_apply(store: Store) -> None:
    def rule(tx: Transaction, request: admission.Request) -> None:
        assert isinstance(request.new, Host)
        if request.new.spec.location == "sea":
            raise admission.Refused("hosts do not swim", "choose land", field="spec.location")

    client = Client(Api(ApiContext(store=store, cloud="central", rules={"Host": [rule]})))
    (await apply(client, host("h1", location="sea"))).refused(422, "hosts do not swim; choose land")
    (await apply(client, host("h1"), path=f"{V1}/namespaces/harbor/hosts")).refused(
        403, "belongs to subcloud"
    )
    copy = {**host("up1"), "metadata": {"name": "up1", "namespace": "central", "uid": "u"}}
    await store.transact(lambda tx: tx.copy(copy, "up"))
    (await apply(client, host("up1", location="x"))).refused(403, "its home is the central cloud")
    logs = f"{V1}/namespaces/central/logentries"
    (await apply(client, {**host("x"), "kind": "LogEntry"}, path=logs)).refused(403, "written by")


async def test_what_the_platform_makes_is_not_made_by_applying(client: Client, store: Store) -> None:
    alarms = f"{V1}/namespaces/central/alarms"
    body = {**host("a", comment="mine"), "kind": "Alarm"}
    (await apply(client, body, path=alarms)).refused(403, "are created by")
    await store.save(Alarm(metadata=Metadata(name="a", namespace="central")))
    made = (await apply(client, body, path=alarms)).ok()
    assert owned(made, "m") == {"f:spec": {"f:comment": {}}}
    await store.transact(lambda tx: tx.drop("Alarm", "central", "a"))
    await store.save(
        Alarm(metadata=Metadata(name="a", namespace="central"), spec=AlarmSpec(acknowledged_by="bob"))
    )
    (await apply(client, {**body, "spec": {"acknowledgedBy": "eve"}}, path=alarms)).refused(
        409, 'conflict with "before-first-apply" using roost.edge/v1: .spec.acknowledgedBy'
    )


async def test_fields_of_a_newer_version_stay_when_applied(client: Client, store: Store) -> None:
    await apply(client, host("h1", location="x"))

    def newer(tx: Transaction) -> None:
        raw = tx.get("Host", "central", "h1").raw
        tx.replace({**raw, "spec": {**raw["spec"], "future": {"a": 1}}, "extra": True})

    await store.transact(newer)
    changed = (await apply(client, host("h1", forceLock=True))).ok()
    assert changed["spec"]["future"] == {"a": 1} and changed["extra"] is True
    assert changed["spec"]["location"] == "" and changed["spec"]["forceLock"] is True


async def test_managed_fields_are_kept_reset_and_taken(client: Client) -> None:
    made = (await apply(client, host("h1", location="x"), "a")).ok(201)
    del made["metadata"]["managedFields"]
    made["spec"]["forceLock"] = True
    kept = (await client.put(f"{HOSTS}/h1?fieldManager=e", made)).ok()
    assert [e["manager"] for e in kept["metadata"]["managedFields"]] == ["a", "e"]
    resets: list[list[Raw]] = [[], [{}]]
    for reset in resets:
        bare = (await client.merge(f"{HOSTS}/h1?fieldManager=e", {"metadata": {"managedFields": reset}})).ok()
        assert "managedFields" not in bare["metadata"]
        again = (await client.merge(f"{HOSTS}/h1?fieldManager=e", {"spec": {"location": "z"}})).ok()
        assert "managedFields" not in again["metadata"]
    entry: Raw = {"manager": "z", "operation": "Apply", "apiVersion": "roost.edge/v1"}
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:location": {}}}}
    taken = (await client.merge(f"{HOSTS}/h1?fieldManager=e", {"metadata": {"managedFields": [entry]}})).ok()
    assert taken["metadata"]["managedFields"] == [entry]
    (await apply(client, host("h1", location="w"), "b")).refused(409, 'conflict with "z"')
    wrong = {"metadata": {"managedFields": [{"manager": "z", "operation": "Fly"}]}}
    assert (await client.merge(f"{HOSTS}/h1", wrong)).ok() == taken


async def test_the_user_agent_names_the_manager(client: Client) -> None:
    answer = await client.open("POST", HOSTS, host("h1"))
    assert answer.status == 201
    stored = (await client.get(f"{HOSTS}/h1")).ok()
    assert [e["manager"] for e in stored["metadata"]["managedFields"]] == ["unknown"]


async def test_times_move_with_changes_only(store: Store) -> None:
    client = Client(Api(ApiContext(store=store, cloud="central")))
    first = (await apply(client, host("h1", location="x"), "a")).ok(201)
    again = (await apply(client, host("h1", location="x"), "a")).ok()
    assert again["metadata"] == first["metadata"]
    stamp = datetime.fromisoformat(first["metadata"]["managedFields"][0]["time"])
    assert abs(datetime.now(UTC) - stamp) < timedelta(minutes=5)


async def test_kubectl_takes_over_from_its_client_side_apply(client: Client) -> None:
    body = host("h1", location="x")
    last = msgspec.json.encode(body).decode() + "\n"
    body["metadata"]["annotations"] = {migration.LAST_APPLIED: last}
    await client.post(f"{HOSTS}?fieldManager=kubectl-client-side-apply", body)
    (await apply(client, host("h1", location="y"), "other")).refused(409, "kubectl-client-side-apply")
    taken = (await apply(client, host("h1", location="y"), "kubectl")).ok()
    assert taken["spec"]["location"] == "y"
    written = taken["metadata"]["annotations"][migration.LAST_APPLIED]
    assert msgspec.json.decode(written)["spec"] == {"location": "y"}
    await client.merge(f"{HOSTS}/h1?fieldManager=e", {"spec": {"forceLock": True}})
    (await apply(client, host("h1", location="y", forceLock=False), "kubectl")).refused(409, 'with "e"')


async def test_the_store_keeps_owners_when_the_platform_writes(client: Client, store: Store) -> None:
    made = (await apply(client, host("h1", location="x"), "a")).ok(201)
    stored = await store.load(Host, "central", "h1")
    changed = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, force_lock=True))
    await store.save(changed)
    after = (await client.get(f"{HOSTS}/h1")).ok()
    assert after["spec"]["forceLock"] is True
    assert after["metadata"]["managedFields"] == made["metadata"]["managedFields"]


# -- metadata


async def test_what_never_changes(client: Client) -> None:
    made = (await client.post(HOSTS, host("h1"))).ok(201)
    for key in ("uid", "deletionTimestamp"):
        changed = {"metadata": {key: "2020-01-01T00:00:00Z"}}
        (await client.merge(f"{HOSTS}/h1", changed)).refused(422, f"metadata.{key}", "field is immutable")
    given = {"generation": 9, "selfLink": "/x", "creationTimestamp": "2020-01-01T00:00:00Z"}
    same = (await client.merge(f"{HOSTS}/h1", {"metadata": given})).ok()
    assert same == made
    put = (await client.put(f"{HOSTS}/h1", {**made, "metadata": {**made["metadata"], **given}})).ok()
    assert put == made
    other = {**made, "metadata": {**made["metadata"], "uid": "other"}}
    refused = (await client.put(f"{HOSTS}/h1", other)).refused(409, "the write expected uid other")
    assert refused["details"] == {"name": "h1", "group": "roost.edge", "kind": "hosts"}


async def test_finalizers_only_go_once_deletion_is_asked_for(client: Client) -> None:
    body = host("h1")
    body["metadata"]["finalizers"] = ["roost.edge/a", "roost.edge/b"]
    await client.post(HOSTS, body)
    marked = (await client.delete(f"{HOSTS}/h1")).ok()["metadata"]
    assert marked["deletionTimestamp"] and marked["generation"] == 2
    more = {"metadata": {"finalizers": ["roost.edge/a", "roost.edge/c"]}}
    (await client.merge(f"{HOSTS}/h1", more)).refused(422, "no new finalizers can be added", "roost.edge/c")
    less = {"metadata": {"finalizers": ["roost.edge/b"]}}
    left = (await client.merge(f"{HOSTS}/h1", less)).ok()
    assert left["metadata"]["finalizers"] == ["roost.edge/b"]
    gone = (await client.merge(f"{HOSTS}/h1", {"metadata": {"finalizers": []}})).ok()
    assert "finalizers" not in gone["metadata"]
    for key in ("name", "uid", "resourceVersion", "deletionTimestamp", "generation"):
        assert gone["metadata"][key] == left["metadata"][key]
    (await client.get(f"{HOSTS}/h1")).refused(404)


async def test_a_taken_generated_name_is_tried_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter("a" * 5 + "a" * 5 + "b" * 5 + "a" * 5 * 9)
    monkeypatch.setattr("roost.model.chance.pick", lambda _: next(drawn))
    body = {**host(""), "metadata": {"generateName": "edge-"}}
    names = [(await client.post(HOSTS, body)).ok(201)["metadata"]["name"] for _ in range(2)]
    assert names == ["edge-aaaaa", "edge-bbbbb"]
    refused = (await client.post(HOSTS, body)).refused(409)
    assert refused["reason"] == "AlreadyExists"
    long = {**host(""), "metadata": {"generateName": "e" * 80}}
    drawn = iter("c" * 5)
    assert (await client.post(HOSTS, long)).ok(201)["metadata"]["name"] == "e" * 58 + "c" * 5


# -- delete


@pytest.mark.parametrize(
    ("options", "finalizers"),
    [
        ({}, None),
        ({"propagationPolicy": "Background"}, None),
        ({"propagationPolicy": "Foreground"}, ["foregroundDeletion"]),
        ({"propagationPolicy": "Orphan"}, ["orphan"]),
        ({"orphanDependents": True}, ["orphan"]),
        ({"orphanDependents": False}, None),
        ({"propagationPolicy": "Foreground", "gracePeriodSeconds": 0}, ["foregroundDeletion"]),
    ],
)
async def test_what_becomes_of_dependents(
    client: Client, store: Store, options: Raw, finalizers: list[str] | None
) -> None:
    await client.post(HOSTS, host("h1"))
    revision = store.revision
    planned = (await client.delete(f"{HOSTS}/h1", {**options, "dryRun": ["All"]})).ok()
    assert store.revision == revision
    answer = (await client.delete(f"{HOSTS}/h1", options)).ok()
    assert planned["kind"] == answer["kind"]
    if finalizers is None:
        assert answer["status"] == "Success"
        (await client.get(f"{HOSTS}/h1")).refused(404)
        return
    assert answer["metadata"]["deletionTimestamp"] and answer["metadata"]["finalizers"] == finalizers
    again = (await client.delete(f"{HOSTS}/h1", {"propagationPolicy": "Orphan"})).ok()
    assert again["metadata"]["finalizers"] == ["orphan"]
    (await client.delete(f"{HOSTS}/h1", {"propagationPolicy": "Background"})).ok()
    (await client.get(f"{HOSTS}/h1")).refused(404)


async def test_policies_by_query_and_with_other_finalizers(client: Client) -> None:
    body = host("h1")
    body["metadata"]["finalizers"] = ["roost.edge/a"]
    await client.post(HOSTS, body)
    marked = (await client.delete(f"{HOSTS}/h1?propagationPolicy=Foreground&gracePeriodSeconds=5")).ok()
    assert marked["metadata"]["finalizers"] == ["roost.edge/a", "foregroundDeletion"]
    kept = (await client.delete(f"{HOSTS}/h1")).ok()
    assert kept["metadata"]["finalizers"] == ["roost.edge/a", "foregroundDeletion"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422, "cannot be both set"),
        ({"propagationPolicy": "Away"}, 422, 'Unsupported value: "Away"'),
        ({"orphanDependents": "yes"}, 400, "true or false"),
        ({"gracePeriodSeconds": "1"}, 400, "whole number"),
        ({"dryRun": ["Some"]}, 422, "dryRun"),
        ({"kind": "Host"}, 400, "DeleteOptions"),
        ({"preconditions": []}, 409, ""),
    ],
)
async def test_delete_refuses(client: Client, options: Raw, code: int, words: str) -> None:
    await client.post(HOSTS, host("h1"))
    if options == {"preconditions": []}:
        options = {"preconditions": {"uid": "other"}, "propagationPolicy": "Foreground"}
    (await client.delete(f"{HOSTS}/h1", options)).refused(code, words)
    stored = (await client.get(f"{HOSTS}/h1")).ok()
    assert "finalizers" not in stored["metadata"] and "deletionTimestamp" not in stored["metadata"]


async def test_several_by_selector_limit_and_policy(client: Client) -> None:
    for n in range(5):
        body = host(f"h{n}")
        body["metadata"]["labels"] = {"odd": str(n % 2)}
        await client.post(HOSTS, body)
    some = (await client.delete(f"{HOSTS}?labelSelector=odd%3D0&limit=2")).ok()
    assert [i["metadata"]["name"] for i in some["items"]] == ["h0", "h2"]
    before = (await client.get(f"{HOSTS}/h1")).ok()
    one = f"{HOSTS}?fieldSelector=metadata.name%3Dh1&propagationPolicy=Foreground"
    for asked in (f"{one}&dryRun=All", one):
        (told,) = (await client.delete(asked)).ok()["items"]
        assert told == before
    held = (await client.get(f"{HOSTS}/h1")).ok()["metadata"]
    assert held["finalizers"] == ["foregroundDeletion"] and held["deletionTimestamp"]
    names = [i["metadata"]["name"] for i in (await client.get(HOSTS)).ok()["items"]]
    assert names == ["h1", "h3", "h4"]
