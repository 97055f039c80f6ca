"""Who is known by what, and what they may do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.types import Message, Scope

from roost.api.access import ADMINISTRATORS, PEER, READERS, USERS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.link.exchange import Caller
from roost.model.access import User, UserSpec
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Answer, Client, host


class Socket:
    """Requests as they come from a socket: no caller is set, a certificate or header may be there."""

    def __init__(self, app: Api, peer: dict[str, Any] | None = None, **headers: str) -> None:
        self._app, self._peer = app, peer
        self._headers = [(k.encode(), v.encode()) for k, v in headers.items()]

    async def get(self, path: str, method: str = "GET") -> Answer:
        sent: list[Message] = []
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": self._headers,
            "asgi": {"spec_version": "2.3"},
            PEER: self._peer,
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        headers = [(k.decode(), v.decode()) for k, v in sent[0]["headers"]]
        return Answer(sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))


def certificate(name: str, *groups: str) -> dict[str, Any]:
    """As ssl.getpeercert gives it."""
    parts = [(("commonName", name),), *((("organizationName", g),) for g in groups)]
    return {"subject": tuple(parts)}


@pytest.fixture
def app(store: Store) -> Api:
    return Api(ApiContext(store=store, cloud="central"))


async def who(app: Api, peer: dict[str, Any] | None, **headers: str) -> Answer:
    """What a caller is told when it lists hosts."""
    return await Socket(app, peer, **headers).get(HOSTS)


async def test_certificates(app: Api, store: Store) -> None:
    (await who(app, certificate("ada", ADMINISTRATORS))).ok()
    (await who(app, certificate("rita", READERS))).ok()
    (await who(app, None)).refused(401, "no credential was given")
    (await who(app, certificate("central-harbor"))).refused(401, "is not a user's")
    (await who(app, certificate("x", "roost:hosts"))).refused(401, "is not a user's")
    (await who(app, {"subject": ()})).refused(401, "names nobody")
    (await who(app, certificate("tom", USERS))).refused(403, "it has no role here")
    await store.save(User(metadata=Metadata(name="tom"), spec=UserSpec(role="reader")))
    (await who(app, certificate("tom", USERS))).ok()
    await store.save(User(metadata=Metadata(name="ada"), spec=UserSpec(disabled=True)))
    (await who(app, certificate("ada", ADMINISTRATORS))).refused(403, 'user "ada" is disabled')


async def test_a_host_named_like_a_user_is_not_that_user(app: Api, store: Store) -> None:
    await store.save(User(metadata=Metadata(name="ada"), spec=UserSpec(role="administrator")))
    (await who(app, certificate("ada", "roost:hosts"))).refused(401, "is not a user's")


@pytest.fixture
def clocked(tmp_path: Path) -> list[datetime]:
    return [datetime(2026, 1, 1, tzinfo=UTC)]


async def test_tokens(tmp_path: Path, clocked: list[datetime]) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, clock=lambda: clocked[0])
    app = Api(ApiContext(store=store, cloud="central", clock=lambda: clocked[0]))
    admin = Client(app)
    await admin.post(f"{V1}/users", {"metadata": {"name": "tom"}})
    path = f"{V1}/users/tom/token"
    made = (await admin.post(path, {"spec": {"expirationSeconds": 900}})).ok(201)
    assert made["kind"] == "TokenRequest"
    assert made["status"]["expirationTimestamp"] == "2026-01-01T00:15:00Z"
    token = made["status"]["token"]
    (await who(app, None, authorization=f"Bearer {token}")).ok()
    refused = await Socket(app, None, authorization=f"Bearer {token}").get(f"{HOSTS}/h1", "DELETE")
    refused.refused(403, 'User "tom" cannot delete resource "hosts"', "its role is reader")
    for wrong in ("x", f"{token}x", token.split(".")[0], "é", "a.b.c"):
        answer = await who(app, None, authorization=f"Bearer {wrong}")
        answer.refused(401, "wrong, used or expired")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    (await who(app, None, authorization="Basic eDp5")).refused(401, "only bearer tokens")
    clocked[0] += timedelta(seconds=901)
    (await who(app, None, authorization=f"Bearer {token}")).refused(401)
    await store.close()


async def test_tokens_are_for_users_that_are_there(store: Store, client: Client) -> None:
    path = f"{V1}/users/tom/token"
    (await client.post(path, {})).refused(404, 'users.roost.edge "tom" not found')
    await client.post(f"{V1}/users", {"metadata": {"name": "tom"}, "spec": {"disabled": True}})
    (await client.post(path, {})).refused(403, "the user is disabled")
    await client.merge(f"{V1}/users/tom", {"spec": {"disabled": False}})
    for seconds in (1, 10**10, "900", True, 900.5):
        (await client.post(path, {"spec": {"expirationSeconds": seconds}})).refused(400, "expirationSeconds")
    (await client.reader().post(path, {})).refused(403, "users/token")
    for _ in range(20):
        (await client.post(path, {})).ok(201)
    (await client.post(path, {})).refused(403, "has 20 tokens in force")


async def test_tokens_go_with_their_user(store: Store, client: Client, app: Api) -> None:
    await client.post(f"{V1}/users", {"metadata": {"name": "tom"}})
    token = (await client.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    (await client.delete(f"{V1}/users/tom?dryRun=All")).ok()
    (await who(app, None, authorization=f"Bearer {token}")).ok()
    (await client.delete(f"{V1}/users/tom")).ok()
    await client.post(f"{V1}/users", {"metadata": {"name": "tom"}})
    (await who(app, None, authorization=f"Bearer {token}")).refused(401)


async def test_tokens_of_a_user_that_is_going_are_not_those_of_the_next(client: Client, app: Api) -> None:
    await client.post(f"{V1}/users", {"metadata": {"name": "tom", "finalizers": ["example.com/wait"]}})
    (await client.delete(f"{V1}/users/tom")).ok()
    token = (await client.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    (await client.merge(f"{V1}/users/tom", {"metadata": {"finalizers": None}})).ok()
    await client.post(f"{V1}/users", {"metadata": {"name": "tom"}, "spec": {"role": "administrator"}})
    (await who(app, None, authorization=f"Bearer {token}")).refused(401)


async def test_linked_callers_bring_their_groups(client: Client, store: Store, app: Api) -> None:
    await store.save(User(metadata=Metadata(name="rita"), spec=UserSpec(role="administrator")))
    reader = client.reader()
    (await reader.get(HOSTS)).ok()
    (await reader.post(HOSTS, host("h1"))).refused(403, 'User "rita" cannot create resource "hosts"')
    await store.save(User(metadata=Metadata(name="rita"), spec=UserSpec(disabled=True)))
    (await reader.get(HOSTS)).refused(403, "is disabled here")
    (await Client(app, "eve", ()).get(HOSTS)).refused(403, "it has no role here")


async def test_a_socket_can_not_pretend_to_be_a_link(app: Api) -> None:
    headers = {"roost.caller": "ada", "x-remote-user": "ada", "x-remote-group": ADMINISTRATORS}
    (await who(app, None, **headers)).refused(401)


async def test_further_ways_to_know_a_caller(store: Store) -> None:
    async def by_header(scope: Scope) -> Caller | None:
        known = dict(scope["headers"]).get(b"x-test")
        return Caller("hal", [READERS]) if known else None

    app = Api(ApiContext(store=store, cloud="central", authenticate=[by_header]))
    (await who(app, None, **{"x-test": "1"})).ok()
    (await who(app, None)).refused(401)


async def test_every_verb_by_role(client: Client) -> None:
    (await client.post(HOSTS, host("h1"))).ok(201)
    reader = client.reader()
    for path in (HOSTS, f"{HOSTS}/h1", f"{HOSTS}/h1/status", f"{V1}/users", "/api/v1/namespaces"):
        (await reader.get(path)).ok()
    for method, path in (
        ("POST", HOSTS),
        ("DELETE", HOSTS),
        ("PUT", f"{HOSTS}/h1"),
        ("PATCH", f"{HOSTS}/h1"),
        ("DELETE", f"{HOSTS}/h1"),
        ("PATCH", f"{HOSTS}/h1/status"),
        ("POST", f"{V1}/users/x/token"),
    ):
        raw = (await reader.send(method, path, {})).refused(403, 'User "rita" cannot', "ask an administrator")
        assert raw["reason"] == "Forbidden" and raw["details"]["group"] == "roost.edge"


async def test_groups_follow_the_role(store: Store) -> None:
    seen: list[list[str]] = []

    async def call(cloud: str, request: Any) -> Any:
        seen.append(request.caller.groups)
        raise RuntimeError("stop here")

    app = Api(ApiContext(store=store, cloud="central", call_cloud=call))
    await store.save(User(metadata=Metadata(name="tom"), spec=UserSpec(role="administrator")))
    await Socket(app, certificate("tom", USERS)).get("/clouds/harbor/apis")
    await Socket(app, certificate("rita", READERS)).get("/clouds/harbor/apis")
    assert seen == [[ADMINISTRATORS, USERS], [READERS, USERS]]


async def test_denied_and_failed_are_logged_without_bodies(client: Client) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await client.post(HOSTS, host("h1", location="a-secret-place"))
        await client.reader().delete(f"{HOSTS}/h1")
        await client.get(HOSTS)
    told = [(line["event"], line["log_level"], line["user"], line["verb"], line["code"]) for line in lines]
    assert told == [
        ("write", "debug", "ada", "create", 201),
        ("write failed", "info", "ada", "create", 409),
        ("denied", "info", "rita", "delete", 403),
    ]
    assert "already exists" in lines[1]["reason"] and "resource" in lines[2]["reason"]
    assert "a-secret-place" not in str(lines)
