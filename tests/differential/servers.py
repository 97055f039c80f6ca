"""One way to ask both servers: a `Step` is a request with marks in it, which each server fills with what it
has told before.

Marks in paths and bodies: `{{rv NAME}}` and `{{first NAME}}` are the last and the first resourceVersion seen
of an object, `{{uid NAME}}` its uid, `{{continue}}` the token and `{{list}}` the resourceVersion of the last
list, `{{begin}}` that of the first.

A step of method WATCH reads events until one tells of a sentinel, which is created for that; with
`timeoutSeconds` in its query it reads until the server ends the watch.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from roost.api.access import ADMINISTRATORS
from roost.model.codec import Raw
from roost.model.firewall import FIREWALL_POLICY
from roost.model.registry import BY_KIND
from tests.differential.definitions import definition
from tests.support.api import ApiServer
from tests.support.kubernetes import kubernetes

CLOUD = "harbor"
GROUP = "/apis/roost.edge/v1"
POLICIES = f"{GROUP}/namespaces/{CLOUD}/firewallpolicies"
KINDS = ("FirewallPolicy", "PlatformNetwork", "Subcloud")
SENTINEL = "zz-sentinel"
SENTINEL_LABELS = {"app": "web", "tier": "front"}
PATIENCE = 60.0
_MARK = re.compile(r"\{\{(\w+)(?: ([^}]+))?\}\}")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A request. `path` is below the list of policies unless it begins with /api or /openapi."""

    method: str
    path: str = ""
    body: Any = None
    content: str = "application/json"
    accept: str = "application/json"

    @property
    def target(self) -> str:
        """The whole path."""
        return self.path if self.path.startswith(("/api", "/openapi")) else POLICIES + self.path


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said: a code and a JSON value (text where it is none), or the events of a watch."""

    code: int
    body: Any
    media: str = ""
    warnings: list[str] = []
    events: list[Raw] = []


class Server:
    """One of the two, and what it has told so far."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._client = httpx.Client(base_url=url, verify=context, timeout=PATIENCE)
        self.forget()

    def close(self) -> None:
        self._client.close()

    def forget(self) -> None:
        """Begin anew."""
        self._first: dict[str, str] = {}
        self._last: dict[str, str] = {}
        self._uids: dict[str, str] = {}
        self._token = self._list = self._begin = ""

    def ask(self, step: Step) -> Answer:
        """Carry out a step and remember what the answer tells."""
        if step.method == "WATCH":
            return self._watch(step)
        body = step.body if isinstance(step.body, bytes) else None
        if body is None and step.body is not None:
            body = self._filled(msgspec.json.encode(step.body).decode()).encode()
        headers = {"Accept": step.accept}
        if body is not None:
            headers["Content-Type"] = step.content
        response = self._client.request(step.method, self._filled(step.target), content=body, headers=headers)
        answer = _answer(response)
        self._remember(answer.body)
        return answer

    def empty(self) -> None:
        """Remove all objects of the kinds that are compared."""
        for kind in KINDS:
            info = BY_KIND[kind]
            path = (
                f"{POLICIES.rpartition('/')[0]}/{info.plural}"
                if info.namespaced
                else f"{GROUP}/{info.plural}"
            )
            for item in self._client.get(path).json()["items"]:
                if item["metadata"].get("finalizers"):
                    self._client.patch(
                        f"{path}/{item['metadata']['name']}",
                        content=b'{"metadata":{"finalizers":null}}',
                        headers={"Content-Type": "application/merge-patch+json"},
                    ).raise_for_status()
            self._client.delete(path).raise_for_status()
            assert not self._client.get(path).json()["items"]
        self.forget()

    def _watch(self, step: Step) -> Answer:
        path = self._filled(step.target)
        ends = "timeoutSeconds" in path
        events: list[Raw] = []
        with self._client.stream("GET", path, headers={"Accept": step.accept}) as response:
            if response.status_code != 200:
                response.read()
                return _answer(response)
            if not ends:
                self._sentinel("POST")
            for line in response.iter_lines():
                event = msgspec.json.decode(line)
                if _name(event) == SENTINEL:
                    break
                events.append(event)
        if not ends:
            self._sentinel("DELETE")
        return Answer(code=200, body=None, events=events)

    def _sentinel(self, method: str) -> None:
        body = policy(SENTINEL, labels=SENTINEL_LABELS) if method == "POST" else None
        path = POLICIES if method == "POST" else f"{POLICIES}/{SENTINEL}"
        self._client.request(method, path, json=body).raise_for_status()

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            what, name = match[1], match[2]
            known: dict[str, dict[str, str]] = {"rv": self._last, "first": self._first, "uid": self._uids}
            if what in known:
                return known[what].get(name, "1")
            return {"continue": self._token, "list": self._list, "begin": self._begin}[what]

        return _MARK.sub(value, text)

    def _remember(self, body: Any) -> None:
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            return
        metadata = body["metadata"]
        if isinstance(body.get("items"), list):
            self._token, self._list = metadata.get("continue", ""), metadata.get("resourceVersion", "")
            self._begin = self._begin or self._list
            for item in body["items"]:
                self._remember(item)
        elif metadata.get("name") and metadata.get("resourceVersion"):
            self._last[metadata["name"]] = metadata["resourceVersion"]
            self._first.setdefault(metadata["name"], metadata["resourceVersion"])
            self._uids[metadata["name"]] = metadata.get("uid", "")


