"""`roost secrets` over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from roost.engine.vault import Vault
from roost.link.files import write_private
from tests.cli.conftest import Roost
from tests.support.api import ApiServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    vault = Vault.open(tmp_path / "vault" / "keys", write_private, datetime.now(UTC))
    with ApiServer(tmp_path, vault=vault) as running:
        yield running


def add(server: ApiServer, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": "s3cret"}}
    done = server.kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr


def test_keys_are_rotated_and_dropped(
    roost: Roost, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.api.rotating.TOGETHER", 2)
    for n in range(5):
        add(server, f"s{n}")
    former = json.loads(roost("secrets", "keys", "-o", "json").out)["active"]
    rotated = roost("secrets", "rotate")
    assert rotated.code == 0, rotated.err
    assert "5 values are sealed anew" in rotated.out and "2 of 5" in rotated.err
    listed = roost("secrets", "keys")
    assert former in listed.out and "former" in listed.out and "active" in listed.out
    assert roost("secrets", "drop", former).code == 0
    assert former not in roost("secrets", "keys").out
    assert roost("secrets", "drop", "nonsense").code == 1


def test_an_interrupted_rotation_is_gone_on_with(
    roost: Roost, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        add(server, f"s{n}")
    done = server.kubectl("create", "--raw", "/keys", "-f", "-", stdin="{}")
    assert done.returncode == 0, done.stderr
    before = json.loads(roost("secrets", "keys", "-o", "json").out)
    assert len(before["keys"]) == 2
    rotated = roost("secrets", "rotate")
    assert rotated.code == 0 and "going on with it" in rotated.err and "3 values" in rotated.out
    after = json.loads(roost("secrets", "keys", "-o", "json").out)
    assert after["active"] == before["active"]
