"""Two processes of one central cloud on a real PostgreSQL, and simulated sites on real links at both of them.

All are online at either; what asks a site goes to where its link is; a process that is killed loses its sites
to the other within seconds, and with them what it had in hand.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.engine.leadership import ASK_EVERY, LEASE_SECONDS
from roost.sim.crowd.many import Many
from roost.sim.subcloud import site_name
from tests.acceptance.running import Answer, run
from tests.acceptance.waiting import report
from tests.support import clouds, pair, postgresql
from tests.support.clouds import CloudProcess

COUNT = 40
LOADED = 5
API = "/apis/roost.edge/v1"
SUBCLOUDS, CLOUD, NAMESPACE = (
    f"{API}/subclouds",
    f"{API}/clouds/{clouds.NAME}",
    f"{API}/namespaces/{clouds.NAME}",
)


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


def kubectl(process: CloudProcess, *arguments: str) -> Answer:
    argv = ["kubectl", "--kubeconfig", str(process.kubeconfig), "--request-timeout=60s", *arguments]
    return run(argv)


def ask(process: CloudProcess, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    """What a process's API says to its administrator."""
    request = urllib.request.Request(
        f"{process.url}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60, context=clouds.context(process)) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def availability(process: CloudProcess) -> Counter[str]:
    """Of the simulated sites."""
    items = ask(process, SUBCLOUDS)["items"]
    return Counter(i["status"]["availability"] for i in items if i["metadata"]["name"].startswith("site-"))


def table(process: CloudProcess) -> list[dict[str, Any]]:
    """The processes, as the status of the Cloud lists them."""
    found: list[dict[str, Any]] = ask(process, CLOUD)["status"]["processes"]
    return found


async def until(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Seconds until it holds; the links live meanwhile."""
    began = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - began < seconds * LOADED, what
        await asyncio.sleep(0.3)
    return time.monotonic() - began


def tokens(process: CloudProcess) -> dict[int, str]:
    """Declare the sites at one process; a token for each."""
    found = {}
    for number in range(COUNT):
        name = site_name(number)
        spec = {"managementState": "managed"}
        ask(process, SUBCLOUDS, {"kind": "Subcloud", "metadata": {"name": name}, "spec": spec})
        made = ask(process, f"{SUBCLOUDS}/{name}/enrolment", {})
        found[number] = str(made["status"]["token"])
    return found


def sites_per_process(process: CloudProcess) -> list[int]:
    return sorted(one["links"] for one in table(process))


def has_all(process: CloudProcess) -> bool:
    """Whether it has all links, as it says itself."""
    return any(
        one["address"].endswith(f":{process.links}") and one["links"] == COUNT for one in table(process)
    )


def leads(process: CloudProcess) -> bool:
    return [one["address"] for one in table(process) if one["active"]] == [f"127.0.0.1:{process.links}"]


def reach(process: CloudProcess, name: str) -> str:
    """What a subcloud's own API says of itself when it is asked through a process; else why it does not."""
    try:
        found = ask(process, f"/clouds/{name}{API}/clouds/{name}")
    except urllib.error.HTTPError as error:
        with error:
            return str(json.load(error)["message"])
    return str(found["metadata"]["name"])


def test_what_asks_a_site_goes_to_the_process_that_has_its_link(
    processes: list[CloudProcess], place: Path
) -> None:
    ask(processes[0], SUBCLOUDS, {"kind": "Subcloud", "metadata": {"name": "harbor"}, "spec": {}})
    made = ask(processes[1], f"{SUBCLOUDS}/harbor/enrolment", {})
    token = place / "token"
    token.touch(mode=0o600)
    token.write_text(made["status"]["token"])
    site = pair.CloudProcess("harbor", place)
    try:
        site.start("--join", str(token))

        def reached() -> None:
            assert [reach(process, "harbor") for process in processes] == ["harbor", "harbor"]

        pair.until("both processes reach it", reached)

        def counted() -> None:
            assert sites_per_process(processes[0]) == [0, 1], "and it is linked to one of them"

        pair.until("its link is counted", counted)
    finally:
        site.kill()

    def missed() -> None:
        said = [reach(process, "harbor") for process in processes]
        assert all("can't be reached: its link is down" in one for one in said), said

    pair.until("both say why they don't", missed)


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
        await until("half is at each", lambda: sites_per_process(second) == [COUNT // 2] * 2, 10)
        assert [one["roles"] for one in table(first)] == [["api", "links", "control"]] * 2
        assert [one["active"] for one in table(second)] == [True, False]
        sites = [f"subclouds/{site_name(number)}" for number in range(COUNT)]
        kubectl(second, "wait", "--for=condition=InSync", *sites, "--timeout=60s").ok()

        # The first began alone, so it leads. The other one is killed.
        second.kill()
        took = await until("all links are at the one that is left", lambda: has_all(first), 10)
        report(f"{took:.1f} s until all were at the other")
        await until("the one that is gone is not listed", lambda: len(table(first)) == 1, LEASE_SECONDS + 5)
        assert await asyncio.to_thread(availability, first) == {"online": COUNT}
        standing, failure = await many.standing()
        assert standing["linked"] == COUNT, failure

        # It comes back, and the one that leads and has all links is killed.
        await asyncio.to_thread(lambda: second.start().until_up())
        first.kill()
        took = await until(
            "the other leads, and has all links",
            lambda: leads(second) and has_all(second),
            LEASE_SECONDS + ASK_EVERY + 10,
        )
        report(f"{took:.1f} s until the other led and had all")
        assert await asyncio.to_thread(availability, second) == {"online": COUNT}
        alarms = ask(second, f"{NAMESPACE}/alarms")["items"]
        lost = [a["status"]["entity"] for a in alarms if a["status"]["alarmId"] == "280.001"]
        assert [entity for entity in lost if "=site-" in entity] == []
