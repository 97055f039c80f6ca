"""Requests by chance, by a grammar: near enough to right ones to come far, and wrong in any place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import hypothesis.strategies as st
import yaml
from hypothesis.strategies import SearchStrategy as Chance

from roost.api.discovery import REVIEWS, SERVED
from tests.fuzz.samples import NAMES, SAMPLES
from tests.fuzz.serving import ADMINISTRATOR, CLOUD, READER, SUBCLOUD
from tests.fuzz.wire import Asked

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ODD_METHODS = (
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "LINK",
    "SEARCH",
    "PROPFIND",
    "get",
    "M-SEARCH",
    "PURGE",
)
ODD_TEXTS = (
    "",
    ".",
    "..",
    "%00",
    "%2e%2e",
    "%2F",
    "%",
    "%zz",
    "%ff%fe",
    "%F0%9F%98%80",
    "%ED%A0%80",
    "a" * 64,
    "a" * 254,
    "x" * 9000,
    "-",
    "A",
    "*",
    "null",
    "0",
    "-1",
    "9" * 30,
    "1e400",
    "\xe9",
    "{name}",
    "a;b",
    "a:b",
    "~",
    "edge%00",
    "edge%0a",
    "edge%20",
    "'",
    "%27%20OR%201=1--",
    "history",
    "namespaces",
    "status",
)
SUBRESOURCES = ("status", "history", "token", "password", "enrolment", "plan", "scale", "log", "exec")
FIXED_PATHS = (
    "/",
    "/api",
    "/apis",
    "/api/v1",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/login",
    "/logout",
    "/audit",
    "/keys",
    "/keys/rotate",
    "/metrics",
    "/openapi",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/api/v1",
    "/openapi/v3/apis/roost.edge/v1",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/favicon.ico",
    "/clouds",
    "/clouds/",
)

some_text = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=8).map(lambda t: quote(t, safe="")))


def mostly(usual: Chance[Any], odd: Chance[Any], of: int = 8) -> Chance[Any]:
    """The usual, but for one in `of`."""
    return st.integers(1, of).flatmap(lambda n: odd if n == of else usual)


_kinds = [(group, version, info) for (group, version), kinds in SERVED.items() for info in kinds.values()]


@st.composite
def resource_paths(draw: st.DrawFn) -> str:
    """A path of a kind, right or nearly."""
    group, version, info = draw(st.sampled_from(_kinds))
    parts = ["apis", group, version] if group else ["api", version]
    if draw(mostly(st.just(info.namespaced), st.booleans())):
        parts += ["namespaces", draw(mostly(st.sampled_from([CLOUD, CLOUD, SUBCLOUD]), some_text))]
    parts.append(info.plural)
    if draw(st.booleans()):
        parts.append(draw(mostly(st.sampled_from([*NAMES[info.kind], "edge", "fuzz"]), some_text, 6)))
        if draw(st.integers(1, 4)) == 1:
            parts.append(draw(mostly(st.sampled_from(SUBRESOURCES), some_text)))
            if draw(st.integers(1, 3)) == 1:
                parts.append(draw(st.one_of(some_text, st.sampled_from(["1", "30", "2026-11-23T04:00:00Z"]))))
    return "/" + "/".join(parts)


@st.composite
def review_paths(draw: st.DrawFn) -> str:
    """A path of a review."""
    group = draw(st.sampled_from(sorted(REVIEWS)))
    plural = draw(st.sampled_from([k.lower() + "s" for kinds in REVIEWS.values() for k in kinds]))
    within = draw(st.sampled_from(["", f"namespaces/{CLOUD}/", "namespaces/%00/"]))
    return f"/apis/{group}/v1/{within}{plural}"


@st.composite
def mangled(draw: st.DrawFn, paths: Chance[str]) -> str:
    """A path with something put in, left out, or doubled."""
    path = draw(paths)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(path)))
        match draw(st.integers(0, 3)):
            case 0:
                path = path[:at] + draw(some_text) + path[at:]
            case 1:
                path = path[:at] + path[at + 1 :]
            case 2:
                path = path[:at] + "/" + path[at:]
            case _:
                path = path[:at] + "%" + f"{ord(path[at : at + 1] or 'a') & 255:02x}" + path[at + 1 :]
    return path if path.startswith("/") else f"/{path}"


_plain_paths = st.one_of(
    resource_paths(), resource_paths(), resource_paths(), review_paths(), st.sampled_from(FIXED_PATHS)
)
paths = st.one_of(
    _plain_paths,
    _plain_paths,
    mangled(_plain_paths),
    st.builds(
        lambda name, path: f"/clouds/{name}{path}",
        mostly(st.sampled_from([SUBCLOUD, SUBCLOUD, CLOUD, "nowhere"]), some_text),
        _plain_paths,
    ),
)

_texts = {
    "labelSelector": [
        "a=b",
        "a in (b,c)",
        "!a",
        "a>1",
        "a in (",
        "=",
        ",,,",
        "a!=b,c",
        "a=b=c",
        "(" * 999,
        "a%00=b",
    ],
    "fieldSelector": [
        "metadata.name=edge",
        "metadata.namespace!=x",
        "spec.x=1",
        "status=",
        "a",
        "=",
        "metadata.name",
    ],
    "limit": ["1", "0", "500", "10000000", "1.5", "0x1", "+1", " 1", "%31"],
    "continue": ["abc", "e30", "eyJ2IjoibWV0YSJ9", "%00", "AAAA", "bnVsbA", "W10", "MTIz", "InRleHQi"],
    "resourceVersion": ["0", "1", "10", "99999999", "18446744073709551616", "1.0", "abc"],
    "resourceVersionMatch": ["Exact", "NotOlderThan", "exact", "None"],
    "timeoutSeconds": ["1", "0", "3", "abc", "99999999999999999999"],
    "allowWatchBookmarks": ["true", "false", "1", "x"],
    "sendInitialEvents": ["true", "false", "x"],
    "watch": ["false", "0", "x", "nil"],
    "pretty": ["true", "1", "x"],
    "dryRun": ["All", "all", "None"],
    "fieldManager": ["me", "m" * 128, "m" * 129, "%0a", "%F0%9F%98%80"],
    "fieldValidation": ["Strict", "Warn", "Ignore", "strict"],
    "force": ["true", "false", "x"],
    "propagationPolicy": ["Foreground", "Background", "Orphan", "x"],
    "orphanDependents": ["true", "false", "x"],
    "gracePeriodSeconds": ["0", "-1", "30", "%D9%A3", "x"],
    "includeObject": ["None", "Metadata", "Object", "x"],
    "hash": ["1", "%00"],
    "after": ["0", "5", "999999999999999999"],
    "newest": ["1", "10", "5001"],
    "user": ["ada", "%00"],
    "since": ["2026-11-23T04:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "2026", "%00"],
    "denied": ["true"],
    "kind": ["Host", "\xe9"],
    "at": ["1", "2026-11-23T04:00:00Z", "-1"],
    "from": ["1", "x"],
    "to": ["1", "x"],
}
_pairs = st.sampled_from(sorted(_texts)).flatmap(
    lambda name: st.tuples(st.just(name), mostly(st.sampled_from(_texts[name]), some_text, 5))
)
_odd_pairs = st.tuples(some_text, some_text)
queries = st.lists(mostly(_pairs, _odd_pairs, 12), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)

MEDIA = (
    "application/json",
    "application/json",
    "application/json",
    "application/yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
    ";",
    "multipart/form-data; boundary=x",
)
PATCHES = tuple(m for m in MEDIA if "patch" in m)
ACCEPTS = (
    "application/json",
    "*/*",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/yaml;as=Table;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "text/html;q=0.9, */*;q=nan",
    "application/json;q=1e999",
    "," * 200,
    ";;;=;q",
    "a/b",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
_jwt = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ"
AUTHORIZATIONS = (
    f"Bearer {READER}",
    f"bearer   {ADMINISTRATOR}  ",
    f"Basic {ADMINISTRATOR}",
    "Basic YWRhOnBhc3N3b3Jk",
    "Bearer",
    "Bearer ..",
    "Bearer a.b",
    "Bearer a.b.c",
    f"Bearer {_jwt}.e30.AAAA",
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Bearer W10.W10.W10",
    "Bearer bnVsbA.bnVsbA.bnVsbA",
    "Bearer eyJraWQiOnt9fQ.e30.x",
    "Bearer " + "W1tb" * 500 + ".e30.x",
    "Bearer e30.e30.\xff\xfe",
    "Bearer \xc3\xa9",
    "Bearer " + "x" * 20000,
    "Negotiate abc",
    "\xff",
    " ",
)
_names_of_headers = (
    "Accept-Encoding",
    "If-None-Match",
    "If-Match",
    "User-Agent",
    "Impersonate-User",
    "Impersonate-Group",
    "Impersonate-Uid",
    "Impersonate-Extra-scopes",
    "Impersonate-Extra-%00",
    "Impersonate-Extra-",
    "Warning",
    "Expect",
    "X-Forwarded-For",
    "Forwarded",
    "Audit-ID",
    "Roost-Through",
    "Roost-Address",
    "Cookie",
    "Range",
    "Origin",
    "Host",
    "Upgrade",
    "TE",
    "X-HTTP-Method-Override",
    "X-Remote-User",
    "X-Remote-Group",
    "Accept-Language",
    "Connection",
)
_values_of_headers = st.one_of(
    st.sampled_from(
        [
            "",
            "*",
            '"x"',
            "gzip",
            "gzip;q=0, identity;q=0",
            "zstd, br, *;q=0",
            "gzip;q=x",
            "system:masters",
            "ada",
            "rita",
            "system:serviceaccount:central:builder",
            "system:serviceaccount:::",
            "system:node:x",
            "roost:administrators",
            "%zz%00",
            "\xe9\xff",
            "1" * 5000,
            "[",
            "a:b:c",
            "websocket",
            "bytes=0-1",
            "W/",
            "100-continue",
        ]
    ),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\x00"), max_size=12),
)
_headers = st.tuples(st.sampled_from(_names_of_headers), _values_of_headers)


@st.composite
def header_lists(draw: st.DrawFn, media: Sequence[str] = MEDIA) -> list[tuple[str, str]]:
    """The headers of a request: a content type, often an Accept, now and then any others, some twice."""
    found = []
    for _ in range(draw(mostly(st.just(1), st.integers(0, 2)))):
        found.append(("Content-Type", draw(st.sampled_from(media))))
    if draw(st.booleans()):
        found.append(("Accept", draw(mostly(st.sampled_from(ACCEPTS), _values_of_headers))))
    if draw(st.integers(1, 8)) == 1:
        for _ in range(draw(mostly(st.just(1), st.just(2)))):
            found.append(("Authorization", draw(st.sampled_from(AUTHORIZATIONS))))
    if draw(st.integers(1, 3)) == 1:
        found += draw(st.lists(_headers, max_size=3))
    return found


# -- bodies

_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 65535, 65536, 2**31, 2**63, 2**64, 1e308, 1.5, -0.0]),
    st.sampled_from(
        ["", "x", "\x00", "\u2028", "edge", "All", "2026-11-23T04:00:00Z", "y" * 300, "é", "{}", "10.0.0.0/8"]
    ),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"a": {}}, [{}], ["x", 1, None], {"name": []}]),
)
values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_metas: Chance[Any] = st.sampled_from(
    [
        ("labels", {"a": "b"}),
        ("labels", {"a b": "c"}),
        ("labels", {"x" * 64: ""}),
        ("annotations", {"a": "b" * 1000}),
        ("annotations", {"a": 1}),
        ("finalizers", ["example.org/hold"]),
        ("finalizers", ["", "x", "x"]),
        ("ownerReferences", [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1"}]),
        ("ownerReferences", [{}]),
        ("managedFields", [{}]),
        ("managedFields", []),
        (
            "managedFields",
            [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:x": 1}}],
        ),
        (
            "managedFields",
            [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": []}],
        ),
        ("resourceVersion", "1"),
        ("resourceVersion", 1),
        ("uid", "x"),
        ("generateName", "gen-"),
        ("generateName", "x" * 300),
        ("generateName", "-"),
        ("namespace", "other"),
        ("name", ""),
        ("name", "edge\x00"),
        ("deletionTimestamp", "2026-11-23T04:00:00Z"),
        ("creationTimestamp", "yesterday"),
        ("generation", 2**63),
        ("selfLink", "/x"),
    ]
)


def _points(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an object."""
    found = [at]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += _points(inner, (*at, key))
    return found


