"""`roost subcloud rehome` over many, within a window, and `roost rehome` at a site, at a real API.

The sites are played: what one says when it is asked through its link stands in `SITES`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from roost.api.context import ApiContext
from roost.engine.admission import Refused
from roost.link.exchange import Caller, Request, Response, Unreachable
from roost.model.cloud import Cloud, CloudStatus, Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.codec import Raw, encode
from roost.model.meta import Condition, Metadata
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

SITES = [f"s{n:02}" for n in range(8)]
CUT, STAYS, FOREIGN = "s02", "s04", "s06"


class Sites:
    """The sites behind the central cloud, and how many were moving at once."""

    def __init__(self) -> None:
        self.server: ApiServer
        self.tokens: dict[str, str] = {}
        self.moving: set[str] = set()
        self.most = 0

    async def call(self, name: str, request: Request) -> Response:
        if name == CUT:
            raise Unreachable(f"subcloud/{name}", "its link is down")
        assert request.path.endswith(f"/clouds/{name}/rehome"), request.path
        asked = json.loads(request.body)["spec"]
        self.tokens[name] = asked["token"]
        self.moving.add(name)
        self.most = max(self.most, len(self.moving))
        return Response(201, [("content-type", "application/json")], _once(b"{}"))

    def go_on(self, _seconds: float) -> None:
        """While the command waits, one of the sites comes to its end."""
        if not self.moving:
            return
        name = min(self.moving)
        self.moving.discard(name)
        self.server.do(
            self.server.store.transact(lambda tx: _stays(tx) if name == STAYS else _moves(tx, name))
        )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _moves(tx: Transaction, name: str) -> None:
    current = tx.load(Subcloud, "", name)
    tx.report(msgspec.structs.replace(current, status=SubcloudStatus(epoch=2, moved_to="west")))


def _stays(tx: Transaction) -> None:
    said = Condition(
        type="Rehomed", status="False", reason="RolledBack", message="It stays with central: why."
    )
    cloud = Cloud(metadata=Metadata(name=STAYS, uid="u"), status=CloudStatus(conditions=[said]))
    tx.copy(encode(cloud), f"down:subcloud/{STAYS}")


@pytest.fixture
def sites(monkeypatch: pytest.MonkeyPatch) -> Sites:
    made = Sites()
    monkeypatch.setattr("roost.cli.rehoming.time.sleep", made.go_on)
    return made


@pytest.fixture
def server(tmp_path: Path, sites: Sites) -> Iterator[ApiServer]:
    async def rehome(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
        if body["spec"]["token"] != "good":
            raise Refused("this is no enrolment token", "copy it whole", field="spec.token")

        def work(tx: Transaction) -> None:
            current = tx.load(Cloud, "", name)
            said = Condition(
                type="Rehomed", status="True", reason="Moved", message="It moved to west at epoch 2."
            )
            tx.report(msgspec.structs.replace(current, status=CloudStatus(conditions=[said])))

        await context.store.transact(work)
        return {"status": {"deadline": "2099-01-01T00:00:00Z"}}

    places = {("clouds", "rehome"): rehome}
    with ApiServer(tmp_path, cloud="central", call_cloud=sites.call, subresources=places) as running:
        sites.server = running

        def declare(tx: Transaction) -> None:
            for name in SITES:
                tx.save(Subcloud(metadata=Metadata(name=name)))

        running.do(running.store.transact(declare))
        yield running


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    made = tmp_path / "tokens"
    made.mkdir()
    for name in SITES:
        if name != FOREIGN:
            (made / f"{name}.token").write_text(f"token-of-{name}\n")
    return made


def test_many_move_within_a_window_and_what_fails_for_one_is_told(
    server: ApiServer, roost: Roost, sites: Sites, tokens: Path
) -> None:
    done = roost("subcloud", "rehome", "--all", "--to", str(tokens), "--at-once", "3")
    assert sites.most == 3 and not sites.moving
    moved = [name for name in SITES if name not in (CUT, STAYS, FOREIGN)]
    assert sites.tokens == {name: f"token-of-{name}" for name in [*moved, STAYS]}
    for name in moved:
        assert f"Subcloud {name} has moved to west at epoch 2." in done.out
    assert "5 of 8 subclouds have moved." in done.out
    assert f"{STAYS} has not moved. It stays with central: why." in done.err
    assert CUT in done.err and "link is down" in done.err
    assert f"{FOREIGN}.token can't be read" in done.err
    assert done.code == 3, "the worst of what befell any"
    assert "token-of" not in done.out + done.err


def test_one_moves_with_the_file_of_its_token(
    server: ApiServer, roost: Roost, sites: Sites, tokens: Path
) -> None:
    done = roost("subcloud", "rehome", "s01", "--to", str(tokens / "s01.token"))
    assert (done.code, sites.tokens) == (0, {"s01": "token-of-s01"}), done
    for arguments, said in (
        (("s01", "s03", "--to", str(tokens / "s01.token")), "need a token each"),
        (("s01", "--to", str(tokens), "--at-once", "0"), "say 1 to 500"),
        (("--to", str(tokens)), "no subcloud is named"),
    ):
        wrong = roost("subcloud", "rehome", *arguments)
        assert wrong.code == 2 and said in wrong.err, wrong


def test_they_are_declared_at_the_other_central_cloud_as_here_and_given_tokens(
    server: ApiServer, roost: Roost, sites: Sites, tmp_path: Path
) -> None:
    async def enrolment(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
        return {"status": {"token": f"west-of-{name}", "expirationTimestamp": "2099-01-01T00:00:00Z"}}

    def label(tx: Transaction) -> None:
        spec = SubcloudSpec(management_state="managed", location="pier 4")
        tx.save(Subcloud(metadata=Metadata(name="s00", labels={"region": "north"}), spec=spec))

    server.do(server.store.transact(label))
    (tmp_path / "west").mkdir()
    places = {("subclouds", "enrolment"): enrolment}
    with ApiServer(tmp_path / "west", cloud="west", subresources=places) as west:
        both = json.loads(server.administrator.read_text())
        far = json.loads(west.administrator.read_text())
        far["users"][0]["name"] = far["contexts"][0]["context"]["user"] = "far"
        for part in ("clusters", "contexts", "users"):
            both[part] += far[part]
        server.administrator.write_text(json.dumps(both))
        done = roost("subcloud", "rehome", "s00", "s01", "--to-context", "west")
        assert (done.code, sites.tokens) == (0, {"s00": "west-of-s00", "s01": "west-of-s01"}), done
        there = west.do(west.store.load(Subcloud, "", "s00"))
    assert there.metadata.labels == {"region": "north"}
    assert (there.spec.management_state, there.spec.location) == ("managed", "pier 4")
    for arguments in ((), ("--to-context", "west", "--to", "file")):
        assert roost("subcloud", "rehome", "s03", *arguments).code == 2
    unknown = roost("subcloud", "rehome", "s03", "--to-context", "east")
    assert unknown.code == 4 and "there are: central, west" in unknown.err


def test_a_site_is_moved_by_its_own_people(server: ApiServer, roost: Roost, tmp_path: Path) -> None:
    server.do(server.store.save(Cloud(metadata=Metadata(name="central"))))
    nothing = roost("rehome")
    assert nothing.code == 2 and "--join" in nothing.err
    file = tmp_path / "token"
    file.write_text("bad\n")
    refused = roost("rehome", "--join", str(file))
    assert refused.code == 1 and "no enrolment token" in refused.err, refused
    file.write_text("good\n")
    done = roost("rehome", "--join", str(file))
    assert (done.code, done.out) == (0, "central: It moved to west at epoch 2.\n"), done
    assert roost("rehome", "--join", str(file), "--no-wait").code == 0
