"""Tokens of service accounts: signed, bound, ended, rotated; forgeries; static tokens of a file."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from roost.api.access import ADMINISTRATORS, READERS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import accounts
from roost.api.identity.jwt import Unfit, unverified
from roost.api.identity.tokenfile import BadTokenFile, TokenFile, parse
from roost.engine.credentials import BadCredential
from roost.engine.vault import SEALED, Vault
from roost.link.exchange import Caller
from roost.link.files import write_private
from roost.model.account import SigningKey
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import HOSTS, V1, Answer, Client, host
from tests.api.test_rbac import RBAC, binding_body

ACCOUNTS = "/api/v1/namespaces/central/serviceaccounts"
START = datetime(2026, 1, 1, tzinfo=UTC)
ISSUER = "https://central.roost.internal"


class World:
    """A store on a clock that stands still, and its API."""

    def __init__(self, store: Store, now: list[datetime]) -> None:
        self.store, self.now = store, now
        self.admin = Client(Api(ApiContext(store=store, cloud="central", clock=lambda: now[0])))

    async def account(self, name: str = "bot") -> None:
        (await self.admin.post(ACCOUNTS, {"metadata": {"name": name}})).ok(201)

    async def token(self, name: str = "bot", **spec: Any) -> str:
        answer = await self.admin.post(f"{ACCOUNTS}/{name}/token", {"spec": spec})
        return str(answer.ok(201)["status"]["token"])

    async def try_(self, token: str) -> Answer:
        return await self.admin.bearing(token).get("/apis")

    async def key(self) -> SigningKey:
        keys = await self.store.every(SigningKey)
        return max(keys, key=lambda k: k.spec.made_at)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    now = [START]
    store = await Store.open(f"sqlite:///{tmp_path / 's.db'}", inline=True, clock=lambda: now[0])
    await store.save(Cloud(metadata=Metadata(name="central")))
    yield World(store, now)
    await store.close()


async def opening(world: World, kind: str) -> str:
    """A token of ten minutes of an administrator, of a user or a program."""
    if kind == "user":
        user = {"metadata": {"name": "ann"}, "spec": {"role": "administrator"}}
        (await world.admin.post(f"{V1}/users", user)).ok(201)
        answer = await world.admin.post(f"{V1}/users/ann/token", {"spec": {"expirationSeconds": 600}})
        return str(answer.ok(201)["status"]["token"])
    await world.account()
    subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "central"}
    body = {**binding_body("bot", "roost:admin"), "subjects": [subject]}
    (await world.admin.post(f"{RBAC}/clusterrolebindings", body)).ok(201)
    return await world.token(expirationSeconds=600)


@pytest.mark.parametrize("kind", ["user", "program"])
async def test_what_lasts_ends_with_the_token(world: World, kind: str) -> None:
    bearing = world.admin.bearing(await opening(world, kind))
    world.now[0] += timedelta(seconds=599.9)
    follower = await bearing.watch("/audit?follow=true&kind=host")
    assert "audit" in await follower.next()
    watch = await bearing.watch(f"{HOSTS}?watch=true&timeoutSeconds=3000")
    lasting = await world.admin.watch(f"{HOSTS}?watch=true&timeoutSeconds=3000")
    async with asyncio.timeout(30):
        assert await watch.rest() == []
        world.now[0] += timedelta(seconds=0.2)
        assert await follower.rest() == []
    await world.admin.post(HOSTS, host("h1"))
    assert await lasting.names(1) == [("ADDED", "h1")]
    await lasting.close()


def claims_of(token: str) -> dict[str, Any]:
    return unverified(token)[1]


async def test_an_account_shows_its_token(world: World) -> None:
    await world.account()
    body = binding_body("b", "roost:reader")
    body["subjects"] = [{"kind": "ServiceAccount", "name": "bot", "namespace": "central"}]
    (await world.admin.post(f"{RBAC}/clusterrolebindings", body)).ok(201)
    token = await world.token(expirationSeconds=1200)
    bot = world.admin.bearing(token)
    (await bot.get(HOSTS)).ok()
    (await bot.delete(HOSTS)).refused(403, 'User "system:serviceaccount:central:bot"')
    claims = claims_of(token)
    assert claims["iss"] == ISSUER and claims["aud"] == [ISSUER] and claims["exp"] - claims["iat"] == 1200
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == "bot"
    world.now[0] += timedelta(seconds=1201)
    (await world.try_(token)).refused(401, "wrong, used or expired")


async def test_a_token_dies_with_its_account(world: World) -> None:
    await world.account()
    token = await world.token()
    (await world.try_(token)).ok()
    (await world.admin.delete(f"{ACCOUNTS}/bot")).ok()
    (await world.try_(token)).refused(401)
    await world.account()
    (await world.try_(token)).refused(401)
    (await world.try_(await world.token())).ok()


async def test_a_token_is_for_its_audience(world: World) -> None:
    await world.account()
    token = await world.token(audiences=["vault"])
    (await world.try_(token)).refused(401)
    review = "/apis/authentication.k8s.io/v1/tokenreviews"
    here = (await world.admin.post(review, {"spec": {"token": token}})).ok(201)
    assert here["status"]["authenticated"] is False and "token" not in here["spec"]
    there = (await world.admin.post(review, {"spec": {"token": token, "audiences": ["vault"]}})).ok(201)
    assert there["status"]["authenticated"] and there["status"]["audiences"] == ["vault"]
    assert there["status"]["user"]["username"] == "system:serviceaccount:central:bot"
    some = {"spec": {"token": token, "audiences": ["other", "vault"]}}
    assert (await world.admin.post(review, some)).ok(201)["status"]["audiences"] == ["vault"]
    wrong = (await world.admin.post(review, {"spec": {"token": "x"}})).ok(201)
    assert wrong["status"] == {"authenticated": False, "error": "the token is not valid here"}
    (await world.admin.reader().post(review, {"spec": {"token": token}})).refused(403)


async def test_a_token_without_audiences_is_for_this_api_alone(world: World) -> None:
    (await world.admin.post(f"{V1}/users", {"metadata": {"name": "tom"}})).ok(201)
    token = (await world.admin.post(f"{V1}/users/tom/token", {})).ok(201)["status"]["token"]
    review = "/apis/authentication.k8s.io/v1/tokenreviews"
    here = (await world.admin.post(review, {"spec": {"token": token}})).ok(201)["status"]
    assert here["user"]["username"] == "tom" and here["audiences"] == [ISSUER]
    there = (await world.admin.post(review, {"spec": {"token": token, "audiences": ["vault"]}})).ok(201)
    assert there["status"] == {"authenticated": False, "error": "the token is not valid here"}


async def test_requests_that_make_no_sense(world: World) -> None:
    await world.account()
    path = f"{ACCOUNTS}/bot/token"
    for spec in (
        {"expirationSeconds": 1},
        {"audiences": [""]},
        {"audiences": "x"},
        {"audiences": ["a"] * 17},
    ):
        (await world.admin.post(path, {"spec": spec})).refused(400)
    (await world.admin.post(path, {"spec": {"boundObjectRef": {"kind": "Pod"}}})).refused(
        400, "boundObjectRef"
    )
    (await world.admin.post(f"{ACCOUNTS}/none/token", {})).refused(404, 'serviceaccounts "none" not found')
    (await world.admin.reader().post(path, {})).refused(403, "serviceaccounts/token")


async def test_keys_rotate_and_old_ones_verify_as_long_as_they_must(world: World) -> None:
    await world.account()
    first = await world.token(expirationSeconds=3600)
    long = await world.token(expirationSeconds=40 * 86400)
    assert unverified(first)[0]["kid"] == unverified(long)[0]["kid"]
    before = world.store.revision
    await world.token(expirationSeconds=7200)
    assert world.store.revision == before, "signing again writes nothing"
    world.now[0] += accounts.ROTATE
    fresh = await world.token()
    assert unverified(fresh)[0]["kid"] != unverified(long)[0]["kid"]
    for token in (long, fresh):
        (await world.try_(token)).ok()
    keys = (await world.admin.get("/openid/v1/jwks")).ok()["keys"]
    assert {k["kid"] for k in keys} == {unverified(t)[0]["kid"] for t in (long, fresh)}
    world.now[0] += timedelta(days=31)
    last = await world.token()
    (await world.try_(long)).refused(401)
    kept = {k.metadata.name for k in await world.store.every(SigningKey)}
    assert unverified(long)[0]["kid"] not in kept and unverified(last)[0]["kid"] in kept


async def test_others_verify_with_what_is_published(world: World) -> None:
    await world.account()
    token = await world.token(audiences=["vault"])
    published: Any = (await world.admin.get("/openid/v1/jwks")).ok()
    assert all("d" not in key for key in published["keys"])
    assert jwt.decode(token, KeySet.import_key_set(published), algorithms=["ES256"]).claims["aud"] == [
        "vault"
    ]
    about = (await world.admin.get("/.well-known/openid-configuration")).ok()
    assert about["issuer"] == ISSUER and about["jwks_uri"].endswith("/openid/v1/jwks")
    (await world.admin.reader().get("/openid/v1/jwks")).refused(403, 'cannot get path "/openid/v1/jwks"')


async def test_two_processes_sign_and_verify_alike(world: World, tmp_path: Path) -> None:
    await world.account()
    other = World(world.store, world.now)
    token = await world.token()
    (await other.try_(token)).ok()
    assert unverified(await other.token())[0]["kid"] == unverified(token)[0]["kid"]


async def test_keys_are_sealed_where_there_is_a_vault(world: World, tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "keys", write_private, START)
    context = ApiContext(store=world.store, cloud="central", clock=lambda: world.now[0], vault=vault)
    bare, world.admin = world.admin, Client(Api(context))
    await world.account()
    token = await world.token()
    (await world.try_(token)).ok()
    assert (await world.key()).spec.private_key.startswith(SEALED)
    assert (await world.admin.get("/openid/v1/jwks")).ok()["keys"]
    (await bare.bearing(token).get("/apis")).refused(401)
    (await bare.get("/openid/v1/jwks")).refused(503, "no keys for secret values")
    (await bare.post(f"{ACCOUNTS}/bot/token", {})).refused(503)


# -- forgeries


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_forgeries(world: World) -> None:
    await world.account()
    good = await world.token()
    key = await world.key()
    header, claims = unverified(good)
    (await world.try_(good)).ok()
    real = ECKey.import_key(key.spec.private_key)
    other = ECKey.generate_key("P-256")
    public = serialization.load_pem_private_key(key.spec.private_key.encode(), None).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def signed(changes: dict[str, Any], heading: dict[str, Any] | None = None, by: ECKey = real) -> str:
        made = {k: v for k, v in {**claims, **changes}.items() if v is not None}
        return str(jwt.encode({**header, **(heading or {})}, made, by, algorithms=["ES256"]))

    confused = f"{_part({**header, 'alg': 'HS256'})}.{good.split('.')[1]}"
    mac = hmac.HMAC(pem, hashes.SHA256())
    mac.update(confused.encode())
    hs256 = f"{confused}.{base64.urlsafe_b64encode(mac.finalize()).rstrip(b'=').decode()}"
    moment = int(world.now[0].timestamp())
    (await world.try_(signed({}))).ok()
    private = claims["kubernetes.io"]
    for forged in (
        f"{_part({**header, 'alg': 'none'})}.{good.split('.')[1]}.",
        f"{_part({**header, 'alg': 'none'})}.{good.split('.')[1]}.{good.split('.')[2]}",
        hs256,
        signed({}, by=other),
        signed({}, {"kid": "another"}),
        signed({}, {"kid": ""}),
        signed({"iss": "https://elsewhere"}),
        signed({"aud": ["elsewhere"]}),
        signed({"aud": None}),
        signed({"aud": {"a": 1}}),
        signed({"exp": moment - 1}),
        signed({"exp": None}),
        signed({"exp": str(moment + 100)}),
        signed({"exp": True}),
        signed({"nbf": moment + 60}),
        signed({"kubernetes.io": None}),
        signed({"kubernetes.io": {**private, "serviceaccount": {"name": "bot", "uid": "other"}}}),
        signed({"kubernetes.io": {**private, "serviceaccount": {"name": "bot"}}}),
        signed({"kubernetes.io": {**private, "namespace": "elsewhere"}}),
        good[:-1],
        good[:-20],
        ".".join(good.split(".")[:2]) + ".",
        ".".join([good.split(".")[0], _part({**claims, "sub": "system:admin"}), good.split(".")[2]]),
        "..",
        "a.b.c",
        "x" * 20_000 + "..",
    ):
        refused = (await world.try_(forged)).refused(401)
        assert "wrong, used or expired" in refused["message"], forged[:80]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.text(max_size=30), min_size=3, max_size=3).map(".".join)))
def test_any_text_is_a_jwt_or_not(text: str) -> None:
    try:
        header, claims = unverified(text)
    except Unfit:
        return
    assert isinstance(header, dict) and isinstance(claims, dict)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "nbf"]),
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.lists(st.text())),
    )
)
def test_any_claims_are_judged(claims: dict[str, Any]) -> None:
    try:
        accounts.check_claims(claims, ISSUER, [ISSUER], START)
    except BadCredential:
        return
    assert claims["iss"] == ISSUER and claims["exp"] > START.timestamp()


# -- static tokens


def test_a_token_file_is_read() -> None:
    text = '# people\nsecret1,ada,1,"roost:administrators,crew"\n\nsecret2,rita,2\n'
    found = sorted(parse(text).values(), key=lambda c: c.name)
    assert found == [Caller("ada", [ADMINISTRATORS, "crew"], "1"), Caller("rita", [], "2")]


@pytest.mark.parametrize("text", ["a", "a,b", ",b,c", "a,,c", "a,b,c\na,d,e"])
def test_token_files_that_make_no_sense(text: str) -> None:
    with pytest.raises(BadTokenFile, match="line"):
        parse(text)


async def test_static_tokens(store: Store, tmp_path: Path) -> None:
    path, now = tmp_path / "tokens.csv", [0.0]
    path.write_text(f'first,ada,1,"{ADMINISTRATORS}"\nsecond,rita,2,{READERS}\n')
    file = TokenFile(path, lambda: now[0])
    client = Client(Api(ApiContext(store=store, cloud="central", authenticate=[file])))
    (
        await client.bearing("first").post(
            "/api/v1/namespaces/central/serviceaccounts", {"metadata": {"name": "b"}}
        )
    ).ok(201)
    (await client.bearing("second").get(HOSTS)).ok()
    (await client.bearing("second").delete(HOSTS)).refused(403)
    (await client.bearing("third").get(HOSTS)).refused(401)
    path.write_text("third,tom,3,roost:readers\n")
    (await client.bearing("first").get(HOSTS)).ok()
    now[0] += 1.5
    (await client.bearing("first").get(HOSTS)).refused(401)
    (await client.bearing("third").get(HOSTS)).ok()
    path.write_text("broken")
    now[0] += 1.5
    (await client.bearing("third").get(HOSTS)).refused(401)
    path.unlink()
    now[0] += 1.5
    (await client.bearing("third").get(HOSTS)).refused(401)
