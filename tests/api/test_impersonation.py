"""Acting as another: headers, rights, and what is known of the real one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.api.access import ADMINISTRATORS, READERS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import impersonation
from roost.api.identity.impersonation import Asked
from roost.api.status import ApiError
from roost.link.exchange import Caller
from roost.model.access import User, UserSpec
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import HOSTS, Client, host
from tests.api.test_rbac import RBAC, binding_body, role_body, rule

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def headers(**given: str) -> list[tuple[bytes, bytes]]:
    return [(f"impersonate-{k.replace('_', '-')}".encode(), v.encode()) for k, v in given.items()]


def test_what_headers_ask_for() -> None:
    assert impersonation.asked([(b"accept", b"x")]) is None
    found = impersonation.asked(
        [*headers(user="ann", uid="7"), *headers(group="a"), *headers(group="b"), *headers(extra_scopes="x")]
    )
    assert found == Asked(user="ann", groups=("a", "b"), uid="7", extra=(("scopes", ("x",)),))


@pytest.mark.parametrize(
    "given",
    [
        headers(group="a"),
        headers(uid="7"),
        headers(user=""),
        headers(user="a") + headers(user="b"),
        headers(user="a", nonsense="b"),
        headers(user="a", extra_=""),
        [(b"impersonate-user", b"\xff")],
        headers(user="a") + headers(group="g") * 64,
    ],
)
def test_headers_that_make_no_sense(given: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ApiError) as raised:
        impersonation.asked(given)
    assert raised.value.code == 400


@given(
    st.lists(st.tuples(st.sampled_from([b"user", b"group", b"uid", b"extra-x", b"x"]), st.binary(max_size=9)))
)
def test_any_headers_are_read_or_refused(given: list[tuple[bytes, bytes]]) -> None:
    try:
        found = impersonation.asked([(b"impersonate-" + k, v) for k, v in given])
    except ApiError as error:
        assert error.code == 400
    else:
        assert found is None or (found.user and list(impersonation.needed(found)))


async def whoami(client: Client) -> dict[str, Any]:
    info: dict[str, Any] = (await client.post(WHO, {})).ok(201)["status"]["userInfo"]
    return info


async def test_an_administrator_acts_as_others(client: Client, store: Store) -> None:
    await store.save(User(metadata=Metadata(name="rita"), spec=UserSpec(role="reader")))
    rita = client.local("ada", ADMINISTRATORS).sending(impersonate_user="rita")
    assert await whoami(rita) == {"username": "rita", "groups": [READERS, "system:authenticated"]}
    (await rita.get(HOSTS)).ok()
    (await rita.post(HOSTS, host("h1"))).refused(403, 'User "rita" cannot create')
    both = client.sending(("impersonate-group", "a"), ("impersonate-group", "b"), impersonate_user="x")
    assert (await whoami(both))["groups"] == ["a", "b", "system:authenticated"]
    more = client.sending(impersonate_user="x", impersonate_uid="u-1", impersonate_extra_scopes="view")
    assert (await whoami(more))["extra"] == {"scopes": ["view"]} and (await whoami(more))["uid"] == "u-1"
    bot = client.sending(impersonate_user="system:serviceaccount:central:bot")
    assert "system:serviceaccounts:central" in (await whoami(bot))["groups"]


async def test_acting_as_others_takes_the_right(client: Client) -> None:
    (await client.reader().sending(impersonate_user="ada").get(HOSTS)).refused(
        403, 'users "ada" is forbidden', "cannot impersonate"
    )
    rules = [
        rule("impersonate", "users", groups="", names="ann"),
        rule("impersonate", "groups", groups="", names="crew"),
        rule("impersonate", "userextras/scopes", groups="authentication.k8s.io", names="view"),
    ]
    (await client.post(f"{RBAC}/clusterroles", role_body("actor", *rules))).ok(201)
    (await client.post(f"{RBAC}/clusterrolebindings", binding_body("actor", "actor", "eve"))).ok(201)
    eve = client.local("eve")
    assert (await whoami(eve.sending(impersonate_user="ann")))["username"] == "ann"
    assert "crew" in (await whoami(eve.sending(impersonate_user="ann", impersonate_group="crew")))["groups"]
    fine = eve.sending(impersonate_user="ann", impersonate_extra_scopes="view")
    assert (await whoami(fine))["extra"] == {"scopes": ["view"]}
    for refused in (
        {"impersonate_user": "bob"},
        {"impersonate_user": "ann", "impersonate_group": ADMINISTRATORS},
        {"impersonate_user": "ann", "impersonate_uid": "1"},
        {"impersonate_user": "ann", "impersonate_extra_scopes": "edit"},
        {"impersonate_user": "system:serviceaccount:central:bot"},
    ):
        (await eve.sending(**refused).get("/apis")).refused(403, "cannot impersonate")


async def test_disabled_users_are_nobody_to_act_as(client: Client, store: Store) -> None:
    await store.save(User(metadata=Metadata(name="tom"), spec=UserSpec(disabled=True)))
    (await client.sending(impersonate_user="tom").get("/apis")).refused(403, "is disabled")


async def test_the_real_user_goes_along_and_headers_do_not(store: Store) -> None:
    seen: list[Any] = []

    async def call(cloud: str, request: Any) -> Any:
        seen.append(request)
        raise RuntimeError("stop here")

    client = Client(Api(ApiContext(store=store, cloud="central", call_cloud=call)))
    await store.save(User(metadata=Metadata(name="rita"), spec=UserSpec(role="reader")))
    ada = client.local("ada", ADMINISTRATORS)
    await ada.sending(impersonate_user="rita").get("/clouds/harbor/apis")
    sent = seen[0]
    assert (sent.caller.name, sent.caller.by, sent.caller.groups) == ("rita", "ada", [READERS])
    assert not any(name.startswith("impersonate") for name, _ in sent.headers)
    assert type(sent.caller) is Caller
