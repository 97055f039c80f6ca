"""The judge of convergence: looks at a running demo from outside and says what is not as it must be.

It knows nothing of the code under test: it asks the API (through kubectl) at the centre and at each
site, reads the states of processes, and sends packets. What must hold, once everything is whole:

- what a site says of its resources and what the centre shows of them is the same;
- copies of shared policies say at the site what their original says at the centre, and are in force;
- each cloud's alarms are those that follow from the true state, and none is stale;
- log entries of each source count from one without a gap, are there once, and are the same at the centre;
- what the hosts' kernels let through is what the policies say, by real packets;
- no operation is at work, and every accepted write is where it was written.

`problems` gives all deviations; an empty list is convergence.
"""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.acceptance.running import Demo
from tests.acceptance.waiting import until

Raw = dict[str, Any]
Key = tuple[str, str, str]
SITES = {
    "harbor": ("controller-0",),
    "ridge": ("controller-0", "controller-1"),
    "valley": ("controller-0", "controller-1", "worker-0"),
}
CENTRAL = "central"
KINDS = (
    "hosts",
    "hostconfigurations",
    "platformnetworks",
    "firewallpolicies",
    "operations",
    "alarms",
    "logentries",
    "clouds",
    "subclouds",
)
READING_ALARM = {"processor": "100.101", "memory": "100.103", "filesystem": "100.104"}
SHARED_BY = "roost.edge/shared-by"
PORTS = (22, 80, 443, 7443, 7444, 8080)


class Write:
    """An accepted write: where it was made, and what must be true of the object from then on."""

    def __init__(self, cloud: str, key: Key, holds: Callable[[Raw | None], bool], what: str) -> None:
        self.cloud, self.key, self.holds, self.what = cloud, key, holds, what


class View:
    """All resources that one cloud's API shows."""

    def __init__(self, items: Iterable[Raw]) -> None:
        self.items: dict[Key, Raw] = {}
        for item in items:
            meta = item["metadata"]
            key = (item["kind"], meta.get("namespace", ""), meta["name"])
            assert key not in self.items, f"{key} is listed twice"
            self.items[key] = item

    def of(self, kind: str, namespace: str) -> dict[str, Raw]:
        """Resources of a kind in a namespace, by name."""
        return {k[2]: v for k, v in self.items.items() if k[:2] == (kind, namespace)}


def look(demo: Demo, site: str = "") -> View:
    """What the centre shows, or a site at its own API."""
    arguments = ["get", ",".join(KINDS), "-A", "-o", "json"]
    answer = demo.local(site, *arguments) if site else demo.kubectl(*arguments)
    return View(answer.json()["items"])


# The parts of the judgement


def mirrored(centre: View, site: View, name: str) -> dict[Key, str]:
    """Differences between what a site holds and what the centre shows of it."""
    found = {}
    mine = {k: v for k, v in site.items.items() if k[1] == name or k == ("Cloud", "", name)}
    theirs = {k: v for k, v in centre.items.items() if k[1] == name or k == ("Cloud", "", name)}
    for key in sorted(mine.keys() | theirs.keys()):
        if key not in theirs:
            found[key] = f"{_show(key)} of {name} is not at the centre"
        elif key not in mine:
            found[key] = f"{_show(key)} is at the centre, but not at {name}"
        elif different := differences(_essence(mine[key]), _essence(theirs[key])):
            path, there, here = different[0]
            found[key] = f"{_show(key)}: {path} is {there!r} at {name}, {here!r} at the centre"
    return found


def lasting(demo: Demo, name: str, site: View, found: dict[Key, str]) -> list[str]:
    """Those differences that are there at a second look, though nothing was written at the site meanwhile.

    Monitors write every few seconds; what was on its way at the first look is no difference.
    """
    if not found:
        return []
    again = look(demo, name)
    still = mirrored(look(demo), again, name)
    return [
        text for key, text in still.items() if key in found and _revision(site, key) == _revision(again, key)
    ]


def _revision(view: View, key: Key) -> str:
    return str(view.items[key]["metadata"]["resourceVersion"]) if key in view.items else ""


def _essence(item: Raw) -> Raw:
    """What must be equal everywhere: not the revision of the store that shows it."""
    meta = item["metadata"]
    kept = {n: meta.get(n) for n in ("name", "namespace", "uid", "labels", "annotations", "generation")}
    return {"metadata": kept, "spec": item.get("spec"), "status": item.get("status")}


