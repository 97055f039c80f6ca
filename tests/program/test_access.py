"""The administrator's kubeconfig, and the tokens a cloud hands out."""

from __future__ import annotations

import base64
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from roost.api.access import ADMINISTRATORS
from roost.api.context import ApiContext
from roost.cli import kubeconfig
from roost.engine.admission import Refused
from roost.link import exchange, pki, token
from roost.model.cloud import Subcloud
from roost.model.meta import Metadata
from roost.program import access
from roost.store.errors import NotFound
from roost.store.store import Store
from tests.support.clock import START

CALLER = exchange.Caller("admin", [ADMINISTRATORS])


def _authority() -> pki.Authority:
    return pki.Authority.create("harbor", START)


def _certificate(path: Path) -> bytes:
    _, raw = kubeconfig.read(path)
    return base64.b64decode(raw["users"][0]["user"]["client-certificate-data"])


def test_the_kubeconfig_is_private_and_names_the_cloud(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    access.keep_kubeconfig(path, "harbor", "127.0.0.1:7443", _authority(), START)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config, _ = kubeconfig.read(path)
    target = kubeconfig.choose(config, path, "")
    assert (target.name, target.server, target.namespace) == ("harbor", "https://127.0.0.1:7443", "harbor")


def test_the_kubeconfig_is_kept_while_it_serves(tmp_path: Path) -> None:
    path, authority = tmp_path / "kubeconfig", _authority()

    def kept(address: str, authority: pki.Authority, days: int) -> bytes:
        access.keep_kubeconfig(path, "harbor", address, authority, START + timedelta(days=days))
        return _certificate(path)

    first = kept("127.0.0.1:1", authority, 0)
    assert kept("127.0.0.1:1", authority, 200) == first
    moved = kept("127.0.0.1:2", authority, 200)
    assert moved != first
    renewed = kept("127.0.0.1:2", authority, 500)
    assert renewed != moved
    assert kept("127.0.0.1:2", _authority(), 500) != renewed
    path.write_text("not yaml: [")
    assert kept("127.0.0.1:2", authority, 500)


async def _enrol(store: Store, endpoints: list[str], body: dict[str, object]) -> str:
    authority = _authority()
    handlers = access.enrolment_subresources("central", authority, lambda: endpoints)
    context = ApiContext(store=store, cloud="central", clock=lambda: START)
    answer = await handlers["subclouds", "enrolment"](context, CALLER, "", "harbor", body)
    text: str = answer["status"]["token"]
    made = token.decode(text)
    assert made.ca == authority.pin
    assert made.endpoints == endpoints
    return text


async def test_a_token_carries_endpoints_pin_and_secret(store: Store) -> None:
    await store.save(Subcloud(metadata=Metadata(name="harbor")))
    first = await _enrol(store, ["192.0.2.1:7444"], {})
    assert first != await _enrol(store, ["192.0.2.1:7444"], {"spec": {"expirationSeconds": 60}})


@pytest.mark.parametrize("seconds", [0, 59, 31 * 86400, "soon", True, None])
async def test_a_token_lives_within_bounds(store: Store, seconds: object) -> None:
    await store.save(Subcloud(metadata=Metadata(name="harbor")))
    with pytest.raises(Refused, match="ask for 60"):
        await _enrol(store, ["192.0.2.1:7444"], {"spec": {"expirationSeconds": seconds}})


async def test_no_token_for_what_is_not_declared(store: Store) -> None:
    with pytest.raises(NotFound):
        await _enrol(store, ["192.0.2.1:7444"], {})


async def test_no_token_where_no_link_is_taken(store: Store) -> None:
    await store.save(Subcloud(metadata=Metadata(name="harbor")))
    with pytest.raises(Refused, match="--link-address"):
        await _enrol(store, [], {})
