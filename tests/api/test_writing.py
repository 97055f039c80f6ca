"""Create, update, patch and delete: what is kept, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.api import bodies
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.engine import admission
from roost.link import exchange
from roost.model.codec import Raw
from roost.model.host import Host
from roost.store.errors import Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import HOSTS, V1, Client, host


async def test_create_gives_defaults_and_identity(client: Client) -> None:
    made = (await client.post(HOSTS, host("h1", location="here"))).ok(201)
    assert made["spec"]["administrativeState"] == "locked"
    assert made["spec"]["personalities"] == ["controller", "worker"]
    assert made["status"]["availability"] == "offline"
    meta = made["metadata"]
    assert meta["namespace"] == "central" and meta["generation"] == 1
    assert meta["uid"] and meta["resourceVersion"] and meta["creationTimestamp"].endswith("Z")
    assert (await client.get(f"{HOSTS}/h1")).ok() == made


async def test_the_server_gives_identity_not_the_user(client: Client) -> None:
    body = host("h1")
    body["metadata"] |= {"uid": "mine", "generation": 9, "creationTimestamp": None, "selfLink": "/x"}
    body["metadata"] |= {"deletionTimestamp": "2020-01-01T00:00:00Z", "managedFields": [{"manager": "x"}]}
    made = (await client.post(HOSTS, body)).ok(201)["metadata"]
    assert made["uid"] != "mine" and made["generation"] == 1 and "deletionTimestamp" not in made
    assert [e["manager"] for e in made["managedFields"]] == ["unknown"] and "selfLink" not in made


async def test_status_is_not_the_users(client: Client) -> None:
    body = {**host("h1"), "status": {"availability": "available"}}
    made = (await client.post(HOSTS, body)).ok(201)
    assert made["status"]["availability"] == "offline"
    made["status"]["availability"] = "available"
    assert (await client.put(f"{HOSTS}/h1", made)).ok()["status"]["availability"] == "offline"
    patched = await client.merge(f"{HOSTS}/h1", {"status": {"task": "x"}, "spec": {"location": "b"}})
    assert patched.ok()["status"]["task"] == "" and patched.raw["spec"]["location"] == "b"
    for method in ("PUT", "PATCH"):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = await client.send(method, f"{HOSTS}/h1/status", {}, kind=kind)
        answer.refused(403, "status is written by the cloud's controllers alone", "change spec")
    assert (await client.get(f"{HOSTS}/h1/status")).ok()["kind"] == "Host"


def owners(count: int) -> list[Raw]:
    return [
        {"apiVersion": "roost.edge/v1", "kind": "Host", "name": f"h{n}", "uid": f"u{n}"} for n in range(count)
    ]


CREATE_REFUSALS: list[tuple[Raw, int, tuple[str, ...]]] = [
    ({"metadata": {"name": ""}}, 422, ("metadata.name", "name or generateName is required")),
    ({"metadata": {"name": "Up"}}, 422, ("metadata.name: Invalid value: 'Up'", "lower-case")),
    ({"metadata": {"name": "a" * 300}}, 422, ("metadata.name",)),
    ({"metadata": {"name": "a", "namespace": "other"}}, 400, ("namespace of the provided object (other)",)),
    ({"metadata": {"name": "a", "resourceVersion": "5"}}, 400, ("resourceVersion should not be set",)),
    ({"metadata": {"name": "a", "labels": {"-x": "y"}}}, 422, ("metadata.labels", "'-x' is not a label key")),
    ({"metadata": {"name": "a", "labels": {"x": "a b"}}}, 422, ("'a b' is not a label value",)),
    ({"metadata": {"name": "a", "labels": {"x": 5}}}, 422, ("metadata.labels", "Expected `str`, got `int`")),
    ({"metadata": {"name": "a", "annotations": {"x": "y" * 300_000}}}, 422, ("262144 are allowed",)),
    ({"metadata": {"name": "a", "finalizers": ["no good"]}}, 422, ("not a qualified name",)),
    (
        {"metadata": {"name": "a", "ownerReferences": owners(65)}},
        422,
        ("metadata.ownerReferences: there are 65 owners, 64 are allowed; name fewer owners",),
    ),
    ({"metadata": []}, 400, ("metadata must be an object",)),
    ({"kind": "Alarm"}, 400, ("kind is 'Alarm', this path takes 'Host'",)),
    ({"apiVersion": "v1"}, 400, ("apiVersion is 'v1'",)),
    ({"spec": {"forceLock": "yes"}}, 422, ("spec.forceLock: Expected `bool`, got `str`",)),
    (
        {"spec": {"administrativeState": "open"}},
        422,
        ("spec.administrativeState", "Invalid enum value 'open'"),
    ),
    ({"spec": {"personalities": ["worker", "worker"]}}, 422, ("a personality is listed twice; list each",)),
    ({"spec": {"location": "x" * 256}}, 422, ("spec.location: Expected `str` of length <= 255",)),
    ({"spec": []}, 422, ("spec: Expected `object`, got `array`",)),
]


@pytest.mark.parametrize(("change", "code", "words"), CREATE_REFUSALS)
async def test_create_refuses(client: Client, change: Raw, code: int, words: tuple[str, ...]) -> None:
    raw = (await client.post(HOSTS, {**host("a"), **change})).refused(code, *words)
    assert raw["reason"] == {400: "BadRequest", 422: "Invalid"}[code]
    if code == 422:
        assert raw["details"]["causes"][0]["field"].split(".")[0] in ("metadata", "spec")


async def test_owners_up_to_the_bound(client: Client) -> None:
    body = host("a")
    body["metadata"]["ownerReferences"] = owners(64)
    made = (await client.post(HOSTS, body)).ok(201)
    assert len(made["metadata"]["ownerReferences"]) == 64
    made["metadata"]["ownerReferences"] = owners(65)
    (await client.put(f"{HOSTS}/a", made)).refused(422, "64 are allowed")
    (await client.merge(f"{HOSTS}/a", {"metadata": made["metadata"]})).refused(422, "64 are allowed")


async def test_every_problem_is_a_cause(client: Client) -> None:
    spec = {"personalities": ["worker", "worker"], "interfaces": [{"port": "a"}, {"port": "a"}]}
    raw = (await client.post(HOSTS, host("a", **spec))).refused(422)
    assert [c["field"] for c in raw["details"]["causes"]] == ["spec.personalities", "spec.interfaces[1].port"]


async def test_null_means_absent(client: Client) -> None:
    body = host("h1", location=None, interfaces=[{"port": "eth0", "networks": None}])
    body["metadata"]["labels"] = None
    made = (await client.post(HOSTS, body)).ok(201)
    assert made["spec"]["location"] == "" and made["spec"]["interfaces"] == [{"port": "eth0", "networks": []}]


async def test_generated_names_differ(client: Client) -> None:
    body = {**host(""), "metadata": {"generateName": "edge-"}}
    names = {(await client.post(HOSTS, body)).ok(201)["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(n.startswith("edge-") for n in names)


async def test_already_there(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    raw = (await client.post(HOSTS, host("h1"))).refused(409, 'hosts.roost.edge "h1" already exists')
    assert raw["reason"] == "AlreadyExists"


@pytest.mark.parametrize("validation", ["", "Warn", "Strict", "Ignore"])
async def test_unknown_fields(client: Client, validation: str) -> None:
    body = host("h1", lokation="x", thresholds={"processor": {"mayor": 1}})
    query = f"?fieldValidation={validation}" if validation else ""
    answer = await client.post(HOSTS + query, body)
    if validation == "Strict":
        raw = answer.refused(400, 'strict decoding error: unknown field "spec.lokation"')
        assert [c["field"] for c in raw["details"]["causes"]] == [
            "spec.lokation",
            "spec.thresholds.processor.mayor",
        ]
        return
    assert "lokation" not in answer.ok(201)["spec"]
    assert bool(answer.warnings) == (validation != "Ignore")
    if answer.warnings:
        assert answer.headers["warning"].startswith('299 - "unknown field \\"spec.')


async def test_fields_of_a_newer_version_stay(client: Client, store: Store) -> None:
    (await client.post(HOSTS, host("h1"))).ok(201)

    def newer(tx: Transaction) -> None:
        raw = tx.get("Host", "central", "h1").raw
        tx.replace({**raw, "spec": {**raw["spec"], "future": {"a": 1}}, "extra": True})

    await store.transact(newer)
    strict = f"{HOSTS}/h1?fieldValidation=Strict"
    changed = (await client.merge(strict, {"spec": {"location": "b"}})).ok()
    assert changed["spec"]["future"] == {"a": 1} and changed["extra"] is True
    del changed["spec"]["future"], changed["extra"]
    changed["spec"]["location"] = "c"
    replaced = (await client.put(strict, changed)).ok()
    assert replaced["spec"]["future"] == {"a": 1} and replaced["spec"]["location"] == "c"


async def test_update_keeps_identity_and_checks_the_revision(client: Client) -> None:
    made = (await client.post(HOSTS, host("h1"))).ok(201)
    made["spec"]["location"] = "b"
    changed = (await client.put(f"{HOSTS}/h1", made)).ok()
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    raw = (await client.put(f"{HOSTS}/h1", made)).refused(409, "Operation cannot be fulfilled", "has changed")
    assert raw["reason"] == "Conflict"
    changed["metadata"]["uid"] = "other"
    (await client.put(f"{HOSTS}/h1", changed)).refused(409, "the write expected uid other")
    (await client.put(f"{HOSTS}/h2", host("h2"))).refused(404, 'hosts.roost.edge "h2" not found')
    (await client.put(f"{HOSTS}/h1", host("h2"))).refused(400, "does not match the name on the URL")
    stale: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "spec": {"location": "z"}}
    (await client.merge(f"{HOSTS}/h1", stale)).refused(409)
    stale["spec"] = {"location": 7}
    (await client.merge(f"{HOSTS}/h1", stale)).refused(409, "has changed")
    unconditional = host("h1", location="d")
    assert (await client.put(f"{HOSTS}/h1", unconditional)).ok()["metadata"]["generation"] == 3


async def test_a_write_that_changes_nothing_makes_no_revision(client: Client) -> None:
    made = (await client.post(HOSTS, host("h1"))).ok(201)
    same = (await client.merge(f"{HOSTS}/h1", {"spec": {"location": ""}})).ok()
    assert same == made


async def test_labels_change_without_a_generation(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    labelled = (await client.merge(f"{HOSTS}/h1", {"metadata": {"labels": {"a": "b"}}})).ok()
    assert labelled["metadata"]["generation"] == 1 and labelled["metadata"]["labels"] == {"a": "b"}
    bare = (await client.merge(f"{HOSTS}/h1", {"metadata": {"labels": {"a": None}}})).ok()
    assert "labels" not in bare["metadata"]


PATCH_REFUSALS: list[tuple[str, Any, int, str]] = [
    ("application/strategic-merge-patch+json", {}, 415, "strategic merge patch is for built-in kinds"),
    (
        "application/apply-patch+yaml",
        b"a: 1",
        422,
        "fieldManager: Required value: is required for apply patch",
    ),
    ("application/apply-patch+cbor", b"\xa0", 415, "send application/apply-patch+yaml"),
    ("text/plain", b"", 415, "send one of application/merge-patch+json"),
    ("application/merge-patch+json", [], 400, "a merge patch must be a JSON object"),
    ("application/merge-patch+json", b"{", 400, "not valid JSON"),
    ("application/merge-patch+json", {"metadata": None}, 400, "metadata must stay an object"),
    ("application/merge-patch+json", {"metadata": {"name": "x"}}, 400, "does not match the name"),
    ("application/merge-patch+json", {"spec": {"forceLock": 1}}, 422, "spec.forceLock"),
    ("application/json-patch+json", {}, 400, "must be a list"),
    ("application/json-patch+json", [{"op": "fly", "path": "/a"}], 400, "step 0"),
    (
        "application/json-patch+json",
        [{"op": "remove", "path": "/spec/none"}],
        422,
        "the resource has nothing there",
    ),
    ("application/json-patch+json", [{"op": "test", "path": "/kind", "value": "x"}], 422, "the test fails"),
    ("application/json-patch+json", [{"op": "replace", "path": "", "value": 5}], 400, "leaves no resource"),
    (
        "application/json-patch+json",
        [{"op": "add", "path": "/spec/location/x", "value": 1}],
        422,
        "nothing there",
    ),
    ("application/json-patch+json", [{"op": "remove", "path": "/metadata"}], 400, "metadata must stay"),
    ("application/json-patch+json", [{}] * 1001, 400, "1000 steps at most"),
]


@pytest.mark.parametrize(("kind", "patch", "code", "words"), PATCH_REFUSALS)
async def test_patch_refuses(client: Client, kind: str, patch: Any, code: int, words: str) -> None:
    before = (await client.post(HOSTS, host("h1"))).ok(201)
    (await client.send("PATCH", f"{HOSTS}/h1", patch, kind=kind)).refused(code, words)
    assert (await client.get(f"{HOSTS}/h1")).ok() == before


async def test_a_patch_can_not_grow_without_end(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    steps: list[Raw] = [{"op": "add", "path": "/x", "value": ["a" * 1000] * 10}]
    steps += [{"op": "copy", "from": "/x", "path": "/x/-"} for _ in range(40)]
    (await client.patch(f"{HOSTS}/h1", steps)).refused(413, "too large")


async def test_a_patch_can_not_nest_without_end(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    nested: Raw = {}
    for _ in range(50):
        nested = {"a": nested}
    steps: list[Raw] = [{"op": "add", "path": "/x" + "/a" * 50 * n, "value": nested} for n in range(60)]
    (await client.patch(f"{HOSTS}/h1", steps)).refused(413, "deeper than 64 levels")
    steps.append({"op": "copy", "from": "/x", "path": "/y"})
    (await client.patch(f"{HOSTS}/h1", steps)).refused(413, "too large")


async def test_small_copies_in_a_large_resource_cost_little(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: list[int] = []
    shallow = bodies.shallow

    def counting(value: Any) -> bool:
        weighed.append(len(msgspec.json.encode(value)))
        return shallow(value)

    await client.post(HOSTS, host("h1"))
    steps: list[Raw] = [{"op": "add", "path": "/x", "value": [0] * 100_000}]
    steps += [{"op": "copy", "from": "/metadata/name", "path": "/y"}] * 100
    monkeypatch.setattr(bodies, "shallow", counting)
    (await client.patch(f"{HOSTS}/h1", steps)).ok()
    assert sum(weighed) < 1_000_000


async def test_a_slash_in_a_name_is_no_way_to_the_list(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    (await client.delete(f"{HOSTS}/%2f")).refused(404)
    (await client.get(f"{HOSTS}/h1%2fstatus")).refused(404)
    (await client.get(f"{HOSTS}/h1")).ok()


@pytest.mark.parametrize("wrong", [{"uid": {}}, {"uid": 0}, {"resourceVersion": []}, {"resourceVersion": 5}])
async def test_preconditions_of_a_wrong_type_are_no_preconditions_met(client: Client, wrong: Raw) -> None:
    await client.post(HOSTS, host("h1"))
    (await client.delete(f"{HOSTS}/h1", {"preconditions": wrong})).refused(400, "must be text")


async def test_delete(client: Client) -> None:
    made = (await client.post(HOSTS, host("h1"))).ok(201)
    wrong = {"preconditions": {"uid": "other"}}
    (await client.delete(f"{HOSTS}/h1", wrong)).refused(409)
    (await client.delete(f"{HOSTS}/h1", {"preconditions": {"resourceVersion": "1"}})).refused(409)
    right = {
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": made["metadata"]["uid"]},
    }
    gone = (await client.delete(f"{HOSTS}/h1", right)).ok()
    assert gone["status"] == "Success" and gone["details"]["uid"] == made["metadata"]["uid"]
    (await client.delete(f"{HOSTS}/h1")).refused(404)


async def test_delete_with_finalizers(client: Client) -> None:
    body = host("h1")
    body["metadata"]["finalizers"] = ["roost.edge/drain"]
    await client.post(HOSTS, body)
    marked = (await client.delete(f"{HOSTS}/h1")).ok()
    assert marked["kind"] == "Host" and marked["metadata"]["deletionTimestamp"]
    again = (await client.delete(f"{HOSTS}/h1")).ok()
    assert again == marked
    await client.merge(f"{HOSTS}/h1", {"metadata": {"finalizers": None}})
    (await client.get(f"{HOSTS}/h1")).refused(404)


async def test_delete_collection(client: Client) -> None:
    for n in range(5):
        body = host(f"h{n}")
        body["metadata"]["labels"] = {"odd": str(n % 2)}
        await client.post(HOSTS, body)
    gone = (await client.delete(f"{HOSTS}?labelSelector=odd%3D1")).ok()
    assert [i["metadata"]["name"] for i in gone["items"]] == ["h1", "h3"]
    assert len((await client.get(HOSTS)).ok()["items"]) == 3
    (await client.delete(f"{V1}/hosts")).refused(403, "a namespace must be given")


async def test_dry_run_does_everything_and_keeps_nothing(client: Client, store: Store) -> None:
    revision = store.revision
    made = (await client.post(f"{HOSTS}?dryRun=All", host("h1"))).ok(201)
    assert made["metadata"]["uid"] and "resourceVersion" not in made["metadata"]
    assert store.revision == revision
    (await client.post(f"{HOSTS}?dryRun=All", host("h1", forceLock=3))).refused(422)
    (await client.post(f"{HOSTS}?dryRun=Some", host("h1"))).refused(422, "dryRun: Unsupported value")
    stored = (await client.post(HOSTS, host("h1"))).ok(201)
    planned = (await client.merge(f"{HOSTS}/h1?dryRun=All", {"spec": {"location": "b"}})).ok()
    assert planned["spec"]["location"] == "b" and planned["metadata"]["generation"] == 2
    assert planned["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
    (await client.delete(f"{HOSTS}/h1?dryRun=All")).ok()
    (await client.delete(f"{HOSTS}/h1", {"dryRun": ["All"]})).ok()
    (await client.delete(f"{HOSTS}?dryRun=All")).ok()
    assert (await client.get(f"{HOSTS}/h1")).ok() == stored


async def test_homes(client: Client, store: Store) -> None:
    def copies(tx: Transaction) -> None:
        for namespace, name, origin in (("harbor", "h1", "down:harbor"), ("central", "up1", "up")):
            raw = {**host(name), "metadata": {"name": name, "namespace": namespace, "uid": name}}
            tx.copy(raw, origin)

    await store.transact(copies)
    below = f"{V1}/namespaces/harbor/hosts"
    patch = {"spec": {"location": "x"}}
    (await client.merge(f"{below}/h1", patch)).refused(403, "its home is subcloud harbor", "use its context")
    (await client.delete(f"{below}/h1")).refused(403, "its home is subcloud harbor")
    (await client.post(below, host("h2"))).refused(
        403, "namespace harbor belongs to subcloud harbor", "--context harbor", "-n central"
    )
    (await client.merge(f"{HOSTS}/up1", patch)).refused(
        403, "its home is the central cloud", "change it there"
    )
    (await client.delete(HOSTS)).ok()
    assert (await client.get(f"{HOSTS}/up1")).status == 200


async def test_what_the_platform_owns(client: Client, store: Store) -> None:
    base = f"{V1}/namespaces/central"
    for plural, kind in (("hostconfigurations", "HostConfiguration"), ("logentries", "LogEntry")):
        body = {"apiVersion": "roost.edge/v1", "kind": kind, "metadata": {"name": "x"}}
        words = "written by the cloud's controllers alone"
        (await client.post(f"{base}/{plural}", body)).refused(403, words)
        (await client.put(f"{base}/{plural}/x", body)).refused(403, words)
        (await client.merge(f"{base}/{plural}/x", {})).refused(403, words)
        (await client.delete(f"{base}/{plural}/x")).refused(403, words)
        (await client.delete(f"{base}/{plural}")).refused(403, words)
    alarm = {"apiVersion": "roost.edge/v1", "kind": "Alarm", "metadata": {"name": "a"}}
    (await client.post(f"{base}/alarms", alarm)).refused(403, "resources of this kind are created by")
    (await client.get(f"{V1}/credentials")).refused(404)


async def test_rules_decide_inside_the_transaction(store: Store) -> None:
    seen: list[tuple[str, str, str]] = []

    def rule(tx: Transaction, request: admission.Request) -> None:
        new, old = request.new, request.old
        assert new is None or isinstance(new, Host)
        seen.append((request.operation, request.user, request.info.kind))
        if new is not None and new.spec.location == "sea":
            raise admission.Refused("hosts do not swim", "choose land", field="spec.location")
        if request.operation == "delete" and old is not None and tx.count("Host") < 2:
            raise admission.Refused("it is the last host", "add another first")

    client = Client(Api(ApiContext(store=store, cloud="central", rules={"Host": [rule]})))
    await client.post(HOSTS, host("h1"))
    refused = (await client.merge(f"{HOSTS}/h1", {"spec": {"location": "sea"}})).refused(
        422, 'Host.roost.edge "h1" is invalid: spec.location: hosts do not swim; choose land'
    )
    assert refused["details"]["causes"][0]["field"] == "spec.location"
    refused = (await client.delete(f"{HOSTS}/h1")).refused(
        403, 'hosts.roost.edge "h1" is forbidden: it is the last host; add another first'
    )
    causes = refused["details"]["causes"]
    assert [c["reason"] for c in causes] == ["Refused", "Remedy"]
    assert causes[1]["message"] == "add another first"
    (await client.delete(HOSTS)).refused(403, "it is the last host")
    assert seen[0] == ("create", "ada", "Host") and (await client.get(f"{HOSTS}/h1")).status == 200


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [(Overloaded(10_000), 429, "1"), (Unavailable("disk full"), 503, ""), (RuntimeError("secret"), 500, "")],
)
async def test_failures_of_the_store(store: Store, error: Exception, code: int, retry: str) -> None:
    def rule(tx: Transaction, request: admission.Request) -> None:
        raise error

    client = Client(Api(ApiContext(store=store, cloud="central", rules={"Host": [rule]})))
    answer = await client.post(HOSTS, host("h1"))
    raw = answer.refused(code)
    assert answer.headers.get("retry-after", "") == retry
    assert "secret" not in raw["message"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b"{} {}", 400, "not valid JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "nested deeper"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, 400, "nested deeper"),
        (b'{"spec":' + b"[" * 100_000, 400, ""),
        (b'{"a":"\xff"}', 400, "not valid JSON"),
        (b'{"a":1e999}', 400, ""),
        (
            b'{"metadata":{"name":"a","generation":"x"},"spec":{"forceLock":18446744073709551616}}',
            422,
            "bool",
        ),
        (b'{"a":"' + b"x" * bodies.LARGEST + b'"}', 413, "larger than"),
    ],
)
async def test_bodies_that_can_not_be_taken(client: Client, body: bytes, code: int, words: str) -> None:
    (await client.send("POST", HOSTS, body)).refused(code, words)


async def test_json_and_yaml_are_read_and_nothing_else(client: Client) -> None:
    answer = await client.send("POST", HOSTS, b"kind: Host", kind="text/plain")
    answer.refused(415, "send application/json or application/yaml")
    body = b"kind: Host\nmetadata: {name: h1}\nspec: {location: here}\n"
    made = (await client.send("POST", HOSTS, body, kind="application/yaml")).ok(201)
    body = b"kind: Host\nmetadata: {name: h1}\nspec: {location: there}\n"
    changed = (await client.send("PUT", f"{HOSTS}/h1", body, kind="application/yaml")).ok()
    assert (made["spec"]["location"], changed["spec"]["location"]) == ("here", "there")


async def test_subresources(store: Store) -> None:
    async def enrol(
        context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        if name == "full":
            raise admission.Refused("no more tokens", "wait")
        return {
            "caller": caller.name,
            "namespace": namespace,
            "name": name,
            "body": body,
            "cloud": context.cloud,
        }

    context = ApiContext(store=store, cloud="central", subresources={("hosts", "enrolment"): enrol})
    client = Client(Api(context))
    made = (await client.post(f"{HOSTS}/h1/enrolment", {"a": 1})).ok(201)
    assert made == {
        "caller": "ada",
        "namespace": "central",
        "name": "h1",
        "body": {"a": 1},
        "cloud": "central",
    }
    assert (await client.send("POST", f"{HOSTS}/h1/enrolment")).ok(201)["body"] == {}
    (await client.post(f"{HOSTS}/full/enrolment", {})).refused(403, "no more tokens; wait")
    (await client.get(f"{HOSTS}/h1/enrolment")).refused(405)
    (await client.post(f"{HOSTS}/h1/nothing", {})).refused(404)
    (await client.post(f"{V1}/namespaces/harbor/hosts/h1/enrolment", {})).refused(403, "--context harbor")
    (await client.reader().post(f"{HOSTS}/h1/enrolment", {})).refused(403, "hosts/enrolment")
    listed = (await client.get(V1)).ok()["resources"]
    assert {"name": "hosts/enrolment", "kind": "EnrolmentRequest"}.items() <= next(
        r for r in listed if r["name"] == "hosts/enrolment"
    ).items()