def _put(value: Any, at: Sequence[Any], new: Any) -> Any:
    if not at:
        return new
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[at[0]] = _put(copied[at[0]], at[1:], new)
    return copied


@st.composite
def objects(draw: st.DrawFn) -> Any:
    """A valid object, often with other things in some places."""
    kind = draw(st.sampled_from(sorted(SAMPLES)))
    value = SAMPLES[kind]
    if draw(st.integers(1, 4)) == 1:
        return value
    if draw(st.booleans()) and isinstance(value.get("metadata"), dict):
        key, inner = draw(_metas)
        value = {**value, "metadata": {**value["metadata"], key: inner}}
    for _ in range(draw(st.integers(0, 3))):
        points = _points(value)
        at = points[draw(st.integers(0, len(points) - 1))]
        value = _put(value, at, draw(values))
        if not isinstance(value, dict):
            break
    if isinstance(value, dict) and draw(st.integers(1, 4)) == 1:
        value = {**value, draw(st.text(max_size=6)): draw(values)}
    return value


_pointers = st.one_of(
    st.sampled_from(
        [
            "",
            "/",
            "/spec",
            "/metadata/labels/a",
            "/metadata/name",
            "/spec/rules/-",
            "/spec/rules/0",
            "/spec/rules/-1",
            "/spec/rules/01",
            "/spec/rules/99999999999999999999",
            "/~",
            "/~2",
            "/a~1b",
            "spec",
            "/metadata/finalizers/-",
            "/metadata/managedFields",
            "/status",
            "/kind",
            "/apiVersion",
            "/data/a",
            "/metadata/resourceVersion",
            "/\x00",
            "/" + "a/" * 500,
            "/data",
        ]
    ),
    st.text(max_size=5).map(lambda t: "/" + t),
)
_steps = st.one_of(
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "jump", ""]),
            "path": _pointers,
        },
        optional={"value": values, "from": _pointers},
    ),
    values,
)
json_patches = st.lists(_steps, max_size=4)
merge_patches = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": st.lists(_metas, max_size=3).map(dict),
            "spec": st.dictionaries(
                st.sampled_from(["rules", "subclouds", "description", "role", "disabled", "$patch", "x"]),
                values,
                max_size=3,
            ),
            "data": st.dictionaries(st.sampled_from(["a", "b", "é", ""]), values, max_size=2),
            "rules": values,
            "status": values,
        },
    ),
    values,
    objects(),
)
delete_options = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["DeleteOptions", "X", 1]),
        "apiVersion": st.sampled_from(["v1", "meta.k8s.io/v1", 1]),
        "propagationPolicy": st.sampled_from(["Foreground", "Orphan", "x", 1, [], {}]),
        "orphanDependents": values,
        "gracePeriodSeconds": values,
        "preconditions": st.one_of(values, st.fixed_dictionaries({"uid": values, "resourceVersion": values})),
        "dryRun": st.sampled_from([["All"], "All", [1], [["All"]], [{}], {}, ["All", "x"]]),
    },
)
reviews = st.fixed_dictionaries(
    {},
    optional={
        "spec": st.one_of(
            values,
            st.fixed_dictionaries(
                {},
                optional={
                    "user": values,
                    "groups": values,
                    "token": st.one_of(
                        values, st.sampled_from([a.removeprefix("Bearer ") for a in AUTHORIZATIONS])
                    ),
                    "audiences": values,
                    "expirationSeconds": values,
                    "namespace": values,
                    "resourceAttributes": st.one_of(
                        values,
                        st.dictionaries(st.sampled_from(["verb", "group", "resource", "name"]), values),
                    ),
                    "nonResourceAttributes": st.dictionaries(st.sampled_from(["verb", "path"]), values),
                },
            ),
        ),
    },
)
logins = st.fixed_dictionaries({}, optional={"name": values, "password": values})

