"""A site is cut off for a minute while both sides go on; and a change that can't be proven is taken back."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.acceptance import checker
from tests.acceptance.checker import SITES, Raw, Write
from tests.acceptance.running import Demo
from tests.acceptance.waiting import report, until

CUT_SECONDS = 60.0


class Ledger:
    """Every write that was accepted."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self.writes: list[Write] = []

    def centre(self, *arguments: str, text: str | None = None) -> Raw:
        return self._demo.kubectl(*arguments, "-o", "json", text=text).json()

    def site(self, site: str, *arguments: str, text: str | None = None) -> Raw:
        return self._demo.local(site, *arguments, "-o", "json", text=text).json()

    def keep(self, cloud: str, answered: Raw) -> None:
        """What was answered with success must hold from now on, until it is written again."""
        meta = answered["metadata"]
        key = (answered["kind"], meta.get("namespace", ""), meta["name"])
        self.writes = [one for one in self.writes if (one.cloud, one.key) != (cloud, key)]
        spec, labels = answered.get("spec"), meta.get("labels", {})

        def holds(seen: Raw | None) -> bool:
            return (
                seen is not None and seen.get("spec") == spec and seen["metadata"].get("labels", {}) == labels
            )

        self.writes.append(Write(cloud, key, holds, json.dumps({"spec": spec, "labels": labels})))


def policy(name: str, ports: list[str], **more: Any) -> str:
    spec = {
        "networks": ["oam"],
        "rules": [{"action": "allow", "protocol": "tcp", "ports": ports}],
        "order": 900,
        **more,
    }
    meta = {"name": name}
    return json.dumps(
        {"apiVersion": "roost.edge/v1", "kind": "FirewallPolicy", "metadata": meta, "spec": spec}
    )


def change_at_the_centre(ledger: Ledger) -> None:
    """A policy changed twice, another made, a subcloud labelled."""
    for ports in (["22", "80"], ["22", "8080"]):
        rules = [
            {"action": "allow", "protocol": "icmp"},
            {"action": "allow", "protocol": "icmpv6"},
            {"action": "allow", "protocol": "tcp", "ports": ports},
        ]
        patch = json.dumps({"spec": {"rules": rules}})
        ledger.keep("central", ledger.centre("patch", "fwp", "site-baseline", "--type=merge", "-p", patch))
    coast = policy("coast-only", ["443"], subclouds={"labels": {"region": "coast"}})
    ledger.keep("central", ledger.centre("create", "-f", "-", text=coast))
    ledger.keep("central", ledger.centre("label", "subcloud", "ridge", "region=coast"))


def change_at_the_site(demo: Demo, ledger: Ledger) -> None:
    """A host locked and unlocked, a network and a policy added, through the site's own API."""
    demo.local_roost("ridge", "host", "lock", "controller-1").ok()
    there = ledger.site("ridge", "get", "host", "controller-1")
    assert there["status"]["administrative"] == "locked", there["status"]
    alarms = [a["status"]["alarmId"] for a in ledger.site("ridge", "get", "alarms")["items"]]
    assert "200.001" in alarms, f"the site's own alarms while it is cut off: {alarms}"
    demo.local_roost("ridge", "host", "unlock", "controller-1").ok()
    ledger.keep("ridge", ledger.site("ridge", "label", "host", "controller-1", "rack=b7"))
    meta = {"name": "storage"}
    network = {
        "apiVersion": "roost.edge/v1",
        "kind": "PlatformNetwork",
        "metadata": meta,
        "spec": {"type": "storage", "subnets": ["10.77.0.0/24"]},
    }
    ledger.keep("ridge", ledger.site("ridge", "create", "-f", "-", text=json.dumps(network)))
    hosts = {"labels": {"rack": "b7"}}
    ledger.keep(
        "ridge", ledger.site("ridge", "create", "-f", "-", text=policy("local", ["7443"], hosts=hosts))
    )


