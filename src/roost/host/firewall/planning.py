"""What is in force according to the kernel, and what would change: shown before anything is done.

`parse` reads nft's JSON listing of our table. The comments that rules.py left there carry place,
identity and text of each rule, so the state in force is known after any restart without a file and
without guessing. `parse` also works on rendered commands: wanted and current are compared alike.

Three answers about the table, never mixed up:
- absent: there is none.
- intact: its structure is the one whose hash stands in its own comment; `digest` names the rules.
- drifted: somebody changed it, or it is not ours; `digest` is empty and the plan is a repair.

`fingerprint` is finer: a hash of the whole listing but handles and counters. Its form depends on the
version of nft, so it is only ever compared with one taken on this host after our own change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from enum import Enum
from typing import Any

import msgspec

from roost.host.firewall.rules import (
    DEFAULTS_CHAIN,
    DIGEST_CHAIN,
    DIRECTIONS,
    Json,
    Ruleset,
    objects_of,
    render,
    structure_digest,
)
from roost.model.configuration import FirewallConfiguration
from roost.model.firewall import Direction

MAX_LINES = 200

_DIGEST = re.compile(r"roost digest=([0-9a-f]{40}) structure=([0-9a-f]{16})")
_RULE = re.compile(r"(\d+) ([0-9a-f]{12}) (.*)", re.DOTALL)
_ADDABLE = ("table", "set", "map", "chain", "rule")


class RuleView(msgspec.Struct, frozen=True):
    """One rule of the intent as the kernel's comments tell it."""

    identity: str
    text: str


class NetworkView(msgspec.Struct, frozen=True):
    """What is in force for one platform network."""

    ports: tuple[str, ...] = ()
    rules: dict[str, tuple[RuleView, ...]] = {}
    defaults: dict[str, str] = {}


class RulesetState(msgspec.Struct, frozen=True):
    """What the kernel holds under our table's name."""

    present: bool
    digest: str = ""
    fingerprint: str = ""
    networks: dict[str, NetworkView] = {}

    @property
    def drifted(self) -> bool:
        return self.present and not self.digest


class Change(Enum):
    NOTHING = "nothing"
    INSTALL = "install"
    REPLACE = "replace"
    REPAIR = "repair"
    REMOVE = "remove"


class Plan(msgspec.Struct, frozen=True):
    """What would be done, in words; `wanted` is the table to install, None when it is to be removed."""

    change: Change
    lines: tuple[str, ...] = ()
    wanted: Ruleset | None = None


ABSENT = RulesetState(present=False)


def plan(current: RulesetState, wanted: FirewallConfiguration | None) -> Plan:
    """What leads from `current` to `wanted`. Raises RulesetError when `wanted` cannot become rules."""
    return plan_ruleset(current, None if wanted is None else render(wanted))


def plan_ruleset(current: RulesetState, wanted: Ruleset | None) -> Plan:
    """As `plan`, for rules that are rendered already."""
    if wanted is None:
        if not current.present:
            return Plan(Change.NOTHING)
        return Plan(
            Change.REMOVE,
            ("remove the table: no platform firewall is wanted", *_differences(current, ABSENT)),
        )
    if current.present and current.digest == wanted.digest:
        return Plan(Change.NOTHING, (), wanted)
    differences = _differences(current, parse(objects_of(wanted.commands)))
    if not current.present:
        return Plan(Change.INSTALL, bounded(("make the table", *differences)), wanted)
    if current.drifted:
        first = "repair: the rules in the kernel are not those that were put there"
        return Plan(Change.REPAIR, bounded((first, *differences)), wanted)
    lines = differences or ("replace the rules by the same in another form",)
    return Plan(Change.REPLACE, bounded(lines), wanted)


def parse(objects: Sequence[Json] | None) -> RulesetState:
    """State of the table from what nft lists of it (None: there is no table)."""
    if objects is None:
        return ABSENT
    notes = [note for chain, note in _comments(objects) if chain == DIGEST_CHAIN]
    match = _DIGEST.fullmatch(notes[0]) if len(notes) == 1 else None
    intact = match is not None and match[2] == structure_digest(objects)
    return RulesetState(
        present=True,
        digest=match[1] if match and intact else "",
        fingerprint=_fingerprint(objects),
        networks=_networks(objects),
    )


def restorable(objects: Sequence[Json]) -> list[Json]:
    """Commands that make again what was listed; for a table whose making we have no record of."""
    kept = [{k: v for k, v in item.items() if k in _ADDABLE} for item in objects]
    order = {kind: n for n, kind in enumerate(("table", "chain", "set", "map", "rule"))}
    kept = sorted((item for item in kept if item), key=lambda item: order[next(iter(item))])
    return [{"add": _without(item, ("handle",))} for item in kept]


def bounded(lines: Iterable[str]) -> tuple[str, ...]:
    """At most MAX_LINES lines; the last says how many were left out."""
    every = tuple(lines)
    if len(every) <= MAX_LINES:
        return every
    return (*every[: MAX_LINES - 1], f"and {len(every) - MAX_LINES + 1} more changes")


