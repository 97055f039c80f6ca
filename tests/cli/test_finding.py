"""`roost find` against a real API on a real store."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from roost.cli import finding
from roost.sim.crowd import things
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

HEAD = {"apiVersion": "roost.edge/v1", "kind": "Subcloud"}


@pytest.fixture
def fleet(server: ApiServer) -> ApiServer:
    """Four subclouds with two hosts each; one host is degraded, one has an alarm."""
    server.do(server.store.transact(_fleet))
    return server


def _fleet(tx: Transaction) -> None:
    for n, site in enumerate(("coast", "dam", "east", "farm")):
        region = {"region": "north" if n < 2 else "south"}
        spec = {"group": "even" if n % 2 == 0 else "odd"}
        status = {"sync": "out-of-sync" if site == "dam" else "in-sync", "version": f"0.{9 + n}"}
        tx.create({**HEAD, "metadata": {"name": site, "labels": region}, "spec": spec, "status": status})
        for entry in things.base(site, 2):
            raw: dict[str, Any] = msgspec.json.decode(entry.data)
            if site == "east" and raw["metadata"]["name"] == "controller-1":
                raw["status"]["availability"] = "degraded"
            if entry.kind == "Host":
                raw["status"]["inventory"]["memory"]["total"] = 65536
            tx.copy(raw, f"down:{site}")
    tx.copy(msgspec.json.decode(things.alarm("dam", 0, severity="critical").data), "down:dam")


def test_hosts_are_found_in_all_clouds(fleet: ApiServer, roost: Roost) -> None:
    found = roost("find", "hosts", "availability!=available", "memory>=64Gi")
    assert found.code == 0, found.err
    head, row = found.out.splitlines()
    assert head.split() == ["CLOUD", "NAME", "AVAILABILITY", "MEMORY", "MIB"]
    assert row.split() == ["east", "controller-1", "degraded", "65536"]
    assert len(roost("find", "hosts", "-l", "region=north").out.splitlines()) == 5
    assert len(roost("find", "hosts", "--in-group", "odd", "--no-headers").out.splitlines()) == 4
    assert len(roost("find", "hosts", "-n", "dam", "--no-headers").out.splitlines()) == 2


def test_subclouds_and_alarms_are_found(fleet: ApiServer, roost: Roost) -> None:
    found = roost("find", "subclouds", "sync=out-of-sync", "version<0.11", "-o", "name")
    assert found.out == "subcloud/dam\n"
    alarms = roost("find", "alarms", "severity=critical", "id=100.104", "-o", "json")
    assert json.loads(alarms.out) == [
        {"cloud": "dam", "name": "simulated-0", "severity": "critical", "id": "100.104"}
    ]
    assert roost("find", "alarms", "severity=major").err == "No alarms are so.\n"
    assert roost("find", "hosts", "availability=degraded", "-o", "name").out == "east/host/controller-1\n"


def test_objects_are_counted_and_added_up(fleet: ApiServer, roost: Roost) -> None:
    counted = roost("find", "hosts", "--count-by", "availability", "--sum", "memory,threads", "-o", "json")
    first, second = json.loads(counted.out)
    assert (first["availability"], first["count"], first["memory"]) == ("available", 7, 7 * 65536)
    assert (second["availability"], second["count"], second["notKnown"]) == ("degraded", 1, 0)
    table = roost("find", "subclouds", "--count-by", "version")
    assert table.out.splitlines()[0].split() == ["VERSION", "COUNT"]
    assert roost("find", "subclouds", "--count-by", "sync", "-o", "name").out == "in-sync\nout-of-sync\n"


def test_a_limited_answer_goes_on(fleet: ApiServer, roost: Roost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "PAGE", 3)
    whole = roost("find", "hosts", "--show", "availability", "--no-headers").out.splitlines()
    assert len(whole) == 8
    first = roost("find", "hosts", "--show", "availability", "--no-headers", "--limit", "5")
    token = first.err.split("--continue ")[1].strip()
    rest = roost("find", "hosts", "--show", "availability", "--no-headers", "--continue", token)
    assert rest.err == ""
    both = [line.split() for line in (*first.out.splitlines(), *rest.out.splitlines())]
    assert both == [line.split() for line in whole]


def test_fields_are_told(fleet: ApiServer, roost: Roost) -> None:
    told = roost("find", "hosts", "--fields").out
    assert "inventory.memory.total" in told and "MiB" in told
    assert any(
        f["field"] == "availability" for f in json.loads(roost("find", "ho", "--fields", "-o", "json").out)
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("hosts", "avalability=x"), "no field 'avalability'; nearest are availability"),
        (("hosts", "memory>=64X"), "'X' is no unit of it; it is in MiB"),
        (("hosts", "memory>"), "takes one value"),
        (("hosts", "availability=avail"), "did you mean available?"),
        (("hosts", "--limit", "-1"), "is below 0"),
        (("hots",), "did you mean hosts?"),
    ],
)
def test_what_makes_no_sense_is_told_apart(
    fleet: ApiServer, roost: Roost, words: tuple[str, ...], says: str
) -> None:
    found = roost("find", *words)
    assert found.code != 0 and says in found.err, found.err
    assert found.out == ""
