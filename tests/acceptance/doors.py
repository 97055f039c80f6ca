"""Kept ways into the clouds of a running demo, and what comes of a write that is sent through one.

A `Door` is one thread's HTTP client to one cloud's API. A site's own API is there for its first host alone,
so the thread steps into that host's network namespace before it opens the door, and ends there: sockets stay
where they were made.

An answer says more than yes or no. What was never sent can't have happened; what was sent and not answered
may have happened or not; a 5xx from a link or a store leaves that open too.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import ssl
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx
import yaml

from tests.acceptance.running import Demo

Raw = dict[str, Any]
Said = Literal["accepted", "refused", "unanswered", "never sent"]
CORE, ROOST = "/api/v1", "/apis/roost.edge/v1"
PATHS = {
    "ConfigMap": (CORE, "configmaps"),
    "FirewallPolicy": (ROOST, "firewallpolicies"),
    "Host": (ROOST, "hosts"),
    "LogEntry": (ROOST, "logentries"),
    "Operation": (ROOST, "operations"),
    "PlatformNetwork": (ROOST, "platformnetworks"),
    "Subcloud": (ROOST, "subclouds"),
}
API_VERSION = {kind: base.removeprefix("/apis/").removeprefix("/api/") for kind, (base, _) in PATHS.items()}
MERGE = "application/merge-patch+json"
ANSWER_WITHIN = 15.0
CONNECT_WITHIN = 5.0
_CLONE_NEWNET = 0x40000000


def enter(demo: Demo, node: str) -> None:
    """Move this thread, for good, into the network namespace of a host or router of the demo."""
    lab = demo.status()
    descriptor = next(one["descriptor"] for one in lab["nodes"] if one["name"] == node)
    with Path(f"/proc/{lab['pid']}/fd/{descriptor}").open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace of {node}")


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """Path of a collection or an object."""
    base, plural = PATHS[kind]
    return f"{base}{f'/namespaces/{namespace}' if namespace else ''}/{plural}{f'/{name}' if name else ''}"


class Reply(NamedTuple):
    """What came back: `code` is 0 when nothing did."""

    said: Said
    code: int
    body: Raw
    why: str = ""


class Door:
    """One cloud's API. `cloud` is whose it is; through the centre when `through` is set."""

    def __init__(self, demo: Demo, cloud: str, *, through: bool = False) -> None:
        self.cloud, self.name = cloud, f"{cloud} through the centre" if through else cloud
        self.longest_silence = 0.0
        self._silent_since: float | None = None
        local = cloud != "central" and not through
        if local:
            enter(demo, f"{cloud}-controller-0")
        file = demo.directory / f"{cloud}-controller-0" / "kubeconfig" if local else demo.kubeconfig
        server, context = _way(file, cloud)
        self._server = server
        timeout = httpx.Timeout(ANSWER_WITHIN, connect=CONNECT_WITHIN)
        self.http = httpx.Client(verify=context, timeout=timeout, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def url(self, at: str) -> str:
        return f"{self._server}{at}"

    def write(
        self, method: str, at: str, body: Any = None, *, form: str = "application/json", strict: bool = True
    ) -> Reply:
        """Send a write once, and say what is known of it."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        query = {"fieldValidation": "Strict"} if strict and method != "DELETE" else {}
        headers = {"Content-Type": form}
        try:
            answer = self.http.request(method, self.url(at), params=query, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            self._silence()
            return Reply("never sent", 0, {}, repr(error))
        except httpx.HTTPError as error:
            self._silence()
            return Reply("unanswered", 0, {}, repr(error))
        self._heard()
        return _understood(answer)

    def read(self, at: str, **query: str) -> Reply:
        """One read; `code` is 0 when nothing came back."""
        try:
            answer = self.http.get(self.url(at), params=query)
        except httpx.HTTPError as error:
            self._silence()
            return Reply("unanswered", 0, {}, repr(error))
        self._heard()
        return _understood(answer)

    def _silence(self) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()

    def _heard(self) -> None:
        if self._silent_since is not None:
            self.longest_silence = max(self.longest_silence, time.monotonic() - self._silent_since)
            self._silent_since = None


def _understood(answer: httpx.Response) -> Reply:
    code = answer.status_code
    said: Said = "accepted" if code < 300 else "refused" if code < 500 else "unanswered"
    try:
        body = answer.json()
    except ValueError:
        # Half an answer, or none of ours: a success can't be taken from it.
        return Reply("unanswered", code, {}, answer.text[:200])
    return Reply(said, code, body, "" if code < 300 else str(body.get("message", ""))[:400])


def _way(file: Path, cloud: str) -> tuple[str, ssl.SSLContext]:
    """Server and TLS settings of a context, from a kubeconfig as the demo writes it."""
    raw = yaml.safe_load(file.read_text())
    context = next(c["context"] for c in raw["contexts"] if c["name"] == cloud)
    cluster = next(c["cluster"] for c in raw["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in raw["users"] if u["name"] == context["user"])
    made = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
    handle = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        pair = _decoded(user["client-certificate-data"]) + "\n" + _decoded(user["client-key-data"])
        os.write(handle, pair.encode())
        made.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    assert urlsplit(cluster["server"]).scheme == "https", cluster["server"]
    return str(cluster["server"]).rstrip("/"), made


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