def _differences(current: RulesetState, wanted: RulesetState) -> tuple[str, ...]:
    lines: list[str] = []
    for name in sorted({*current.networks, *wanted.networks}):
        old, new = current.networks.get(name, NetworkView()), wanted.networks.get(name, NetworkView())
        lines += [f"stop filtering port {p} for {name}" for p in old.ports if p not in new.ports]
        lines += [f"filter port {p} for {name}" for p in new.ports if p not in old.ports]
        for direction in DIRECTIONS:
            lines += _rule_differences(name, direction, old, new)
            before, after = old.defaults.get(direction), new.defaults.get(direction)
            if after is not None and before != after:
                lines.append(f"default of {name}: {after} ({direction})")
    return tuple(lines)


def _rule_differences(name: str, direction: Direction, old: NetworkView, new: NetworkView) -> list[str]:
    before, after = list(old.rules.get(direction, ())), list(new.rules.get(direction, ()))
    matcher = SequenceMatcher(None, [r.identity for r in before], [r.identity for r in after], autojunk=False)
    gone: list[RuleView] = []
    come: list[RuleView] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            gone += before[a:b]
            come += after[c:d]
    lines, moved = [], []
    for rule in gone:
        twin = next((r for r in come if r.identity == rule.identity), None)
        if twin is None:
            lines.append(f"remove from {name}: {rule.text}")
        else:
            come.remove(twin)
            moved.append(f"move in {name}: {rule.text}")
    return [*lines, *(f"add to {name}: {rule.text}" for rule in come), *moved]


def _networks(objects: Sequence[Json]) -> dict[str, NetworkView]:
    ports, rules, defaults = _ports(objects), _rules(objects), _defaults(objects)
    return {
        name: NetworkView(tuple(ports.get(name, ())), rules.get(name, {}), defaults.get(name, {}))
        for name in {*ports, *rules, *defaults}
    }


def _defaults(objects: Sequence[Json]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for chain, note in _comments(objects):
        words = note.split(" ")
        if chain == DEFAULTS_CHAIN and len(words) == 3:
            found.setdefault(words[0], {})[words[1]] = words[2]
    return found


def _rules(objects: Sequence[Json]) -> dict[str, dict[str, tuple[RuleView, ...]]]:
    """By network and direction. A rule that became two, one per IP version, counts once by its place."""
    places: dict[tuple[str, str], dict[tuple[str, str], RuleView]] = {}
    for chain, note in _comments(objects):
        prefix, _, name = chain.removeprefix("rules-").partition("-")
        match = _RULE.fullmatch(note)
        if chain.startswith("rules-") and match:
            seen = places.setdefault((name, prefix), {})
            seen.setdefault((match[1], match[2]), RuleView(match[2], match[3]))
    found: dict[str, dict[str, tuple[RuleView, ...]]] = {}
    for (name, direction), views in places.items():
        found.setdefault(name, {})[direction] = tuple(views.values())
    return found


def _ports(objects: Sequence[Json]) -> dict[str, list[str]]:
    """Ports by network: the map names the chain of a port, the chain jumps to the networks' rules."""
    carried: dict[str, list[str]] = {}
    for item in objects:
        rule = item.get("rule", {})
        for expression in rule.get("expr", []):
            target = _jump(expression)
            if target.startswith("rules-ingress-"):
                name = target.removeprefix("rules-ingress-")
                carried.setdefault(str(rule.get("chain")), []).append(name)
    found: dict[str, list[str]] = {}
    for item in objects:
        if item.get("map", {}).get("name") != "ingress-ports":
            continue
        for element in item["map"].get("elem", []):
            port, verdict = element if isinstance(element, list) and len(element) == 2 else ("", {})
            for name in carried.get(_jump(verdict), []):
                found.setdefault(name, []).append(str(port))
    return {name: sorted(ports) for name, ports in found.items()}


def _jump(expression: Any) -> str:
    jump = expression.get("jump") if isinstance(expression, dict) else None
    return str(jump.get("target", "")) if isinstance(jump, dict) else ""


def _comments(objects: Sequence[Json]) -> list[tuple[str, str]]:
    rules = [item["rule"] for item in objects if "rule" in item]
    return [(str(rule.get("chain")), str(rule.get("comment", ""))) for rule in rules]


def _fingerprint(objects: Sequence[Json]) -> str:
    kept = [_without(item, ("handle", "packets", "bytes")) for item in objects if "metainfo" not in item]
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()[:32]


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    """`value` without these keys at any depth, and with the elements of sets in one order."""
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: _without(v, keys) for k, v in value.items() if k not in keys}
    for key in ("set", "elem"):
        if isinstance(kept.get(key), list):
            kept[key] = sorted(kept[key], key=lambda v: msgspec.json.encode(v, order="sorted"))
    return kept
