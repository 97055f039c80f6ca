"""Intent selected for subclouds flows down: as copies in each subcloud's namespace.

A FirewallPolicy of this cloud with `spec.subclouds` is meant for the subclouds it selects. For each
managed one a copy `NAME.CLOUD` without the selector stands in its namespace; the link carries it down,
its status comes back up. A copy that should not be is removed. Unmanaged subclouds are left as they
are: nothing new flows, nothing is taken away.

A SubcloudException beside the copy says what is otherwise for this subcloud alone: it is laid over the
policy before that becomes the copy. One that no longer fits leaves the copy as it is, and says so.

The cost of a change goes with what it concerns, not with how many subclouds or policies there are: `reach`
says from memory which pairs of them are not as they should be, and those alone are read, TOGETHER in one
transaction. Keys are `policy/NAME` and `subcloud/NAME`; each goes to the end of the queue after every
transaction, so that a policy for one subcloud does not wait for one that is for all. Only after a start of
this process, or when history was compacted, is everything read, by a reader.

In how many subclouds a policy is in force (`counts`) is written for all that have moved together, PAUSE after
the first did; while its copies are being written it is told to be out of sync.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from roost.engine.controller import Key, StoreController
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, patch_of
from roost.engine.queue import RESOLUTION
from roost.fleet.reach import Reach, Sums, Wanted, copy_in, printed, site_of
from roost.fleet.reach import in_force as in_force
from roost.model import time
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.codec import Raw, encode, read
from roost.model.firewall import (
    FIREWALL_POLICY,
    FirewallPolicy,
    FirewallPolicyStatus,
)
from roost.model.fleet import selects
from roost.model.meta import Condition, Metadata, set_condition
from roost.model.override import SUBCLOUD_EXCEPTION, SubcloudException, SubcloudExceptionStatus
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Stored, Transaction

COUNTS = ("counts", "")
TOGETHER = 32
"""Copies looked at in one transaction: some tens of milliseconds in which nobody else writes."""
SCANNED = 1000
"""Pairs of which the memory is asked at once."""
PAUSE = 0.5
"""Seconds between two looks at sums."""
COUNTED = 100
"""Policies whose sums are written in one transaction."""
PAGE = 1000
"""Rows read at once after a start."""

SHARED_BY = "roost.edge/shared-by"
"""Label of a copy: the cloud whose policy it is."""


def copy_name(policy: str, cloud: str) -> str:
    """Name of a policy's copy; operators' own names carry no dot."""
    return f"{policy}.{cloud}"


def copy_of(policy: FirewallPolicy, cloud: str, subcloud: str) -> FirewallPolicy:
    """The copy of a policy in a subcloud's namespace."""
    metadata = Metadata(
        name=copy_name(policy.metadata.name, cloud),
        namespace=subcloud,
        labels={**policy.metadata.labels, SHARED_BY: cloud},
    )
    spec = msgspec.structs.replace(policy.spec, subclouds=None)
    return FirewallPolicy(metadata=metadata, spec=spec)


def shared_original(tx: Transaction, cloud: str, kind: str, copy: str) -> Raw | None:
    """The resource of this cloud whose copies have this name; None when nothing of the kind is shared so."""
    name = copy.removesuffix(f".{cloud}")
    found = tx.find(kind, cloud, name) if kind == FIREWALL_POLICY.kind and name != copy else None
    return found.raw if found and found.origin == HERE and "subclouds" in found.raw["spec"] else None


Exceptions = dict[tuple[str, str], list[SubcloudException]]
"""By subcloud and name of a policy, in the order of their names."""


def exceptions_in(tx: Transaction, subcloud: str) -> Exceptions:
    """What is otherwise for one subcloud of policies that are shared."""
    found: Exceptions = {}
    for stored in tx.select(SUBCLOUD_EXCEPTION.kind, subcloud, origin=HERE):
        exception = stored.typed(SubcloudException)
        if exception.spec.kind == FIREWALL_POLICY.kind:
            found.setdefault((stored.namespace, exception.spec.name), []).append(exception)
    return found


class _Work(msgspec.Struct):
    """What is left to do for a key."""

    names: deque[str] | None = None
    """The others of its pairs; None: of all that may have to do with it."""
    upto: int = 0
    """The revision at which the last pairs were written; past all while they are."""


