"""From the compiled intent of one host to the rules of one nftables table.

`render` turns a FirewallConfiguration into the commands that make the table `inet roost_firewall`
from nothing. The commands are nft's JSON, never text: a name or a description is always one JSON
string, so it cannot become syntax. Names that nft itself would read with a second meaning (`@set`,
`eth*`) are refused.

    input hook:  iifname --map--> ports-ingress-N:  common-ingress      established, neighbour discovery
    output hook: oifname --map--> ports-egress-N:   rules-ingress-oam   the operator's rules, in order
                                                    default verdict, counted

Invariants:
- Only packets that enter or leave through a port of a listed network are looked at; one map look-up
  finds their chain, so the cost does not grow with the number of networks. Everything else falls
  through to the policy `accept` of the hook. Loopback is never filtered, even when it is listed.
- Forwarded traffic is left alone: this firewall guards the platform's own traffic, that of the host.
- Ports that carry the same networks share a chain. A port that carries several networks gets the
  rules of each, in the order of the networks; it denies by default when any of them does.
- What keeps a network alive is never subject to rules: neighbour discovery, router advertisements
  and multicast listener messages for IPv6, DHCP answers and requests of a client.
- Established flows pass first. A rule that denies therefore acts on new flows, and replacing the
  rules interrupts no flow.
- `accept` here ends the walk through this table only; tables of others still have their say.
- Each rule carries a comment that names the intent it comes from. A comment in the chain `digest`
  holds the digest of the commands and of the table's structure, so that the kernel itself says what
  is in force, and tampering shows (see planning).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from roost.model.configuration import FirewallConfiguration, NetworkFirewall
from roost.model.firewall import Action, Direction, FirewallRule, parse_ports, rule_problems
from roost.model.meta import DNS_NAME

FAMILY = "inet"
TABLE = "roost_firewall"
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
DIGEST_CHAIN = "digest"
DEFAULTS_CHAIN = "defaults"
MAX_OPERANDS = 100_000
"""Ports and peers over all rules; above this a configuration is refused rather than rendered."""

Json = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORT_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}")
_NETWORK_NAME = re.compile(DNS_NAME)
_COMMENT_LIMIT = 120
_PROTOCOL_NUMBER = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_VERDICT: dict[Action, Json] = {"allow": {"accept": None}, "deny": {"drop": None}}
_COUNTER: Json = {"counter": {"packets": 0, "bytes": 0}}


class RulesetError(ValueError):
    """A configuration that cannot become rules: where, why, and the next step."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{field}: {reason}; {remedy}")
        self.field, self.reason, self.remedy = field, reason, remedy


class Ruleset(msgspec.Struct, frozen=True):
    """The whole table as commands that make it from nothing, and the digest that names it."""

    digest: str
    commands: list[Json]


def render(configuration: FirewallConfiguration) -> Ruleset:
    """Rules for this configuration. Raises RulesetError; has no other effect."""
    _refuse_invalid(configuration)
    groups = _port_groups(configuration.networks)
    commands = [_add("table", {}), *_chains(configuration.networks, groups), *_maps(groups)]
    for direction in DIRECTIONS:
        commands.append(_hook_rule(direction))
        commands += [_rule(f"common-{direction}", e, c) for e, c in _common(direction)]
        for network in configuration.networks:
            commands += _network_rules(network, direction)
        for number, (networks, _) in enumerate(groups):
            commands += _group_rules(number, networks, direction)
    commands += _default_notes(configuration.networks)
    digest = _hash(commands)[:40]
    note = f"roost digest={digest} structure={structure_digest(objects_of(commands))}"
    return Ruleset(digest, [*commands, _rule(DIGEST_CHAIN, [_COUNTER], note)])


def installation(commands: Sequence[Json] | None) -> Json:
    """One nft batch, one transaction: our table replaced by what `commands` make; None removes it.

    `add` before `delete` makes the deletion succeed whether or not the table is there.
    """
    table = {"family": FAMILY, "name": TABLE}
    return {"nftables": [{"add": {"table": table}}, {"delete": {"table": table}}, *(commands or [])]}


def objects_of(commands: Iterable[Json]) -> list[Json]:
    """The objects that `add` commands make, in the shape in which nft lists them."""
    return [command["add"] for command in commands if "add" in command]


def structure_digest(objects: Iterable[Json]) -> str:
    """Hash of what the table holds: chains with their rules' comments in order, maps with their elements.

    The same for rendered commands and for what nft lists of them, whichever form nft gives expressions.
    The chain that carries the digest is left out.
    """
    chains: dict[str, list[str]] = {}
    maps: dict[str, list[str]] = {}
    for item in objects:
        if "chain" in item:
            chains.setdefault(str(item["chain"].get("name")), [])
        elif "rule" in item:
            chains.setdefault(str(item["rule"].get("chain")), []).append(str(item["rule"].get("comment", "")))
        else:
            for kind in ("map", "set"):
                if kind in item:
                    elements = item[kind].get("elem", [])
                    maps[str(item[kind].get("name"))] = sorted(_hash(e) for e in elements)
    chains.pop(DIGEST_CHAIN, None)
    return _hash([sorted(chains.items()), sorted(maps.items())])[:16]


