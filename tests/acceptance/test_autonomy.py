"""A site on its own goes its own way in the open, and nobody's last word is lost when the link is back."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pair import Pair, linked, until

WEB = {"action": "allow", "protocol": "tcp", "ports": ["443"]}
SHELL = {"action": "allow", "protocol": "tcp", "ports": ["22"]}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    place = Path(tempfile.mkdtemp(prefix="roost-"))
    try:
        with linked(place) as made:
            yield made
    finally:
        shutil.rmtree(place)


def policy(name: str, **spec: Any) -> str:
    whole = {"networks": ["oam"], "rules": [SHELL], "order": 100, "subclouds": {}} | spec
    meta = {"name": name}
    return json.dumps(
        {"apiVersion": "roost.edge/v1", "kind": "FirewallPolicy", "metadata": meta, "spec": whole}
    )


def patch(pair: Pair, name: str, **spec: Any) -> None:
    """What the central cloud's operator changes of a policy."""
    pair.centre.kubectl("patch", "fwp", name, "--type=merge", "-p", json.dumps({"spec": spec})).ok()


def compiled(pair: Pair) -> list[dict[str, Any]]:
    """The rules that the site has compiled for its host, without the platform's own."""
    spec = pair.site.get("hostconfiguration", "h1")["spec"]
    rules = spec["firewall"]["networks"][0]["rules"]
    return [r for r in rules if not r["description"].startswith("platform")]


def ports(pair: Pair) -> list[str]:
    return [port for rule in compiled(pair) for port in rule["ports"]]


def settled(pair: Pair, wanted: list[str]) -> None:
    seen = ports(pair)
    assert seen == wanted, seen


def test_a_cut_off_site_overrides_and_the_centre_adopts_one_and_reverts_another(pair: Pair) -> None:
    centre, site = pair.centre, pair.site
    for name, order in (("web", 10), ("shell", 20)):
        centre.kubectl("create", "-f", "-", text=policy(name, order=order)).ok()
    network = {"type": "oam", "subnets": ["192.0.2.0/24"]}
    site.kubectl("create", "-f", "-", text=_object("PlatformNetwork", "oam", network)).ok()
    interfaces = [{"port": "eth0", "networks": ["oam"]}]
    site.kubectl("create", "-f", "-", text=_object("Host", "h1", {"interfaces": interfaces})).ok()
    until("both policies are compiled at the site", lambda: settled(pair, ["22", "22"]))

    pair.cut()
    refused = site.kubectl("patch", "fwp", "web.central", "--type=merge", "-p", '{"spec":{"order":1}}')
    assert refused.code != 0 and "roost override set FirewallPolicy/web.central" in refused.said, refused.said
    target = "FirewallPolicy/web.central"
    silent = site.roost("override", "set", target, "--patch", '{"rules": []}')
    assert silent.code != 0 and "reason" in silent.said, silent.said
    rules = json.dumps({"rules": [WEB]})
    tried = site.roost("override", "set", target, "--patch", rules, "--reason", "r", "--dry-run").ok()
    assert '"443"' in tried.said and "would be overridden" in tried.said, tried.said
    assert site.items("localoverrides") == []

    site.roost("override", "set", target, "--patch", rules, "--reason", "the till needs it").ok()
    second = {
        "target": {"kind": "FirewallPolicy", "name": "shell.central"},
        "patch": {"rules": [], "defaultIngress": "allow"},
        "reason": "a try",
    }
    made = _object("LocalOverride", "firewallpolicy.shell.central", second)
    site.kubectl("create", "-f", "-", text=made).ok()
    until("what is overridden is in force", lambda: settled(pair, ["443"]))
    assert site.get("fwp", "web.central")["spec"]["rules"][0]["ports"] == ["22"], "the copy stays as it came"

    patch(pair, "web", rules=[SHELL, {"action": "allow", "protocol": "icmp"}], order=11)
    site.kill()
    site.start()
    pair.mend()

    def drifts() -> None:
        status = centre.get("subcloud", "harbor")["status"]
        assert status["sync"] == "out-of-sync", status
        named = [o for o in status["outOfSync"] if o.startswith("LocalOverride/")]
        assert len(named) == 2, status
        alarms = {a["status"]["alarmId"]: a["status"]["severity"] for a in centre.items("alarms")}
        assert alarms.get("280.002") == "warning", alarms
        there = centre.get("localoverride", "firewallpolicy.web.central", "harbor")["status"]
        assert there["conflicts"] == 1 and there["inForce"] is True, there
        assert "icmp" in there["differences"][0]["central"], there
        assert "443" in there["differences"][0]["local"], there
        assert "22" in there["differences"][0]["before"], there

    until("the centre sees both sides", drifts)
    local = site.get("localoverride", "firewallpolicy.web.central")["status"]
    assert local["conflicts"] == 1, f"the conflict is seen at the site too: {local}"
    copy = site.get("fwp", "web.central")["spec"]
    assert copy["order"] == 11, "what is not overridden follows the centre"
    assert ports(pair) == ["443"], "what is overridden holds until somebody decides"
    shown = centre.roost("override", "show", "firewallpolicy.web.central", "-n", "harbor").ok().output
    assert "changed on both sides" in shown and "the till needs it" in shown, shown

    centre.roost("override", "adopt", "harbor", "firewallpolicy.web.central", "--comment", "agreed").ok()
    centre.roost("override", "revert", "harbor", "FirewallPolicy/shell.central").ok()

    def decided() -> None:
        assert site.items("localoverrides") == [], site.items("localoverrides")
        assert centre.items("localoverrides", "harbor") == []
        assert centre.items("overridereviews", "harbor") == []
        assert [r["ports"] for r in site.get("fwp", "web.central")["spec"]["rules"]] == [["443"]]
        # Its host has no agent here, so nothing is in force; but nothing is overridden any more.
        status = centre.get("subcloud", "harbor")["status"]
        assert all(o.startswith("FirewallPolicy/") for o in status["outOfSync"]), status
        assert "280.002" not in [a["status"]["alarmId"] for a in centre.items("alarms")]

    until("one is adopted, the other reverted", decided)
    settled(pair, ["443", "22"])
    assert [r["protocol"] for r in centre.get("fwp", "web")["spec"]["rules"]] == ["tcp", "icmp"], (
        "what is shared with all others stays as it is"
    )
    exception = centre.get("subcloudexception", "firewallpolicy.web", "harbor")
    assert exception["spec"]["reason"] == "the till needs it" and exception["status"]["inForce"] is True
    log = [e["status"]["event"] for e in centre.items("logentries", "harbor")]
    assert {"override-made", "override-conflict", "override-adopted", "override-reverted"} <= set(log), log


def _object(kind: str, name: str, spec: dict[str, Any]) -> str:
    made = {"apiVersion": "roost.edge/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(made)
