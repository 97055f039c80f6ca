"""The commands that make a plan a network, and the faults of its links.

`batches` is pure: for each namespace its kernel settings, its lines for `ip -batch` and its
nftables rules. `build` runs them, each namespace on one thread: first the backbone, then the
routers, then the hosts, since the nearer end of a cable makes both ends and puts the far one into
its namespace. Namespaces without a name are given to `ip` as /proc/self/fd/NUMBER.

A fault is a table of its own in the site's router that drops what passes the wide-area port:
nothing answers, as on a real dead link, so nobody is told by an error that the link is gone. Or it answers
what passes with a TCP reset, as a firewall does that has lost its connections.
Making and ending a fault are single transactions and may be repeated.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from roost.sim.lab.errors import LabError
from roost.sim.lab.namespaces import SEARCH_PATH, Namespaces, within
from roost.sim.lab.topology import BACKBONE, CENTRE, HostPlan, Plan, Port, SitePlan

Direction = Literal["both", "up", "down"]
Manner = Literal["silent", "reset"]
Repair = Literal["all", "cut", "slow"]
_COMMAND_SECONDS = 20.0
_PEER = re.compile(r"netns @([a-z0-9-]+)")

# Settings of every namespace. IPv6 may be switched off on the machine: then its settings are absent.
_COMMON_SETTINGS = (
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    # Frames between two ports of one bridge are none of the packet filter's business.
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
)
_ROUTER_SETTINGS = (("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1"))

_ROUTER_RULES = """
table inet roost_router {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "oam" oifname { "oam", "wan", "slow-up" } accept
    iifname "slow-up" oifname "wan" accept
    iifname "slow-down" oifname "oam" accept
    iifname "mgmt" oifname "mgmt" accept
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "wan" ct state new meta l4proto { tcp, udp } drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" masquerade
  }
}
"""
_FAULTS: dict[Direction, tuple[str, ...]] = {
    "both": ('oifname "wan"', 'iifname "wan"'),
    "up": ('oifname "wan"',),
    "down": ('iifname "wan"',),
}


class Batch(msgspec.Struct, frozen=True):
    """What is done in one namespace. In a line, `netns @NAME` stands for the namespace NAME."""

    namespace: str
    lines: tuple[str, ...]
    rules: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def peers(self) -> tuple[str, ...]:
        """Namespaces the lines refer to."""
        return tuple(sorted({name for line in self.lines for name in _PEER.findall(line)}))


def _bridge(name: str, mac: str) -> list[str]:
    # Snooping without a querier forgets the neighbours' groups; these bridges are small enough to flood.
    return [
        f"link add {name} address {mac} type bridge forward_delay 0 mcast_snooping 0",
        f"link set {name} up",
    ]


def _addresses(port: Port, device: str) -> list[str]:
    return [
        f"address add {address} dev {device}" + (" nodad" if ":" in address else "")
        for address in port.addresses
    ]


def _cable(bridge: str, near: str, far: Port, namespace: str) -> list[str]:
    """A cable from a port of the bridge to a port of another namespace."""
    return [
        f"link add {near} type veth peer name {far.name} address {far.mac} netns @{namespace}",
        f"link set {near} master {bridge} up",
    ]


def _backbone(plan: Plan) -> Batch:
    lines = ["link set lo up", *_bridge("wan", "02:19:00:00:00:fe")]
    lines += _cable("wan", CENTRE, plan.centre, CENTRE)
    for site in plan.sites:
        lines += _cable("wan", site.name, site.wan, site.router)
    return Batch(BACKBONE, tuple(lines))


def _router(site: SitePlan) -> Batch:
    lines = ["link set lo up", "link set wan up", *_addresses(site.wan, "wan")]
    lines += _bridge("oam", site.gateway.mac)
    lines += _addresses(site.gateway, "oam")
    lines += _bridge("mgmt", f"02:19:{site.number:02x}:02:00:01")
    for host in site.hosts:
        lines += _cable("oam", f"oam.{host.number}", host.oam, host.name)
        lines += _cable("mgmt", f"mgmt.{host.number}", host.mgmt, host.name)
    return Batch(site.router, tuple(lines), _ROUTER_RULES, _ROUTER_SETTINGS)


def _leaf(namespace: str, ports: tuple[Port, ...], gateway: Port | None) -> Batch:
    lines = ["link set lo up"]
    for port in ports:
        lines.append(f"link set {port.name} up")
        lines += _addresses(port, port.name)
    if gateway is not None:
        lines.append(f"route add default via {gateway.ipv4} dev {ports[0].name}")
        lines.append(f"route add default via {gateway.ipv6} dev {ports[0].name}")
    return Batch(namespace, tuple(lines))


def _host(host: HostPlan, site: SitePlan) -> Batch:
    return _leaf(host.name, (host.oam, host.mgmt), site.gateway)


def batches(plan: Plan) -> tuple[tuple[Batch, ...], ...]:
    """Everything to be done, in stages: those of one stage do not wait for one another."""
    leaves = [_leaf(CENTRE, (plan.centre,), None)]
    leaves += [_host(host, site) for site in plan.sites for host in site.hosts]
    return (_backbone(plan),), tuple(_router(site) for site in plan.sites), tuple(leaves)


def fault_rules(direction: Direction, manner: Manner = "silent") -> str:
    """Rules that cut a site's link: `up` stops what the site sends, `down` what it is sent."""
    table = "table inet roost_fault"
    stops = [f"{way} drop" for way in _FAULTS[direction]]
    if manner == "reset":
        stops = [f"{way} meta l4proto tcp reject with tcp reset" for way in _FAULTS[direction]] + stops
    hook = "type filter hook forward priority filter - 10; policy accept;"
    chain = f"  chain forward {{\n    {hook}\n    {'; '.join(stops)}\n  }}\n"
    # Named before it is deleted: that makes the deletion good whether the table is there or not.
    return f"{table}\ndelete {table}\n{table} {{\n{chain}}}\n"


