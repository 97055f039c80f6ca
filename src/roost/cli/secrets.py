"""`roost secrets`: the keys that secret values are sealed by."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from roost.cli import output, tables
from roost.cli.client import Client
from roost.cli.problems import FAILED, OK
from roost.cli.session import CONNECT, SHOW, Connect, Show, opened

secrets = App(name="secrets", help="The keys that secret values are sealed by: list, rotate, drop.")


class Key(msgspec.Struct, frozen=True):
    """One key as the cloud tells of it; the key itself never leaves the cloud."""

    id: str
    created: str
    retired: str
    values: int


class Keys(msgspec.Struct, frozen=True):
    """All keys. `missing` are those that values are sealed by and the cloud lacks, with their number."""

    active: str
    keys: list[Key]
    missing: dict[str, int] = {}

    @property
    def left(self) -> int:
        """Values that are not sealed by the active key."""
        return sum(k.values for k in self.keys if k.id != self.active)


class Step(msgspec.Struct, frozen=True):
    """What one step of resealing has done."""

    active: str
    looked: int
    resealed: int
    unopened: list[dict[str, str]]
    next: dict[str, str] | None = None


@secrets.command(name="keys")
def list_keys(*, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List the keys, and how many values each has sealed.

    For example:
        roost secrets keys
    """
    with opened(connect) as session:
        known = _keys(session.client)
    if show.output in ("json", "yaml"):
        output.print_data(known, show.output)
        return OK
    rows: list[list[Any]] = [
        [k.id, "active" if k.id == known.active else "former", k.values, k.created, k.retired]
        for k in known.keys
    ]
    rows += [[key, "missing", count, "", ""] for key, count in known.missing.items()]
    headings = ("Key", "State", "Values", "Created", "Retired")
    output.print_grid(tables.Grid([tables.Column(h) for h in headings], rows), headers=show.headers)
    return OK


@secrets.command(name="rotate")
def rotate(*, connect: Connect = CONNECT) -> int:
    """Make a new key and seal all values by it, while the cloud runs. What was interrupted is gone on with.

    For example:
        roost secrets rotate
    """
    with opened(connect) as session:
        client = session.client
        known = _keys(client)
        if known.left:
            output.note(f"{known.left} values are not yet sealed by key {known.active}: going on with it.")
        else:
            client.request("POST", "/keys", doing="make a new key")
            known = _keys(client)
        return _reseal(client, known)


@secrets.command(name="drop")
def drop(
    key: Annotated[str, Parameter(name="KEY", help="A former key that seals no value any more.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Forget a former key. Backups that hold values sealed by it then no longer open.

    For example:
        roost secrets drop 4f1c9a20
    """
    with opened(connect) as session:
        session.client.request("DELETE", f"/keys/{key}", doing=f"drop key {key}")
        output.say(f"Key {key} is dropped.")
    return OK


def _reseal(client: Client, known: Keys) -> int:
    total, resealed, after = known.left, 0, None
    unopened: list[dict[str, str]] = []
    while True:
        body = client.request("POST", "/keys/reseal", json={"after": after}, doing="seal values anew")
        step = msgspec.json.decode(body, type=Step)
        resealed += step.resealed
        unopened += step.unopened
        if step.next is None:
            break
        after = step.next
        output.note(f"{resealed} of {total} values are sealed by key {step.active}")
    output.say(f"{resealed} values are sealed anew, by key {step.active}.")
    for place in unopened:
        where = "/".join(part for part in (place["namespace"], place["name"]) if part)
        output.note(f"{place['kind']} {where}, {place['field']}: {place['reason']}")
    return FAILED if unopened else OK


def _keys(client: Client) -> Keys:
    return msgspec.json.decode(client.request("GET", "/keys", doing="read the keys"), type=Keys)
