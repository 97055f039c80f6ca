"""`roost history` against a real API: changes, states, differences, and what is said when there is none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.cli import output
from roost.cli.history import absence, by, difference, point
from roost.cli.problems import Misused
from roost.model.codec import Raw
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer
from tests.support.stores import raw


def lived(server: ApiServer) -> list[int]:
    """A host created, changed and deleted, and another of its name; the revisions."""
    revisions: list[int] = []

    def create(location: str) -> None:
        body = raw("Host", "h", "central", spec={"location": location})
        revisions.append(server.do(server.store.transact(lambda tx: tx.create(body))).revision)

    def change(tx: Transaction) -> int:
        return tx.replace({**tx.get("Host", "central", "h").raw, "spec": {"location": "b"}}).revision

    create("a")
    revisions.append(server.do(server.store.transact(change)))
    revisions.append(server.do(server.store.transact(lambda tx: tx.remove("Host", "central", "h"))).revision)
    create("c")
    return revisions


def test_how_an_object_came_to_be(roost: Roost, server: ApiServer) -> None:
    made = lived(server)
    table = roost("history", "host/h")
    assert table.code == 0, table.err
    lines = table.out.splitlines()
    assert lines[0].split() == ["REVISION", "AGE", "TYPE", "MANAGER", "FIELDS"]
    assert [line.split()[0] for line in lines[1:]] == [str(n) for n in reversed(made)]
    assert "spec.location" in lines[3]
    found = json.loads(roost("history", "host", "h", "-o", "json").out)
    assert [i["type"] for i in found["items"]] == ["ADDED", "DELETED", "MODIFIED", "ADDED"]
    assert roost("history", "host/h", "-o", "name").out.split() == [str(n) for n in reversed(made)]
    first = roost("history", "host/h", "--last", "1")
    assert len(first.out.splitlines()) == 2 and "older changes" in first.err


def test_a_manager_that_only_lost_a_field_is_not_named(roost: Roost, server: ApiServer) -> None:
    lived(server)
    apply = '{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"name":"h"},"spec":{"location":"%s"}}'
    for manager, place in (("one", "x"), ("two", "y")):
        done = server.kubectl(
            "apply", "--server-side", "--force-conflicts", "--field-manager", manager, "-f", "-",
            stdin=apply % place,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    items = json.loads(roost("history", "host/h", "--last", "2", "-o", "json").out)["items"]
    assert items[0]["managers"] == ["two"]


def test_what_an_object_was(roost: Roost, server: ApiServer) -> None:
    made = lived(server)
    assert yaml.safe_load(roost("history", "host/h", "--at", str(made[1])).out)["spec"]["location"] == "b"
    assert json.loads(roost("history", "host/h", "--at", str(made[0]), "-o", "json").out)["spec"]
    gone = roost("history", "host/h", "--at", str(made[2]))
    assert gone.code == 4 and f"deleted at revision {made[2]}" in gone.err
    assert roost("history", "host/never").code == 4
    assert roost("history", "host/h", "--at", "someday").code == 2
    assert roost("history", "host").code == 2
    assert roost("history", "host/h", "--at", "1", "--diff", "1..2").code == 2


def test_what_is_different(roost: Roost, server: ApiServer) -> None:
    made = lived(server)
    both = roost("history", "host/h", "--diff", f"{made[0]}..{made[1]}")
    assert both.code == 0, both.err
    assert "-  location: a" in both.out and "+  location: b" in both.out
    assert roost("history", "host/h", "--diff", str(made[0]), str(made[1])).out == both.out
    to_now = roost("history", "host/h", "--diff", str(made[1]))
    assert "+  location: c" in to_now.out and "(now)" in to_now.out
    away = roost("history", "host/h", "--diff", f"{made[1]}..{made[2]}")
    assert "-kind: Host" in away.out and "+kind" not in away.out
    same = roost("history", "host/h", "--diff", f"{made[0]}..{made[0]}")
    assert (same.out, same.code) == ("", 0) and "the same" in same.err
    never = roost("history", "host/never", "--diff", "1..2")
    assert never.code == 4


def test_before_it_was_there_is_told_in_times(roost: Roost, server: ApiServer) -> None:
    lived(server)
    created = json.loads(roost("history", "host/h", "-o", "json").out)["items"][-1]["time"]
    early = roost("history", "host/h", "--at", "2026-01-01T00:00:00Z")
    assert early.code in (1, 4), early.err
    assert created in early.err or "changes that are kept were made later" in early.err
    assert "it was created at revision" not in early.err


def test_absence_is_told_by_the_changes_around() -> None:
    items = [
        {"type": "ADDED", "time": "2026-11-23T05:00:00.000Z"},
        {"type": "DELETED", "time": "2026-11-23T04:00:00.000Z"},
        {"type": "ADDED", "time": "2026-11-23T03:00:00.000Z"},
    ]
    assert absence(items, "2026-11-23T02:00:00.000Z") == "it was created at 2026-11-23T03:00:00.000Z"
    assert absence(items, "2026-11-23T04:30:00.000Z") == (
        "it was deleted at 2026-11-23T04:00:00.000Z and it was created at 2026-11-23T05:00:00.000Z"
    )
    assert absence(items[1:], "2026-11-23T06:00:00.000Z") == "it was deleted at 2026-11-23T04:00:00.000Z"
    assert absence(items, "2026-11-23T06:00:00.000Z") == absence([], "2026-11-23T06:00:00.000Z") == ""


def test_points_in_time() -> None:
    now = output.now()
    assert point("1200", now) == "1200"
    assert point("2026-11-23T04:00:00+01:00", now) == "2026-11-23T03:00:00.000Z"
    assert point("2h", now) < point("1h", now) < point("1s", now)
    assert point("2026-11-23", now) < point("2026-11-23 23:59:59", now)
    for wrong in ("", "2x", "2026-11-33", "-5", "9999999999999d"):
        with pytest.raises(Misused, match="no point in time"):
            point(wrong, now)


def test_who_it_was() -> None:
    assert by({"managers": ["kubectl", "agent"], "origin": ""}) == "kubectl,agent"
    assert by({"origin": "up"}) == "the cloud above"
    assert by({"origin": "down:host/harbor/h"}) == "host/harbor/h"


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab c:-#'\"\n\u00e6", max_size=6)
bodies = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=12, deadline=None)
@given(before=bodies, after=bodies)
def test_a_difference_put_on_the_first_gives_the_second(
    tmp_path_factory: pytest.TempPathFactory, before: Raw, after: Raw
) -> None:
    first, second = ({"kind": "Host", "metadata": {}, "spec": body} for body in (before, after))
    directory = tmp_path_factory.mktemp("diff")
    file = directory / "object.yaml"
    file.write_text(output.yaml_text(first))
    lines = difference(first, second, "a", "b")
    assert bool(lines) == (output.yaml_text(first) != output.yaml_text(second))
    if lines:
        patched(file, "\n".join(lines) + "\n")
    assert yaml.safe_load(file.read_text()) == second


def patched(file: Path, difference: str) -> None:
    done = subprocess.run(
        ["patch", "-s", str(file)], input=difference, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
