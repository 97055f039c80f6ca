"""Streams over one link: what goes down, what comes up, and what happens at cuts."""

from __future__ import annotations

from pathlib import Path

from roost.link import node
from tests.link.world import Link, find, put, remove, resource, run, with_link

HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "controller-0")


def policy(name: str, order: int = 1000) -> dict[str, object]:
    return resource("FirewallPolicy", "harbor", name, spec={"networks": ["oam"], "order": order})


def test_intent_comes_down_and_its_status_goes_up(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.upper, policy("web"))
        await link.settle()
        below = await find(link.lower, "FirewallPolicy", "harbor", "web")
        assert below and below.origin == "up" and below.raw["spec"]["networks"] == ["oam"]
        await put(link.lower, resource("FirewallPolicy", "harbor", "web", status={"hosts": 3}))
        await link.settle()
        above = await find(link.upper, "FirewallPolicy", "harbor", "web")
        assert above and above.origin == "" and above.raw["status"] == {"hosts": 3}
        assert above.uid == below.uid
        await remove(link.upper, "FirewallPolicy", "harbor", "web")
        await link.settle()
        assert await find(link.lower, "FirewallPolicy", "harbor", "web") is None
        assert link.ends == []

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_observation_comes_up_while_cut_and_after(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await link.settle()
        link.hold()
        for n in range(450):
            await put(link.lower, resource("LogEntry", "harbor", f"harbor-{n:06}", status={"sequence": n}))
        await put(link.lower, resource("Host", "harbor", "controller-0", spec={}))
        await put(link.upper, policy("web"))
        link.release()
        await link.settle()
        entries = await link.upper.read(lambda tx: tx.select("LogEntry", "harbor"))
        assert [e.raw["status"]["sequence"] for e in entries] == list(range(450))
        assert {e.origin for e in entries} == {"down:subcloud/harbor"}
        assert [e.revision for e in entries] == sorted(e.revision for e in entries)
        assert await find(link.lower, "FirewallPolicy", "harbor", "web")

    run(lambda: with_link(tmp_path, HARBOR, work))
