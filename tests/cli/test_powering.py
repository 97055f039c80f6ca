"""`roost host board` and `roost host power` against a real API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.cloud import admission
from roost.model.cloud import Cloud, CloudSpec
from roost.model.host import Host, HostStatus
from roost.model.meta import Metadata
from roost.model.power import PowerStatus
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

CLOUD = "harbor"
pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """A cloud with two locked hosts."""
    with ApiServer(tmp_path, cloud=CLOUD, rules=admission.rules(CLOUD, "")) as running:
        running.do(running.store.transact(_furnish))
        yield running


def _furnish(tx: Transaction) -> None:
    tx.save(Cloud(metadata=Metadata(name=CLOUD), spec=CloudSpec(system_mode="standard")))
    for name in ("worker-0", "worker-1"):
        tx.save(Host(metadata=Metadata(name=name, namespace=CLOUD)))


def _power(server: ApiServer, power: PowerStatus) -> None:
    def work(tx: Transaction) -> None:
        host = tx.load(Host, CLOUD, "worker-0")
        tx.report(Host(metadata=host.metadata, spec=host.spec, status=HostStatus(power=power)))

    server.do(server.store.transact(work))


def test_a_board_controller_is_made_known_and_forgotten(roost: Roost) -> None:
    done = roost("host", "board", "worker-0", "https://192.0.2.7", "--secret", "board-0")
    assert done.code == 0 and "roost host power show worker-0" in done.out
    told = json.loads(roost("host", "show", "worker-0", "-o", "json").out)["spec"]["boardController"]
    assert (told["address"], told["secret"]) == ("https://192.0.2.7", "board-0")
    assert roost("host", "board", "worker-0", "none").code == 0
    told = json.loads(roost("host", "show", "worker-0", "-o", "json").out)["spec"]
    assert told.get("boardController") is None


def test_what_is_no_way_is_refused_and_changes_nothing(roost: Roost, tmp_path: Path) -> None:
    bad = roost("host", "board", "worker-0", "http://192.0.2.7")
    assert bad.code == 1 and "https" in bad.err
    missing = roost("host", "board", "worker-0", "https://192.0.2.7", "--ca-file", str(tmp_path / "none"))
    assert missing.code == 2 and "can't be read" in missing.err
    assert "boardController" not in json.loads(roost("host", "show", "worker-0", "-o", "json").out)["spec"]


def test_power_needs_a_board_controller_and_names_how_to_tell_of_it(roost: Roost) -> None:
    refused = roost("host", "power", "on", "worker-0", "--no-wait")
    assert refused.code == 1
    assert "has no board controller" in refused.err and "roost host board worker-0" in refused.err


def test_power_is_an_operation(roost: Roost) -> None:
    assert roost("host", "board", "worker-0", "https://192.0.2.7").code == 0
    assert roost("host", "power", "reset", "worker-0", "--boot", "network", "--no-wait").code == 0
    (made,) = json.loads(roost("operation", "list", "-o", "json").out)["items"]
    assert made["spec"]["action"] == "reset" and made["spec"]["boot"] == "network"
    again = roost("host", "power", "off", "worker-0", "--no-wait")
    assert again.code == 1 and "is at work on worker-0" in again.err


def test_power_is_shown_with_what_is_wrong(roost: Roost, server: ApiServer) -> None:
    _power(
        server,
        PowerStatus(
            state="unknown",
            since="2026-01-01T00:00:00Z",
            reachable="no",
            reachable_since="2026-01-01T00:00:00Z",
            message="it can't be reached; check its cable",
        ),
    )
    shown = roost("host", "power", "show", "worker-0", "worker-1")
    assert "worker-0: unknown for" in shown.out and "check its cable" in shown.out
    assert "worker-1: no board controller is known" in shown.out
    data = json.loads(roost("host", "power", "show", "worker-0", "-o", "json").out)
    assert data[0]["host"] == "worker-0" and data[0]["power"]["state"] == "unknown"
