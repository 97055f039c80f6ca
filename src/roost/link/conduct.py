"""Conduct: what nodes with a valid certificate did that no honest node does, and the alarm for it.

A session or the door complains of a node; the book keeps, for each node, what it did, how often, and since
when. While a complaint is not older than CLEAR_AFTER the node has alarm 280.201; when it has behaved for so
long, the alarm goes. After a restart nothing is known of how nodes behave: an alarm that stands is kept,
marked stale, until that time is over.

The book is bounded: the node that was complained of longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

import msgspec
import structlog

from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle
from roost.link.node import BadNode, Node, parse
from roost.model import time
from roost.model.alarms import Fault
from roost.model.cloud import SUBCLOUD
from roost.model.fault import ALARM
from roost.model.host import HOST
from roost.store.transaction import HERE, Change, Transaction

log = structlog.get_logger(__name__)

CLEAR_AFTER = 300.0
NODES = 10_000
ALARM_ID = "280.201"

What = Literal[
    "floods", "breaks the protocol", "claims what is not its own", "takes nothing", "dials too often"
]


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """What a node did: `detail` of the last time, `last` on a monotonic clock."""

    what: What
    detail: str
    count: int
    since: datetime
    last: float


class Conduct:
    """The book. `listen` tells when a node is complained of anew."""

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._started = monotonic()
        self._complaints: OrderedDict[Node, Complaint] = OrderedDict()
        self._listeners: list[Callable[[Node], None]] = []

    def complain(self, node: Node, what: What, detail: str, *, count: int = 1) -> None:
        """A node did this. Told in the log when it is new, or another thing than before."""
        now, before = self._monotonic(), self.of(node)
        self._complaints.pop(node, None)
        same = before is not None and before.what == what
        self._complaints[node] = Complaint(
            what=what,
            detail=detail[:300],
            count=count + (before.count if before else 0),
            since=before.since if before else self._clock(),
            last=now,
        )
        if len(self._complaints) > NODES:
            self._complaints.popitem(last=False)
        if same:
            return
        log.warning("link.misused", node=str(node), what=what, detail=detail[:300])
        for listener in list(self._listeners):
            listener(node)

    def of(self, node: Node) -> Complaint | None:
        """What there is against a node now; None when it has behaved for CLEAR_AFTER."""
        found = self._complaints.get(node)
        if found is None or self._monotonic() - found.last >= CLEAR_AFTER:
            return None
        return found

    def left(self, node: Node) -> float:
        """Seconds until a node may be found to behave: since its last misdeed, or since the start here."""
        found = self._complaints.get(node)
        return CLEAR_AFTER - (self._monotonic() - (found.last if found else self._started))

    def nodes(self) -> list[Node]:
        """Whom there was a complaint of."""
        return list(self._complaints)

    def forget(self, node: Node) -> None:
        """The node is gone for good."""
        self._complaints.pop(node, None)

    def listen(self, listener: Callable[[Node], None]) -> None:
        """Call back at each new complaint."""
        self._listeners.append(listener)


class ConductController(StoreController):
    """The alarm of each node that misuses its link to this cloud."""

    name = "conduct"

    def __init__(self, cloud: str, conduct: Conduct) -> None:
        self._cloud, self._conduct = cloud, conduct

    def key(self, node: Node) -> Key:
        """What this controller calls a node."""
        return (self._cloud, f"{node.kind}.{node.name}")

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.type != "DELETED":
            return
        if change.kind == ALARM.kind and change.namespace == self._cloud and change.name.startswith("link."):
            yield (self._cloud, _of_scope(change.name))
        elif change.kind in (HOST.kind, SUBCLOUD.kind):
            yield (self._cloud, f"{change.kind.lower()}.{change.name}")

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        standing = {
            _of_scope(s.name) for s in tx.select(ALARM.kind, self._cloud, origin=HERE, prefix="link.")
        }
        return [
            (self._cloud, name) for name in sorted(standing | {self.key(n)[1] for n in self._conduct.nodes()})
        ]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        kind, _, name = key[1].partition(".")
        scope = f"link.{key[1]}"
        try:
            node = parse(f"subcloud/{name}" if kind == "subcloud" else f"host/{self._cloud}/{name}")
        except BadNode:
            settle(tx, self._cloud, scope, [])
            return None
        declared = (SUBCLOUD.kind, "") if kind == "subcloud" else (HOST.kind, self._cloud)
        there = tx.find(*declared, name)
        complaint, left = self._conduct.of(node), self._conduct.left(node)
        if there is None:
            self._conduct.forget(node)
            settle(tx, self._cloud, scope, [])
            return None
        wanted = [fault(node, complaint)] if complaint else []
        settle(tx, self._cloud, scope, wanted, unknown=lambda _: complaint is None and left > 0)
        return left + 0.01 if left > 0 else None


def fault(node: Node, complaint: Complaint) -> Fault:
    """The alarm for a complaint."""
    since = time.seconds(complaint.since)
    return Fault(
        alarm_id=ALARM_ID,
        severity="major",
        entity=f"{node.kind}={node.name}",
        reason=f"{node.name} {complaint.what} on its link since {since}: {complaint.detail}",
    )


def _of_scope(alarm: str) -> str:
    """`host.NAME` of `link.host.NAME.280.201`."""
    return ".".join(alarm.split(".")[1:3])
