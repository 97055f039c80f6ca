"""Links: at which process each lower node's link is, and under which number its session was admitted.

A number comes from one counter, for a session that is admitted and for each change of a row. The newest
session of a node is the one whose number stands in its row: what another does is refused by whoever asks
(`Transaction.stand`). A reader who knows all up to a number reads what is after it (`since`).

A row is `up` at a process; `down` when its link ended there; an `orphan` when the process itself is gone.
A process has a lease `process/ID` and says of itself what others need to know, in a property of that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from roost.store.schema import leases, links, properties
from roost.store.statements import BESIDE, CHANNEL
from roost.store.transaction import Transaction

COUNTER = "links"
PROCESS = "process/"
AT_ONCE = 500
"""Rows that are looked for in one statement."""

State = Literal["up", "down", "orphan"]


class Link(msgspec.Struct, frozen=True):
    """A row, with the columns in their order. `since`: seconds since the epoch, by the store's clock."""

    node: str
    process: str
    session: int
    changed: int
    state: State
    since: float
    version: str = ""
    address: str = ""
    certificate_expires_at: str = ""
    trouble: str = ""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is admitted, and what is known of it."""

    node: str
    version: str = ""
    address: str = ""
    certificate_expires_at: str = ""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself. `links` is where other processes reach it; empty: nowhere."""

    name: str
    roles: list[str] = []
    links: str = ""
    since: float = 0.0
    version: str = ""


_BY_SESSION = (links.c.node == bindparam("of")) & (links.c.session == bindparam("under"))
_ARRIVE = (
    update(links)
    .where(links.c.node == bindparam("of"))
    .values({name: bindparam(name) for name in Link.__struct_fields__ if name != "node"})
)
_END = (
    update(links)
    .where(_BY_SESSION)
    .values(state="down", process="", since=bindparam("since"), changed=bindparam("changed"))
)
_TELL = (
    update(links)
    .where(_BY_SESSION)
    .values(
        certificate_expires_at=bindparam("certificate_expires_at"),
        trouble=bindparam("trouble"),
        changed=bindparam("changed"),
    )
)
_HOLD = (
    update(links)
    .where(_BY_SESSION, links.c.process != bindparam("process"))
    .values(state="up", process=bindparam("process"), changed=bindparam("changed"))
)


def claim(tx: Transaction, process: str, arrivals: Sequence[Arrival]) -> list[int]:
    """Admit nodes at a process: the number of each one's session, from now on the only one that counts."""
    now, numbers, rows = tx.now.timestamp(), list[int](), dict[str, dict[str, Any]]()
    for one in arrivals:
        number = tx.next_number(COUNTER)
        numbers.append(number)
        link = Link(one.node, process, number, number, "up", now, one.version[:255], one.address[:255])
        values = msgspec.structs.asdict(link)
        values["certificate_expires_at"] = one.certificate_expires_at
        rows[one.node] = values
    known = _known(tx, list(rows))
    there = [values | {"of": node} for node, values in rows.items() if node in known]
    fresh = [values for node, values in rows.items() if node not in known]
    for values in there:
        del values["node"]
    if there:
        tx.connection.execute(_ARRIVE, there)
    if fresh:
        tx.connection.execute(insert(links), fresh)
    return numbers


def _known(tx: Transaction, nodes: Sequence[str]) -> set[str]:
    found = set[str]()
    for at in range(0, len(nodes), AT_ONCE):
        some = nodes[at : at + AT_ONCE]
        found.update(tx.connection.execute(select(links.c.node).where(links.c.node.in_(some))).scalars())
    return found