def rule_text(rule: FirewallRule) -> str:
    """One rule for people: `allow tcp 443 from 198.51.100.0/24 (ingress): reason`."""
    words: list[str] = [rule.action, rule.protocol]
    if rule.ports:
        words.append(_some(rule.ports))
    if rule.peers:
        words += ["from" if rule.direction == "ingress" else "to", _some(rule.peers)]
    text = f"{' '.join(words)} ({rule.direction})"
    return f"{text}: {rule.description}" if rule.description else text


def rule_identity(rule: FirewallRule) -> str:
    """Short hash that is equal for equal rules."""
    return _hash(msgspec.to_builtins(rule))[:12]


def rule_comment(rule: FirewallRule, index: int) -> str:
    """What the kernel keeps with the rule: its place, identity and text, cut to what nft takes."""
    return _plain(f"{index} {rule_identity(rule)} {rule_text(rule)}")


def filtered_ports(network: NetworkFirewall) -> list[str]:
    """Ports of a network that are filtered: traffic on loopback never leaves the host."""
    return sorted({port for port in network.ports if port != "lo"})


def _refuse_invalid(configuration: FirewallConfiguration) -> None:
    operands, seen = 0, set()
    for n, network in enumerate(configuration.networks):
        at = f"firewall.networks[{n}]"
        if len(network.network) > 63 or not _NETWORK_NAME.fullmatch(network.network):
            raise RulesetError(f"{at}.network", f"{network.network!r} is not a name", "use a DNS label")
        if network.network in seen:
            raise RulesetError(f"{at}.network", f"{network.network} is listed twice", "merge the entries")
        seen.add(network.network)
        for m, port in enumerate(network.ports):
            if not _PORT_NAME.fullmatch(port) or port in (".", ".."):
                raise RulesetError(
                    f"{at}.ports[{m}]",
                    f"{port!r} cannot be the name of a port in a rule",
                    "use 1 to 15 letters, digits, '_', '.' and '-'",
                )
        for m, rule in enumerate(network.rules):
            for problem in rule_problems(rule, f"{at}.rules[{m}]"):
                raise RulesetError(problem.field, problem.reason, problem.remedy)
            operands += len(rule.ports) + len(rule.peers) + 1
    if operands > MAX_OPERANDS:
        raise RulesetError(
            "firewall",
            f"{operands} ports and peers are more than {MAX_OPERANDS}",
            "join addresses to networks and ports to ranges",
        )


def _port_groups(networks: Sequence[NetworkFirewall]) -> list[tuple[list[NetworkFirewall], list[str]]]:
    """Ports that carry the same networks, with these networks in order."""
    carried: dict[str, list[int]] = {}
    for number, network in enumerate(networks):
        for port in filtered_ports(network):
            carried.setdefault(port, []).append(number)
    groups: dict[tuple[int, ...], list[str]] = {}
    for port, numbers in sorted(carried.items()):
        groups.setdefault(tuple(numbers), []).append(port)
    return [([networks[n] for n in numbers], ports) for numbers, ports in sorted(groups.items())]


def _chains(
    networks: Sequence[NetworkFirewall], groups: Sequence[tuple[list[NetworkFirewall], list[str]]]
) -> list[Json]:
    names = [DIGEST_CHAIN, DEFAULTS_CHAIN]
    for direction in DIRECTIONS:
        names.append(f"common-{direction}")
        names += [f"rules-{direction}-{network.network}" for network in networks]
        names += [f"ports-{direction}-{number}" for number in range(len(groups))]
    hooks = [
        _add("chain", {"name": hook, "type": "filter", "hook": hook, "prio": 0, "policy": "accept"})
        for hook in ("input", "output")
    ]
    return [*(_add("chain", {"name": name}) for name in names), *hooks]


def _maps(groups: Sequence[tuple[list[NetworkFirewall], list[str]]]) -> list[Json]:
    commands = []
    for direction in DIRECTIONS:
        body: Json = {"name": f"{direction}-ports", "type": "ifname", "map": "verdict"}
        elements = [
            [port, {"jump": {"target": f"ports-{direction}-{number}"}}]
            for number, (_, ports) in enumerate(groups)
            for port in ports
        ]
        commands.append(_add("map", {**body, "elem": elements} if elements else body))
    return commands


def _hook_rule(direction: Direction) -> Json:
    chain, key = ("input", "iifname") if direction == "ingress" else ("output", "oifname")
    look_up = {"vmap": {"key": {"meta": {"key": key}}, "data": f"@{direction}-ports"}}
    return _rule(chain, [look_up], "ports that are not listed are not filtered")


