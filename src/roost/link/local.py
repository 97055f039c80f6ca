"""The link of a host that lives in the process of its cloud: no network, no certificate, else the same."""

from __future__ import annotations

from datetime import datetime

from roost.link.errors import ConnectionLost
from roost.link.node import Node
from roost.link.upper import UpperLink
from roost.link.wire import MemoryConnection, memory_pair


class LocalDialer:
    """Dials an upper end in this process, for the host that lives with its cloud."""

    def __init__(self, upper: UpperLink, node: Node) -> None:
        self._upper, self._node = upper, node

    async def dial(self) -> MemoryConnection:
        if not self._upper.takes_links:
            raise ConnectionLost("the cloud in this process does not take links now")
        lower, upper = memory_pair(self._node)
        self._upper.attach_local(self._node, upper)
        return lower

    def expires(self) -> datetime | None:
        return None

    def renewal_due(self) -> datetime | None:
        return None

    async def renew(self, ask: object, now: datetime) -> None:
        return None
