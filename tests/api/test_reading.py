"""Lists, pages, tables, discovery, reviews and schema documents."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.api import tables
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.forms import Form, Shape, negotiate
from roost.api.openapi import version2, version3
from roost.api.openapi_protobuf import document
from roost.api.protobuf import Malformed, fields, part, text
from roost.api.protobuf_kinds import MEDIA_TYPE as PROTOBUF
from roost.api.snapshots import Continue
from roost.api.status import ApiError
from roost.model import patches
from roost.model.codec import Raw
from roost.model.kind import Column
from roost.model.registry import BY_KIND, KINDS
from roost.model.schema import all_definitions
from roost.store.errors import Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.api.client import HOSTS, V1, Client, host

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def pages(client: Client, path: str, limit: int) -> tuple[list[Raw], list[str]]:
    """All items of a list read page by page, and the revisions its pages showed."""
    items, revisions, token = list[Raw](), list[str](), ""
    while True:
        query = f"?limit={limit}" + (f"&continue={token}" if token else "")
        page = (await client.get(path + query)).ok()
        items += page["items"]
        revisions.append(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            return items, revisions


async def test_pages_are_one_snapshot_while_writes_go_on(client: Client) -> None:
    chance = random.Random(7)
    for n in range(30):
        await client.post(HOSTS, host(f"h{n:02}", location="then"))
    expected = (await client.get(HOSTS)).ok()
    items, token, path = list[Raw](), "", f"{HOSTS}?limit=4"
    while True:
        page = (await client.get(path + (f"&continue={token}" if token else ""))).ok()
        items += page["items"]
        assert page["metadata"]["resourceVersion"] == expected["metadata"]["resourceVersion"]
        token = page["metadata"].get("continue", "")
        if not token:
            break
        for _ in range(4):
            name = f"h{chance.randrange(40):02}"
            match chance.choice(["make", "change", "remove"]):
                case "make":
                    await client.post(HOSTS, host(name))
                case "change":
                    await client.merge(f"{HOSTS}/{name}", {"spec": {"location": str(chance.random())}})
                case "remove":
                    await client.delete(f"{HOSTS}/{name}")
    assert [i["metadata"]["name"] for i in items] == [i["metadata"]["name"] for i in expected["items"]]
    assert [i["spec"] for i in items] == [i["spec"] for i in expected["items"]]
    for item in items:
        now = await client.get(f"{HOSTS}/{item['metadata']['name']}")
        if now.status == 200 and now.raw["spec"] != item["spec"]:
            (await client.put(f"{HOSTS}/{item['metadata']['name']}", item)).refused(409)


async def test_pages_with_selectors(client: Client) -> None:
    for n in range(11):
        body = host(f"h{n:02}")
        body["metadata"]["labels"] = {"odd": str(n % 2)}
        await client.post(HOSTS, body)
    items, revisions = await pages(client, HOSTS, 3)
    assert len(items) == 11 and len(revisions) == 4
    odd = (await client.get(f"{HOSTS}?labelSelector=odd=1&limit=2")).ok()
    assert [i["metadata"]["name"] for i in odd["items"]] == ["h01", "h03"] and odd["metadata"]["continue"]
    (await client.get(f"{HOSTS}?continue=nonsense")).refused(400, "not a token of this server")
    assert len((await client.get(f"{HOSTS}?limit=-1")).ok()["items"]) == 11
    (await client.get(f"{HOSTS}?limit=few")).refused(400, "limit")
    (await client.get(f"{HOSTS}?labelSelector=a=b=c")).refused(400, "label selector")
    (await client.get(f"{HOSTS}?fieldSelector=spec.location=b")).refused(400, "field label not supported")


async def test_lists_of_the_past(client: Client, store: Store) -> None:
    await client.post(HOSTS, host("h1", location="a"))
    then = store.revision
    await client.merge(f"{HOSTS}/h1", {"spec": {"location": "b"}})
    await client.post(HOSTS, host("h0"))
    past = (await client.get(f"{HOSTS}?resourceVersion={then}&resourceVersionMatch=Exact")).ok()
    assert [i["spec"]["location"] for i in past["items"]] == ["a"]
    present = (await client.get(f"{HOSTS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")).ok()
    assert len(present["items"]) == 2
    before = (await client.get(f"{HOSTS}?continue={Continue(1, '', '').token()}")).ok()
    assert before["items"] == [] and before["metadata"]["resourceVersion"] == "1"
    ahead = Continue(store.revision + 5, "", "").token()
    (await client.get(f"{HOSTS}?continue={ahead}")).refused(410, "ahead of this store")


async def test_history_that_is_gone(tmp_path: Any) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, history=10)
    client = Client(Api(ApiContext(store=store, cloud="central")))
    await client.post(HOSTS, host("h1"))
    await client.post(HOSTS, host("h2"))
    token = (await client.get(f"{HOSTS}?limit=1")).ok()["metadata"]["continue"]
    for n in range(40):
        await client.merge(f"{HOSTS}/h1", {"spec": {"location": str(n)}})
    raw = (await client.get(f"{HOSTS}?continue={token}")).refused(410, "list anew")
    assert raw["reason"] == "Expired"
    await store.close()


@given(st.integers(0, 2**63), st.text(max_size=20), st.text(max_size=20))
def test_continue_tokens(revision: int, namespace: str, name: str) -> None:
    start = Continue(revision, namespace, name)
    assert Continue.parse(start.token()) == start


@given(st.text(max_size=40))
def test_strange_tokens_are_refused(token: str) -> None:
    try:
        Continue.parse(token)
    except ApiError as error:
        assert error.code == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


def has_null(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and any(has_null(v) for v in value.values()))


@given(json_objects, json_objects)
def test_merge_patch_as_its_specification_says(target: Raw, patch: Raw) -> None:
    merged = patches.merge(target, patch)
    for key in set(target) | set(patch):
        if key not in patch:
            assert merged[key] == target[key]
        elif patch[key] is None:
            assert key not in merged
        elif not isinstance(patch[key], dict):
            assert merged[key] == patch[key]
        else:
            inner = target.get(key)
            assert merged[key] == patches.merge(inner if isinstance(inner, dict) else {}, patch[key])
    assert patches.merge(merged, patch) == merged
    if not has_null(target) and not has_null(patch):
        assert patches.merge({}, target) == target


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_appendix(target: Any, patch: Any, result: Any) -> None:
    assert patches.merge(target, patch) == result


HUMAN = [
    (timedelta(seconds=-5), "<invalid>"),
    (timedelta(seconds=-1), "0s"),
    (timedelta(seconds=0), "0s"),
    (timedelta(seconds=119), "119s"),
    (timedelta(minutes=2), "2m"),
    (timedelta(minutes=5, seconds=3), "5m3s"),
    (timedelta(minutes=10, seconds=3), "10m"),
    (timedelta(minutes=179), "179m"),
    (timedelta(hours=3), "3h"),
    (timedelta(hours=4, minutes=5), "4h5m"),
    (timedelta(hours=8, minutes=5), "8h"),
    (timedelta(hours=47), "47h"),
    (timedelta(days=2), "2d"),
    (timedelta(days=3, hours=4), "3d4h"),
    (timedelta(days=9, hours=4), "9d"),
    (timedelta(days=729), "729d"),
    (timedelta(days=770), "2y40d"),
    (timedelta(days=730), "2y"),
    (timedelta(days=365 * 9 + 3), "9y"),
]


@pytest.mark.parametrize(("span", "shown"), HUMAN)
def test_ages(span: timedelta, shown: str) -> None:
    assert tables.human(span) == shown


NOW = datetime(2026, 1, 1, tzinfo=UTC)
RAW: Raw = {
    "metadata": {"name": "x", "creationTimestamp": "2025-12-31T23:55:00Z"},
    "spec": {"personalities": ["controller", "worker"], "thresholds": {}},
    "status": {
        "conditions": [{"type": "Ready", "status": "False", "reason": "Because"}],
        "aspects": [{"state": "applied"}, {"state": "failed"}],
        "hosts": {},
        "connected": True,
    },
}


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (Column("A", "spec.personalities[*]", ""), "controller,worker"),
        (Column("A", "spec.personalities|count", "", "integer"), 2),
        (Column("A", "spec.missing|count", "", "integer"), 0),
        (Column("A", "status.aspects[*].state", ""), "applied,failed"),
        (Column("A", "status.conditions[Ready].reason", ""), "Because"),
        (Column("A", "status.conditions[Other].reason", ""), ""),
        (Column("A", "metadata.creationTimestamp", "", "date"), "5m"),
        (Column("A", "status.never", "", "date"), ""),
        (Column("A", "status.inventory.memory.total", "", "integer"), None),
        (Column("A", "status.connected", "", "boolean"), True),
        (Column("A", "spec.thresholds.hysteresis", "", "integer"), 3),
        (Column("A", "spec.location", ""), ""),
    ],
)
def test_cells(column: Column, shown: Any) -> None:
    assert tables.cell(BY_KIND["Host"], column, RAW, NOW) == shown


def test_an_age_that_is_none_is_unknown() -> None:
    assert tables.age("yesterday", NOW) == "<unknown>"


async def test_tables(client: Client) -> None:
    await client.post(HOSTS, host("h1"))
    table = (await client.get(HOSTS, accept=TABLE)).ok()
    assert table["kind"] == "Table" and table["metadata"]["resourceVersion"]
    names = [c["name"] for c in table["columnDefinitions"]]
    assert names[0] == "Name" and names[-1] == "Age" and len(names) == len(BY_KIND["Host"].columns) + 1
    row = table["rows"][0]
    assert len(row["cells"]) == len(names) and row["object"]["kind"] == "PartialObjectMetadata"
    full = (await client.get(f"{HOSTS}/h1?includeObject=Object", accept=TABLE)).ok()
    assert full["rows"][0]["object"]["kind"] == "Host"
    none = (await client.get(f"{HOSTS}?includeObject=None", accept=TABLE)).ok()
    assert "object" not in none["rows"][0]
    (await client.get(f"{HOSTS}?includeObject=All", accept=TABLE)).refused(400)
    partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert (await client.get(HOSTS, accept=partial)).ok()["items"][0]["metadata"]["name"] == "h1"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form()),
        ("*/*", Form()),
        ("application/yaml", Form(media="application/yaml")),
        ("application/json;q=0.4, application/yaml;q=0.5", Form(media="application/yaml")),
        ("application/yaml;q=0, */*;q=0.1", Form()),
        ("application/yaml;q=nonsense, application/json", Form()),
        (f"application/json, {TABLE}", Form()),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Form()),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Form(Shape.TABLE, version="v1beta1")),
        ("application/json", Form()),
        ("application/vnd.kubernetes.protobuf, application/json", Form()),
        (TABLE, Form(Shape.TABLE)),
        ("application/json;as=Table;g=other;v=v1,application/json", Form()),
        ("application/json; as=Table; v=v1; g=meta.k8s.io", Form(Shape.TABLE)),
        ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Form(Shape.PARTIAL)),
    ],
)
def test_forms(accept: str, form: Form) -> None:
    assert negotiate(accept, {}) == form


def test_forms_that_are_not_served() -> None:
    for accept in ("application/xml", "application/json;q=0", "application/json;as=Chart;g=meta.k8s.io"):
        with pytest.raises(ApiError) as raised:
            negotiate(accept, {})
        assert raised.value.code == 406


async def test_discovery(client: Client) -> None:
    groups = (await client.get("/apis")).ok()["groups"]
    names = [g["name"] for g in groups]
    assert names[0] == "roost.edge"
    assert {"rbac.authorization.k8s.io", "authorization.k8s.io", "authentication.k8s.io"} <= set(names)
    own = {i.plural for i in KINDS if i.served and i.group == "roost.edge"}
    listed = {r["name"]: r for r in (await client.get(V1)).ok()["resources"]}
    assert set(listed) >= own and "credentials" not in listed
    assert listed["hosts"]["shortNames"] == ["ho"] and listed["hosts/status"]["verbs"] == ["get"]
    assert listed["logentries"]["verbs"] == ["get", "list", "watch"]
    assert "delete" not in listed["alarms"]["verbs"] and listed["users/token"]["verbs"] == ["create"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = await client.get("/apis", accept=accept)
    assert answer.headers["content-type"] == accept.split(",")[0]
    found = {r["resource"]: r for r in answer.ok()["items"][0]["versions"][0]["resources"]}
    assert set(found) == own
    assert found["hosts"]["scope"] == "Namespaced" and found["users"]["subresources"][0]["subresource"]
    core = (await client.get("/api", accept=accept)).ok()["items"][0]
    assert {"namespaces", "events"} <= {r["resource"] for r in core["versions"][0]["resources"]}
    assert (await client.get("/api", accept="*/*")).ok()["kind"] == "APIVersions"
    assert {"namespaces", "events"} <= {r["name"] for r in (await client.get("/api/v1")).ok()["resources"]}
    assert (await client.get("/apis/roost.edge")).ok()["preferredVersion"]["version"] == "v1"
    assert "/apis" in (await client.get("/")).ok()["paths"]


async def test_namespaces_are_clouds(client: Client) -> None:
    listed = (await client.get("/api/v1/namespaces")).ok()
    assert [i["metadata"]["name"] for i in listed["items"]] == ["central"]
    one = (await client.get("/api/v1/namespaces/central")).ok()
    assert one["kind"] == "Namespace" and one["status"] == {"phase": "Active"}
    (await client.get("/api/v1/namespaces/none")).refused(404)
    (await client.post("/api/v1/namespaces", {})).refused(405)
    assert (await client.get("/api/v1/namespaces/central/events")).ok()["items"] == []
    assert (await client.get("/api/v1/events", accept=TABLE)).ok()["rows"] == []


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/apis/roost.edge/v2/hosts", 404),
        ("GET", f"{V1}/nothing", 404),
        ("GET", f"{V1}/namespaces/central/subclouds", 404),
        ("GET", f"{V1}/hosts/h1", 404),
        ("GET", f"{HOSTS}/h1/a/b", 404),
        ("POST", f"{V1}/hosts", 400),
        ("PUT", HOSTS, 405),
        ("POST", f"{HOSTS}/h1", 405),
        ("POST", "/apis", 405),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
        ("GET", "/openapi/v3/apis/other/v1", 404),
        ("GET", f"{HOSTS}?labelSelector={'a' * 20_000}", 414),
        ("GET", "/clouds/harbor/apis", 404),
        ("GET", "/api/v1/pods", 404),
    ],
)
async def test_paths_that_are_not_served(client: Client, method: str, path: str, code: int) -> None:
    (await client.send(method, path, {} if method in ("PUT", "POST") else None)).refused(code)


async def review(client: Client, **attributes: str) -> bool:
    body = {"spec": {"resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool((await client.post(path, body)).ok(201)["status"]["allowed"])


async def test_reviews(client: Client) -> None:
    reader = client.reader()
    ours = {"group": "roost.edge", "resource": "hosts"}
    assert await review(client, verb="delete", **ours) and not await review(reader, verb="delete", **ours)
    assert await review(reader, verb="list", **ours)
    assert not await review(client, verb="create", group="roost.edge", resource="logentries")
    assert not await review(client, verb="get", group="apps", resource="deployments")
    assert await review(client, verb="*", group="*", resource="*")
    assert not await review(reader, verb="*", group="*", resource="*")
    assert not await review(client, verb="update", subresource="status", **ours)
    assert await review(reader, verb="list", resource="namespaces")
    path = {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}}
    base = "/apis/authorization.k8s.io/v1"
    answer = await client.post(f"{base}/selfsubjectaccessreviews", {"spec": path})
    assert answer.ok(201)["status"] == {"allowed": True}
    (await client.post(f"{base}/selfsubjectaccessreviews", {})).refused(400)
    rules = (await reader.post(f"{base}/selfsubjectrulesreviews", {"spec": {"namespace": "x"}})).ok(201)
    hosts = next(r for r in rules["status"]["resourceRules"] if r["resources"] == ["hosts"])
    assert hosts["verbs"] == ["get", "list", "watch"]
    who = (await client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})).ok(201)
    assert who["status"]["userInfo"]["username"] == "ada"


async def test_reviews_in_protobuf(client: Client) -> None:
    attributes = text(2, "delete") + text(3, "roost.edge") + text(5, "hosts")
    message = part(2, part(1, attributes))
    kind = text(1, "authorization.k8s.io/v1") + text(2, "SelfSubjectAccessReview")
    body = b"k8s\0" + part(1, kind) + part(2, message)
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for caller, allowed in ((client, True), (client.reader(), False)):
        answer = await caller.send("POST", path, body, kind=PROTOBUF)
        assert answer.ok(201)["status"]["allowed"] is allowed
    (await client.send("POST", path, body[:-3], kind=PROTOBUF)).refused(400, "not valid protobuf")
    (await client.send("POST", path, b"no", kind=PROTOBUF)).refused(400, "magic")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        fields(message)
    except Malformed as error:
        assert str(error)


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {r for item in value for r in references(item)}
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own | {r for item in value.values() for r in references(item)}
    return set()


def test_schema_documents_are_whole() -> None:
    second, third = version2(), version3("roost.edge", "v1")
    for document_, prefix, schemas in (
        (second, "#/definitions/", second["definitions"]),
        (third, "#/components/schemas/", third["components"]["schemas"]),
    ):
        assert {r.removeprefix(prefix) for r in references(document_)} <= set(schemas)
        assert f"{V1}/namespaces/{{namespace}}/hosts/{{name}}" in document_["paths"]
    host_ = all_definitions()["edge.roost.v1.HostSpec"]["properties"]["administrativeState"]
    assert host_["enum"] == ["locked", "unlocked"] and host_["default"] == "locked"
    patch = third["paths"][f"{V1}/namespaces/{{namespace}}/hosts/{{name}}"]["patch"]
    assert {"dryRun", "fieldValidation"} <= {p["name"] for p in patch["parameters"]}


def test_every_field_is_described() -> None:
    for name, schema in all_definitions().items():
        assert schema.get("description"), name
        for field, inner in schema["properties"].items():
            assert inner.get("description"), f"{name}.{field}"
            assert "$ref" in inner or "type" in inner, f"{name}.{field}"


def test_schema_as_protobuf() -> None:
    read = fields(document(version2()))
    assert read[1] == b"2.0" and set(read) == {1, 2, 8, 9}
    assert b"edge.roost.v1.HostSpec" in read[9]


async def test_schema_is_served(client: Client) -> None:
    index = (await client.get("/openapi/v3")).ok()["paths"]["apis/roost.edge/v1"]["serverRelativeURL"]
    third = await client.get(index)
    assert third.ok()["openapi"] == "3.0.0" and third.headers["etag"]
    assert (await client.get("/openapi/v2")).ok()["swagger"] == "2.0"
    old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = await client.get("/openapi/v2", accept=old)
    assert answer.headers["content-type"] == old.replace("@", ".") and fields(answer.body)[1] == b"2.0"


def test_the_past_of_a_resource_is_in_the_schema() -> None:
    host = "/apis/roost.edge/v1/namespaces/{namespace}/hosts/{name}"
    for described in (version2(), version3("roost.edge", "v1")):
        listed = described["paths"][f"{host}/history"]
        assert [p["name"] for p in listed["get"]["parameters"]] == ["uid", "limit", "continue"]
        assert listed["get"]["x-kubernetes-group-version-kind"]["kind"] == "ChangeList"
        then = described["paths"][f"{host}/history/{{when}}"]
        assert [p["name"] for p in then["parameters"]] == ["when", "name", "namespace"]
        assert then["get"]["responses"]["200"] == described["paths"][host]["get"]["responses"]["200"]
        operations = [o["operationId"] for p in described["paths"].values() for o in _operations(p)]
        assert len(operations) == len(set(operations))


def _operations(path: Raw) -> list[Raw]:
    return [o for method, o in path.items() if method != "parameters"]


async def test_health_and_version_are_open_to_all(store: Store, client: Client) -> None:
    nobody = Client(client.app, "nobody", ())
    for path in ("/healthz", "/readyz", "/livez"):
        answer = await nobody.get(path)
        assert (answer.status, answer.body) == (200, b"ok")
    assert (await nobody.get("/version")).ok()["gitVersion"].startswith("v1.33.0-roost+")
    (await nobody.get(HOSTS)).refused(
        403, 'User "nobody" cannot list resource "hosts"', "it has no role here"
    )
    (await nobody.post("/healthz", {})).refused(405)


async def test_who_asks_whether_it_is_ready_is_not_told_of_the_database(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def away(_: object) -> None:
        raise Unavailable("connection to server at 10.9.8.7 failed")

    monkeypatch.setattr(store, "read", away)
    answer = await Client(client.app, "nobody", ()).get("/readyz")
    assert answer.refused(503)["message"] == "not ready: the store did not answer"
    assert "10.9.8.7" in capsys.readouterr().out


async def test_tables_show_copies_as_they_came(client: Client, store: Store) -> None:
    def work(tx: Transaction) -> None:
        meta = {"name": "h9", "namespace": "harbor", "uid": "u"}
        tx.copy({"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": meta, "spec": {}}, "down:harbor")

    await store.transact(work)
    table = (await client.get(f"{V1}/hosts", accept=TABLE)).ok()
    assert table["rows"][0]["object"]["metadata"]["namespace"] == "harbor"
