"""People known by an OpenID Connect provider: a real one (npm's oidc-provider), and claims by tables."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import oidc as verifying
from roost.api.identity.oidc import AGAIN, BadProvider, Oidc, Provider, Refused, caller_of
from roost.link.exchange import Caller
from roost.model.rbac import ClusterRoleBinding
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Client
from tests.api.test_rbac import RBAC, binding_body
from tests.support import oidc

PEOPLE = {
    "ann": {"groups": ["crew", "system:masters"], "email": "ann@example.org", "tenant": "a"},
    "bob": {"groups": [], "tenant": "b"},
}
BASE = {"iss": "https://id.example.org", "aud": "roost", "exp": 2_000, "sub": "ann", "groups": ["crew"]}
PROVIDER = Provider(issuer="https://id.example.org", audiences=["roost"], groups_claim="groups")


@pytest.mark.parametrize(
    ("claims", "more", "expected"),
    [
        ({}, {}, Caller("oidc:ann", ["oidc:crew"])),
        ({}, {"username_prefix": "-", "groups_prefix": "-"}, Caller("ann", ["crew"])),
        ({"groups": "one"}, {}, Caller("oidc:ann", ["oidc:one"])),
        ({"groups": ["system:masters", "x", 7]}, {"groups_prefix": "-"}, Caller("oidc:ann", ["x"])),
        ({"groups": ["roost:administrators", "y"]}, {"groups_prefix": "-"}, Caller("oidc:ann", ["y"])),
        ({"groups": ["administrators"]}, {"groups_prefix": "roost:"}, Caller("oidc:ann", [])),
        ({"aud": ["other", "roost"]}, {}, Caller("oidc:ann", ["oidc:crew"])),
        ({"email": "a@b"}, {"username_claim": "email"}, Caller("oidc:a@b", ["oidc:crew"])),
        ({"exp": 995}, {}, Caller("oidc:ann", ["oidc:crew"])),
        ({"nbf": 1_005}, {}, Caller("oidc:ann", ["oidc:crew"])),
        ({"tenant": "a"}, {"required_claims": {"tenant": "a"}}, Caller("oidc:ann", ["oidc:crew"])),
        ({"iss": "https://other"}, {}, "another issuer"),
        ({"aud": "other"}, {}, "another audience"),
        ({"aud": None}, {}, "another audience"),
        ({"exp": 990}, {}, "it has ended"),
        ({"exp": None}, {}, "no end"),
        ({"exp": "2000"}, {}, "no end"),
        ({"nbf": 1_011}, {}, "has not begun"),
        ({"sub": ""}, {}, "names nobody"),
        ({"sub": ["ann"]}, {}, "names nobody"),
        ({"sub": "system:admin"}, {"username_prefix": "-"}, "system:"),
        ({}, {"required_claims": {"tenant": "a"}}, "tenant is not as required"),
        ({"email": "a@b", "email_verified": False}, {"username_claim": "email"}, "not verified"),
        ({"groups": {"a": 1}}, {}, "is no list"),
        ({"groups": ["g"] * 257}, {}, "is no list"),
    ],
)
def test_claims(claims: dict[str, Any], more: dict[str, Any], expected: Caller | str) -> None:
    fields = {"issuer": PROVIDER.issuer, "audiences": ["roost"], "groups_claim": "groups", **more}
    given = {**BASE, **claims}
    if isinstance(expected, Caller):
        found, left_out = caller_of(given, Provider(**fields), 1_000.0)
        assert (found.name, found.groups) == (expected.name, expected.groups)
        assert found.until == given["exp"] + 10
        assert all(g.startswith(("system:", "roost:")) for g in left_out)
        return
    with pytest.raises(Refused, match=expected):
        caller_of(given, Provider(**fields), 1_000.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "does not configure"),
        ('{"issuer": "https://x"}', "audiences"),
        ('{"issuer": "http://x", "audiences": ["a"]}', "is not https"),
        ('{"issuer": "http://127.0.0.1.example.org", "audiences": ["a"]}', "is not https"),
        ('{"issuer": "https://x", "audiences": []}', "audiences is empty"),
        ('{"issuer": "https://x", "audiences": ["a"], "usernameclaim": "x"}', "usernameclaim"),
    ],
)
def test_configurations_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "oidc.json"
    path.write_text(text)
    with pytest.raises(BadProvider, match=words):
        verifying.read(path)
    with pytest.raises(BadProvider):
        verifying.read(tmp_path / "none")


# -- with an issuer that a transport plays: what it says and when it does not answer


class Issuer:
    """Answers as the issuer's web server would."""

    def __init__(self) -> None:
        self.key = self.new("one")
        self.asked = 0
        self.up = True
        self.about: Any = {"issuer": PROVIDER.issuer, "jwks_uri": f"{PROVIDER.issuer}/jwks"}
        self.keys = [self.key]
        self.now = 0.0

    @staticmethod
    def new(name: str) -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": name, "use": "sig"})

    def authenticator(self) -> Oidc:
        transport = httpx.MockTransport(self._answer)
        return Oidc(PROVIDER, clock=lambda: 1_000.0, monotonic=lambda: self.now, transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.up:
            raise httpx.ConnectError("no route to host")
        if request.url.path == verifying.DISCOVERY:
            return httpx.Response(200, json=self.about)
        return httpx.Response(200, json={"keys": [k.as_dict(private=False) for k in self.keys]})

    def token(self, key: RSAKey | None = None, **claims: Any) -> str:
        key = key or self.key
        return str(
            jwt.encode({"alg": "RS256", "kid": key.kid}, {**BASE, **claims}, key, algorithms=["RS256"])
        )


async def who(authenticator: Oidc, token: str) -> str:
    """The name of the caller, or how he is refused."""
    scope = {"headers": [(b"authorization", b"Bearer " + token.encode())]}
    try:
        caller = await authenticator(scope)
    except Exception as error:
        return str(getattr(error, "code", error))
    return caller.name if caller else "not ours"


async def test_keys_that_are_known_go_on_while_the_issuer_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    issuer = Issuer()
    authenticator = issuer.authenticator()
    assert await who(authenticator, issuer.token()) == "oidc:ann"
    asked = issuer.asked
    assert await who(authenticator, issuer.token()) == "oidc:ann" and issuer.asked == asked
    issuer.up = False
    issuer.now += verifying.FRESH + 1
    assert await who(authenticator, issuer.token()) == "oidc:ann"
    assert authenticator._fetching is not None
    await authenticator._fetching
    other = Issuer.new("two")
    issuer.keys.append(other)
    issuer.now += AGAIN + 1
    assert await who(authenticator, issuer.token(other)) == "401"
    assert "no route to host" in capsys.readouterr().out
    issuer.up = True
    asked = issuer.asked
    assert await who(authenticator, issuer.token(other)) == "401" and issuer.asked == asked, "asks too often"
    issuer.now += AGAIN + 1
    assert await who(authenticator, issuer.token(other)) == "oidc:ann"


async def test_an_issuer_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "WITHIN", 0.05)
    issuer = Issuer()

    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    authenticator = Oidc(PROVIDER, clock=lambda: 1_000.0, transport=httpx.MockTransport(silent))
    async with asyncio.timeout(30):
        assert await who(authenticator, issuer.token()) == "401"


