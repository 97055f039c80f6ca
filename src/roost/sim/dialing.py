"""A way upwards that can be cut: any dialer, and the connection it last gave.

Cut, the connection ends at once at both ends, as when a line is unplugged and both sides are told,
and dialling is refused until it is mended. What was under way is lost.
"""

from __future__ import annotations

from datetime import datetime

from roost.link.errors import ConnectionLost
from roost.link.lower import Ask, Dialer
from roost.link.sockets import SocketConnection
from roost.link.wire import Connection, MemoryConnection


class SeverableDialer:
    """`cut` and `mend` the way that another dialer takes."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._connection: Connection | None = None
        self.is_cut = False

    async def dial(self) -> Connection:
        """A connection; raises LinkError, always while cut."""
        if self.is_cut:
            raise ConnectionLost("the simulation has cut the way")
        connection = await self._dialer.dial()
        # The way may have been cut while the connection was made.
        if self.is_cut:
            sever(connection)
            raise ConnectionLost("the simulation has cut the way")
        self._connection = connection
        return connection

    async def probe(self) -> None:
        """Whether the way is open, for where that is known without dialling anew; raises ConnectionLost."""
        if self.is_cut:
            raise ConnectionLost("the simulation has cut the way")

    def cut(self) -> None:
        """Break what there is and refuse what comes."""
        self.is_cut = True
        if self._connection is not None:
            sever(self._connection)
            self._connection = None

    def mend(self) -> None:
        """Let it dial again."""
        self.is_cut = False

    def expires(self) -> datetime | None:
        """End of the certificate."""
        return self._dialer.expires()

    def renewal_due(self) -> datetime | None:
        """When the certificate should be renewed."""
        return self._dialer.renewal_due()

    async def renew(self, ask: Ask, now: datetime) -> None:
        """Get a new certificate."""
        await self._dialer.renew(ask, now)


def sever(connection: Connection) -> None:
    """Break a connection without a goodbye."""
    if isinstance(connection, MemoryConnection):
        connection.cut()
    elif isinstance(connection, SocketConnection):
        connection.abort()
    else:
        raise TypeError(f"a {type(connection).__name__} can't be cut")