class _Known(msgspec.Struct):
    """What is known here, and what is to be done about it."""

    reach: Reach
    work: dict[Key, _Work]
    moved: dict[str, None]
    """Policies whose sums may be otherwise than they are written."""
    revision: int

    def all_of(self, key: Key) -> Key:
        """Have all pairs of a key looked at."""
        self.work[key] = _Work()
        return key

    def one_of(self, site: str, policy: str) -> Key:
        """Have one pair looked at."""
        work = self.work.setdefault(("subcloud", site), _Work(names=deque()))
        if work.names is not None:
            work.names.append(policy)
        return ("subcloud", site)

    def next(self, key: Key) -> list[tuple[str, str]]:
        """The next pairs of policy and subcloud that are not as they should be, as far as is known."""
        what, name = key
        work = self.work[key]
        if work.names is None:
            of = self.reach.sites_for if what == "policy" else self.reach.policies_for
            work.names = deque(of(name))
        pairs = list[tuple[str, str]]()
        for _ in range(min(SCANNED, len(work.names))):
            other = work.names.popleft()
            pair = (name, other) if what == "policy" else (other, name)
            if not self.reach.is_right(*pair):
                pairs.append(pair)
            if len(pairs) == TOGETHER:
                break
        return pairs

    def told(self, policy: str) -> Sums:
        """What the copies of a policy come to, once all that were written are known here."""
        sums, key = self.reach.sums(policy), ("policy", policy)
        work = self.work.get(key)
        if work is None:
            return sums
        if work.names is None or work.names or work.upto > self.revision:
            return msgspec.structs.replace(sums, settled=False)
        del self.work[key]
        return sums


