"""Answers what lower nodes ask of their cloud through the link: to take their heartbeats, or no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from roost.cloud.heartbeat_observer import Observer, Refusal
from roost.engine.heartbeat import PATH, Registration
from roost.link.exchange import Request, Response
from roost.link.node import Node, parse

_CALLER = "roost:"


class Registry:
    """The handler of a cloud's lower links. `here` is the host in this process, which needs no network."""

    def __init__(self, observer: Observer, *, here: str) -> None:
        self._observer, self._here = observer, here

    async def __call__(self, request: Request) -> Response:
        node = parse(request.caller.name.removeprefix(_CALLER))
        if request.path != PATH or node.kind != "host" or node.name == self._here:
            return _answer(404, b"nothing is served here\n")
        if request.method == "DELETE":
            self._observer.withdraw(node.name)
            return _answer(200, b"")
        if request.method != "POST":
            return _answer(405, b"use POST or DELETE\n")
        return self._register(node, request.body)

    def _register(self, node: Node, body: bytes) -> Response:
        try:
            registration = msgspec.msgpack.decode(body, type=Registration)
            registered = self._observer.register(node.name, registration)
        except msgspec.MsgspecError as error:
            return _answer(400, f"the registration can't be read: {error}\n".encode())
        except Refusal as error:
            return _answer(503, f"{error}\n".encode())
        return _answer(200, msgspec.msgpack.encode(registered))


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text


def _answer(status: int, text: bytes) -> Response:
    return Response(status, [("content-type", "application/octet-stream")], _once(text))
