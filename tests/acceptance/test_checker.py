"""The judge itself: it passes what is right and names each thing that is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.acceptance import checker
from tests.acceptance.checker import Raw, View, Write


def item(kind: str, name: str, namespace: str = "ridge", **parts: Any) -> Raw:
    meta = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1", "generation": 1}
    return {"kind": kind, "metadata": meta, **parts}


def world() -> list[Raw]:
    status = {
        "administrative": "locked",
        "operational": "disabled",
        "availability": "online",
        "connected": True,
        "readings": [{"monitor": "processor", "level": "major"}],
    }
    return [
        item(
            "Host", "controller-1", spec={"administrativeState": "locked", "personalities": []}, status=status
        ),
        item("Alarm", "a", status={"alarmId": "200.001", "entity": "host=controller-1"}),
        item("Alarm", "b", status={"alarmId": "100.101", "entity": "host=controller-1"}),
        *(item("LogEntry", f"log.{n:010}", status={"source": "ridge", "sequence": n}) for n in (1, 2, 3)),
        item("Operation", "lock-1", spec={}, status={"state": "succeeded"}),
    ]


def judged(items: list[Raw]) -> list[str]:
    view = View(items)
    return [
        *checker.alarms(view, "ridge", set()),
        *checker.history(view, "ridge"),
        *checker.hosts(view, "ridge"),
    ]


def test_a_world_that_is_right_has_no_problems() -> None:
    assert judged(world()) == []
    assert checker.mirrored(View(world()), View(world()), "ridge") == {}


def change(number: int, path: str, value: Any) -> list[Raw]:
    items = copy.deepcopy(world())
    inner = items[number]
    *way, last = path.split(".")
    for name in way:
        inner = inner[name]
    inner[last] = value
    return items


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (world()[:1] + world()[2:], "('200.001', 'host=controller-1') is not raised"),
        (
            change(1, "status.alarmId", "280.001"),
            "('280.001', 'host=controller-1') is raised without a cause",
        ),
        (change(2, "status.alarmId", "200.001"), "stands twice"),
        (change(1, "status.staleSince", "2026-01-01T00:00:00Z"), "is stale"),
        (world()[:4] + world()[5:], "[2] are missing"),
        (change(0, "spec.administrativeState", "unlocked"), "should be ('unlocked', 'enabled'"),
        (change(0, "status.task", "lock"), "task 'lock'"),
        (change(6, "status.state", "running"), "operation ridge/lock-1 is running"),
    ],
)
def test_each_thing_that_is_wrong_is_named(items: list[Raw], problem: str) -> None:
    assert any(problem in one for one in judged(items)), judged(items)


def test_a_mirror_that_differs_lacks_or_has_more_is_named() -> None:
    site, key = View(world()), ("Host", "ridge", "controller-1")
    differs = checker.mirrored(View(change(0, "status.availability", "offline")), site, "ridge")
    assert "status.availability is 'online' at ridge, 'offline' at the centre" in differs[key]
    assert "is not at the centre" in checker.mirrored(View(world()[1:]), site, "ridge")[key]
    assert "not at ridge" in checker.mirrored(site, View(world()[1:]), "ridge")[key]


def test_a_lost_write_is_named_where_it_is_lost() -> None:
    key = ("Host", "ridge", "controller-1")
    write = Write("ridge", key, lambda seen: bool(seen and seen["spec"].get("location") == "x"), "location x")
    lost = View(world())
    there = View(change(0, "spec.location", "x"))
    assert checker.kept([write], there, {"ridge": there}) == []
    assert [p.split(";")[0] for p in checker.kept([write], lost, {"ridge": there})] == [
        "lost at the centre: location x"
    ]
    assert len(checker.kept([write], lost, {"ridge": lost})) == 2


@pytest.mark.parametrize(
    ("rules", "port", "source", "through"),
    [
        ([], 22, "10.2.0.1", False),
        ([{"action": "allow", "protocol": "tcp", "ports": ["20-30"]}], 22, "10.2.0.1", True),
        ([{"action": "allow", "protocol": "udp", "ports": ["22"]}], 22, "10.2.0.1", False),
        ([{"action": "allow", "peers": ["10.2.0.0/24"]}], 22, "10.2.0.1", True),
        ([{"action": "allow", "peers": ["10.3.0.0/24"]}], 22, "10.2.0.1", False),
        ([{"action": "deny"}, {"action": "allow"}], 22, "10.2.0.1", False),
        ([{"action": "allow", "direction": "egress"}], 22, "10.2.0.1", False),
    ],
)
def test_what_policies_let_through_is_judged_by_the_first_rule_that_matches(
    rules: list[Raw],
    port: int,
    source: str,
    through: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert checker._verdict(rules, port, source, default=False) is through
