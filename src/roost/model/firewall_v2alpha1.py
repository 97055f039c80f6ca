"""FirewallPolicy as `roost.edge/v2alpha1` has it: ports are numbers, not text.

In v1 a rule's ports are texts such as `443` or `8000-8010`, which no schema can check, no program reads
without a parser of its own, and whose parts can't be compared. Here each is `{from: 8000, to: 8010}`, or
`{from: 443}` alone. Nothing else differs, and v1 is what is stored.

Nothing is lost on the way there and back. Texts of v1 that are not written plainly, as `0443`, are kept
beside the policy in an annotation, and return while the port at that place still means the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from roost.model.firewall import (
    FIREWALL_POLICY,
    Action,
    Direction,
    FirewallPolicyStatus,
    HostSelector,
    Protocol,
    parse_ports,
    rule_problems,
)
from roost.model.firewall import FirewallRule as StoredRule
from roost.model.fleet import SubcloudSelector
from roost.model.kind import Conversion, KindInfo, Problem
from roost.model.meta import GROUP, Part, Resource, doc
from roost.model.network import NetworkType

VERSION = "v2alpha1"
AS_WRITTEN = f"firewallpolicies.{GROUP}/v1-ports"
"""Annotation with the texts of v1 that a port can't say, by `RULE.PORT`, as JSON."""

Raw = dict[str, Any]


class PortRange(Part, frozen=True, kw_only=True):
    """One port, or several in a row."""

    first: Annotated[int, doc("First port.", ge=1, le=65535)] = msgspec.field(name="from")
    last: Annotated[int, doc("Last port; absent or 0: the first alone.", ge=0, le=65535)] = msgspec.field(
        name="to", default=0
    )


class FirewallRule(Part, frozen=True, kw_only=True, omit_defaults=False):
    """One rule; the first that matches decides."""

    action: Annotated[Action, doc("What happens to the packet.")]
    direction: Annotated[Direction, doc("Ingress: to the host. Egress: from the host.")] = "ingress"
    protocol: Annotated[Protocol, doc("Protocol; any matches all.")] = "any"
    ports: Annotated[list[PortRange], doc("Destination ports; empty matches all.", max_length=128)] = []
    peers: Annotated[
        list[str],
        doc(
            "Addresses of the other side in CIDR notation; empty matches all.",
            max_length=1024,
        ),
    ] = []
    description: Annotated[str, doc("Why the rule is there.", max_length=255)] = ""


class FirewallPolicySpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    networks: Annotated[
        list[NetworkType],
        doc("Platform networks it applies to.", min_length=1, max_length=6, list_type="set"),
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


class FirewallPolicy(Resource, frozen=True, kw_only=True):
    """Which traffic platform networks let through."""

    spec: Annotated[FirewallPolicySpec, doc("What the operator wants.")]
    status: Annotated[FirewallPolicyStatus, doc("What is.")] = FirewallPolicyStatus()


def to_stored(raw: Raw) -> Raw:
    """A policy of v2alpha1 as one of v1."""
    written = _written(raw)

    def port(place: str, value: Raw) -> str:
        kept = written.get(place, "")
        first, last = value["from"], value.get("to", 0)
        plain = str(first) if not last else f"{first}-{last}"
        return kept if kept and _range(kept) == value else plain

    return _converted(raw, FIREWALL_POLICY.api_version, _each_port(raw, port), {})


def from_stored(raw: Raw) -> Raw:
    """A policy of v1 as one of v2alpha1."""
    written: dict[str, str] = {}

    def port(place: str, text: str) -> Raw:
        value = _range(text)
        if text != _plain(value):
            written[place] = text
        return value

    return _converted(raw, FIREWALL_POLICY_V2ALPHA1.api_version, _each_port(raw, port), written)


def _range(text: str) -> Raw:
    first, last = parse_ports(text)
    return {"from": first, "to": last} if "-" in text else {"from": first}


def _plain(value: Raw) -> str:
    return f"{value['from']}-{value['to']}" if "to" in value else str(value["from"])


def _each_port(raw: Raw, convert: Any) -> list[Raw] | None:
    """The rules with each port converted; None when the policy has none."""
    rules = raw.get("spec", {}).get("rules")
    if rules is None:
        return None
    return [
        {**rule, "ports": [convert(f"{n}.{m}", port) for m, port in enumerate(rule["ports"])]}
        if "ports" in rule
        else rule
        for n, rule in enumerate(rules)
    ]


def _converted(raw: Raw, api_version: str, rules: list[Raw] | None, written: dict[str, str]) -> Raw:
    meta = raw["metadata"]
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != AS_WRITTEN}
    if written:
        annotations[AS_WRITTEN] = msgspec.json.encode(written).decode()
    kept = {k: v for k, v in meta.items() if k != "annotations"}
    if annotations or ("annotations" in meta and AS_WRITTEN not in meta["annotations"]):
        kept["annotations"] = annotations
    converted = {**raw, "apiVersion": api_version, "metadata": kept}
    if rules is not None:
        converted["spec"] = {**raw["spec"], "rules": rules}
    return converted


def _written(raw: Raw) -> dict[str, str]:
    """The texts that are kept; those that somebody has spoilt are not."""
    try:
        text = (raw["metadata"].get("annotations") or {}).get(AS_WRITTEN, "{}")
        found = msgspec.json.decode(text, type=dict[str, str])
        return {place: text for place, text in found.items() if _is_range(text)}
    except msgspec.MsgspecError:
        return {}


def _is_range(text: str) -> bool:
    try:
        parse_ports(text)
    except ValueError:
        return False
    return True


def _problems(policy: FirewallPolicy) -> Iterator[Problem]:
    for n, rule in enumerate(policy.spec.rules):
        at = f"spec.rules[{n}]"
        backwards = [m for m, p in enumerate(rule.ports) if 0 < p.last < p.first]
        for m in backwards:
            yield Problem(f"{at}.ports[{m}].to", "is less than from", "write the first port as from")
        if not backwards:
            ports = [str(p.first) for p in rule.ports]
            stored = msgspec.structs.asdict(rule) | {"ports": ports}
            yield from rule_problems(StoredRule(**stored), at)


FIREWALL_POLICY_V2ALPHA1 = KindInfo(
    kind=FIREWALL_POLICY.kind,
    version=VERSION,
    conversion=Conversion(to_stored=to_stored, from_stored=from_stored),
    plural=FIREWALL_POLICY.plural,
    singular=FIREWALL_POLICY.singular,
    short_names=FIREWALL_POLICY.short_names,
    categories=FIREWALL_POLICY.categories,
    type=FirewallPolicy,
    description=FIREWALL_POLICY.description,
    flow=FIREWALL_POLICY.flow,
    invariants=lambda policy: list(_problems(policy)),
    columns=FIREWALL_POLICY.columns,
)