def end(tx: Transaction, sessions: Mapping[str, int]) -> None:
    """Links that are down, by node; nothing of those that have another session by now."""
    now = tx.now.timestamp()
    rows = [
        {"of": node, "under": number, "since": now, "changed": tx.next_number(COUNTER)}
        for node, number in sessions.items()
    ]
    if rows:
        tx.connection.execute(_END, rows)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What has changed of a node whose link is up."""

    node: str
    session: int
    certificate_expires_at: str
    trouble: str


def tell(tx: Transaction, words: Sequence[Word]) -> None:
    """What nodes say of themselves; nothing of those that have another session by now."""
    rows = [
        {
            "of": word.node,
            "under": word.session,
            "certificate_expires_at": word.certificate_expires_at,
            "trouble": word.trouble,
            "changed": tx.next_number(COUNTER),
        }
        for word in words
    ]
    if rows:
        tx.connection.execute(_TELL, rows)


def hold(tx: Transaction, process: str, sessions: Mapping[str, int]) -> set[str]:
    """Say anew which links a process has that was thought gone; those that have another session by now."""
    rows = [
        {"of": node, "under": number, "process": process, "changed": tx.next_number(COUNTER)}
        for node, number in sessions.items()
    ]
    if rows:
        tx.connection.execute(_HOLD, rows)
    query = select(links.c.node, links.c.session).where(links.c.process == process)
    held = {row[0]: row[1] for row in tx.connection.execute(query)}
    return {node for node, number in sessions.items() if held.get(node) != number}


def orphan(tx: Transaction, processes: Sequence[str]) -> int:
    """Processes are gone, and all their links with them; how many these were."""
    marked = (
        update(links)
        .where(links.c.process.in_(processes))
        .values(state="orphan", process="", since=tx.now.timestamp(), changed=tx.next_number(COUNTER))
    )
    return tx.connection.execute(marked).rowcount


def drop(tx: Transaction, node: str) -> None:
    """Forget a node that is gone for good: no session of it counts any more."""
    tx.wrote = True
    tx.connection.execute(delete(links).where(links.c.node == node))


def find(tx: Transaction, node: str) -> Link | None:
    """Where a node's link is; None when it never had one."""
    row = tx.connection.execute(select(links).where(links.c.node == node)).first()
    return Link(*row) if row else None


def since(tx: Transaction, after: int) -> list[Link]:
    """The rows that have changed after a number, in the order of their changes."""
    query = select(links).where(links.c.changed > after).order_by(links.c.changed, links.c.node)
    return [Link(*row) for row in tx.connection.execute(query)]


def notify(tx: Transaction) -> None:
    """Wake the other processes that read links, once this is committed. Only PostgreSQL has others."""
    connection = tx.connection
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, BESIDE)))


# -- processes


def introduce(tx: Transaction, process: Process) -> None:
    """Write down what a process says of itself."""
    tx.set_property(PROCESS + process.name, msgspec.json.encode(process).decode())


def processes(tx: Transaction) -> list[Process]:
    """The processes whose leases hold, by name."""
    query = (
        select(properties.c.value)
        .join(leases, leases.c.name == properties.c.name)
        .where(_of_processes(), leases.c.expires_at > tx.now.timestamp())
        .order_by(properties.c.name)
    )
    return [msgspec.json.decode(text, type=Process) for text in tx.connection.execute(query).scalars()]


def ended(tx: Transaction, at: Collection[str] = ()) -> list[str]:
    """Names of processes whose leases have ended, and of those that links are `at` and that have none."""
    query = select(leases.c.name, leases.c.expires_at).where(_of_processes())
    until = {str(name).removeprefix(PROCESS): end for name, end in tx.connection.execute(query)}
    now = tx.now.timestamp()
    return sorted({name for name, end in until.items() if end <= now} | (set(at) - until.keys()))


def bury(tx: Transaction, names: Sequence[str]) -> int:
    """Processes are gone: their links are orphans, and nothing is known of them; how many links they had."""
    count = orphan(tx, names)
    marks = [PROCESS + name for name in names]
    tx.connection.execute(delete(leases).where(leases.c.name.in_(marks)))
    tx.connection.execute(delete(properties).where(properties.c.name.in_(marks)))
    return count


def _of_processes() -> Any:
    # As a range of keys, which is looked up in the index.
    return (leases.c.name >= PROCESS) & (leases.c.name < PROCESS[:-1] + chr(ord("/") + 1))
