"""Today's code at one end of a link, a recorded peer at the other: of this version, of an older one, and of
versions that do not exist yet.

The older and newer peers two releases away are MADE from recordings (`older`, `newer`), not recorded: they
show that today's code bears what such peers may do, not what they will.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from roost.link import messages
from roost.link.messages import Hello
from roost.store.store import Store
from tests.link.recording import RECORDED, SCENARIOS, Line, Meaning, Replay, Side, frame, load, plain
from tests.link.world import find, run

VERSIONS = sorted(folder.name for folder in RECORDED.iterdir() if folder.is_dir())
CASES = [
    pytest.param(version, scenario, live, id=f"{live} against {version} {scenario}")
    for version in VERSIONS
    for scenario in SCENARIOS
    for live in ("lower", "upper")
]


async def nothing_more(_: Store) -> None:
    """Where the conversation alone is looked at."""


def replayed(path: Path, lines: list[Line], scenario: str, live: Side, then: Any = nothing_more) -> list[str]:
    """What differs in what today's end says."""
    replay = Replay(lines, live)
    run(lambda: replay.run(path, SCENARIOS[scenario][0], then))
    return replay.differences


def test_every_scenario_of_every_version_is_there() -> None:
    assert "0.1.0" in VERSIONS
    for version in VERSIONS:
        assert {p.stem for p in (RECORDED / version).glob("*.jsonl")} == {*SCENARIOS, "enrolment"}


@pytest.mark.parametrize("version, scenario, live", CASES)
def test_today_s_end_says_to_a_recorded_peer_what_was_said_then(
    tmp_path: Path, version: str, scenario: str, live: Side
) -> None:
    assert replayed(tmp_path, load(version, scenario), scenario, live) == []


def test_recordings_hold_what_they_are_for() -> None:
    said = [line["message"] for s in SCENARIOS for line in load("0.1.0", s) if "message" in line]
    types = {message["type"] for message in said}
    assert types >= {
        "hello",
        "entries",
        "acknowledge",
        "again",
        "heartbeat",
        "echo",
        "call",
        "answer",
        "body",
    }
    assert types >= {"end", "goodbye"}
    calls = [m for m in said if m["type"] == "call"]
    assert any(
        m.get("uid") == "u-1" and m["by"] == "root" and m["extra"] == {"scopes": ["site"]} for m in calls
    )
    assert any(m.get("returning") for m in said if m["type"] == "goodbye")
    assert any(m.get("refused") for m in said)
    assert any(m["taken_revision"] > 0 for m in said if m["type"] == "hello")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_difference_that_matters_is_found(tmp_path: Path, version: str) -> None:
    lines = load(version, "subcloud")
    status = next(n for n, one in enumerate(lines) if '"hosts": 1' in json.dumps(one))
    lines[status] = json.loads(json.dumps(lines[status]).replace('"hosts": 1', '"hosts": 2'))
    (found,) = replayed(tmp_path, lines, "subcloud", "lower")
    assert "status.hosts is 1, was 2" in found


def test_frames_and_lines_are_the_same() -> None:
    for scenario in SCENARIOS:
        for line in load("0.1.0", scenario):
            if "message" in line:
                spoken = Meaning().spoken(line["message"])
                assert messages.unpack(frame(spoken)) is not None
                assert plain(frame(spoken)) == spoken


# -- made, not recorded


def older(line: Line) -> Line:
    """As a peer two releases back may speak: without features, and without fields that came later."""
    message = line.get("message", {})
    match message.get("type"):
        case "hello":
            message["features"] = ["again"]
            for later in ("kinds", "owned"):
                message.pop(later, None)
        case "call":
            for later in ("uid", "extra", "by"):
                message.pop(later, None)
        case "goodbye":
            message.pop("returning", None)
    return line