async def test_forgeries() -> None:
    issuer = Issuer()
    authenticator = issuer.authenticator()
    good = issuer.token()
    head, body, signature = good.split(".")

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    impostor = RSAKey.generate_key(2048, {"kid": "one"})
    assert await who(authenticator, good) == "oidc:ann"
    for forged in (
        issuer.token(impostor),
        f"{part({'alg': 'none', 'kid': 'one'})}.{body}.",
        f"{part({'alg': 'HS256', 'kid': 'one'})}.{body}.{signature}",
        f"{part({'alg': 'ES256', 'kid': 'one'})}.{body}.{signature}",
        f"{part({'alg': 'RS256'})}.{body}.{signature}",
        f"{part({'alg': ['RS256'], 'kid': 'one'})}.{body}.{signature}",
        f"{head}.{part({**BASE, 'sub': 'root'})}.{signature}",
        good[:-10],
        f"{head}.{body}.",
    ):
        assert await who(authenticator, forged) == "401", forged[:60]
    for other in ("", "abc", "a.b", "a.b.c", f"{head}.{part({'iss': 'https://other'})}.{signature}"):
        assert await who(authenticator, other) == "not ours"


@pytest.mark.parametrize(
    "about",
    [
        {"issuer": "https://other", "jwks_uri": "https://x/jwks"},
        {"issuer": PROVIDER.issuer},
        [],
        {"issuer": 7},
    ],
)
async def test_issuers_that_make_no_sense(about: Any) -> None:
    issuer = Issuer()
    issuer.about = about
    assert await who(issuer.authenticator(), issuer.token()) == "401"


