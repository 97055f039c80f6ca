"""Leases: who acts, until when, and for the how-manieth time.

A lease is taken or renewed in one transaction. Its epoch rises each time the holder changes, so that
work done under an older epoch can be told from today's and refused (fencing).
Times are seconds since the epoch, of the store's clock.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import insert, select, update

from roost.store.schema import leases
from roost.store.transaction import Transaction


class Lease(msgspec.Struct, frozen=True):
    """A lease as it stands."""

    name: str
    holder: str
    epoch: int
    expires_at: float


def acquire(tx: Transaction, name: str, holder: str, seconds: float) -> Lease:
    """Take, renew or just see the lease `name`: the answer's holder says whose it is now."""
    now = tx.now.timestamp()
    tx.wrote = True
    row = tx.connection.execute(select(leases).where(leases.c.name == name)).first()
    if row is None:
        fresh = Lease(name, holder, 1, now + seconds)
        tx.connection.execute(insert(leases).values(msgspec.structs.asdict(fresh)))
        return fresh
    current = Lease(*row)
    if current.holder != holder and current.expires_at > now:
        return current
    epoch = current.epoch if current.holder == holder else current.epoch + 1
    taken = Lease(name, holder, epoch, now + seconds)
    tx.connection.execute(update(leases).where(leases.c.name == name).values(msgspec.structs.asdict(taken)))
    return taken


def release(tx: Transaction, name: str, holder: str) -> None:
    """Give the lease back, if it is the holder's."""
    tx.wrote = True
    tx.connection.execute(
        update(leases).where(leases.c.name == name, leases.c.holder == holder).values(expires_at=0.0)
    )
