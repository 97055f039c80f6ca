"""One writer per fact, and all agree in the end: told over the rows of two stores that a link joins.

- What has its home below and travels up is above to the letter, and nothing else is there as from that node.
- Intent for the node is below to the letter but for its status and who set which field; nothing else is there
  as from above.
- The status of intent is above what it is below, field by field of those that the lower node owns.
- Where the same name has its home at both ends nothing is said of it: that is a conflict for people, and each
  home keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import get_args, get_type_hints

from roost.model.kind import Flow
from roost.model.meta import Owner
from roost.model.registry import BY_KIND
from roost.sim.deterministic.laws.books import HERE, UP, Book, Key, Raw, Row

_INTENT_OF_HOST = ("Host", "HostConfiguration")


@cache
def _owners(kind: str) -> dict[str, Owner]:
    """Who writes each field of a kind's status, by its name on the wire, as its declaration says."""
    info = BY_KIND[kind]
    hints = get_type_hints(info.type, include_extras=True)
    if "status" not in hints:
        return {}
    struct = get_args(hints["status"])[0]
    inner = get_type_hints(struct, include_extras=True)
    found = {}
    for name, wire in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        extras = (getattr(note, "extra", None) or {} for note in getattr(inner[name], "__metadata__", ()))
        said = [extra["owner"] for extra in extras if isinstance(extra.get("owner"), Owner)]
        found[wire] = said[0] if said else info.status_owner
    return found


def between_clouds(site: str, above: Book, below: Book) -> list[str]:
    """Where a centre and a site disagree."""

    def up(row: Row) -> bool:
        mine = row.namespace == site or (row.kind, row.name) == ("Cloud", site)
        return mine and _flow(row.kind) in (Flow.UP, Flow.BOTH)

    def down(row: Row) -> bool:
        return row.namespace == site and _flow(row.kind) in (Flow.DOWN, Flow.BOTH)

    origin = f"down:subcloud/{site}"
    homes = {k: r for k, r in below.rows.items() if r.origin != UP and up(r)}
    intent = {k: r for k, r in above.rows.items() if r.origin != origin and down(r)}
    return _compare(origin, above, below, homes, intent)


def between_host(site: str, host: str, above: Book, below: Book) -> list[str]:
    """Where a cloud and one of its hosts disagree."""
    origin = f"down:host/{site}/{host}"
    homes = {
        k: r for k, r in below.rows.items() if r.origin != UP and r.kind == "LogEntry" and r.namespace == site
    }
    intent = {
        k: r
        for k, r in above.rows.items()
        if r.origin != origin and r.kind in _INTENT_OF_HOST and (r.namespace, r.name) == (site, host)
    }
    return _compare(origin, above, below, homes, intent)


def _compare(
    origin: str, above: Book, below: Book, homes: dict[Key, Row], intent: dict[Key, Row]
) -> list[str]:
    node = origin.removeprefix("down:")
    both = homes.keys() & intent.keys()
    mirrors = {k: r for k, r in above.rows.items() if r.origin == origin}
    copies = {k: r for k, r in below.rows.items() if r.origin == UP}
    found = [
        f"{node}: what is above of {_name(k)} {why}" for k, why in _differences(homes, mirrors, both, _all)
    ]
    found += [
        f"{node}: what is below of {_name(k)} {why}" for k, why in _differences(intent, copies, both, _intent)
    ]
    for key in sorted(intent.keys() & copies.keys()):
        if _said(node, intent[key]) != _said(node, copies[key]):
            found.append(f"{node}: the status of {_name(key)} is not what its owner wrote")
    return found


def _differences(
    wanted: dict[Key, Row], found: dict[Key, Row], conflicts: Iterable[Key], part: Callable[[Row], Raw]
) -> Iterable[tuple[Key, str]]:
    spared = set(conflicts)
    for key in sorted(wanted.keys() - found.keys() - spared):
        yield key, "is missing"
    for key in sorted(found.keys() - wanted.keys()):
        yield key, "should not be there"
    for key in sorted(wanted.keys() & found.keys()):
        if part(wanted[key]) != part(found[key]):
            yield key, "differs"


def _all(row: Row) -> Raw:
    return row.raw


def _intent(row: Row) -> Raw:
    meta = {k: v for k, v in row.raw["metadata"].items() if k != "managedFields"}
    return {**{k: v for k, v in row.raw.items() if k != "status"}, "metadata": meta}


def _said(node: str, row: Row) -> Raw:
    """The fields of a status that the lower node writes."""
    owners = _owners(row.kind)
    if node.startswith("host/"):
        return {k: v for k, v in row.status.items() if owners.get(k) is Owner.HOST}
    return {k: v for k, v in row.status.items() if owners.get(k) is not Owner.FLEET}


def shared(centre: str, book: Book) -> list[str]:
    """Where the copies of shared policies are not those that follow from the policies and the subclouds."""
    policies = [p for p in book.of("FirewallPolicy", origin=HERE, namespace=centre) if "subclouds" in p.spec]
    found = []
    for subcloud in book.of("Subcloud"):
        if subcloud.spec.get("managementState") != "managed":
            continue
        wanted = {f"{p.name}.{centre}": p for p in policies if _selects(p.spec["subclouds"], subcloud)}
        there = {
            r.name: r
            for r in book.of("FirewallPolicy", origin=HERE, namespace=subcloud.name)
            if r.raw["metadata"].get("labels", {}).get("roost.edge/shared-by") == centre
        }
        found += [
            f"{subcloud.name}: {n} is shared and has no copy" for n in sorted(wanted.keys() - there.keys())
        ]
        found += [f"{subcloud.name}: {n} is a copy of nothing" for n in sorted(there.keys() - wanted.keys())]
        for name in sorted(wanted.keys() & there.keys()):
            if there[name].spec.get("rules") != wanted[name].spec.get("rules"):
                found.append(f"{subcloud.name}: {name} is not what is shared")
    return found


def _selects(selector: Raw | None, subcloud: Row) -> bool:
    if selector is None:
        return False
    labels = subcloud.raw["metadata"].get("labels") or {}
    named = not selector.get("names") or subcloud.name in selector["names"]
    return named and (selector.get("labels") or {}).items() <= labels.items()


def claims(name: str, book: Book) -> list[str]:
    """What a store holds as its own that is no business of its own: pure, over one store."""
    found = []
    for key, row in sorted(book.rows.items()):
        if row.origin == HERE and row.kind == "LogEntry" and _source_cloud(row) not in ("", name):
            found.append(
                f"{name}: {_name(key)} claims to be its own, and {row.status.get('source')} wrote it"
            )
    return found


def _source_cloud(row: Row) -> str:
    return str(row.status.get("source", "")).partition("/")[0]


def _flow(kind: str) -> Flow:
    info = BY_KIND.get(kind)
    return Flow.LOCAL if info is None else info.flow


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}/{key[2]}"