def _common(direction: Direction) -> list[tuple[list[Json], str]]:
    """What passes before any rule. ICMPv6 types by RFC 4861 (133 to 136) and RFC 3810 (130 to 132, 143)."""
    accept = _VERDICT["allow"]
    ingress = direction == "ingress"
    types = [130, 134, 135, 136] if ingress else [131, 132, 133, 135, 136, 143]
    dhcp, dhcpv6 = ((67, 68), (547, 546)) if ingress else ((68, 67), (546, 547))
    rules = [
        ([_ct_state("established", "related"), accept], "established flows pass"),
        ([_is(_payload("icmpv6", "type"), {"set": types}), accept], "neighbour discovery"),
        ([_family(4), *_udp_ports(*dhcp), accept], "DHCP client"),
        ([_family(6), *_udp_ports(*dhcpv6), accept], "DHCPv6 client"),
    ]
    if ingress:
        rules.append(([_ct_state("invalid"), _COUNTER, _VERDICT["deny"]], "packets of no flow"))
    return rules


def _network_rules(network: NetworkFirewall, direction: Direction) -> list[Json]:
    chain = f"rules-{direction}-{network.network}"
    return [
        _rule(chain, [*match, _COUNTER, _VERDICT[rule.action]], rule_comment(rule, index))
        for index, rule in enumerate(network.rules)
        if rule.direction == direction
        for match in _matches(rule)
    ]


def _group_rules(number: int, networks: Sequence[NetworkFirewall], direction: Direction) -> list[Json]:
    chain = f"ports-{direction}-{number}"
    default: Action = "deny" if any(_default(n, direction) == "deny" for n in networks) else "allow"
    names = ", ".join(network.network for network in networks)
    targets = [f"common-{direction}", *(f"rules-{direction}-{network.network}" for network in networks)]
    return [
        *(_rule(chain, [{"jump": {"target": target}}], target) for target in targets),
        _rule(chain, [_COUNTER, _VERDICT[default]], f"default {default} ({direction}) of {names}"),
    ]


def _default_notes(networks: Sequence[NetworkFirewall]) -> list[Json]:
    return [
        _rule(DEFAULTS_CHAIN, [_COUNTER], f"{network.network} {direction} {_default(network, direction)}")
        for network in networks
        for direction in DIRECTIONS
    ]


def _default(network: NetworkFirewall, direction: Direction) -> Action:
    return network.default_ingress if direction == "ingress" else network.default_egress


def _matches(rule: FirewallRule) -> list[list[Json]]:
    """The rule as one or two matches: an address match speaks of one IP version."""
    protocol = _protocol_match(rule)
    if not rule.peers:
        return [protocol]
    peers = [ipaddress.ip_network(text) for text in rule.peers]
    field = "saddr" if rule.direction == "ingress" else "daddr"
    four = ipaddress.collapse_addresses(p for p in peers if isinstance(p, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(p for p in peers if isinstance(p, ipaddress.IPv6Network))
    families: list[tuple[str, list[Network]]] = [("ip", list(four)), ("ip6", list(six))]
    return [[_peer_match(family, field, found), *protocol] for family, found in families if found]


def _protocol_match(rule: FirewallRule) -> list[Json]:
    if rule.protocol == "any":
        return []
    if rule.ports:
        return [_is(_payload(rule.protocol, "dport"), _choice(_port_operands(rule.ports)))]
    number = _is({"meta": {"key": "l4proto"}}, _PROTOCOL_NUMBER[rule.protocol])
    family = {"icmp": [_family(4)], "icmpv6": [_family(6)]}.get(rule.protocol, [])
    return [*family, number]


def _peer_match(family: str, field: str, peers: Sequence[Network]) -> Json:
    if any(peer.prefixlen == 0 for peer in peers):
        return _family(4 if family == "ip" else 6)
    operands = [
        str(peer.network_address)
        if peer.prefixlen == peer.max_prefixlen
        else {"prefix": {"addr": str(peer.network_address), "len": peer.prefixlen}}
        for peer in peers
    ]
    return _is(_payload(family, field), _choice(operands))


def _port_operands(ports: Sequence[str]) -> list[int | Json]:
    """Ports and ranges without overlap, in order: nft refuses sets whose intervals overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(parse_ports(text) for text in ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return [first if first == last else {"range": [first, last]} for first, last in merged]


def _choice(operands: Sequence[Any]) -> Any:
    return operands[0] if len(operands) == 1 else {"set": list(operands)}


def _udp_ports(source: int, destination: int) -> list[Json]:
    return [_is(_payload("udp", "sport"), source), _is(_payload("udp", "dport"), destination)]


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _family(version: int) -> Json:
    return _is({"meta": {"key": "nfproto"}}, f"ipv{version}")


def _ct_state(*states: str) -> Json:
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(states)}}


def _is(left: Json, right: Any) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}


def _rule(chain: str, expressions: list[Json], comment: str) -> Json:
    return _add("rule", {"chain": chain, "expr": expressions, "comment": _plain(comment)})


def _add(kind: str, body: Json) -> Json:
    place = {"name": TABLE} if kind == "table" else {"table": TABLE}
    return {"add": {kind: {"family": FAMILY, **place, **body}}}


def _some(items: Sequence[str], limit: int = 3) -> str:
    shown = ",".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def _plain(text: str) -> str:
    """Printable ASCII without quotes and backslashes, which nft's text form cannot escape."""
    kept = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    return kept if len(kept) <= _COMMENT_LIMIT else kept[: _COMMENT_LIMIT - 3] + "..."


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