def mend_rules() -> str:
    """Rules that end any fault."""
    return "table inet roost_fault\ndelete table inet roost_fault\n"


def _run(program: list[str], text: str, inherited: tuple[int, ...], where: str) -> None:
    path = shutil.which(program[0], path=SEARCH_PATH) or program[0]
    try:
        done = subprocess.run(
            [path, *program[1:]],
            input=text,
            text=True,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            pass_fds=inherited,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"{program[0]} in {where} gave no answer in {_COMMAND_SECONDS:.0f} s",
            "stop the laboratory and start it again",
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise LabError(
            f"{program[0]} failed in {where}: {said}",
            "see that the kernel has bridge, veth and nftables (`modprobe -a bridge veth nf_tables`)",
        )


def _apply_settings(settings: tuple[tuple[str, str], ...]) -> None:
    for name, value in settings:
        path = Path("/proc/sys") / name
        try:
            path.write_text(value)
        except FileNotFoundError:
            continue  # this kernel has no IPv6, or no filter on bridges
        except OSError as error:
            if name.startswith("net/bridge/"):
                continue  # not granted to user namespaces; the routers' rules let these frames pass
            raise LabError(f"cannot set {name}: {error.strerror}", "run it as root") from error


def _work(batch: Batch, namespaces: Namespaces) -> Callable[[], None]:
    peers = {name: namespaces[name] for name in batch.peers}

    def work() -> None:
        _apply_settings((*_COMMON_SETTINGS, *batch.settings))
        # `ip` inherits the far namespaces under the numbers they have here.
        lines = [
            _PEER.sub(lambda match: f"netns /proc/self/fd/{peers[match[1]]}", text) for text in batch.lines
        ]
        if not has_ipv6():
            lines = [line for line in lines if "::" not in line]
        _run(["ip", "-batch", "-"], "\n".join(lines) + "\n", tuple(peers.values()), batch.namespace)
        if batch.rules:
            _run(["nft", "-f", "-"], batch.rules, (), batch.namespace)

    return work


async def build(plan: Plan, namespaces: Namespaces) -> None:
    """Make the network of the plan in namespaces that are empty."""
    for stage in batches(plan):
        works = [within(namespaces[batch.namespace], _work(batch, namespaces)) for batch in stage]
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


async def change_rules(namespaces: Namespaces, namespace: str, rules: str) -> None:
    """Carry out one nftables transaction in a namespace."""
    await run_lines(namespaces, namespace, ["nft", "-f", "-"], [rules])


async def run_lines(namespaces: Namespaces, namespace: str, program: list[str], lines: Iterable[str]) -> None:
    """Give a program its lines, in a namespace; raises LabError."""
    text = "".join(f"{line}\n" for line in lines)
    await within(namespaces[namespace], lambda: _run(program, text, (), namespace))


def has_ipv6() -> bool:
    """Whether this kernel speaks IPv6."""
    return Path("/proc/sys/net/ipv6").is_dir()
