"""Three levels of clouds, as real processes: a centre, a region below it, and a site below that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.pair import CloudProcess, until

POLICY = """
apiVersion: roost.edge/v1
kind: FirewallPolicy
metadata: {name: ssh, namespace: region}
spec:
  networks: [mgmt]
  subclouds: {}
  rules:
    - {action: allow, protocol: tcp, ports: ["22"], peers: [192.0.2.0/24]}
"""


class Levels(NamedTuple):
    """Three clouds, each below the one before."""

    centre: CloudProcess
    region: CloudProcess
    site: CloudProcess


def join(below: CloudProcess, above: CloudProcess) -> None:
    token = above.roost("subcloud", "add", below.name, "--managed", "-o", "name").ok().output.split()[-1]
    file = below.home.parent / f"{below.name}.token"
    file.touch(mode=0o600)
    file.write_text(token + "\n")
    below.start("--contained", "--join", str(file))
    until(f"{above.name} has {below.name}", lambda: available(above, below.name, "online"))


def available(above: CloudProcess, name: str, wanted: str) -> None:
    status = above.get("subcloud", name)["status"]
    assert status["availability"] == wanted, status


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Levels]:
    place = tmp_path_factory.mktemp("levels")
    made = Levels(*(CloudProcess(name, place) for name in ("central", "region", "site")))
    try:
        made.centre.start("--contained")
        join(made.region, made.centre)
        join(made.site, made.region)
        yield made
    finally:
        for cloud in reversed(made):
            cloud.kill()


def test_each_level_knows_its_own_and_the_sums_of_what_is_below(levels: Levels) -> None:
    assert [s["metadata"]["name"] for s in levels.centre.items("subclouds")] == ["region"]
    assert [s["metadata"]["name"] for s in levels.region.items("subclouds")] == ["site"]
    # A host that is declared and never came is an alarm at the site.
    declared = '{"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": {"name": "worker-0"}, "spec": {}}'
    levels.site.kubectl("apply", "-f", "-", text=declared).ok()

    def summed() -> None:
        alarms = levels.site.get("cloud", "site")["status"]["alarms"]
        assert sum(alarms.get(s, 0) for s in ("critical", "major", "minor", "warning")), alarms
        fleet = levels.centre.get("cloud", "central")["status"]["fleet"]
        assert (fleet["subclouds"], fleet["clouds"]) == (1, 2), fleet
        for severity, count in alarms.items():
            assert fleet["alarms"].get(severity, 0) >= count, (alarms, fleet)

    until("the centre has added up what the site tells the region", summed)


def test_who_may_reaches_a_site_through_both_levels(levels: Levels) -> None:
    server = f"https://127.0.0.1:{levels.centre.port}/clouds/region/clouds/site"
    found = levels.centre.kubectl("--server", server, "get", "cloud", "site", "-o", "name").ok()
    assert found.output.strip() == "cloud.roost.edge/site"
    text = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"by": "centre"}}'
    levels.centre.kubectl("--server", server, "-n", "site", "apply", "-f", "-", text=text).ok()
    assert levels.site.get("configmap", "told", "site")["data"] == {"by": "centre"}


def test_intent_of_a_region_comes_to_its_sites(levels: Levels) -> None:
    levels.region.kubectl("apply", "-f", "-", text=POLICY).ok()
    until("the site has it", lambda: levels.site.get("firewallpolicy", "ssh.region", "site"))
    assert not [p for p in levels.centre.items("firewallpolicies") if p["metadata"]["namespace"] == "site"]


def test_without_the_centre_a_region_goes_on(levels: Levels) -> None:
    levels.centre.kill()
    levels.region.kubectl(
        "patch", "subcloud", "site", "--type=merge", "-p", '{"spec":{"location":"pier"}}'
    ).ok()
    available(levels.region, "site", "online")
    levels.centre.start("--contained")
    until("the centre has the region again", lambda: available(levels.centre, "region", "online"))
    levels.region.kill()
    until("the centre misses the region", lambda: available(levels.centre, "region", "offline"))
    levels.region.start()
    until("all are there", lambda: available(levels.centre, "region", "online"))
    until("all are there", lambda: available(levels.region, "site", "online"))