class SharingController(StoreController):
    """Keeps the copies of shared policies."""

    name = "sharing"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._known = _Known(Reach(), {}, {}, 0)
        self._count_at: float | None = None

    # -- what has changed

    def concerned(self, change: Change) -> Iterable[Key]:
        known = self._known
        known.revision = change.revision
        if change.kind == SUBCLOUD.kind:
            site = None if change.type == "DELETED" else site_of(change.data)
            if known.reach.put_site(change.name, site):
                yield known.all_of(("subcloud", change.name))
        elif change.origin != HERE:
            return
        elif change.kind == SUBCLOUD_EXCEPTION.kind and _is_intent(change):
            name = "" if change.type == "DELETED" else _excepted(change.data)
            for policy in sorted(known.reach.put_exception(change.namespace, change.name, name)):
                yield known.one_of(change.namespace, policy)
        elif change.kind == FIREWALL_POLICY.kind and change.namespace == self._cloud:
            wanted = None if change.type == "DELETED" else wanted_of(change.data, self._cloud)
            if known.reach.put_policy(change.name, wanted):
                yield known.all_of(("policy", change.name))
                known.moved[change.name] = None
                yield COUNTS
        elif change.kind == FIREWALL_POLICY.kind and (name := self._original(change.name)):
            yield from self._copy_changed(known, change, name)

    def _copy_changed(self, known: _Known, change: Change, name: str) -> Iterator[Key]:
        copy = None if change.type == "DELETED" else copy_in(change.data)
        if known.reach.put_copy(name, change.namespace, copy):
            known.moved[name] = None
            yield COUNTS
        if not known.reach.is_right(name, change.namespace) and _is_intent(change):
            yield known.one_of(change.namespace, name)

    def _original(self, copy: str) -> str:
        """The policy that a copy of this name is of; empty: it is no copy's name."""
        name = copy.removesuffix(f".{self._cloud}")
        return name if name != copy else ""

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        # In a reader's thread: what is read takes the place of what was known at once.
        reach = Reach()
        for stored in _every(tx, SUBCLOUD.kind):
            reach.put_site(stored.name, site_of(stored.data))
        for stored in _every(tx, SUBCLOUD_EXCEPTION.kind):
            if stored.origin == HERE:
                reach.put_exception(stored.namespace, stored.name, _excepted(stored.data))
        for stored in _every(tx, FIREWALL_POLICY.kind, self._cloud):
            if stored.origin == HERE:
                reach.put_policy(stored.name, wanted_of(stored.data, self._cloud))
        for stored in _every(tx, FIREWALL_POLICY.kind):
            name = self._original(stored.name)
            if stored.origin == HERE and stored.namespace != self._cloud and name:
                reach.put_copy(name, stored.namespace, copy_in(stored.data))
        names = reach.policies()
        known = _Known(reach, {}, dict.fromkeys(names), tx.revision)
        keys = [known.all_of(("policy", name)) for name in names]
        self._known = known
        return [*keys, COUNTS]

    # -- what is done about it

    async def reconcile(self, store: Store, key: Key) -> float | None:
        if key == COUNTS:
            return await self._count(store)
        known = self._known
        work = known.work.get(key)
        if work is None:
            return None
        try:
            if pairs := known.next(key):
                work.upto = sys.maxsize
                work.upto = await store.transact(lambda tx: self._settle(tx, pairs))
        except BaseException:
            known.all_of(key)
            raise
        if work.names:
            return 0.0
        # That of a policy is kept until its copies are known here: `told`.
        if key[0] == "subcloud" and known.work.get(key) is work:
            del known.work[key]
        return None

    def _settle(self, tx: Transaction, pairs: Sequence[tuple[str, str]]) -> int:
        """Look at pairs of policy and subcloud, by their names; the revision after that."""
        policies = {name: self._policy(tx, name) for name in {name: None for name, _ in pairs}}
        exceptions = dict[str, Exceptions]()
        for name, place in pairs:
            subcloud = tx.seek(Subcloud, "", place)
            if subcloud is None or subcloud.spec.management_state != "managed":
                continue
            policy = policies[name]
            if policy is None:
                self._take_away(tx, name, subcloud)
                continue
            if place not in exceptions:
                exceptions[place] = exceptions_in(tx, place)
            self._place(tx, policy, subcloud, exceptions[place].get((place, name), []))
        return tx.revision

    def _policy(self, tx: Transaction, name: str) -> FirewallPolicy | None:
        found = tx.find(FIREWALL_POLICY.kind, self._cloud, name)
        return found.typed(FirewallPolicy) if found is not None and found.origin == HERE else None

    async def _count(self, store: Store) -> float | None:
        """Write the sums that have moved, a PAUSE after the first did."""
        known, now = self._known, asyncio.get_running_loop().time()
        if not known.moved:
            self._count_at = None
            return None
        if self._count_at is None:
            self._count_at = now + PAUSE
        if (left := self._count_at - now) > RESOLUTION:
            return left
        names, known.moved = list(known.moved), {}
        for at in range(0, len(names), COUNTED):
            told = {name: known.told(name) for name in names[at : at + COUNTED]}
            try:
                await store.transact(lambda tx, told=told: self._write(tx, told))  # type: ignore[misc]
            except BaseException:
                known.moved.update(dict.fromkeys(names[at:]))
                raise
            known.moved.update({name: None for name, sums in told.items() if not sums.settled})
        self._count_at = asyncio.get_running_loop().time() + PAUSE if known.moved else None
        return PAUSE if known.moved else None

    def _write(self, tx: Transaction, told: Mapping[str, Sums]) -> None:
        for name, sums in told.items():
            policy = self._policy(tx, name)
            if policy is None or policy.spec.subclouds is None:
                continue
            status = shared_status(policy, sums, time.stamp(tx.now))
            if status != policy.status:
                tx.report(msgspec.structs.replace(policy, status=status))

    def _place(
        self, tx: Transaction, policy: FirewallPolicy, subcloud: Subcloud, laid: list[SubcloudException]
    ) -> None:
        selector = policy.spec.subclouds
        if selector is None or not selects(selector, subcloud):
            self._take_away(tx, policy.metadata.name, subcloud)
            return
        if any(exception.spec.withdrawn for exception in laid):
            self._take_away(tx, policy.metadata.name, subcloud)
            for exception in laid:
                _say_in_force(tx, exception)
            return
        wanted = copy_of(policy, self._cloud, subcloud.metadata.name)
        current = tx.find(FIREWALL_POLICY.kind, wanted.metadata.namespace, wanted.metadata.name)
        if current is None:
            new = encode(wanted)
            tx.create({**new, "spec": _with_exceptions(tx, wanted, laid, new["spec"])})
            return
        if current.origin != HERE:
            # The site has one of its own of this name: its home is there, and it is not ours to write.
            return
        spec = _with_exceptions(tx, wanted, laid, current.raw["spec"])
        metadata = {**current.raw["metadata"], "labels": dict(wanted.metadata.labels)}
        tx.replace({**current.raw, "metadata": metadata, "spec": spec})

    def _take_away(self, tx: Transaction, policy: str, subcloud: Subcloud) -> None:
        name = copy_name(policy, self._cloud)
        current = tx.find(FIREWALL_POLICY.kind, subcloud.metadata.name, name)
        if current is not None and current.origin == HERE:
            tx.remove(current.kind, current.namespace, current.name)