async def test_what_an_issuer_does_not_give(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither our groups nor the role of a User who happens to have the same name."""
    issuer = Issuer()
    bare: dict[str, Any] = {"issuer": PROVIDER.issuer, "audiences": ["roost"], "groups_claim": "groups"}
    provider = Provider(**bare, username_prefix="-", groups_prefix="-")
    transport = httpx.MockTransport(issuer._answer)
    known = Oidc(provider, clock=lambda: 1_000.0, transport=transport)
    client = Client(Api(ApiContext(store=store, cloud="central", authenticate=[known])))
    user = {"metadata": {"name": "ann"}, "spec": {"role": "administrator"}}
    (await client.post(f"{V1}/users", user)).ok(201)
    (await client.local("ann").get(HOSTS)).ok()
    ann = client.bearing(issuer.token(groups=["roost:administrators", "system:masters", "crew"]))
    for _ in range(2):
        (await ann.get(HOSTS)).refused(403, 'User "ann" cannot list')
    told = capsys.readouterr().out
    assert told.count("group=roost:administrators") == told.count("group=system:masters") == 1
    (await client.merge(f"{V1}/users/ann", {"spec": {"disabled": True}})).ok()
    (await ann.get(HOSTS)).refused(403, "is disabled")


async def test_what_lasts_ends_with_the_token(store: Store) -> None:
    issuer, now = Issuer(), [datetime.fromtimestamp(2_009.9, UTC)]
    known = Oidc(PROVIDER, clock=lambda: now[0].timestamp(), transport=httpx.MockTransport(issuer._answer))
    context = ApiContext(store=store, cloud="central", authenticate=[known], clock=lambda: now[0])
    client = Client(Api(context))
    body = binding_body("crew", "roost:admin")
    body["subjects"] = [{"kind": "Group", "name": "oidc:crew"}]
    (await client.post(f"{RBAC}/clusterrolebindings", body)).ok(201)
    ann = client.bearing(issuer.token())
    follower = await ann.watch("/audit?follow=true&kind=host")
    assert "audit" in await follower.next()
    watch = await ann.watch(f"{HOSTS}?watch=true&timeoutSeconds=3000")
    async with asyncio.timeout(30):
        assert await watch.rest() == []
        now[0] += timedelta(seconds=0.2)
        assert await follower.rest() == []


# -- with a real provider


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    if oidc.unavailable():
        pytest.skip(oidc.unavailable())
    yield oidc.free_port()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_real_provider(store: Store, port: int, algorithm: str, tmp_path: Path) -> None:
    key, later = oidc.new_key("one", algorithm), oidc.new_key("two", algorithm)
    config = tmp_path / "oidc.json"
    config.write_text(
        json.dumps(
            {
                "issuer": f"http://127.0.0.1:{port}",
                "audiences": ["roost"],
                "groupsClaim": "groups",
                "requiredClaims": {"tenant": "a"},
            }
        )
    )
    now = [time.monotonic()]
    known = Oidc(verifying.read(config), monotonic=lambda: now[0])
    client = Client(Api(ApiContext(store=store, cloud="central", authenticate=[known])))
    body = binding_body("crew", "roost:reader")
    body["subjects"] = [{"kind": "Group", "name": "oidc:crew"}]
    (await client.post(f"{RBAC}/clusterrolebindings", body)).ok(201)
    assert (await store.load(ClusterRoleBinding, "", "crew")).subjects[0].name == "oidc:crew"
    with oidc.provider(port, PEOPLE, [key]) as issuer:
        ann = await asyncio.to_thread(oidc.id_token, issuer, "ann")
        bob = await asyncio.to_thread(oidc.id_token, issuer, "bob")
        (await client.bearing(ann).get(HOSTS)).ok()
        refused = await client.bearing(ann).delete(HOSTS)
        refused.refused(403, 'User "oidc:ann" cannot deletecollection')
        (await client.bearing(bob).get(HOSTS)).refused(401)
    with oidc.provider(port, PEOPLE, [later]) as issuer:
        rotated = await asyncio.to_thread(oidc.id_token, issuer, "ann")
        (await client.bearing(rotated).get(HOSTS)).refused(401)
        now[0] += AGAIN + 1
        (await client.bearing(rotated).get(HOSTS)).ok()
    (await client.bearing(rotated).get(HOSTS)).ok()
    (await client.bearing(rotated[:-8]).get(HOSTS)).refused(401, "wrong, used or expired")