def test_a_minute_alone_loses_nothing_on_either_side(demo: Demo) -> None:
    ledger = Ledger(demo)
    checker.converge(demo)
    demo.verb("cut", "ridge")
    begun = time.monotonic()

    def lost() -> None:
        seen = demo.kubectl("get", "alarms", "-o", "json").json()["items"]
        assert "280.001" in [a["status"]["alarmId"] for a in seen], seen

    until("the centre misses the site", lost, 40)
    change_at_the_centre(ledger)
    change_at_the_site(demo, ledger)
    through = demo.roost("--cloud", "ridge", "host", "list")
    assert through.code != 0 and "ridge" in through.said and "Traceback" not in through.said, through
    report(f"through the cut link: {through.said.strip().splitlines()[-1]} ({through.seconds:.1f} s)")

    def followed() -> None:
        seen = checker.probe(demo, "harbor-router", ["10.1.0.11"])
        assert seen["10.1.0.11", 8080] in checker.LET_THROUGH, seen

    until("the sites that are reached follow meanwhile", followed, 40)
    before = checker.probe(demo, "ridge-router", ["10.2.0.11"])
    assert before["10.2.0.11", 22] in checker.LET_THROUGH, f"what was in force is no longer: {before}"
    assert before["10.2.0.11", 8080] == "silence", f"how could it know: {before}"

    while (left := CUT_SECONDS - (time.monotonic() - begun)) > 0:
        time.sleep(min(left, 1.0))
    report(f"the link was cut for {time.monotonic() - begun:.1f} s")
    demo.verb("mend", "ridge")
    checker.converge(demo, writes=ledger.writes)

    told = [
        e["status"]["text"] for e in demo.kubectl("-n", "ridge", "get", "log", "-o", "json").json()["items"]
    ]
    assert any("controller-1 is locked" in text for text in told), "the centre never heard of the lock"
    assert any("controller-1 is unlocked" in text for text in told), told[-5:]
    log = [e["status"]["text"] for e in demo.kubectl("get", "log", "-o", "json").json()["items"]]
    assert "ridge was online and is offline." in log and "ridge was offline and is online." in log, log[-5:]
    seen = checker.probe(demo, "ridge-router", ["10.2.0.11", "10.2.0.12"])
    assert seen["10.2.0.12", 7443] in checker.LET_THROUGH, "the site's own policy is in force on its host"
    assert seen["10.2.0.11", 443] in checker.LET_THROUGH, "the policy for the coast came with the label"

    ledger.keep("central", ledger.centre("label", "subcloud", "ridge", "region-"))
    demo.kubectl("delete", "fwp", "coast-only").ok()
    ledger.writes = [one for one in ledger.writes if one.key[2] != "coast-only"]
    demo.local("ridge", "delete", "fwp", "local").ok()
    ledger.writes = [one for one in ledger.writes if one.key[2] != "local"]
    checker.converge(demo, writes=ledger.writes)


def test_no_policy_cuts_a_host_off_from_its_cloud_or_a_site_from_its_centre(demo: Demo) -> None:
    """Everything is denied on every network: the links stand, and are dialled anew."""
    everything = json.dumps(
        {
            "apiVersion": "roost.edge/v1",
            "kind": "FirewallPolicy",
            "metadata": {"name": "lockdown"},
            "spec": {
                "networks": ["mgmt", "oam"],
                "order": 0,
                "defaultIngress": "deny",
                "defaultEgress": "deny",
                "rules": [{"action": "deny", "direction": "egress"}, {"action": "deny"}],
                "subclouds": {"names": ["valley"]},
            },
        }
    )
    demo.kubectl("create", "-f", "-", text=everything).ok()

    def denied() -> None:
        seen = checker.probe(demo, "valley-router", ["10.3.0.13"])
        assert seen["10.3.0.13", 22] == "silence", seen

    until("the lockdown is in force", denied, 60)
    checker.converge(demo)
    for name in ("valley-controller-0", "valley-worker-0", "valley-controller-1"):
        before = demo.processes()[name]
        demo.verb("kill", name)
        demo.restarted(name, before)
    checker.converge(demo)
    demo.kubectl("delete", "fwp", "lockdown").ok()
    checker.converge(demo)


def test_a_change_that_cannot_be_proven_is_taken_back_and_told(demo: Demo) -> None:
    """The link dies in the very moment of a change: the host can't tell why, and goes back by itself."""
    allowed = policy("trial", ["80"])
    before = checker.probe(demo, "harbor-router", ["10.1.0.11"])
    assert before["10.1.0.11", 80] == "silence", before
    demo.verb("cut", "harbor", "--direction", "up")
    demo.local("harbor", "create", "-f", "-", text=allowed).ok()

    def rolled_back() -> str:
        seen = demo.local("harbor", "get", "alarms", "-o", "json").json()["items"]
        texts = [a["status"]["reason"] for a in seen if a["status"]["alarmId"] == "250.001"]
        assert texts, seen
        return str(texts[0])

    reason = until("the host has gone back and says so", rolled_back, 90)
    assert "taken back" in reason and "20 seconds" in reason, reason
    after = checker.probe(demo, "harbor-router", ["10.1.0.11"])
    assert after == before, f"the former rules must hold: {after}"
    demo.verb("mend", "harbor")

    def told() -> None:
        seen = demo.kubectl("-n", "harbor", "get", "alarms", "-o", "json").json()["items"]
        assert [a["status"]["reason"] for a in seen if a["status"]["alarmId"] == "250.001"] == [reason], seen

    until("the centre shows it with the same reason", told, 40)
    corrected = policy("trial", ["80", "443"])
    demo.local("harbor", "apply", "-f", "-", text=corrected).ok()
    checker.converge(demo)
    seen = checker.probe(demo, "harbor-router", ["10.1.0.11"])
    assert seen["10.1.0.11", 80] in checker.LET_THROUGH and seen["10.1.0.11", 443] in checker.LET_THROUGH, (
        seen
    )
    demo.local("harbor", "delete", "fwp", "trial").ok()
    checker.converge(demo)


def test_every_site_is_known_to_the_checker(demo: Demo) -> None:
    """The checker's own table of sites is that of the demo."""
    sites = {site["name"] for site in demo.status()["sites"]}
    hosts = {p["name"] for p in demo.status()["processes"]} - {"centre"}
    assert sites == set(SITES)
    assert hosts == {f"{site}-{host}" for site, known in SITES.items() for host in known}