def differences(left: Any, right: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two values differ, as paths."""
    if isinstance(left, dict) and isinstance(right, dict):
        names = sorted(left.keys() | right.keys())
        return [d for n in names for d in differences(left.get(n), right.get(n), f"{path}.{n}".strip("."))]
    return [] if left == right else [(path, left, right)]


def shared(centre: View, sites: dict[str, View], labels: dict[str, dict[str, str]]) -> list[str]:
    """Copies of the centre's policies at the sites that are not as their originals."""
    found = []
    originals = {
        n: p
        for n, p in centre.of("FirewallPolicy", CENTRAL).items()
        if p["spec"].get("subclouds") is not None
    }
    for site, view in sites.items():
        copies = {
            n: p
            for n, p in view.of("FirewallPolicy", site).items()
            if p["metadata"].get("labels", {}).get(SHARED_BY) == CENTRAL
        }
        wanted = {f"{n}.{CENTRAL}": p for n, p in originals.items() if _selected(p, site, labels[site])}
        if copies.keys() != wanted.keys():
            found.append(f"{site} has the copies {sorted(copies)}, and should have {sorted(wanted)}")
        for name in copies.keys() & wanted.keys():
            spec = {k: v for k, v in wanted[name]["spec"].items() if k != "subclouds"}
            mine = {k: v for k, v in copies[name]["spec"].items() if k != "subclouds"}
            found += [f"copy {name} at {site}: {d}" for d in differences(mine, spec, "spec")]
            found += _ready(copies[name], f"copy {name} at {site}")
    for name, policy in originals.items():
        found += _ready(policy, f"policy {name} at the centre")
    return found


def _selected(policy: Raw, site: str, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["subclouds"]
    names, wanted = selector.get("names") or [], selector.get("labels") or {}
    return (not names or site in names) and all(labels.get(k) == v for k, v in wanted.items())


def _ready(policy: Raw, what: str) -> list[str]:
    conditions = policy.get("status", {}).get("conditions", [])
    ready: Raw = next((c for c in conditions if c["type"] == "Ready"), {})
    if (
        ready.get("status") != "True"
        or policy["status"]["observedGeneration"] != policy["metadata"]["generation"]
    ):
        return [f"{what} is not in force: {policy.get('status')}"]
    return []


def alarms(view: View, cloud: str, more: set[tuple[str, str]]) -> list[str]:
    """The alarms of a cloud against the true state: every process runs, every link is whole.

    `more` are those that the test knows to be true besides, as (alarm id, entity).
    """
    wanted = set(more)
    for name, host in view.of("Host", cloud).items():
        if host["spec"]["administrativeState"] == "locked":
            wanted.add(("200.001", f"host={name}"))
        for reading in host["status"].get("readings", []):
            if reading["level"] in ("major", "critical") and reading["monitor"] in READING_ALARM:
                entity = f"host={name}"
                if reading["monitor"] == "filesystem":
                    entity += f".filesystem={reading['instance']}"
                wanted.add((READING_ALARM[reading["monitor"]], entity))
    raised = view.of("Alarm", cloud).values()
    there = [(a["status"]["alarmId"], a["status"]["entity"]) for a in raised]
    found = [f"{cloud}: alarm {one} stands twice" for one in set(there) if there.count(one) > 1]
    found += [f"{cloud}: alarm {a} is not raised" for a in sorted(wanted - set(there))]
    found += [f"{cloud}: alarm {a} is raised without a cause" for a in sorted(set(there) - wanted)]
    found += [
        f"{cloud}: alarm {a['metadata']['name']} is stale" for a in raised if a["status"].get("staleSince")
    ]
    return found


def history(view: View, cloud: str) -> list[str]:
    """Gaps and doubles in the log entries of each source of a cloud."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for name, entry in view.of("LogEntry", cloud).items():
        numbers[entry["status"]["source"]].append(entry["status"]["sequence"])
        if not re.search(rf"0*{entry['status']['sequence']}$", name):
            return [f"{cloud}: log entry {name} has the number {entry['status']['sequence']}"]
    found = [] if numbers else [f"{cloud} has no log entries"]
    for source, counted in numbers.items():
        missing = sorted(set(range(1, max(counted) + 1)) - set(counted))
        if missing or len(counted) != len(set(counted)):
            found.append(f"log entries of {source}: {missing} are missing of {len(counted)}")
    return found


def hosts(view: View, cloud: str) -> list[str]:
    """Hosts that are not what their intent says, and operations that are still at work."""
    found = []
    for name, host in view.of("Host", cloud).items():
        locked = host["spec"]["administrativeState"] == "locked"
        status = host["status"]
        state = (status["administrative"], status["operational"], status["availability"], status["connected"])
        wanted = (
            ("locked", "disabled", "online", True) if locked else ("unlocked", "enabled", "available", True)
        )
        if state != wanted or status.get("task"):
            found.append(f"{cloud}/{name} is {state}, task {status.get('task')!r}, and should be {wanted}")
    for name, configuration in view.of("HostConfiguration", cloud).items():
        told = configuration.get("status", {})
        if told.get("appliedGeneration") != configuration["metadata"]["generation"]:
            found.append(f"configuration of {cloud}/{name} is not in force: {told}")
    for name, operation in view.of("Operation", cloud).items():
        state = operation["status"]["state"]
        if state not in ("succeeded", "failed", "aborted"):
            found.append(f"operation {cloud}/{name} is {state}: {operation['status'].get('message')}")
    return found


def kept(writes: Iterable[Write], centre: View, sites: dict[str, View]) -> list[str]:
    """Accepted writes that are lost at their home, or at the centre."""
    found = []
    for write in writes:
        home = centre if write.cloud == CENTRAL else sites[write.cloud]
        for where, view in ((write.cloud, home), ("the centre", centre)):
            seen = view.items.get(write.key)
            if not write.holds(seen):
                shown = seen and {"spec": seen.get("spec"), "labels": seen["metadata"].get("labels")}
                found.append(f"lost at {where}: {write.what}; {_show(write.key)} is {shown}")
    return found


def _show(key: Key) -> str:
    return f"{key[0]} {key[1]}/{key[2]}" if key[1] else f"{key[0]} {key[2]}"


# Packets

PROBE = """
import json, select, socket, sys, time
asked = [tuple(pair) for pair in json.load(sys.stdin)]
waiting, said = {}, {}
poll = select.poll()
for target, port in asked:
    one = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_STREAM)
    one.setblocking(False)
    try:
        one.connect((target, port))
    except BlockingIOError:
        waiting[one.fileno()] = ((target, port), one)
        poll.register(one.fileno(), select.POLLOUT)
    except OSError as error:
        said[target, port] = error.strerror
end = time.monotonic() + 1.2
while waiting and time.monotonic() < end:
    for number, _ in poll.poll(max(1, (end - time.monotonic()) * 1000)):
        pair, one = waiting.pop(number)
        poll.unregister(number)
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        said[pair] = {0: "open", 111: "refused"}.get(code, "error %d" % code)
print(json.dumps([said.get(pair, "silence") for pair in asked]))
"""
LET_THROUGH = ("open", "refused")
Probed = dict[tuple[str, int], str]


def probe(demo: Demo, source: str, targets: Iterable[str], ports: Iterable[int] = PORTS) -> Probed:
    """What comes back from TCP ports of addresses: `open`, `refused` (both let through), `silence`."""
    asked = [(target, port) for target in targets for port in ports]
    argv = [sys.executable, "-I", "-S", "-c", PROBE]
    answer = demo.inside(source, *argv, text=json.dumps(asked)).ok()
    return dict(zip(asked, json.loads(answer.output), strict=True))


def let_through(view: View, cloud: str, host: str, source: str, network: str = "oam") -> dict[int, bool]:
    """Which of the probed ports the policies of a cloud let in to a host from an address."""
    personalities = set(view.of("Host", cloud)[host]["spec"]["personalities"])
    labels = view.of("Host", cloud)[host]["metadata"].get("labels", {})
    policies = []
    for name, policy in view.of("FirewallPolicy", cloud).items():
        spec = policy["spec"]
        selector = spec.get("hosts") or {}
        roles, wanted = set(selector.get("personalities") or []), selector.get("labels") or {}
        if spec.get("subclouds") is not None or network not in spec["networks"]:
            continue
        if (not roles or roles & personalities) and all(labels.get(k) == v for k, v in wanted.items()):
            policies.append((spec.get("order", 1000), name, spec))
    policies.sort(key=lambda p: p[:2])
    if not policies:
        return dict.fromkeys(PORTS, True)
    default = all(spec.get("defaultIngress", "deny") == "allow" for *_, spec in policies)
    subnets = view.of("PlatformNetwork", cloud)[network]["spec"]["subnets"]
    rules = [rule for *_, spec in policies for rule in spec.get("rules", [])]
    if "controller" in personalities:
        # The platform's own: links of hosts, from its own networks.
        rules.insert(0, {"action": "allow", "protocol": "tcp", "ports": ["7444"], "peers": subnets})
    return {port: _verdict(rules, port, source, default=default) for port in PORTS}


def _verdict(rules: list[Raw], port: int, source: str, *, default: bool) -> bool:
    for rule in rules:
        if rule.get("direction", "ingress") != "ingress" or rule.get("protocol", "any") not in ("any", "tcp"):
            continue
        ranges = [(text.split("-")[0], text.split("-")[-1]) for text in rule.get("ports") or []]
        peers = [ipaddress.ip_network(p) for p in rule.get("peers") or []]
        if ranges and not any(int(first) <= port <= int(last) for first, last in ranges):
            continue
        if peers and not any(ipaddress.ip_address(source) in p for p in peers):
            continue
        return bool(rule["action"] == "allow")
    return default


def addresses(site: str, host: str) -> dict[str, str]:
    """The host's addresses on the operators' network, each with that of the site's router there."""
    number, last = sorted(SITES).index(site) + 1, 11 + SITES[site].index(host)
    return {f"10.{number}.0.{last}": f"10.{number}.0.1", f"fd00:{number}::{last}": f"fd00:{number}::1"}


def packets(demo: Demo, view: View, site: str) -> list[str]:
    """Ports that a site's hosts let through against the policies, or hold back against them."""
    targets = {target: host for host in SITES[site] for target in addresses(site, host)}
    seen = probe(demo, f"{site}-router", targets)
    found = []
    for (target, port), said in seen.items():
        host = targets[target]
        source = addresses(site, host)[target]
        wanted = let_through(view, site, host, source)[port]
        if (said in LET_THROUGH) != wanted:
            found.append(
                f"{site}/{host}: port {port} of {target} from {source} gives {said!r}, and policies "
                f"{'let it through' if wanted else 'hold it back'}"
            )
    return found


# The whole


def problems(
    demo: Demo, *, writes: Iterable[Write] = (), more_alarms: dict[str, set[tuple[str, str]]] | None = None
) -> list[str]:
    """Everything that is not as it must be when all processes run and all links are whole."""
    more = more_alarms or {}
    lab = demo.status()
    found = [f"process {p['name']} is {p['state']}" for p in lab["processes"] if p["state"] != "ready"]
    found += [f"the link of {s['name']} is cut" for s in lab["sites"] if s.get("cut")]
    with ThreadPoolExecutor() as pool:
        looked = [pool.submit(look, demo, site) for site in SITES]
        sites = {site: one.result() for site, one in zip(SITES, looked, strict=True)}
        probed = [pool.submit(packets, demo, view, site) for site, view in sites.items()]
        centre = look(demo)
        found += [text for one in probed for text in one.result()]
    subclouds = list(centre.of("Subcloud", "").values())
    for subcloud in subclouds:
        status, name = subcloud["status"], subcloud["metadata"]["name"]
        if (status["availability"], status["sync"]) != ("online", "in-sync"):
            found.append(f"subcloud {name} is {status['availability']}, {status['sync']}")
    labels = {s["metadata"]["name"]: s["metadata"].get("labels", {}) for s in subclouds}
    for name, view in {**sites, CENTRAL: centre}.items():
        found += alarms(view, name, more.get(name, set()))
        found += history(view, name)
        found += hosts(view, name)
        if name != CENTRAL:
            found += lasting(demo, name, view, mirrored(centre, view, name))
    found += shared(centre, sites, labels)
    found += kept(writes, centre, sites)
    return found


def converge(
    demo: Demo,
    within: float = 90.0,
    *,
    writes: Iterable[Write] = (),
    more_alarms: dict[str, set[tuple[str, str]]] | None = None,
) -> None:
    """Wait until nothing deviates; fails with all that still does."""

    def converged() -> None:
        found = problems(demo, writes=writes, more_alarms=more_alarms)
        assert not found, "\n".join(found[:30])

    until("everything has converged", converged, within)
