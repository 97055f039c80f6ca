"""Two processes of one central cloud on a real PostgreSQL, and simulated sites on real links at both of them.

All are online at either; what asks a site goes to where its link is; a process that is killed loses its sites
to the other within seconds, and with them what it had in hand.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roost.engine.leadership import ASK_EVERY, LEASE_SECONDS
from roost.sim.crowd.many import Many
from roost.sim.subcloud import site_name
from tests.acceptance.running import Answer, run
from tests.acceptance.waiting import report
from tests.support import clouds, postgresql
from tests.support.clouds import CloudProcess

COUNT = 40
LOADED = 5
SUBCLOUDS = "/apis/roost.edge/v1/subclouds"


@pytest.fixture(scope="module")
def processes(place: Path) -> Iterator[list[CloudProcess]]:
    with postgresql.database() as url:
        made = clouds.start(place, url, 2)
        try:
            yield made
        finally:
            for process in made:
                if process.runs:
                    process.kill()


def kubectl(process: CloudProcess, *arguments: str, text: str | None = None) -> Answer:
    argv = ["kubectl", "--kubeconfig", str(process.kubeconfig), "--request-timeout=60s", *arguments]
    return run(argv, text=text)


def availability(process: CloudProcess) -> Counter[str]:
    items = json.loads(kubectl(process, "get", "subclouds", "-o", "json").ok().output)["items"]
    return Counter(item["status"]["availability"] for item in items)


def table(process: CloudProcess) -> list[dict[str, object]]:
    """The processes, as the status of the Cloud lists them."""
    cloud = json.loads(kubectl(process, "get", "cloud", clouds.NAME, "-o", "json").ok().output)
    found: list[dict[str, object]] = cloud["status"].get("processes", [])
    return found


async def until(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Seconds until it holds; the links live meanwhile."""
    began = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - began < seconds * LOADED, what
        await asyncio.sleep(0.3)
    return time.monotonic() - began


def tokens(process: CloudProcess) -> dict[int, str]:
    names = [site_name(n) for n in range(COUNT)]
    body = "\n---\n".join(
        f"apiVersion: roost.edge/v1\nkind: Subcloud\nmetadata: {{name: {name}}}\n"
        "spec: {managementState: managed}"
        for name in names
    )
    kubectl(process, "create", "-f", "-", text=body).ok()
    found = {}
    for number, name in enumerate(names):
        made = kubectl(process, "create", "--raw", f"{SUBCLOUDS}/{name}/enrolment", "-f", "-", text="{}").ok()
        found[number] = json.loads(made.output)["status"]["token"]
    return found


def sites_per_process(process: CloudProcess) -> list[int]:
    return sorted(int(str(one["links"])) for one in table(process))


def test_sites_are_at_both_and_go_to_the_other_when_one_dies(
    processes: list[CloudProcess], place: Path
) -> None:
    asyncio.run(_story(processes, place))


async def _story(processes: list[CloudProcess], place: Path) -> None:
    first, second = processes
    given = await asyncio.to_thread(tokens, second)
    endpoints = [f"127.0.0.1:{process.links}" for process in processes]
    many = Many(
        count=COUNT,
        hosts=1,
        endpoint=endpoints[0],
        more=endpoints[1:],
        directory=place / "sites",
        heartbeat=1.0,
    )
    async with many:
        assert await many.enrol(given) == []
        await many.begin()
        for process in processes:
            await until("all are online", lambda p=process: availability(p) == {"online": COUNT}, 20)  # type: ignore[misc]
        await until("half is at each", lambda: sites_per_process(second) == [COUNT // 2, COUNT // 2], 10)
        assert [one["roles"] for one in table(first)] == [["api", "links", "control"]] * 2
        active = [str(one["name"]) for one in table(first) if one["active"]]
        assert len(active) == 1

        # The first began alone, so it leads. The other one is killed.
        second.kill()
        took = await until(
            "all links are at the one that is left", lambda: sites_per_process(first) == [COUNT], 20
        )
        report(f"{took:.1f} s until all were at the other")
        assert await asyncio.to_thread(availability, first) == {"online": COUNT}
        standing, failure = await many.standing()
        assert standing["linked"] == COUNT, failure

        # It comes back, and the one that leads is killed.
        await asyncio.to_thread(lambda: second.start().until_up())
        first.kill()
        took = await until(
            "the other leads, and has all links",
            lambda: (
                [bool(one["active"]) for one in table(second)] == [True]
                and sites_per_process(second) == [COUNT]
            ),
            LEASE_SECONDS + ASK_EVERY + 10,
        )
        report(f"{took:.1f} s until the other led and had all")
        assert await asyncio.to_thread(availability, second) == {"online": COUNT}
        lost = json.loads(kubectl(second, "get", "alarms", "-n", clouds.NAME, "-o", "json").ok().output)
        assert [a["status"]["alarmId"] for a in lost["items"] if a["status"]["alarmId"] == "280.001"] == []