HOSTILE: tuple[bytes, ...] = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"a": NaN}',
    b'{"a": Infinity, "b": -Infinity}',
    b'{"a": 1e999999}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"metadata": {"name": "\\ud800"}}',
    b'{"metadata": {"name": "\\udc00\\ud800"}}',
    b'{"metadata": {"name": "a\\u0000b"}}',
    b'{"\\ud800": 1, "\\ud800": 2}',
    b'{"a" : 1, "a" : 2, "a" : {"b" :1, "b" :2}}',
    b'{"metadata":{"name":"a","name":"b"},"kind":"Host","kind":"Host"}',
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"a":' * 63 + b"1" + b"}" * 63,
    b'{"a":' * 64 + b"1" + b"}" * 64,
    b"[" * 65 + b"]" * 65,
    b"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n",
    b"a: &a [*a]\n",
    b"&a a: *a\n",
    b"<<: {a: 1}\n",
    b"<<: 1\n",
    b"a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: {<<: [*x, *x]}\nf: {<<: *missing}\n",
    b"!!python/object/apply:os.system ['true']\n",
    b"a: !!binary AAAA\nb: !!set {x}\nc: !!omap [a: 1]\nd: !!timestamp 2026-01-01\n",
    b"a: !!int x\n",
    b"a: !!float []\n",
    b"a: 0x_\nb: 1:60:60:60\nc: .inf\nd: .nan\ne: 0b\nf: 1_000\ng: 0o8\nh: 08\n",
    b"? [a, b]\n: c\n",
    b"? {a: b}\n: c\n",
    b"~: 1\ntrue: 2\n1: 3\n1.5: 4\n",
    b"---\na: 1\n---\nb: 2\n",
    b"%YAML 9.9\n---\na: 1\n",
    b"a: \x07\n",
    b'a: "\\ud800"\n',
    b'a: "\\U00110000"\n',
    b'a: "\\x00"\n',
    b"\xff\xfea\x00:\x001\x00",
    b"- " * 3000 + b"x",
    b"{" * 3000,
    b"a: " + b"9" * 5000 + b"\n",
    b"a: 1e5000\nb: 0x" + b"f" * 5000 + b"\n",
    b"k8s\x00",
    b"k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"k8s\x00\x0a\x0a\x0a\x02v1\x12\x04Secret\x12\x00",
    b"k8s\x00" + b"\x0b" * 3000,
    b"k8s\x00\x0a\x12\x0a\x02v1\x12\x0cConfigMap\x12\x03\xff\xff\xff",
)