class Pair(msgspec.Struct, frozen=True):
    """Roost and Kubernetes, with the same kinds and an empty namespace of the same name."""

    ours: Server
    theirs: Server

    def empty(self) -> None:
        """Remove all objects from both."""
        self.ours.empty()
        self.theirs.empty()


@contextlib.contextmanager
def pair(directory: Path) -> Iterator[Pair]:
    """Both servers until the end of the block; raises NotHere."""
    here, there = directory / "ours", directory / "theirs"
    here.mkdir()
    there.mkdir()
    with kubernetes(there) as cluster, ApiServer(here, cloud=CLOUD) as api:
        admin = api.authority.client("differ", ADMINISTRATORS)
        ours = Server(api.url, _context(api.authority.path, admin.certificate, admin.key))
        administrator = cluster.administrator
        theirs = Server(
            cluster.url, _context(cluster.authority, administrator.certificate, administrator.key)
        )
        with contextlib.closing(ours), contextlib.closing(theirs):
            _define(theirs)
            yield Pair(ours, theirs)


def policy(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Raw:
    """A FirewallPolicy as a user writes it."""
    metadata: Raw = {"name": name, **({"labels": labels} if labels else {})}
    return {
        "apiVersion": FIREWALL_POLICY.api_version,
        "kind": FIREWALL_POLICY.kind,
        "metadata": metadata,
        "spec": {"networks": ["oam"], **spec},
    }


def _define(server: Server) -> None:
    """The kinds and the namespace; returns once they are served."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLOUD}}
    bodies = [("/api/v1/namespaces", namespace), *((definitions, definition(BY_KIND[k])) for k in KINDS)]
    for path, body in bodies:
        made = server.ask(Step(method="POST", path=path, body=body))
        assert made.code == 201, made
    for kind in KINDS:
        path = f"{GROUP}/{BY_KIND[kind].plural}"
        for _ in range(300):
            if server.ask(Step(method="GET", path=path)).code == 200:
                break
        else:
            raise AssertionError(f"{path} is not served")


def _answer(response: httpx.Response) -> Answer:
    try:
        body = msgspec.json.decode(response.content) if response.content else None
    except msgspec.DecodeError:
        body = response.text
    media = response.headers.get("content-type", "").split(";")[0]
    return Answer(
        code=response.status_code, body=body, media=media, warnings=response.headers.get_list("warning")
    )


def _context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(certificate, key)
    return context


def _name(event: Raw) -> str:
    found = event["object"]
    if found.get("kind") == "Table":
        found = (found.get("rows") or [{}])[0].get("object") or {}
    name: str = found.get("metadata", {}).get("name", "")
    return name
