"""Subclouds that are named or chosen, what is said of them, and the groups they are in, at a real API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.api.context import ApiContext
from roost.cli import choosing
from roost.fleet.admission import rules
from roost.link.exchange import Caller
from roost.model.cloud import Subcloud, SubcloudStatus
from roost.model.codec import Raw
from roost.model.incident import Incident, IncidentStatus
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

pytestmark = pytest.mark.usefixtures("server")


async def _enrolment(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
    return {"status": {"token": f"token-of-{name}", "expirationTimestamp": "2099-01-01T00:00:00Z"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    places = {("subclouds", "enrolment"): _enrolment}
    with ApiServer(tmp_path, cloud="central", rules=rules("central"), subresources=places) as running:

        def declare(tx: Transaction) -> None:
            for name, region in (("harbor", "north"), ("ridge", "south"), ("valley", "south")):
                status = SubcloudStatus(availability="offline" if name == "valley" else "online")
                tx.save(Subcloud(metadata=Metadata(name=name, labels={"region": region}), status=status))

        running.do(running.store.transact(declare))
        yield running


def said(roost: Roost, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(roost("subcloud", "show", name, "-o", "json").out)
    return found


def test_what_is_said_of_a_subcloud_is_changed_and_shown(roost: Roost) -> None:
    where = ("--location", "pier 4", "--latitude", "53.54", "--longitude", "-9.98")
    done = roost("subcloud", "update", "harbor", *where, "--label", "tier=test", "--label", "region-")
    assert (done.code, done.out) == (0, "Subcloud harbor is changed.\n"), done
    raw = said(roost, "harbor")
    assert raw["metadata"]["labels"] == {"tier": "test"}  # type: ignore[index]
    shown = roost("subcloud", "show", "harbor").out
    assert "pier 4 (53.54, -9.98)" in shown and "tier=test" in shown
    refused = roost("subcloud", "update", "harbor", "--latitude", "91")
    assert refused.code == 1 and "latitude" in refused.err and "90" in refused.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("ridge", "ridge"), ["ridge"]),
        (("-l", "region=south"), ["ridge", "valley"]),
        (("-l", "region=south", "--field-selector", "status.availability=online"), ["ridge"]),
        (("--in-group", "coast"), ["harbor"]),
        (("--in-group", "coast", "--field-selector", "status.availability=online"), ["harbor"]),
        (("--all",), ["harbor", "ridge", "valley"]),
    ],
)
def test_subclouds_are_named_or_chosen(roost: Roost, arguments: tuple[str, ...], names: list[str]) -> None:
    assert roost("subcloud", "update", "harbor", "--group", "coast").code == 0
    done = roost("subcloud", "manage", *arguments)
    assert done.code == 0 and done.out.splitlines() == [f"Subcloud {name} is managed." for name in names]
    listed = roost("subcloud", "list", "--field-selector", "spec.managementState=managed", "-o", "name")
    assert listed.out.split() == [f"subcloud/{name}" for name in names]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "no subcloud is named"),
        (("harbor", "--all"), 2, "named and chosen"),
        (("--all", "-l", "a=b"), 2, "exclude"),
        (("-l", "region=west"), 4, "no subcloud is so"),
        (("-l", "region=("), 1, "is not a label value"),
        (("nowhere",), 4, "nowhere"),
    ],
)
def test_what_chooses_nothing_is_told(
    roost: Roost, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = roost("subcloud", "manage", *arguments)
    assert done.code == code and words in done.err and done.out == "", done


@pytest.mark.parametrize("arguments", [("harbor",), ("harbor", "--label", "x"), ("harbor", "--label", "=y")])
def test_an_update_says_what(roost: Roost, arguments: tuple[str, ...]) -> None:
    done = roost("subcloud", "update", *arguments)
    assert done.code == 2 and ("nothing to change" in done.err or "says nothing" in done.err)


def test_of_many_the_number_is_told_and_those_refused_with_their_reason(
    server: ApiServer, roost: Roost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "FEW", 2)
    done = roost("subcloud", "update", "harbor", "nowhere", "ridge", "--description", "x")
    assert done.code == 4 and done.out == "2 of 3 subclouds are changed.\n" and "nowhere" in done.err


def test_who_interrupts_is_told_how_far_it_came(roost: Roost, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def change(name: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(name)

    assert choosing.each(["harbor", "ridge"], change, "changed") == 130
    assert done == ["harbor"]


def test_groups_are_declared_changed_shown_and_deleted(server: ApiServer, roost: Roost) -> None:
    assert "roost subcloud group add NAME" in roost("subcloud", "group", "list").err
    made = roost("subcloud", "group", "add", "coast", "--max-parallel", "50", "--failure-budget", "2%")
    assert made.code == 0 and "roost subcloud update NAME --group coast" in made.out
    assert roost("subcloud", "update", "harbor", "valley", "--group", "coast").code == 0
    assert roost("subcloud", "list", "--in-group", "coast", "-o", "name").out.split() == [
        "subcloud/harbor",
        "subcloud/valley",
    ]
    shown = roost("subcloud", "group", "show", "coast").out
    assert "50 at once" in shown and "2%" in shown and "2, 0 managed" in shown
    assert "Offline" in shown and "valley" in shown
    assert roost("subcloud", "group", "update", "coast", "--apply", "serial").code == 0
    assert "one after the other" in roost("subcloud", "group", "show", "coast").out
    assert roost("subcloud", "group", "update", "coast").code == 2
    for wrong in (("--failure-budget", "101%"), ("--max-parallel", "0")):
        refused = roost("subcloud", "group", "update", "coast", *wrong)
        assert refused.code == 1 and "coast" in refused.err, refused

    held = roost("subcloud", "group", "delete", "coast")
    assert held.code == 1 and "2 subclouds are in group coast" in held.err, held
    assert roost("subcloud", "update", "--in-group", "coast", "--group", "").code == 0
    assert roost("subcloud", "group", "delete", "coast", "nowhere").code == 4
    assert roost("subcloud", "group", "show", "coast").code == 4


def test_one_is_added_to_a_group(roost: Roost) -> None:
    added = roost("subcloud", "add", "peak", "--group", "coast")
    assert added.code in (0, 4) and said(roost, "peak")["spec"]["group"] == "coast"  # type: ignore[index]


def test_tokens_of_many_go_into_files_for_their_owner(roost: Roost, tmp_path: Path) -> None:
    many = roost("subcloud", "token", "-l", "region=south")
    assert many.code == 2 and "--directory" in many.err
    there = tmp_path / "tokens"
    for _ in range(2):
        done = roost("subcloud", "token", "-l", "region=south", "--directory", str(there))
        assert done.code == 0 and "Subcloud ridge is given a token." in done.out
        assert "token-of" not in done.out + done.err
    assert sorted(p.name for p in there.iterdir()) == ["ridge.token", "valley.token"]
    assert (there / "ridge.token").read_text() == "token-of-ridge\n"
    modes = {p.stat().st_mode & 0o777 for p in there.iterdir()}
    assert modes == {0o600} and there.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    refused = roost("subcloud", "token", "ridge", "--directory", str(tmp_path / "file"))
    assert refused.code == 1 and "can't make directory" in refused.err


def test_incidents_are_listed_and_shown(server: ApiServer, roost: Roost) -> None:
    assert "No incidents." in roost("incident", "list").err
    status = IncidentStatus(
        cause="Uplink",
        name="router-a",
        severity="critical",
        reason="25 subclouds behind uplink router-a went offline together.",
        chain=["uplink router-a is down", "25 subclouds are offline"],
        subclouds=25,
        alarms=25,
        concerned=[f"site-{n:02}" for n in range(25)],
        since="2026-03-01T12:00:00Z",
    )
    incident = Incident(metadata=Metadata(name="uplink.router-a"), status=status)
    server.do(server.store.transact(lambda tx: tx.save(incident) and None))
    listed = roost("incident", "list").out
    assert "uplink.router-a" in listed and "25 subclouds behind uplink router-a" in listed
    shown = roost("incident", "show", "uplink.router-a").out
    assert "uplink router-a is down -> 25 subclouds are offline" in shown and "and 5 more" in shown
    assert roost("incident", "show", "none").code == 4
    refused = roost("delete", "incident", "uplink.router-a")
    assert refused.code != 0, "the platform alone says what has happened"