@st.composite
def protobufs(draw: st.DrawFn) -> bytes:
    """An envelope of Kubernetes' protobuf with a good name and anything in it."""
    version, kind = draw(
        st.sampled_from(
            [
                ("v1", "ConfigMap"),
                ("v1", "Secret"),
                ("v1", "Event"),
                ("v1", "Namespace"),
                ("v1", "ServiceAccount"),
                ("v1", "DeleteOptions"),
                ("authentication.k8s.io/v1", "TokenReview"),
                ("authentication.k8s.io/v1", "TokenRequest"),
                ("authorization.k8s.io/v1", "SubjectAccessReview"),
                ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
                ("coordination.k8s.io/v1", "Lease"),
                ("rbac.authorization.k8s.io/v1", "Role"),
            ]
        )
    )
    inner = draw(_messages)
    about = _field(1, version.encode()) + _field(2, kind.encode())
    body = b"k8s\x00" + _field(1, about) + _field(2, inner)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 2)) :]
    return body


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


_messages = st.recursive(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"fuzz", b"central", b"\xff", b"\x00"]),
        st.builds(lambda n, v: _varint(n << 3) + _varint(v), st.integers(1, 12), st.integers(0, 2**65)),
        st.builds(
            lambda n, w: _varint(n << 3 | w) + b"\x01" * 8,
            st.integers(0, 2**30),
            st.sampled_from([1, 3, 4, 5]),
        ),
    ),
    lambda inner: st.lists(st.builds(_field, st.integers(1, 12), inner), max_size=4).map(b"".join),
    max_leaves=8,
)