def _say_in_force(tx: Transaction, exception: SubcloudException) -> None:
    status = SubcloudExceptionStatus(observed_generation=exception.metadata.generation, in_force=True)
    if status != exception.status:
        tx.report(msgspec.structs.replace(exception, status=status))


def _with_exceptions(
    tx: Transaction, wanted: FirewallPolicy, exceptions: list[SubcloudException], kept: Raw
) -> Raw:
    """The spec of a copy with what is otherwise for its subcloud; `kept` while that does not fit.

    Says of each whether it is in force.
    """
    raw = encode(wanted)
    for exception in exceptions:
        status = SubcloudExceptionStatus(observed_generation=exception.metadata.generation, in_force=True)
        try:
            raw = laid_over(OVERRIDABLE[FIREWALL_POLICY.kind], raw, patch_of(exception))
        except Unfit as error:
            message = f"It does not fit what is shared now, and the copy stays as it was: {error}"
            status = msgspec.structs.replace(status, in_force=False, message=message[:2048])
        if status != exception.status:
            tx.report(msgspec.structs.replace(exception, status=status))
        if not status.in_force:
            return kept
    spec: Raw = raw["spec"]
    return spec


def _is_intent(change: Change) -> bool:
    """Whether a change is more than news in a status."""
    return change.type != "MODIFIED" or _intent(change.data) != _intent(change.previous)


def _intent(data: str) -> dict[str, object]:
    return {k: v for k, v in msgspec.json.decode(data).items() if k != "status"}


class _ExceptionSpec(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _Exception(msgspec.Struct, frozen=True):
    spec: _ExceptionSpec = _ExceptionSpec()


_exception = msgspec.json.Decoder(_Exception).decode


def _excepted(data: str) -> str:
    """The policy that an exception is from; empty when it is from something else."""
    spec = _exception(data).spec
    return spec.name if spec.kind == FIREWALL_POLICY.kind else ""


def wanted_of(data: str, cloud: str) -> Wanted | None:
    """What counts of a policy as it is stored; None when it is not shared."""
    policy = read(FirewallPolicy, data, "")
    if policy.spec.subclouds is None:
        return None
    copy = encode(copy_of(policy, cloud, ""))
    return Wanted(
        selector=policy.spec.subclouds,
        generation=policy.metadata.generation,
        print=printed(copy["metadata"]["labels"], msgspec.json.encode(copy["spec"])),
    )


def _every(tx: Transaction, kind: str, namespace: str | None = None) -> Iterator[Stored]:
    """All of a kind, a page in memory at a time."""
    after: tuple[str, str] | None = None
    while True:
        page = tx.select(kind, namespace, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = (page[-1].namespace, page[-1].name)


def shared_status(policy: FirewallPolicy, sums: Sums, now: str) -> FirewallPolicyStatus:
    """The status of a shared policy from what its copies come to. Pure."""
    told = []
    if not sums.settled:
        told.append("Its copies are being written.")
    if sums.late:
        named = ", ".join(sorted(sums.named))
        told.append(f"Not in force in {named}" + ("." if sums.late <= len(sums.named) else ", and more."))
    if told:
        ready = Condition(type="Ready", status="False", reason="OutOfSync", message=" ".join(told))
    else:
        ready = Condition(type="Ready", status="True", reason="InSync", message="In force where selected.")
    ready = msgspec.structs.replace(ready, observed_generation=policy.metadata.generation)
    return FirewallPolicyStatus(
        observed_generation=policy.metadata.generation,
        hosts=sums.hosts,
        applied=sums.applied,
        subclouds=sums.copies,
        in_sync=sums.copies - sums.late,
        conditions=set_condition(policy.status.conditions, ready, now),
    )
