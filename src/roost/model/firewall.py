"""FirewallPolicy: which layer 3 and 4 traffic the platform networks of hosts let through.

A policy declared with `subclouds` is shared: the fleet room makes a copy `NAME.CLOUD` for each
subcloud it selects, which flows down. Operators' own names carry no dot, so copies never collide.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from roost.model.fleet import SubcloudSelector
from roost.model.host import Host, Personality
from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import Condition, Part, Resource, doc
from roost.model.network import NetworkType

Action = Literal["allow", "deny"]
Direction = Literal["ingress", "egress"]
Protocol = Literal["any", "tcp", "udp", "sctp", "icmp", "icmpv6"]

_PORTS = re.compile(r"^(\d{1,5})(-(\d{1,5}))?$")


class FirewallRule(Part, frozen=True, kw_only=True, omit_defaults=False):
    """One rule; the first that matches decides."""

    action: Annotated[Action, doc("What happens to the packet.")]
    direction: Annotated[Direction, doc("Ingress: to the host. Egress: from the host.")] = "ingress"
    protocol: Annotated[Protocol, doc("Protocol; any matches all.")] = "any"
    ports: Annotated[list[str], doc("Destination ports or ranges, as 443 or 8000-8010.", max_length=128)] = []
    peers: Annotated[
        list[str],
        doc("Addresses of the other side in CIDR notation; empty matches all.", max_length=1024),
    ] = []
    description: Annotated[str, doc("Why the rule is there.", max_length=255)] = ""


class HostSelector(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Which hosts; all conditions must hold; an empty selector selects all."""

    personalities: Annotated[
        list[Personality], doc("Hosts with any of these.", list_type="set", max_length=3)
    ] = []
    labels: Annotated[dict[str, str], doc("Hosts with all of these labels.")] = {}


def selects(selector: HostSelector, host: Host) -> bool:
    """Whether a selector selects a host."""
    if selector.personalities and not set(selector.personalities) & set(host.spec.personalities):
        return False
    return selector.labels.items() <= host.metadata.labels.items()


class FirewallPolicySpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    networks: Annotated[
        list[NetworkType],
        doc("Platform networks it applies to.", list_type="set", min_length=1, max_length=6),
    ]
    rules: Annotated[list[FirewallRule], doc("Rules in order.", max_length=1000)] = []
    default_ingress: Annotated[Action, doc("For packets to the host that no rule matches.")] = "deny"
    default_egress: Annotated[Action, doc("For packets from the host that no rule matches.")] = "allow"
    order: Annotated[int, doc("Policies with lower order come first.", ge=0, le=10000)] = 1000
    hosts: Annotated[HostSelector, doc("Hosts it applies to.")] = HostSelector()
    subclouds: Annotated[
        SubcloudSelector | None,
        doc("Present: shared with the selected subclouds instead of applied in this cloud."),
    ] = None


class FirewallPolicyStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    hosts: Annotated[int, doc("Hosts it applies to.")] = 0
    applied: Annotated[int, doc("Hosts on which this generation is in force.")] = 0
    subclouds: Annotated[int, doc("Subclouds it is shared with.")] = 0
    in_sync: Annotated[int, doc("Subclouds on all of whose hosts it is in force.")] = 0
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class FirewallPolicy(Resource, frozen=True, kw_only=True):
    """Which traffic platform networks let through."""

    spec: Annotated[FirewallPolicySpec, doc("What the operator wants.")]
    status: Annotated[FirewallPolicyStatus, doc("What is.")] = FirewallPolicyStatus()


def parse_ports(text: str) -> tuple[int, int]:
    """First and last port of `443` or `8000-8010`. Raises ValueError with the reason."""
    match = _PORTS.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a port or a range of ports")
    first, last = int(match[1]), int(match[3] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is not within 1 to 65535, first to last")
    return first, last


@lru_cache(maxsize=4096)
def _address_family(text: str) -> int:
    """4 or 6; raises ValueError. Policies repeat their networks, and taking one apart costs 10 µs."""
    return ipaddress.ip_network(text).version


def rule_problems(rule: FirewallRule, at: str) -> list[Problem]:
    """What is wrong with one rule; `at` is its path."""
    problems = []
    if rule.ports and rule.protocol not in ("tcp", "udp", "sctp"):
        problems.append(
            Problem(
                f"{at}.ports",
                f"protocol {rule.protocol} has no ports",
                "set protocol to tcp, udp or sctp, or leave ports out",
            )
        )
    for n, text in enumerate(rule.ports):
        try:
            parse_ports(text)
        except ValueError as error:
            problems.append(Problem(f"{at}.ports[{n}]", str(error), "write 443 or 8000-8010"))
    for n, text in enumerate(rule.peers):
        try:
            version = _address_family(text)
        except ValueError as error:
            problems.append(Problem(f"{at}.peers[{n}]", str(error), "write a network, as 192.0.2.0/24"))
            continue
        if (rule.protocol, version) in (("icmp", 6), ("icmpv6", 4)):
            problems.append(
                Problem(f"{at}.peers[{n}]", f"{rule.protocol} does not go with {text}", "split the rule")
            )
    return problems


def _invariants(policy: FirewallPolicy) -> list[Problem]:
    return [p for n, rule in enumerate(policy.spec.rules) for p in rule_problems(rule, f"spec.rules[{n}]")]


class _Something(msgspec.Struct, frozen=True):
    """Of which nothing is decoded."""


class _SharedSpec(msgspec.Struct, frozen=True):
    subclouds: _Something | None = None


class _Shared(msgspec.Struct, frozen=True):
    spec: _SharedSpec = _SharedSpec()


_shared = msgspec.json.Decoder(_Shared).decode


def is_shared(data: str) -> bool:
    """Whether a policy as it is stored is for subclouds: it concerns no host of its own cloud."""
    return _shared(data).spec.subclouds is not None


FIREWALL_POLICY = KindInfo(
    kind="FirewallPolicy",
    plural="firewallpolicies",
    singular="firewallpolicy",
    short_names=("fwp",),
    categories=("roost",),
    type=FirewallPolicy,
    description="Which layer 3 and 4 traffic the platform networks of hosts let through.",
    flow=Flow.BOTH,
    invariants=_invariants,
    columns=(
        Column("Networks", "spec.networks[*]", "Platform networks it applies to."),
        Column("Rules", "spec.rules|count", "Number of rules.", "integer"),
        Column("Applied", "status.applied", "Hosts on which it is in force.", "integer"),
        Column("Hosts", "status.hosts", "Hosts it applies to.", "integer"),
        Column("Subclouds", "status.subclouds", "Subclouds it is shared with.", "integer"),
        Column("In sync", "status.inSync", "Subclouds where it is in force.", "integer"),
        Column("Ready", "status.conditions[Ready].status", "In force everywhere."),
        Column("Reason", "status.conditions[Ready].reason", "Why, or why not.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