def as_json(value: Any) -> bytes:
    """JSON, also of what is none in other languages: NaN, lone surrogates."""
    return json.dumps(value).encode()


def as_yaml(value: Any) -> bytes:
    """YAML; JSON where YAML can't say it."""
    try:
        return yaml.safe_dump(value).encode()
    except (yaml.YAMLError, UnicodeError):
        return as_json(value)


@st.composite
def damaged(draw: st.DrawFn, given: Chance[bytes]) -> bytes:
    """Bytes with some lost, doubled or other ones."""
    body = draw(given)
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]


_any = st.one_of(
    objects(), objects(), objects(), merge_patches, json_patches, delete_options, reviews, logins
)
_written = st.one_of(_any.map(as_json), _any.map(as_json), _any.map(as_yaml))
bodies = st.one_of(
    _written,
    _written,
    _written,
    damaged(_written),
    st.sampled_from(HOSTILE),
    protobufs(),
    st.binary(max_size=20),
)

_BODY_OF = {
    "application/json": objects().map(as_json),
    "application/yaml": objects().map(as_yaml),
    "application/merge-patch+json": merge_patches.map(as_json),
    "application/json-patch+json": json_patches.map(as_json),
    "application/strategic-merge-patch+json": merge_patches.map(as_json),
    "application/apply-patch+yaml": objects().map(as_yaml),
    "application/vnd.kubernetes.protobuf": protobufs(),
}


