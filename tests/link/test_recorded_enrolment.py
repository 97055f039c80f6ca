"""Joining with a token: today's code at one end, a recorded, an older or a newer peer at the other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.link.enrolment_recording import FACTS, SCENARIO, against_lower, against_upper, record, sessions
from tests.link.recording import RECORDED, Line, Side, load
from tests.link.world import run

VERSIONS = sorted(folder.name for folder in RECORDED.iterdir() if (folder / f"{SCENARIO}.jsonl").exists())


def older(line: Line) -> Line:
    """As before nodes told facts of themselves."""
    line.get("message", {}).pop("facts", None)
    return line


def newer(line: Line) -> Line:
    """With fields that nobody knows today."""
    if "message" in line:
        line["message"] |= {"mood": {"calm": True}, "protocols": [3]}
    return line


def as_it_was(line: Line) -> Line:
    return line


HOW = {"as it was": as_it_was, "older": older, "newer": newer}
CASES = [pytest.param(v, h, id=f"{v} {h}") for v in VERSIONS for h in HOW]


def said(version: str, how: str, peer: Side) -> list[Line]:
    """A recording in which the peer may be of another version."""
    lines = copy.deepcopy(load(version, SCENARIO))
    return [HOW[how](line) if line.get("from") == peer else line for line in lines]


def test_every_version_has_enrolments() -> None:
    assert {folder.name for folder in RECORDED.iterdir() if folder.is_dir()} == set(VERSIONS)
    for version in VERSIONS:
        assert sessions(load(version, SCENARIO)).keys() == {"ca", "enrol", "wrong"}


@pytest.mark.parametrize(("version", "how"), CASES)
def test_today_s_node_joins_a_recorded_cloud(tmp_path: Path, version: str, how: str) -> None:
    came, differences = run(lambda: against_lower(tmp_path, said(version, how, "upper"), "enrol"))
    assert came == "subcloud/harbor"
    assert differences == []


@pytest.mark.parametrize(("version", "how"), CASES)
def test_today_s_node_understands_why_a_recorded_cloud_refuses(
    tmp_path: Path, version: str, how: str
) -> None:
    came, differences = run(lambda: against_lower(tmp_path, said(version, how, "upper"), "wrong"))
    assert "the token is not valid" in came and "ask for a new one" in came
    assert differences == []


@pytest.mark.parametrize(("version", "how"), CASES)
def test_a_recorded_node_joins_today_s_cloud(tmp_path: Path, version: str, how: str) -> None:
    enrolled, differences = run(lambda: against_upper(tmp_path, said(version, how, "lower"), "enrol"))
    assert enrolled == [("subcloud/harbor", {} if how == "older" else FACTS)]
    assert differences == []


@pytest.mark.parametrize(("version", "how"), CASES)
def test_a_recorded_node_with_a_wrong_token_is_told_so(tmp_path: Path, version: str, how: str) -> None:
    enrolled, differences = run(lambda: against_upper(tmp_path, said(version, how, "lower"), "wrong"))
    assert enrolled == []
    assert differences == []


def test_a_recording_holds_no_secret(tmp_path: Path) -> None:
    lines = run(lambda: record(tmp_path))
    for line in [*lines, *(one for v in VERSIONS for one in load(v, SCENARIO))]:
        text = str(line)
        assert "BEGIN" not in text and "wrong-wrong" not in text, text
