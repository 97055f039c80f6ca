"""Leases: who acts, until when, and for the how-manieth time.

A lease is taken or renewed in one transaction. Its epoch rises each time the holder changes, so that
work done under an older epoch can be told from today's and refused (fencing): within `under`, everything
that is written checks first, in its own transaction, that the lease has not passed to another.
Times are seconds since the epoch, of the store's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import msgspec
from sqlalchemy import insert, select, update

from roost.store.errors import StoreError
from roost.store.schema import leases
from roost.store.transaction import Transaction

T = TypeVar("T")


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


def renew(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Renew a lease in one statement; False when it is not the holder's any more, or was taken away."""
    tx.wrote = True
    mine = update(leases).where(leases.c.name == name, leases.c.holder == holder)
    return tx.connection.execute(mine.values(expires_at=tx.now.timestamp() + seconds)).rowcount == 1


def release(tx: Transaction, name: str, holder: str) -> None:
    """Give the lease back, if it is the holder's."""
    tx.wrote = True
    tx.connection.execute(
        update(leases).where(leases.c.name == name, leases.c.holder == holder).values(expires_at=0.0)
    )


def find(tx: Transaction, name: str) -> Lease | None:
    """The lease as it stands; None when nobody ever took it."""
    row = tx.lease(name)
    return Lease(*row) if row else None


class LeaseLost(StoreError):
    """A write under a lease that another has taken meanwhile. Nothing was written."""

    def __init__(self, lease: Lease, current: Lease | None) -> None:
        now = current.holder if current else "nobody"
        super().__init__(f"lease {lease.name} has passed from {lease.holder} to {now}; nothing was written")
        self.lease, self.current = lease, current


_FENCE: ContextVar[Lease | None] = ContextVar("roost-fence", default=None)


@contextmanager
def under(lease: Lease) -> Iterator[None]:
    """Within, and in tasks that are begun within, `Store.transact` raises LeaseLost once the lease has passed
    on."""
    token = _FENCE.set(lease)
    try:
        yield
    finally:
        _FENCE.reset(token)


def current() -> Lease | None:
    """The lease that is acted under here; None without one."""
    return _FENCE.get()


def fenced(work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """`work`, and before it the check of the lease under which it is asked for, if it is under one."""
    lease = _FENCE.get()
    if lease is None:
        return work

    def checked(tx: Transaction) -> T:
        current = find(tx, lease.name)
        if current is None or (current.holder, current.epoch) != (lease.holder, lease.epoch):
            raise LeaseLost(lease, current)
        return work(tx)

    return checked