@st.composite
def fitting(draw: st.DrawFn) -> Asked:
    """A write whose path, content type and body belong together: it comes far in."""
    kind = draw(st.sampled_from(sorted(SAMPLES)))
    sample = SAMPLES[kind]
    at = _path_of(sample)
    method = draw(st.sampled_from(["POST", "PUT", "PATCH", "PATCH", "PATCH", "DELETE"]))
    path = at if method == "POST" else f"{at}/{sample['metadata'].get('name', 'fuzz')}"
    query = draw(st.one_of(st.just(""), queries))
    media = draw(st.sampled_from(PATCHES if method == "PATCH" else ["application/json", "application/yaml"]))
    if method == "DELETE":
        media, body = "application/json", draw(delete_options.map(as_json))
    elif media == "application/apply-patch+yaml":
        query += "&fieldManager=fuzz"
        body = draw(_mutated(sample).map(as_yaml))
    elif method == "PATCH":
        body = draw(_BODY_OF[media])
    else:
        body = draw(_mutated(sample).map(as_yaml if "yaml" in media else as_json))
    return Asked(method, _with(path, query), [("Content-Type", media)], body)


@st.composite
def _mutated(draw: st.DrawFn, sample: Any) -> Any:
    value = sample
    if draw(st.booleans()):
        key, inner = draw(_metas)
        value = {**value, "metadata": {**value["metadata"], key: inner}}
    for _ in range(draw(st.integers(0, 2))):
        points = [p for p in _points(value) if p and p[0] not in ("apiVersion", "kind")]
        if not points:
            break
        value = _put(value, points[draw(st.integers(0, len(points) - 1))], draw(values))
    return value


def _path_of(sample: Any) -> str:
    for (group, version), kinds in SERVED.items():
        for info in kinds.values():
            if info.kind == sample["kind"] and info.api_version == sample["apiVersion"]:
                base = f"/apis/{group}/{version}" if group else f"/api/{version}"
                return (
                    f"{base}/namespaces/{CLOUD}/{info.plural}" if info.namespaced else f"{base}/{info.plural}"
                )
    raise AssertionError(sample["kind"])


def _with(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _wire(text: str) -> str:
    """As it may stand in a request line: no blank or control character, each character a byte."""
    kept = "".join(c for c in text if " " < c != "\x7f")
    return kept.encode("utf-8", "surrogateescape").decode("latin-1") if not kept.isascii() else kept


anything = st.builds(
    lambda method, path, query, headers, body: Asked(method, _wire(_with(path, query)), headers, body),
    mostly(st.sampled_from(METHODS), st.sampled_from(ODD_METHODS), 12),
    paths,
    queries,
    header_lists(),
    st.one_of(st.just(b""), bodies),
)
requests = st.one_of(anything, fitting())
