"""Asks the API in this process, as calls over a link do, watches included."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.api.access import ADMINISTRATORS, CALLER, PEER, READERS, USERS
from roost.api.through import handler
from roost.link import exchange
from roost.model.codec import Raw

V1 = "/apis/roost.edge/v1"
HOSTS = f"{V1}/namespaces/central/hosts"


class Answer:
    """A response, read to its end."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), body
        self.warnings = [v for k, v in headers if k == "warning"]

    @property
    def raw(self) -> Raw:
        """The body as an object."""
        raw: Raw = msgspec.json.decode(self.body)
        return raw

    def ok(self, status: int = 200) -> Raw:
        """The body, after a look at the status."""
        assert self.status == status, (self.status, self.body[:500])
        return self.raw

    def refused(self, status: int, *words: str) -> Raw:
        """The Status, after a look that it is one and says these words."""
        assert self.status == status, (self.status, self.body[:500])
        raw = self.raw
        assert raw["kind"] == "Status" and raw["status"] == "Failure" and raw["code"] == status
        for word in words:
            assert word in raw["message"], raw["message"]
        return raw


class Client:
    """One caller."""

    def __init__(self, app: ASGIApp, name: str = "ada", groups: tuple[str, ...] = (ADMINISTRATORS,)) -> None:
        self._ask = handler(app)
        self._app = app
        self._headers: tuple[tuple[str, str], ...] = ()
        self._caller = exchange.Caller(name, list(groups))

    @property
    def app(self) -> ASGIApp:
        """The API."""
        return self._app

    def reader(self) -> Client:
        """The same API for one who may only look."""
        return Client(self.app, "rita", (READERS,))

    def local(self, name: str, *groups: str) -> Client:
        """The same API for one whose certificate this cloud has verified."""
        parts = [(("commonName", name),), *((("organizationName", g),) for g in (USERS, *groups))]
        return self._through({PEER: {"subject": tuple(parts)}})

    def bearing(self, token: str) -> Client:
        """The same API for one who shows a bearer token."""
        return self._through({}).sending(authorization=f"Bearer {token}")

    def sending(self, *pairs: tuple[str, str], **headers: str) -> Client:
        """The same caller, with further headers."""
        other = copy.copy(self)
        other._headers = (*self._headers, *pairs, *((k.replace("_", "-"), v) for k, v in headers.items()))
        return other

    def at(self, address: str) -> Client:
        """The same API for one without a credential who comes from this address."""
        return self._through({"client": (address, 1)})

    def _through(self, known: dict[str, Any]) -> Client:
        """The same API, asked through a socket that knows this of its peer."""

        async def socket(scope: Scope, receive: Receive, send: Send) -> None:
            del scope[CALLER]
            await self.app({**scope, "client": ("192.0.2.7", 1), **known}, receive, send)

        other = Client(socket)
        other._app = self._app
        return other

    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "",
        none_match: str = "",
    ) -> exchange.Response:
        """Send a request; the caller reads the body."""
        headers = [("content-type", kind)] if body is not None else []
        headers += self._headers
        if accept:
            headers.append(("accept", accept))
        if none_match:
            headers.append(("if-none-match", none_match))
        sent = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return await self._ask(
            exchange.Request(method=method, path=path, headers=headers, body=sent, caller=self._caller)
        )

    async def send(self, method: str, path: str, body: Any = None, **options: str) -> Answer:
        """Send a request and read the whole answer."""
        response = await self.open(method, path, body, **options)
        return Answer(response.status, response.headers, b"".join([part async for part in response.body]))

    async def get(self, path: str, **options: str) -> Answer:
        return await self.send("GET", path, **options)

    async def post(self, path: str, body: Any) -> Answer:
        return await self.send("POST", path, body)

    async def put(self, path: str, body: Any) -> Answer:
        return await self.send("PUT", path, body)

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.send("DELETE", path, body)

    async def merge(self, path: str, patch: Any) -> Answer:
        return await self.send("PATCH", path, patch, kind="application/merge-patch+json")

    async def patch(self, path: str, steps: Any) -> Answer:
        return await self.send("PATCH", path, steps, kind="application/json-patch+json")

    async def watch(self, path: str, **options: str) -> Watch:
        """Begin a watch."""
        response = await self.open("GET", path, **options)
        assert response.status == 200, [part async for part in response.body]
        return Watch(response)


class Watch:
    """Events of a watch, one by one."""

    def __init__(self, response: exchange.Response) -> None:
        self._response = response
        self._lines = self._split(response.body)

    async def next(self) -> Raw:
        """The next event."""
        return await anext(self._lines)

    async def names(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(e["type"], e["object"]["metadata"]["name"]) for e in events]

    async def rest(self) -> list[Raw]:
        """All events until the watch ends."""
        return [event async for event in self._lines]

    async def close(self) -> None:
        """Go away."""
        await self._response.body.aclose()  # type: ignore[attr-defined]

    async def _split(self, body: AsyncIterator[bytes]) -> AsyncIterator[Raw]:
        rest = b""
        async for part in body:
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line)


def host(name: str, **spec: Any) -> Raw:
    """A Host as a user writes it."""
    return {"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": {"name": name}, "spec": spec}