def newer(line: Line) -> Line:
    """As a peer two releases ahead may speak: with features, fields and kinds that nobody knows today."""
    message = line.get("message", {})
    message["mood"] = {"calm": True}
    if message.get("type") == "hello":
        message["protocol_max"] = 3
        message["features"] = [*message["features"], "telepathy"]
        message["kinds"] = [*message.get("kinds", []), "Wheel"]
        if message.get("owned"):
            message["owned"]["Host"] = [*message["owned"]["Host"], "temper"]
    for entry in message.get("entries", []):
        if entry.get("data"):
            entry["data"]["mark"] = ["new", 1]
            entry["data"]["metadata"]["shade"] = "blue"
            for part in ("spec", "status"):
                if part in entry["data"]:
                    entry["data"][part]["temper"] = {"level": 3}
    return line


ONE_MORE_REFUSED = "line {line}: acknowledge.refused has 2 items, not 1"
"""The kind that nobody knows today is refused by itself, besides what was refused then."""

WHEEL = {
    "data": {"kind": "Wheel", "metadata": {"name": "w", "namespace": "harbor"}, "spec": {}},
    "kind": "Wheel",
    "name": "w",
    "namespace": "harbor",
    "type": "object",
}


def made(lines: list[Line], live: Side, how: Any) -> list[Line]:
    """A recording in which the peer is another version. It says what no version does today in between."""
    changed: list[Line] = []
    for line in copy.deepcopy(lines):
        if line.get("from") not in (None, live):
            line = how(line)
            first = line["message"]["type"] == "entries" and not any("with" in one for one in changed)
            if how is newer and first and line["message"]["entries"]:
                line["message"]["entries"].append(
                    {**WHEEL, "type": "object" if live == "upper" else "intent"}
                )
                line["with"] = "Wheel"
        changed.append(line)
        if how is newer and line.get("message", {}).get("type") == "hello" and line["from"] != live:
            changed.append({"from": line["from"], "message": {"type": "sing", "song": "new"}})
    return changed


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_newer_lower_end_is_understood_and_nothing_it_says_is_lost(tmp_path: Path, scenario: str) -> None:
    async def kept(store: Store) -> None:
        if scenario == "host":
            host = await find(store, "Host", "harbor", "controller-0")
            assert host and host.raw["status"]["temper"] == {"level": 3}
            assert "mark" not in host.raw
        else:
            entry = await find(store, "LogEntry", "harbor", "controller-0-0000000001")
            assert entry and entry.raw["status"]["temper"] == {"level": 3}
            assert entry.raw["metadata"]["shade"] == "blue" and entry.raw["mark"] == ["new", 1]
        assert not await find(store, "Wheel", "harbor", "w")

    lines = made(load("0.1.0", scenario), "upper", newer)
    assert set(replayed(tmp_path, lines, scenario, "upper", kept)) <= {ONE_MORE_REFUSED.format(line=15)}


def test_a_newer_upper_end_is_understood_and_nothing_it_says_is_lost(tmp_path: Path) -> None:
    async def kept(store: Store) -> None:
        policy = await find(store, "FirewallPolicy", "harbor", "mine")
        assert policy and policy.raw["spec"]["temper"] == {"level": 3} and policy.raw["mark"] == ["new", 1]
        assert policy.raw["metadata"]["shade"] == "blue"
        refused = await store.read(lambda tx: tx.property("link-refused:up"))
        assert json.loads(refused) == [["Wheel", "harbor", "w"]]

    lines = made(load("0.1.0", "subcloud"), "lower", newer)
    assert replayed(tmp_path, lines, "subcloud", "lower", kept) == [ONE_MORE_REFUSED.format(line=14)]


@pytest.mark.parametrize("live", ["lower", "upper"])
def test_an_older_peer_is_served(tmp_path: Path, live: Side) -> None:
    lines = made(load("0.1.0", "subcloud"), live, older)
    assert replayed(tmp_path, lines, "subcloud", live) == []


def test_a_hello_is_small() -> None:
    """It is said 20,000 times when a centre returns."""
    for scenario in SCENARIOS:
        for line in load("0.1.0", scenario):
            if line.get("message", {}).get("type") == "hello":
                packed = frame(line["message"])
                assert len(packed) < 2000 and isinstance(messages.unpack(packed), Hello)
