"""When to look at operations over subclouds: at what has changed, and at deadlines.

Of each operation that is not over it is noted in memory at which subclouds something has changed that may be
an end. A look takes these, BATCH at once, and at most one look in PAUSE is taken for them; batches follow at
once while there is more to start. Nothing is lost with this memory: a process that begins, and one that
missed changes, looks at every step that has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from roost.engine.controller import Key
from roost.fleet.operations import actions
from roost.fleet.operations.looking import BATCH, Next, look
from roost.fleet.operations.planning import plan
from roost.model.cloud import CLOUD, SUBCLOUD
from roost.model.firewall import FIREWALL_POLICY
from roost.model.subcloud_operation import OVER_PHASES, SUBCLOUD_OPERATION, SubcloudOperation
from roost.store import subcloud_steps
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

PAUSE = 0.1
"""Seconds between two looks at one operation that changes ask for."""
ORPHANS = ("", "")
"""The key of steps whose operation is gone."""
_ALL_KINDS = frozenset({SUBCLOUD.kind, CLOUD.kind, FIREWALL_POLICY.kind})


class _Watch:
    """What is to be looked at of one operation."""

    def __init__(self) -> None:
        self.news: set[str] = set()
        self.kinds = _ALL_KINDS
        self.whole = True
        """Look at every step that has begun."""
        self.asked = 0
        self.not_before = 0.0


class SubcloudOperationController:
    """Carries out operations over subclouds."""

    name = "subcloud-operations"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._watches: dict[str, _Watch] = {}
        self._asked = 1

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD_OPERATION.kind:
            if change.type != "MODIFIED" or _generation(change.data) != _generation(change.previous):
                yield ("", change.name)
        elif self._watches and change.kind in _ALL_KINDS:
            shared = change.kind == FIREWALL_POLICY.kind
            site = change.namespace if shared else change.name
            for name, watch in self._watches.items():
                if change.kind in watch.kinds:
                    if shared and site == self._cloud:
                        watch.whole = True
                    else:
                        watch.news.add(site)
                    yield ("", name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        # In a reader's thread: counted, so that no asking is lost between a look and its end.
        self._asked += 1
        found = tx.every(SubcloudOperation)
        return [ORPHANS, *(("", o.metadata.name) for o in found if _unfinished(o))]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        if key == ORPHANS:
            await store.transact(lambda tx: subcloud_steps.forget_orphans(tx, SUBCLOUD_OPERATION.kind))
            return None
        name, now = key[1], asyncio.get_running_loop().time()
        watch = self._watches.setdefault(name, _Watch())
        if 0 < watch.not_before - now <= PAUSE:
            return watch.not_before - now
        found = await store.find(SUBCLOUD_OPERATION.kind, "", name)
        operation = found.typed(SubcloudOperation) if found else None
        if operation is not None:
            watch.kinds = actions.kinds_of(operation.spec)
            await self._prepare(store, operation, watch)
        part = sorted(watch.news)[:BATCH]
        watch.news.difference_update(part)
        try:
            result: Next = await store.transact(lambda tx: look(tx, name, self._cloud, part))
        except BaseException:
            watch.news.update(part)
            raise
        if result.over:
            self._watches.pop(name, None)
            return None
        watch.not_before = now + PAUSE
        if watch.news or result.again == 0:
            watch.not_before = 0.0
            return 0.0
        return result.again

    async def _prepare(self, store: Store, operation: SubcloudOperation, watch: _Watch) -> None:
        """Plan it, where it is not; after a beginning note every step that has begun as changed."""
        asked = self._asked
        if operation.status.phase == "planned":
            await plan(store, operation)
        if watch.whole or watch.asked != asked:
            watch.whole = False
            try:
                watch.news |= await store.read(lambda tx: _begun(tx, operation.metadata.uid))
            except BaseException:
                watch.whole = True
                raise
            watch.asked = asked


def _begun(tx: Transaction, operation: str) -> set[str]:
    found, after = set[str](), -1
    while steps := subcloud_steps.begun(tx, operation, after=after, limit=1000):
        found.update(step.subcloud for step in steps)
        after = steps[-1].number
    return found


def _unfinished(operation: SubcloudOperation) -> bool:
    return operation.status.phase not in OVER_PHASES or operation.spec.retry > operation.status.retried


class _Metadata(msgspec.Struct):
    generation: int = 0


class _Object(msgspec.Struct):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Object).decode


def _generation(data: str) -> int:
    return _decode(data).metadata.generation
