"""Which of the processes on one database acts: the one that holds the lease.

All that must be done by one process at a time (controllers, links) is one coroutine, `lead`. It runs while
the lease is held: asked for every ASK_EVERY seconds, held for LEASE_SECONDS by the database's clock, counted
here from before the question was asked and on this process's own clock that nobody sets. So it ends MARGIN
seconds before anybody else may begin, whatever became of the question, and no two clocks are compared.

A process that stood still, or a write that waited long, may still come late: everything that `lead` writes
to the store is fenced by the lease's epoch (`leases.fenced`) and refused once another process has led.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from roost.store import leases
from roost.store.errors import Overloaded, Unavailable
from roost.store.leases import Lease, LeaseLost
from roost.store.store import Store

LEASE_SECONDS = 10.0
ASK_EVERY = 2.0
MARGIN = 2.0
END_WITHIN = 30.0
"""How long `lead` may take to end; longer, and the process must."""

RELEASE_WITHIN = 2.0

_log = structlog.get_logger("roost.leadership")


class Term(msgspec.Struct, frozen=True):
    """A lease as its holder may rely on it: until when, on the holder's own clock (seconds)."""

    epoch: int
    until: float


def decide(term: Term | None, answer: Lease | None, holder: str, asked: float, now: float) -> Term | None:
    """The term that stands after the database answered, or did not (None), a question of `asked`.

    Another epoch is another term: somebody else may have led in between.
    """
    if answer is None:
        return term if term is not None and now < term.until else None
    if answer.holder != holder:
        return None
    until = asked + LEASE_SECONDS - MARGIN
    return Term(answer.epoch, until) if now < until else None


class NotEnded(Exception):
    """What leads did not end when it had to; its process must."""


class Leadership:
    """One process's part. `run` until cancelled; `leader` is who led when last asked, empty: not known."""

    def __init__(self, store: Store, name: str, holder: str) -> None:
        self._store, self._name, self._holder = store, name, holder
        self._term: Term | None = None
        self._work: asyncio.Task[None] | None = None
        self._told = ""
        self.leader = ""

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Lead whenever it is this process's turn. `lead` must run until cancelled; what it raises is raised.

        Raises NotEnded when it does not end.
        """
        now = asyncio.get_running_loop().time
        try:
            while True:
                asked = now()
                answer = await self._ask()
                term = decide(self._term, answer, self._holder, asked, now())
                self._tell(answer, term)
                if self._term is not None and (term is None or term.epoch != self._term.epoch):
                    await self._end()
                self._term = term
                if term is not None and self._work is None:
                    self._work = self._begin(lead, Lease(self._name, self._holder, term.epoch, 0.0))
                await self._pause(asked + ASK_EVERY)
        finally:
            held = self._term is not None
            await self._end()
            if held:
                await self._release()

    async def _ask(self) -> Lease | None:
        """The lease as it stands; None when the database can't say in time."""
        now = asyncio.get_running_loop().time()
        within = LEASE_SECONDS - MARGIN if self._term is None else max(0.0, self._term.until - now)
        try:
            async with asyncio.timeout(within):
                return await self._store.transact(
                    lambda tx: leases.acquire(tx, self._name, self._holder, LEASE_SECONDS)
                )
        except (Unavailable, Overloaded, TimeoutError):
            return None

    def _tell(self, answer: Lease | None, term: Term | None) -> None:
        self.leader = "" if answer is None else answer.holder
        if term is None and self._term is not None:
            self._told = ""
            _log.warning("leads no more", lease=self._name, leader=self.leader or "not known")
        elif self.leader not in ("", self._told):
            self._told = self.leader
            _log.info("leads" if term is not None else "another leads", lease=self._name, leader=self.leader)

    def _begin(self, lead: Callable[[], Coroutine[Any, Any, None]], lease: Lease) -> asyncio.Task[None]:
        with leases.under(lease):
            return asyncio.get_running_loop().create_task(lead())

    async def _pause(self, until: float) -> None:
        """Wait to ask again, or for what leads to end by itself, which only an error makes it do."""
        left = max(0.0, until - asyncio.get_running_loop().time())
        if self._work is None:
            await asyncio.sleep(left)
            return
        await asyncio.wait({self._work}, timeout=left)
        if self._work.done():
            work, self._work = self._work, None
            try:
                await work
            except (Unavailable, Overloaded, LeaseLost) as error:
                # The database is away, or this process was: the lease is asked for again.
                _log.warning("could not begin to lead", lease=self._name, reason=str(error))
                await asyncio.sleep(ASK_EVERY)
                return
            raise NotEnded("what leads has ended by itself")

    async def _end(self) -> None:
        work, self._work, self._term = self._work, None, None
        if work is None:
            return
        work.cancel()
        await asyncio.wait({work}, timeout=END_WITHIN)
        if not work.done():
            raise NotEnded(f"what leads did not end in {END_WITHIN:g} seconds")
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, Unavailable | Overloaded | LeaseLost):
            raise error

    async def _release(self) -> None:
        """Let another lead at once."""
        with contextlib.suppress(Unavailable, Overloaded, TimeoutError):
            async with asyncio.timeout(RELEASE_WITHIN):
                await self._store.transact(lambda tx: leases.release(tx, self._name, self._holder))
