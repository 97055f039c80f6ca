"""Sequences of requests: one for each feature, written by hand, and random ones from hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.differential.servers import CLOUD, GROUP, SENTINEL_LABELS, Step, policy

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
POLICIES_OF_DELETION = ["Background", "Foreground", "Orphan"]
WEB = "labelSelector=app%3Dweb"


def create(name: str, **parts: Any) -> Step:
    """POST of a policy."""
    return Step(method="POST", body=policy(name, **parts))


def get(path: str = "", accept: str = "application/json") -> Step:
    return Step(method="GET", path=path, accept=accept)


def put(name: str, revision: str = "", **parts: Any) -> Step:
    body = policy(name, **parts)
    if revision:
        body["metadata"]["resourceVersion"] = revision
    return Step(method="PUT", path=f"/{name}", body=body)


def merge(path: str, patch: Any) -> Step:
    return Step(method="PATCH", path=path, body=patch, content=MERGE)


def apply(name: str, manager: str, query: str = "", **spec: Any) -> Step:
    """Server-side apply of spec alone."""
    body = {**policy(name), "spec": spec}
    if not spec:
        body.pop("spec")
    path = f"/{name}?fieldManager={manager}{query}" if manager else f"/{name}"
    return Step(method="PATCH", path=path, body=body, content=APPLY)


def apply_labels(manager: str, labels: dict[str, str]) -> Step:
    """Server-side apply of labels, and of what a policy must have."""
    body = policy("web", labels=labels)
    return Step(method="PATCH", path=f"/web?fieldManager={manager}", body=body, content=APPLY)


def steps_patch(path: str, *steps: Any) -> Step:
    return Step(method="PATCH", path=path, body=list(steps), content=JSON_PATCH)


def delete(path: str = "", body: Any = None) -> Step:
    return Step(method="DELETE", path=path, body=body)


def watch(query: str = "", accept: str = "application/json") -> Step:
    """Events after the last list."""
    return Step(method="WATCH", path=f"?watch=true&resourceVersion={{{{list}}}}{query}", accept=accept)


def post(body: Any, path: str = "", content: str = "application/json") -> Step:
    return Step(method="POST", path=path, body=body, content=content)


def _with(body: Any, **metadata: Any) -> Any:
    return {**body, "metadata": {**body["metadata"], **metadata}}


_SEVERAL = [
    create(n, labels={"app": a, "tier": "front"}) for n, a in (("b", "web"), ("a", "db"), ("c", "web"))
]
_RULE = {"action": "allow", "protocol": "tcp", "ports": ["443"]}
_HELD = post(_with(policy("held"), finalizers=["roost.edge/test"]))

CORPUS: dict[str, list[Step]] = {
    "create": [create("web"), get("/web"), create("web"), get()],
    "create with all of metadata": [
        post(
            _with(
                policy("web"),
                labels={"app": "web", "example.org/tier": "front"},
                annotations={"note": "kept", "example.org/x": ""},
                uid="11111111-1111-1111-1111-111111111111",
                creationTimestamp="2020-01-01T00:00:00Z",
                generation=7,
                namespace=CLOUD,
            )
        ),
        get("/web"),
    ],
    "create with a resourceVersion": [post(_with(policy("web"), resourceVersion="1"))],
    "create with generateName": [
        post({**policy(""), "metadata": {"generateName": "web-made-"}}),
        post({**policy(""), "metadata": {"generateName": "web-made-"}}),
        get(),
    ],
    "create without a name": [post({**policy(""), "metadata": {}})],
    "create with a wrong kind": [post({**policy("web"), "kind": "Host"})],
    "create with a wrong group": [post({**policy("web"), "apiVersion": "example.org/v1"})],
    "create with a wrong version": [post({**policy("web"), "apiVersion": "roost.edge/v2"})],
    "create without kind": [post({k: v for k, v in policy("web").items() if k != "kind"})],
    "create without apiVersion": [post({k: v for k, v in policy("web").items() if k != "apiVersion"})],
    "create in another namespace than the path's": [post(_with(policy("web"), namespace="other"))],
    "create with a status": [post({**policy("web"), "status": {"hosts": 3}}), get("/web")],
    "create with names that are none": [
        create(name) for name in ("Web", "web_1", "-web", "web-", "a" * 254, "web/x", "..", "web x")
    ],
    "create with a long name": [create("a" * 63)],
    "create with values that are none": [
        create("one", networks=["moon"]),
        create("two", networks=[]),
        create("three", order="first"),
        create("four", order=10001),
        create("five", order=-1),
        create("six", rules=[{"action": "maybe"}]),
        create("seven", rules=[{"protocol": "tcp"}]),
        create("eight", rules={"action": "allow"}),
        create("nine", order=1.5),
        create("ten", networks="oam"),
        post({"apiVersion": "roost.edge/v1", "kind": "FirewallPolicy", "metadata": {"name": "eleven"}}),
        post({**policy("twelve"), "spec": None}),
        post({**policy("thirteen"), "spec": []}),
        create("fourteen", rules=[_RULE] * 1001),
        create("fifteen", networks=["oam"] * 7),
        get(),
    ],
    "null is absent": [create("web", order=None, hosts=None, rules=None), get("/web")],
    "defaults": [create("web"), create("given", defaultIngress="deny", order=1000, rules=[_RULE]), get()],
    "defaults that are given inside a list": [
        create("web", rules=[{**_RULE, "direction": "ingress", "protocol": "any", "ports": []}]),
        get("/web"),
    ],
    "unknown fields": [
        create("web", colour="red", rules=[{**_RULE, "speed": 3}]),
        get("/web"),
        post({**policy("two"), "top": 1}),
        merge("/web", {"spec": {"colour": "blue"}}),
        get("/web"),
    ],
    "labels and annotations that are none": [
        post(_with(policy("a"), labels={"app": "x" * 64})),
        post(_with(policy("b"), labels={"a b": "x"})),
        post(_with(policy("c"), labels={"x" * 64: "x"})),
        post(_with(policy("d"), labels={"app": "-x"})),
        post(_with(policy("e"), labels={"Example.org/app": "x"})),
        post(_with(policy("f"), labels={"app": 1})),
        post(_with(policy("g"), annotations={"a b": "x"})),
        post(_with(policy("h"), annotations={"a": "x" * 262145})),
        post(_with(policy("i"), annotations={"a": 1})),
        post(_with(policy("j"), finalizers=["nothing special"])),
        post(_with(policy("k"), finalizers=["unqualified"])),
        post(_with(policy("l"), labels=["app"])),
        post(_with(policy("m"), labels={"": "x"})),
        get(),
    ],
    "bodies that are none": [
        post(b"{"),
        post(b""),
        post(b"[]"),
        post(b"null"),
        post(b'"text"'),
        post(b"\xff\xfe"),
        post(
            b'{"apiVersion":"roost.edge/v1","kind":"FirewallPolicy","metadata":[],"spec":{"networks":["oam"]}}'
        ),
        post(
            b'{"apiVersion":"roost.edge/v1","kind":"FirewallPolicy","metadata":"a","spec":{"networks":["oam"]}}'
        ),
        Step(method="PUT", path="/web", body=b"{"),
    ],
    "content types that are none": [
        post(policy("web"), content="text/plain"),
        post(policy("web"), content="application/xml"),
        create("web"),
        Step(method="PATCH", path="/web", body={"spec": {"order": 3}}, content="application/json"),
        Step(method="PATCH", path="/web", body={"spec": {"order": 3}}, content="text/plain"),
        Step(
            method="PATCH",
            path="/web",
            body={"spec": {"order": 3}},
            content="application/strategic-merge-patch+json",
        ),
        post(policy("charset"), content="application/json; charset=utf-8"),
        get("/web", accept="application/xml"),
        get("/web", accept="text/html,*/*;q=0.8"),
        get("/web", accept=""),
    ],
    "yaml": [
        post(
            b"apiVersion: roost.edge/v1\nkind: FirewallPolicy\n"
            b"metadata: {name: web}\nspec: {networks: [oam]}\n",
            content="application/yaml",
        ),
        get("/web"),
    ],
    "get what is not there": [get("/web"), delete("/web"), put("web"), merge("/web", {"spec": {"order": 3}})],
    "paths that are none": [
        get(f"{GROUP}/nothing"),
        get(f"{GROUP}/namespaces/{CLOUD}/nothing"),
        get("/apis/roost.edge/v9/clouds"),
        get("/apis/example.org/v1/clouds"),
        get("/web/nothing"),
        get("/web/status/more"),
        get("/api/v2"),
        get(f"{GROUP}/namespaces/{CLOUD}/subclouds"),
        get(f"{GROUP}/firewallpolicies/web"),
    ],
    "methods that are none": [
        create("web"),
        post(policy("web"), path="/web"),
        Step(method="PUT", body=policy("web")),
        Step(method="PATCH", body={}, content=MERGE),
        Step(method="OPTIONS", path="/web"),
        Step(method="POST", path="/web/status", body=policy("web")),
        Step(method="POST", path=f"{GROUP}/firewallpolicies", body=policy("web")),
        Step(method="DELETE", path="/web/status"),
    ],
    "update": [
        create("web"),
        put("web", "{{rv web}}", order=5),
        put("web", "{{first web}}", order=6),
        put("web", "{{rv web}}", order=5),
        get("/web"),
        put("web", "not a number", order=7),
        get("/web"),
        put("web", "", order=7),
    ],
    "update of metadata alone": [
        create("web"),
        put("web", "{{rv web}}", labels={"app": "web"}),
        get("/web"),
        put("web", "{{rv web}}"),
        get("/web"),
    ],
    "update with another name, namespace, uid": [
        create("web"),
        Step(method="PUT", path="/web", body=_with(policy("db"), resourceVersion="{{rv web}}")),
        Step(
            method="PUT",
            path="/web",
            body=_with(policy("web"), resourceVersion="{{rv web}}", namespace="other"),
        ),
        Step(
            method="PUT",
            path="/web",
            body=_with(
                policy("web"), resourceVersion="{{rv web}}", uid="11111111-1111-1111-1111-111111111111"
            ),
        ),
        Step(
            method="PUT",
            path="/web",
            body=_with(policy("web"), resourceVersion="{{rv web}}", creationTimestamp="2020-01-01T00:00:00Z"),
        ),
        get("/web"),
    ],
    "update with values that are none": [
        create("web"),
        put("web", "{{rv web}}", order="first"),
        put("web", "{{rv web}}", networks=[]),
        get("/web"),
    ],
    "merge patch": [
        create("web", labels={"app": "web", "tier": "front"}, rules=[_RULE]),
        merge("/web", {"spec": {"order": 5}}),
        merge("/web", {"spec": {"order": 5}}),
        merge("/web", {"metadata": {"labels": {"app": None, "more": "x"}}}),
        merge("/web", {"spec": {"rules": None}}),
        merge("/web", {"spec": {"networks": None}}),
        merge("/web", {"spec": {"order": "first"}}),
        merge("/web", {}),
        merge("/web", []),
        merge("/web", {"metadata": {"resourceVersion": "{{first web}}"}, "spec": {"order": 8}}),
        merge("/web", {"metadata": {"resourceVersion": "{{rv web}}"}, "spec": {"order": 8}}),
        merge("/web", {"metadata": {"name": "db"}}),
        merge("/web", {"metadata": {"namespace": "other"}}),
        merge("/web", {"metadata": {"uid": "11111111-1111-1111-1111-111111111111"}}),
        merge("/web", {"kind": "Host"}),
        merge("/web", {"metadata": None}),
        get("/web"),
        merge("/web", {"status": {"hosts": 9}}),
    ],
    "JSON patch": [
        create("web", labels={"app": "web"}, rules=[_RULE]),
        steps_patch("/web", {"op": "replace", "path": "/spec/order", "value": 5}),
        steps_patch("/web", {"op": "test", "path": "/spec/order", "value": 5}),
        steps_patch("/web", {"op": "test", "path": "/spec/order", "value": 6}),
        steps_patch("/web", {"op": "remove", "path": "/spec/nothing"}),
        steps_patch("/web", {"op": "replace", "path": "/spec/nothing/more", "value": 1}),
        steps_patch("/web", {"op": "add", "path": "/spec/rules/-", "value": {"action": "deny"}}),
        steps_patch("/web", {"op": "add", "path": "/spec/rules/9", "value": {"action": "deny"}}),
        steps_patch("/web", {"op": "remove", "path": "/spec/rules/0"}),
        steps_patch("/web", {"op": "copy", "from": "/metadata/labels/app", "path": "/metadata/labels/copy"}),
        steps_patch(
            "/web", {"op": "move", "from": "/metadata/labels/copy", "path": "/metadata/labels/moved"}
        ),
        steps_patch("/web", {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}),
        steps_patch("/web", {"op": "add", "path": "/metadata/labels/example.org~1x", "value": "y"}),
        steps_patch("/web", {"op": "jump", "path": "/spec"}),
        steps_patch("/web", {"op": "replace", "path": "/spec/order", "value": "first"}),
        steps_patch("/web"),
        Step(method="PATCH", path="/web", body={"op": "remove"}, content=JSON_PATCH),
        Step(method="PATCH", path="/web", body=b"[", content=JSON_PATCH),
        steps_patch(
            "/web",
            {"op": "test", "path": "/metadata/resourceVersion", "value": "{{first web}}"},
            {"op": "replace", "path": "/spec/order", "value": 9},
        ),
        get("/web"),
    ],
    "server-side apply": [
        apply("web", "one", networks=["oam"], order=5),
        apply("web", "one", networks=["oam"], order=5),
        apply("web", "two", order=6),
        apply("web", "two", "&force=true", order=6),
        apply("web", "one", networks=["oam"], order=5),
        apply("web", "one", networks=["oam"]),
        get("/web"),
        apply("web", "two"),
        get("/web"),
        apply("web", "one", networks=["moon"]),
        apply("web", "", networks=["oam"]),
        apply("web", "one", "&dryRun=All", networks=["mgmt"]),
        Step(method="PATCH", path="/web?fieldManager=one", body=b"{", content=APPLY),
        Step(method="PATCH", path="/db?fieldManager=one", body=policy("web"), content=APPLY),
        get("/web"),
    ],
    "apply and other writers": [
        create("web", order=5),
        apply("web", "one", order=5),
        apply("web", "one", order=6),
        apply("web", "one", "&force=true", order=6),
        merge("/web", {"spec": {"order": 7}}),
        apply("web", "one", order=8),
        apply("web", "one", "&force=true", order=8),
        get("/web"),
    ],
    "apply of labels": [
        apply_labels("one", {"app": "web", "tier": "front"}),
        apply_labels("two", {"site": "harbor"}),
        apply_labels("one", {"app": "web"}),
        get("/web"),
        apply_labels("two", {"app": "db"}),
        apply_labels("two", {"app": "web"}),
        apply_labels("one", {}),
        get("/web"),
        apply_labels("two", {}),
        get("/web"),
    ],
    "delete": [create("web"), delete("/web"), get("/web"), delete("/web"), create("web"), get("/web")],
    "delete with preconditions": [
        create("web"),
        delete("/web", {"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}}),
        delete("/web", {"preconditions": {"resourceVersion": "1"}}),
        delete("/web", {"preconditions": {"uid": "{{uid web}}", "resourceVersion": "{{rv web}}"}}),
        get("/web"),
    ],
    "delete with options": [
        create("a"),
        delete("/a", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}),
        create("b"),
        delete("/b?propagationPolicy=Orphan"),
        create("c"),
        delete("/c", {"propagationPolicy": "Sideways"}),
        delete("/c", {"gracePeriodSeconds": 0}),
        create("d"),
        delete("/d", {"dryRun": ["All"]}),
        delete("/d?dryRun=All"),
        delete("/d", {"dryRun": ["Some"]}),
        get("/d"),
        Step(method="DELETE", path="/d", body=b"{"),
    ],
    "delete in the foreground": [
        create("web"),
        delete("/web", {"propagationPolicy": "Foreground"}),
        get("/web"),
        merge("/web", {"metadata": {"finalizers": None}}),
        get("/web"),
    ],
    "finalizers": [
        _HELD,
        delete("/held"),
        get("/held"),
        delete("/held"),
        merge("/held", {"spec": {"order": 3}}),
        merge("/held", {"metadata": {"finalizers": ["roost.edge/test", "roost.edge/more"]}}),
        merge("/held", {"metadata": {"deletionTimestamp": None}}),
        get("/held"),
        create("held"),
        merge("/held", {"metadata": {"finalizers": None}}),
        get("/held"),
    ],
    "deletecollection": [
        *_SEVERAL,
        Step(method="DELETE", path=f"?{WEB}"),
        get(),
        Step(method="DELETE"),
        get(),
        Step(method="DELETE"),
    ],
    "deletecollection with finalizers": [_HELD, create("web"), Step(method="DELETE"), get()],
    "deletecollection by field": [
        *_SEVERAL,
        Step(method="DELETE", path="?fieldSelector=metadata.name%3Da"),
        get(),
    ],
    "list": [
        get(),
        *_SEVERAL,
        get(),
        get(f"{GROUP}/firewallpolicies"),
        get(f"{GROUP}/namespaces/none/firewallpolicies"),
    ],
    "list by label": [
        *_SEVERAL,
        *(
            get(f"?labelSelector={text}")
            for text in (
                "app%3Dweb",
                "app%3D%3Dweb",
                "app!%3Dweb",
                "app",
                "!app",
                "app%20in%20(web,db)",
                "app%20notin%20(web)",
                "app%3Dweb,tier%3Dfront",
                "nothing%3Dx",
                "app%3D",
                "%3D",
                "app%20in%20web",
                "a%20b",
                "app%3D!!",
                "app%3Eweb",
                "tier%3E1",
            )
        ),
    ],
    "list by field": [
        *_SEVERAL,
        *(
            get(f"?fieldSelector={text}")
            for text in (
                "metadata.name%3Da",
                "metadata.name!%3Da",
                "metadata.name%3D%3Da",
                f"metadata.namespace%3D{CLOUD}",
                "metadata.namespace%3Dother",
                "metadata.name%3Da,metadata.namespace%3Dharbor",
                "spec.nothing%3D1",
                "metadata.name",
                "metadata.labels.app%3Dweb",
            )
        ),
    ],
    "list in pages": [
        *_SEVERAL,
        get("?limit=2"),
        create("d"),
        get("?limit=2&continue={{continue}}"),
        get("?limit=1"),
        get("?limit=1&continue={{continue}}"),
        get("?limit=9&continue={{continue}}"),
        get(f"?limit=1&{WEB}"),
        get(f"?limit=1&{WEB}&continue={{{{continue}}}}"),
        get("?limit=3"),
        get("?limit=0"),
        get("?limit=-1"),
        get("?limit=many"),
        get("?limit=2&continue=nonsense"),
        get("?limit=1"),
        get("?limit=1&continue={{continue}}&resourceVersion=1"),
    ],
    "list at a resourceVersion": [
        *_SEVERAL,
        get(),
        create("d"),
        get("?resourceVersion=0"),
        get("?resourceVersion={{rv d}}"),
        get("?resourceVersion={{rv c}}&resourceVersionMatch=Exact&limit=10"),
        get("?resourceVersion={{rv c}}&resourceVersionMatch=NotOlderThan"),
        get("?resourceVersion={{rv d}}&resourceVersionMatch=Exact"),
        get("?resourceVersionMatch=Exact"),
        get("?resourceVersion=0&resourceVersionMatch=Exact"),
        get("?resourceVersion=1&resourceVersionMatch=Sometimes"),
        get("?resourceVersion=soon"),
        get("/d?resourceVersion=0"),
        get("/d?resourceVersion={{rv d}}"),
    ],
    "dry run": [
        Step(method="POST", path="?dryRun=All", body=policy("web")),
        get("/web"),
        create("web"),
        Step(method="POST", path="?dryRun=All", body=policy("web")),
        Step(method="PATCH", path="/web?dryRun=All", body={"spec": {"order": 5}}, content=MERGE),
        Step(
            method="PUT",
            path="/web?dryRun=All",
            body=_with(policy("web", order=4), resourceVersion="{{rv web}}"),
        ),
        Step(method="PUT", path="/web?dryRun=All", body=_with(policy("web", order=4), resourceVersion="1")),
        Step(method="DELETE", path="?dryRun=All"),
        get("/web"),
        Step(method="POST", path="?dryRun=Some", body=policy("two")),
        get(),
    ],
    "status": [
        create("web"),
        get("/web/status"),
        get("/db/status"),
        Step(
            method="PUT",
            path="/web",
            body={**_with(policy("web"), resourceVersion="{{rv web}}"), "status": {"hosts": 4}},
        ),
    ],
    "watch": [
        get(),
        create("a", labels={"app": "web"}),
        merge("/a", {"spec": {"order": 5}}),
        merge("/a", {"spec": {"order": 5}}),
        create("b"),
        delete("/a"),
        watch(),
        watch(accept=PARTIAL),
        watch(accept=TABLE),
    ],
    "watch by label": [
        get(),
        create("a", labels=SENTINEL_LABELS),
        create("b", labels={"app": "db"}),
        merge("/b", {"metadata": {"labels": {"app": "web"}}}),
        merge("/a", {"metadata": {"labels": {"app": "db"}}}),
        merge("/a", {"spec": {"order": 5}}),
        merge("/b", {"spec": {"order": 5}}),
        delete("/a"),
        delete("/b"),
        watch(f"&{WEB}"),
    ],
    "watch by name": [
        get(),
        create("a"),
        create("b"),
        merge("/a", {"spec": {"order": 5}}),
        delete("/a"),
        watch("&fieldSelector=metadata.name%3Da&timeoutSeconds=2"),
    ],
    "watch with finalizers": [
        get(),
        _HELD,
        delete("/held"),
        merge("/held", {"metadata": {"finalizers": None}}),
        watch(),
    ],
    "watch from the present": [
        create("b"),
        create("a"),
        Step(method="WATCH", path="?watch=true&timeoutSeconds=1"),
        Step(method="WATCH", path="?watch=true&resourceVersion=0&timeoutSeconds=1"),
    ],
    "watch that is none": [
        Step(method="WATCH", path="?watch=true&resourceVersion=soon"),
        Step(method="WATCH", path="?watch=true&labelSelector=%3D"),
        Step(method="WATCH", path="?watch=true&resourceVersionMatch=Exact&resourceVersion=1"),
    ],
    "tables": [
        *_SEVERAL,
        get(accept=TABLE),
        get("/a", accept=TABLE),
        get("?includeObject=Object", accept=TABLE),
        get("?includeObject=None", accept=TABLE),
        get("?includeObject=Some", accept=TABLE),
        get("?limit=1", accept=TABLE),
        get("/nothing", accept=TABLE),
    ],
    "metadata alone": [
        *_SEVERAL,
        get(accept=PARTIAL_LIST),
        get("/a", accept=PARTIAL),
        get(accept=PARTIAL),
        get("/a", accept=PARTIAL_LIST),
        Step(method="PATCH", path="/a", body={"spec": {"order": 3}}, content=MERGE, accept=PARTIAL),
        Step(method="DELETE", path="/a", accept=PARTIAL),
    ],
    "kinds without a namespace": [
        Step(
            method="POST",
            path=f"{GROUP}/subclouds",
            body={
                "apiVersion": "roost.edge/v1",
                "kind": "Subcloud",
                "metadata": {"name": "east"},
                "spec": {},
            },
        ),
        get(f"{GROUP}/subclouds"),
        Step(
            method="PATCH",
            path=f"{GROUP}/subclouds/east",
            body={"spec": {"latitude": 91}},
            content=MERGE,
        ),
        Step(
            method="PATCH",
            path=f"{GROUP}/subclouds/east",
            body={"spec": {"latitude": 48.5, "description": "Hafen"}},
            content=MERGE,
        ),
        Step(
            method="POST",
            path=f"{GROUP}/subclouds",
            body={"apiVersion": "roost.edge/v1", "kind": "Subcloud", "metadata": {"name": "north"}},
        ),
        Step(method="DELETE", path=f"{GROUP}/subclouds/east"),
        Step(
            method="POST",
            path=f"{GROUP}/subclouds",
            body={
                "apiVersion": "roost.edge/v1",
                "kind": "Subcloud",
                "metadata": {"name": "west", "namespace": CLOUD},
                "spec": {},
            },
        ),
    ],
}

_names = st.sampled_from(["a", "b", "c"])
_labels = st.sampled_from([{}, {"app": "web"}, {"app": "db"}, SENTINEL_LABELS])
_orders = st.sampled_from([1, 2, 10000, 10001, "first"])
_revisions = st.sampled_from(["{{rv a}}", "{{rv b}}", "{{first a}}", "1"])
_changes = st.one_of(
    st.builds(lambda n, lb, o: create(n, labels=lb, order=o), _names, _labels, _orders),
    st.builds(lambda n, r, lb, o: put(n, r, labels=lb, order=o), _names, _revisions, _labels, _orders),
    st.builds(lambda n, o: merge(f"/{n}", {"spec": {"order": o}}), _names, _orders),
    st.builds(lambda n, lb: merge(f"/{n}", {"metadata": {"labels": lb or None}}), _names, _labels),
    st.builds(
        lambda n, o: steps_patch(f"/{n}", {"op": "replace", "path": "/spec/order", "value": o}),
        _names,
        _orders,
    ),
    st.builds(
        lambda n, lb: steps_patch(f"/{n}", {"op": "test", "path": "/metadata/labels", "value": lb}),
        _names,
        _labels,
    ),
    st.builds(
        lambda n, m, q, o: apply(n, m, q, networks=["oam"], order=o),
        _names,
        st.sampled_from(["one", "two"]),
        st.sampled_from(["", "&force=true"]),
        _orders,
    ),
    st.builds(lambda n: delete(f"/{n}"), _names),
    st.builds(lambda n, r: delete(f"/{n}", {"preconditions": {"resourceVersion": r}}), _names, _revisions),
    st.builds(lambda n: get(f"/{n}"), _names),
    st.builds(lambda q: get(f"?{q}"), st.sampled_from(["", WEB, "limit=1", "limit=2&continue={{continue}}"])),
)
_ends = st.one_of(
    _changes,
    st.builds(
        lambda n, f: merge(f"/{n}", {"metadata": {"finalizers": f}}),
        _names,
        st.sampled_from([None, ["roost.edge/test"]]),
    ),
    st.builds(
        lambda n, p: delete(f"/{n}", {"propagationPolicy": p}), _names, st.sampled_from(POLICIES_OF_DELETION)
    ),
    st.builds(lambda q: Step(method="DELETE", path=f"?{q}"), st.sampled_from([WEB, "dryRun=All"])),
)


def _whole(steps: list[Step]) -> list[Step]:
    """A sequence between a list and all events since."""
    last = Step(method="WATCH", path="?watch=true&resourceVersion={{begin}}")
    return [get(), *steps, get(), last]


random_changes = st.lists(_changes, min_size=4, max_size=16).map(_whole)
random_ends = st.lists(_ends, min_size=4, max_size=16).map(_whole)
"""With finalizers, policies of deletion and the deletion of many."""
