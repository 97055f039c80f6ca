"""Register: what one process says of itself in the store, and of the links that it has.

It holds a lease, and renews it with one statement. Links that come and go are written in batches: while one
batch is committed the next gathers. What could not be written waits, and the newest word of a node is enough.
A lease that was lost, because the database was away or this process stood still, ends no link: the process
takes the lease anew and says which links it has, and ends those that another process has by now.

On a database of its own a process has nobody who could take anything from it: its lease has no end there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import msgspec
import structlog

from roost.store import leases, links
from roost.store.errors import Overloaded, StoreError, Unavailable
from roost.store.links import Arrival, Process, Word
from roost.store.store import Store
from roost.store.transaction import Transaction

LEASE_SECONDS = 10.0
RENEW_EVERY = 2.0
WITHOUT_END = 1e11
"""Seconds of a lease that nobody else could take."""
AT_ONCE = 500
"""Links that are written in one transaction."""
AGAIN = 1.0
END_WITHIN = 2.0

log = structlog.get_logger(__name__)


class Register:
    """Of one process. `begin`, then `run` until cancelled; `end` in good order.

    `superseded` is told of links, by node, that are at another process by now.
    """

    def __init__(self, store: Store, process: Process, superseded: Callable[[str], None]) -> None:
        self.process = process
        self._store, self._superseded = store, superseded
        self._arrivals: list[tuple[Arrival, asyncio.Future[int]]] = []
        self._ended: dict[str, int] = {}
        self._words: dict[str, Word] = {}
        self._sessions: dict[str, int] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._came = asyncio.Event()

    # -- what comes and goes

    async def claim(self, arrival: Arrival) -> int:
        """Admit a node here: the number of its session. Raises Unavailable, Overloaded."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._arrivals.append((arrival, future))
        self._came.set()
        return await future

    def ended(self, node: str, number: int) -> None:
        """The link of a session is down."""
        if self._sessions.get(node) == number:
            self._words.pop(node, None)
            self._said.pop(node, None)
            del self._sessions[node]
        self._ended[node] = number
        self._came.set()

    def told(self, node: str, number: int, *, certificate_expires_at: str, trouble: str) -> None:
        """A node whose link is up says this of itself; what was written already is not written again."""
        said = (certificate_expires_at, trouble)
        if self._said.get(node) == said:
            return
        self._said[node] = said
        self._words[node] = Word(
            node=node, session=number, certificate_expires_at=certificate_expires_at, trouble=trouble
        )
        self._came.set()

    @property
    def sessions(self) -> Mapping[str, int]:
        """The numbers of the sessions that are here, by node."""
        return self._sessions

    # -- life

    async def begin(self) -> None:
        """Be known. What a process of the same name had before is gone. Raises Unavailable, Overloaded."""
        await self._store.transact(self._enter)
        self._store.wake_beside()

    async def run(self) -> None:
        """Write what comes and goes, and keep the lease, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            if self._store.is_shared:
                tasks.create_task(self._keep())

    async def end(self) -> None:
        """Be gone: the lease is given back, and the links are nobody's."""
        try:
            async with asyncio.timeout(END_WITHIN):
                await self._store.transact(lambda tx: links.bury(tx, [self.process.name]))
                await self._store.transact(links.notify)
        except (StoreError, TimeoutError) as error:
            log.info("link.register-left", process=self.process.name, reason=str(error))
        self._store.wake_beside()

    # -- the lease

    def _take(self, tx: Transaction) -> None:
        seconds = LEASE_SECONDS if self._store.is_shared else WITHOUT_END
        leases.acquire(tx, links.PROCESS + self.process.name, self.process.name, seconds)
        introduced = msgspec.structs.replace(self.process, since=self.process.since or tx.now.timestamp())
        self.process = introduced
        links.introduce(tx, introduced)

    def _enter(self, tx: Transaction) -> None:
        self._take(tx)
        links.orphan(tx, [self.process.name])
        links.notify(tx)

    async def _keep(self) -> None:
        lease, name = links.PROCESS + self.process.name, self.process.name
        while True:
            await asyncio.sleep(RENEW_EVERY)
            try:
                if await self._store.transact(lambda tx: leases.renew(tx, lease, name, LEASE_SECONDS)):
                    continue
                lost = await self._store.transact(self._return)
            except (Unavailable, Overloaded) as error:
                log.debug("link.lease-not-renewed", process=name, reason=str(error))
                continue
            log.warning("link.lease-taken-anew", process=name, elsewhere=len(lost))
            self._store.wake_beside()
            self._give_up(lost)

    def _return(self, tx: Transaction) -> set[str]:
        """This process was taken for gone: it has the links that nobody else has."""
        self._take(tx)
        lost = links.hold(tx, self.process.name, self._sessions)
        links.notify(tx)
        return lost

    def _give_up(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._sessions.pop(node, None)
            self._said.pop(node, None)
            self._superseded(node)

    # -- writing

    async def _write(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._arrivals or self._ended or self._words:
                await self._write_some()

    async def _write_some(self) -> None:
        arrivals, self._arrivals = self._arrivals[:AT_ONCE], self._arrivals[AT_ONCE:]
        ended = {node: self._ended.pop(node) for node in list(self._ended)[:AT_ONCE]}
        words = {node: self._words.pop(node) for node in list(self._words)[:AT_ONCE]}

        def work(tx: Transaction) -> list[int]:
            links.end(tx, ended)
            numbers = links.claim(tx, self.process.name, [arrival for arrival, _ in arrivals])
            links.tell(tx, list(words.values()))
            links.notify(tx)
            return numbers

        try:
            numbers = await self._store.transact(work)
        except (Unavailable, Overloaded) as error:
            for _, future in arrivals:
                if not future.done():
                    future.set_exception(error)
            self._ended = ended | self._ended
            self._words = {n: w for n, w in words.items() if n not in self._ended} | self._words
            await asyncio.sleep(AGAIN)
            return
        self._store.wake_beside()
        for (arrival, future), number in zip(arrivals, numbers, strict=True):
            if future.done():
                # Whoever asked has gone meanwhile.
                self._ended[arrival.node] = number
                continue
            self._sessions[arrival.node] = number
            self._said[arrival.node] = (arrival.certificate_expires_at, "")
            future.set_result(number)
