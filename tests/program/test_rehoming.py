"""A site moves between two real central clouds: processes, TLS, and a way that is cut."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pair import CloudProcess, Pair, Raw, linked, until
from tests.support.relay import Relay

SHELL = {"action": "allow", "protocol": "tcp", "ports": ["22"]}
SITE = "harbor"
pytestmark = pytest.mark.timeout(600)


class Trio:
    """A site, its central cloud and another one that is reached through a relay of its own."""

    def __init__(self, pair: Pair, other: CloudProcess, relay: Relay, place: Path) -> None:
        self.pair, self.centre, self.site, self.other = pair, pair.centre, pair.site, other
        self.relay, self.place = relay, place

    def token(self, cloud: CloudProcess) -> str:
        """A file with a new token of a central cloud for the site, which is declared there."""
        said = cloud.roost("subcloud", "token", SITE, "-o", "name").ok().output.strip()
        file = self.place / f"{cloud.name}.token"
        file.touch(mode=0o600)
        file.write_text(said.splitlines()[-1] + "\n")
        return str(file)


@pytest.fixture(scope="module")
def trio() -> Iterator[Trio]:
    place = Path(tempfile.mkdtemp(prefix="roost-"))
    try:
        with contextlib.ExitStack() as stack:
            pair = stack.enter_context(linked(place))
            other = CloudProcess("west", place)
            relay = stack.enter_context(Relay(other.links))
            stack.callback(other.kill)
            other.start("--advertise", relay.url.removeprefix("https://"))
            other.roost("subcloud", "add", SITE, "--managed", "-o", "name").ok()
            yield Trio(pair, other, relay, place)
    finally:
        shutil.rmtree(place)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def _object(kind: str, name: str, spec: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "roost.edge/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})


def _share(cloud: CloudProcess, order: int) -> None:
    spec = {"networks": ["oam"], "rules": [SHELL], "order": order, "subclouds": {}}
    cloud.kubectl("create", "-f", "-", text=_object("FirewallPolicy", "baseline", spec)).ok()


def _status(cloud: CloudProcess) -> Raw:
    found: Raw = cloud.get("subcloud", SITE)["status"]
    return found


def _conditions(status: Raw) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def _online(cloud: CloudProcess, epoch: int) -> None:
    status = _status(cloud)
    assert status["availability"] == "online", status
    assert (status["epoch"], status["movedTo"]) == (epoch, ""), status
    assert _conditions(status)["Owned"] == ("True", "Owner"), status


def _moved(cloud: CloudProcess, to: str, epoch: int) -> None:
    status = _status(cloud)
    assert (status["movedTo"], status["epoch"]) == (to, epoch), status
    assert (status["availability"], _conditions(status)["Owned"]) == ("unknown", ("False", "MovedAway")), (
        status
    )
    alarms = [a["status"]["alarmId"] for a in cloud.items("alarms")]
    assert "280.001" not in alarms, "one that has moved is not lost"
    assert cloud.items("hosts", SITE) == [], "what it had told is let go of"


def _policies(site: CloudProcess) -> list[str]:
    return sorted(p["metadata"]["name"] for p in site.items("fwp"))


def _compiled(site: CloudProcess) -> list[Any]:
    return _ports(site.get("hostconfiguration", "h1"))


def _ports(configuration: Raw) -> list[Any]:
    rules = configuration["spec"]["firewall"]["networks"][0]["rules"]
    return [r["ports"] for r in rules if not r["description"].startswith("platform")]


@contextlib.contextmanager
def _watched(site: CloudProcess, file: Path) -> Iterator[Callable[[], list[Raw]]]:
    """Every state of the compiled configuration from now on."""
    argv = ["kubectl", "get", "hostconfiguration", "h1", "--watch", "-o", "json"]
    environment = {**os.environ, "KUBECONFIG": str(site.home / "kubeconfig")}

    def states() -> list[Raw]:
        text, found = file.read_text().strip(), []
        # The last one may be half written.
        with contextlib.suppress(json.JSONDecodeError):
            while text:
                one, end = json.JSONDecoder().raw_decode(text)
                found.append(one)
                text = text[end:].strip()
        return found

    with file.open("w") as output, subprocess.Popen(argv, stdout=output, env=environment) as process:
        try:
            until("the watch has begun", lambda: _equal(len(states()) > 0, True))
            yield states
        finally:
            process.terminate()


def test_a_site_moves_by_order_of_its_central_cloud(trio: Trio, stack: contextlib.ExitStack) -> None:
    """Planned: a way that is cut leaves all as it was; then it moves, and works on."""
    centre, other, site = trio.centre, trio.other, trio.site
    _share(centre, 10)
    _share(other, 20)
    network = {"type": "oam", "subnets": ["192.0.2.0/24"]}
    site.kubectl("create", "-f", "-", text=_object("PlatformNetwork", "oam", network)).ok()
    interfaces = [{"port": "eth0", "networks": ["oam"]}]
    site.kubectl("create", "-f", "-", text=_object("Host", "h1", {"interfaces": interfaces})).ok()
    until("the policy of the first centre is in force", lambda: _equal(_policies(site), ["baseline.central"]))
    until("its rules are compiled", lambda: _equal(_compiled(site), [["22"]]))
    until("the first centre has its epoch", lambda: _online(centre, 1))

    trio.relay.cut()
    token = trio.token(other)
    failed = centre.roost("subcloud", "rehome", SITE, "--to", token, "--within", "12")
    assert failed.code == 1 and "stays with central" in failed.said, failed.said
    _online(centre, 1)
    assert _conditions(site.get("cloud", SITE)["status"])["Rehomed"] == ("False", "RolledBack")
    body = json.dumps({"spec": {"token": "t"}})
    at = f"/apis/roost.edge/v1/clouds/{SITE}/rehome"
    wrong = centre.kubectl("create", "--raw", at, "-f", "-", text=body)
    assert wrong.code == 1 and "this is the API of central" in wrong.said, wrong.said
    local = site.roost("rehome", "--join", token)
    assert local.code == 1 and "roost subcloud rehome" in local.said, local.said

    trio.relay.mend()
    before = site.get("hostconfiguration", "h1")
    watch = stack.enter_context(_watched(site, trio.place / "watched"))
    moved = centre.roost("subcloud", "rehome", SITE, "--to", token).ok()
    assert "has moved to west at epoch" in moved.said, moved.said
    epoch = _status(centre)["epoch"]
    until("the new centre has it", lambda: _online(other, epoch))
    until("the old one knows", lambda: _moved(centre, "west", epoch))
    until("what the new one shares is in force", lambda: _equal(_policies(site), ["baseline.west"]))
    until("its own resources are above", lambda: _equal(len(other.items("hosts", SITE)), 1))
    until("it is told that it is managed", lambda: _managed(site))
    assert _compiled(site) == [["22"]]
    states = [_ports(one) for one in watch()]
    assert states and all(["22"] in one for one in states), f"the rule was in force all the time: {states}"
    after = site.get("hostconfiguration", "h1")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert _conditions(site.get("cloud", SITE)["status"])["Rehomed"] == ("True", "Moved")
    refused = centre.roost("--cloud", SITE, "status")
    assert refused.code != 0, "the old centre does not reach it any more"


def _equal(found: Any, wanted: Any) -> None:
    assert found == wanted, found


def _managed(site: CloudProcess) -> None:
    status = site.get("cloud", SITE)["status"]
    assert (status["upper"], status["managementState"]) == ("west", "managed"), status


def test_a_site_whose_centre_is_gone_moves_by_its_own_order_and_the_centre_learns_of_it(trio: Trio) -> None:
    """Unplanned: back to the first centre while the second is dead, across a kill of the site."""
    centre, other, site = trio.centre, trio.other, trio.site
    epoch = _status(other)["epoch"]
    trio.relay.cut()
    other.kill()

    def alone() -> None:
        assert site.get("cloud", SITE)["status"]["upperConnected"] is False

    until("the site misses its centre", alone)
    assert _policies(site) == ["baseline.west"], "what is in force stays in force"
    trio.pair.relay.cut()
    token = trio.token(centre)
    site.roost("rehome", "--join", token, "--no-wait", "--within", "600").ok()
    site.kill()
    site.start()
    trio.pair.relay.mend()
    until("the first centre has it again", lambda: _online(centre, epoch + 1))
    until("with what that shares", lambda: _equal(_policies(site), ["baseline.central"]))

    trio.relay.mend()
    other.start("--advertise", trio.relay.url.removeprefix("https://"))
    until("the second learns where it is", lambda: _moved(other, "central", epoch + 1))
    site.kill()
    site.start()
    until("a start changes nothing", lambda: _online(centre, epoch + 1))
    other.roost("subcloud", "delete", SITE).ok()
