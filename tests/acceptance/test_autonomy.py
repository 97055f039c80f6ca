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


def test_an_unmanaged_site_owes_no_reason_and_shows_the_difference_when_managed_again(pair: Pair) -> None:
    centre, site = pair.centre, pair.site
    centre.kubectl("create", "-f", "-", text=policy("third", order=30)).ok()
    until("the third policy has arrived", lambda: site.get("fwp", "third.central"))
    centre.roost("subcloud", "unmanage", "harbor").ok()

    def known(state: str) -> None:
        assert site.get("cloud", "harbor")["status"]["managementState"] == state

    until("the site knows that it is unmanaged", lambda: known("unmanaged"))
    pair.cut()
    site.kill()
    site.start()
    known("unmanaged")
    site.roost("override", "set", "fwp/third.central", "--patch", "{order: 31}").ok()
    pair.mend()
    patch(pair, "third", order=32)

    def quiet() -> None:
        assert len(centre.items("localoverrides", "harbor")) == 1
        assert "280.002" not in [a["status"]["alarmId"] for a in centre.items("alarms")]
        assert centre.get("subcloud", "harbor")["status"]["sync"] == "unknown"

    until("the centre sees it without an alarm", quiet)
    assert site.get("fwp", "third.central")["spec"]["order"] == 30, "nothing is pushed to an unmanaged site"
    centre.roost("subcloud", "manage", "harbor").ok()

    def drifts() -> None:
        there = centre.items("localoverrides", "harbor")[0]["status"]
        assert there["conflicts"] == 1 and there["inForce"] is True, there
        assert "280.002" in [a["status"]["alarmId"] for a in centre.items("alarms")]

    until("managed again, the difference shows as drift", drifts)
    site.roost("override", "remove", "fwp/third.central").ok()
    until("the site has given it up", lambda: _none(centre.items("localoverrides", "harbor")))


def test_a_site_whose_centre_has_gone_leaves_and_keeps_what_is_in_force(pair: Pair) -> None:
    centre, site = pair.centre, pair.site
    before = ports(pair)
    refused = site.roost("subcloud", "leave")
    assert refused.code != 0 and "roost subcloud unmanage harbor" in refused.said, refused.said
    pair.cut()

    def alone() -> None:
        assert site.get("cloud", "harbor")["status"]["upperConnected"] is False

    until("the site has noticed the cut", alone)
    site.roost("override", "set", "fwp/third.central", "--patch", "{order: 5}", "--reason", "first").ok()
    site.roost("subcloud", "leave").ok()

    def owned() -> None:
        names = {p["metadata"]["name"]: p["spec"]["order"] for p in site.items("fwp")}
        assert names == {"web-central": 11, "shell-central": 20, "third-central": 5}, names

    until("what came from the centre is the site's own", owned)
    assert sorted(ports(pair)) == sorted(before)
    assert site.items("localoverrides") == [] and site.items("managements") == []
    site.kubectl("patch", "fwp", "web-central", "--type=merge", "-p", '{"spec":{"order":3}}').ok()
    site.kubectl("delete", "fwp", "shell-central").ok()
    pair.relay.mend()
    site.kill()
    site.start()
    assert site.get("cloud", "harbor")["status"]["upper"] == "", "it does not dial, also after a restart"
    assert centre.get("subcloud", "harbor")["status"]["availability"] == "offline"

    site.roost("subcloud", "rejoin").ok()
    pair.mend()

    def beside() -> None:
        names = {p["metadata"]["name"]: p["spec"]["order"] for p in site.items("fwp")}
        own = {"web-central": 3, "third-central": 5}
        copies = {"web.central": 11, "shell.central": 20, "third.central": 32}
        assert names == own | copies, names
        assert site.get("cloud", "harbor")["status"]["managementState"] == "managed"

    until("copies come anew beside the site's own", beside)


def _none(found: list[Any]) -> None:
    assert found == []


def _object(kind: str, name: str, spec: dict[str, Any]) -> str:
    made = {"apiVersion": "roost.edge/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(made)
