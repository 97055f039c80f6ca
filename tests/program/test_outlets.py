"""Outlets through the API: what is refused, who may test one, what a test answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roost.api.access import ADMINISTRATORS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity.shipped import GROUPS
from roost.cloud.outlets import admission
from roost.engine.vault import Vault
from roost.link.files import write_private
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.program.outlets import test_subresource as subresource
from roost.store.store import Store
from tests.api.client import V1, Client
from tests.cloud.outlets.receivers import receiver

OUTLETS = f"{V1}/namespaces/harbor/alarmoutlets"


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Client]:
    vault = Vault.open(tmp_path / "keys", write_private, datetime.now(UTC))
    store = await Store.open(f"sqlite:///{tmp_path / 'store.db'}", inline=True)
    await store.save(Cloud(metadata=Metadata(name="harbor")))
    context = ApiContext(
        store=store,
        cloud="harbor",
        vault=vault,
        rules=admission.rules("harbor"),
        subresources=subresource(),
    )
    yield Client(Api(context), "ada", (ADMINISTRATORS,))
    await store.close()


def outlet(name: str = "noc", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "roost.edge/v1",
        "kind": "AlarmOutlet",
        "metadata": {"name": name},
        "spec": {"type": "webhook", "endpoint": "https://noc.example/in"} | spec,
    }


async def test_a_secret_of_another_type_can_t_be_sent_anywhere(asked: Client) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db"},
        "stringData": {"token": "hush"},
    }
    (await asked.post("/api/v1/namespaces/harbor/secrets", secret)).ok(201)
    answer = await asked.post(OUTLETS, outlet(secret="db"))
    answer.refused(422, "spec.secret", "type Opaque", "roost.edge/outlet")
    assert b"hush" not in answer.body


async def test_authorities_that_can_t_be_read_are_refused(asked: Client) -> None:
    bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (await asked.post(OUTLETS, outlet(caBundle=bundle))).refused(422, "spec.caBundle", "PEM")


async def test_outlets_are_bounded(asked: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST", 2)
    for n in range(2):
        (await asked.post(OUTLETS, outlet(f"noc{n}"))).ok(201)
    (await asked.post(OUTLETS, outlet("one-more"))).refused(403, "harbor has 2 outlets")


async def test_operators_test_outlets_and_readers_do_not(asked: Client) -> None:
    async with receiver() as there:
        (await asked.post(OUTLETS, outlet(endpoint=f"http://127.0.0.1:{there.port}/"))).ok(201)
        operator = Client(asked.app, "otto", (GROUPS["operator"],))
        told = (await operator.post(f"{OUTLETS}/noc/test", {})).ok(201)["status"]
        assert told["ok"] and [s["name"] for s in told["steps"]][-1] == "answer"
        assert there.messages[-1]["what"] == "test"
        (await asked.reader().post(f"{OUTLETS}/noc/test", {})).refused(403)
        (await operator.post(f"{OUTLETS}/nobody/test", {})).refused(404)
