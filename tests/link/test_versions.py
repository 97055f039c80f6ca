"""What neighbours of different versions do for each other: fields, kinds, upgrades."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roost.link import node
from roost.link.flow import Replace, Upward
from roost.link.intake import kinds_property
from roost.link.merging import owned_by_host
from roost.link.messages import Entries, Entry, Hello
from roost.model.codec import Raw
from roost.store.transaction import Stored
from tests.link.test_session import Stranger, with_stranger, written
from tests.link.world import Link, find, put, resource, run, with_link

HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "controller-0")


def policy(name: str) -> Raw:
    return resource("FirewallPolicy", "harbor", name, spec={"networks": ["oam"]})


BEFORE = {"administrative": "unlocked", "inventory": {"hostname": "old"}, "future": 1}
OWN = owned_by_host()["Host"]
MERGES: list[tuple[str, list[str] | None, Raw, Raw]] = [
    (
        "today's host: its own fields, absent ones taken away, others kept",
        OWN,
        {"agent": {"version": "1"}, "administrative": "locked"},
        {"administrative": "unlocked", "agent": {"version": "1"}, "future": 1},
    ),
    (
        "an older host knows no inventory: absent is not empty",
        ["agent"],
        {"agent": {"version": "1"}},
        BEFORE | {"agent": {"version": "1"}},
    ),
    (
        "a newer host owns a field that nobody knows here",
        [*OWN, "future"],
        {"inventory": {"hostname": "new"}, "future": {"deep": 2}},
        {"administrative": "unlocked", "inventory": {"hostname": "new"}, "future": {"deep": 2}},
    ),
    (
        "a newer host takes back a field that nobody knows here",
        [*OWN, "future"],
        {"inventory": {"hostname": "new"}},
        {"administrative": "unlocked", "inventory": {"hostname": "new"}},
    ),
    (
        "who says it owns what is the cloud's does not get it",
        [*OWN, "administrative"],
        {"inventory": {"hostname": "old"}, "administrative": "locked"},
        BEFORE,
    ),
    (
        "who says nothing of what it owns keeps what nobody knows here",
        None,
        {"inventory": {"hostname": "old"}, "later": 3},
        BEFORE | {"later": 3},
    ),
]


@pytest.mark.parametrize("owned, brought, expected", [m[1:] for m in MERGES], ids=[m[0] for m in MERGES])
def test_a_host_s_status_is_merged_by_what_it_owns(
    owned: list[str] | None, brought: Raw, expected: Raw
) -> None:
    direction = Upward(HOST)
    direction.owned = None if owned is None else {"Host": owned}
    raw = resource("Host", "harbor", "controller-0", spec={}, status=BEFORE)
    raw["metadata"]["uid"] = "u"
    stored = Stored("Host", "harbor", "controller-0", "u", 1, "", json.dumps(raw))
    said = written({**raw, "status": brought}, "status")
    decision = direction.decide(stored, said)
    assert isinstance(decision, Replace) and decision.raw["status"] == expected


def test_kinds_that_the_peer_does_not_know_are_not_sent(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await put(stranger.link.upper, policy("web"))
        network = resource("PlatformNetwork", "harbor", "oam", spec={"type": "oam"})
        await put(stranger.link.upper, network)
        await stranger.hello(kinds=["PlatformNetwork", "Wheel"])
        assert "FirewallPolicy" in (await stranger.hear(Hello)).kinds
        sent: list[Entry] = []
        while True:
            batch = await stranger.hear(Entries)
            sent += batch.entries
            if batch.snapshot == "end":
                break
        assert [entry.kind for entry in sent] == ["PlatformNetwork"]

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_after_an_upgrade_everything_is_asked_for_once(tmp_path: Path) -> None:
    async def as_before_the_upgrade(link: Link) -> None:
        def work(tx: Any) -> None:
            tx.drop("FirewallPolicy", "harbor", "web")
            tx.set_property(kinds_property("up"), "Host,HostConfiguration")

        link.hold()
        await link.lower.transact(work)
        link.release()

    async def work(link: Link) -> None:
        await put(link.upper, policy("web"))
        await link.settle()
        await as_before_the_upgrade(link)
        await link.settle()
        assert await find(link.lower, "FirewallPolicy", "harbor", "web")
        known = await link.lower.read(lambda tx: tx.property(kinds_property("up")))
        assert "FirewallPolicy" in known.split(",")
        at = link.lower.revision
        link.cut()
        await link.settle()
        assert link.lower.revision == at, "not again"

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_fields_that_nobody_knows_go_down_and_their_status_comes_up(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        raw = policy("web")
        raw["spec"]["later"] = {"deep": [1]}
        raw["more"] = {"of": "it"}
        await put(link.upper, raw)
        await link.settle()
        below = await find(link.lower, "FirewallPolicy", "harbor", "web")
        assert below and below.raw["spec"]["later"] == {"deep": [1]} and below.raw["more"] == {"of": "it"}
        status = {"hosts": 1, "later": {"of": "them"}}
        await put(link.lower, resource("FirewallPolicy", "harbor", "web", status=status))
        await link.settle()
        above = await find(link.upper, "FirewallPolicy", "harbor", "web")
        assert above and above.raw["status"] == status and above.raw["spec"]["later"] == {"deep": [1]}

    run(lambda: with_link(tmp_path, HARBOR, work))
