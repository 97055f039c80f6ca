"""Two stores, a real link between them that is cut, and the controllers of both sides: whatever people do on
either side in whatever order, in the end each word is in force, shown, or was decided on."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.cloud import overriding
from roost.cloud.overrides import OverrideController
from roost.engine.admission import Refused, Request
from roost.engine.controller import Controller, Runner
from roost.engine.overrides import in_force, patch_of
from roost.engine.presence import PresenceBook
from roost.fleet import reviewing
from roost.fleet.controllers import controllers
from roost.link import node
from roost.model import patches
from roost.model.cloud import Cloud, Subcloud, SubcloudSpec
from roost.model.codec import Raw
from roost.model.fault import Alarm, LogEntry
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.meta import Metadata, Resource
from roost.model.override import (
    LOCAL_OVERRIDE,
    LocalOverride,
    LocalOverrideSpec,
    OverrideReview,
    OverrideReviewSpec,
    OverrideTarget,
    SubcloudException,
)
from roost.model.registry import BY_TYPE
from roost.store.store import Store
from roost.store.transaction import UP, Transaction
from tests.link.world import Link, run, with_link

HARBOR = node.subcloud("harbor")
COPY = "p.central"
NAME = "o"
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "order": st.integers(0, 2),
    "defaultIngress": st.sampled_from(["allow", "deny"]),
    "defaultEgress": st.sampled_from(["allow", "deny"]),
}
words = st.fixed_dictionaries({}, optional=FIELDS).filter(bool)
steps = st.one_of(
    st.tuples(st.just("above"), words),
    st.tuples(st.just("below"), words),
    st.tuples(
        st.sampled_from(["adopt", "revert", "give up", "hold", "release", "cut", "unmanage", "manage"])
    ),
    st.tuples(st.sampled_from(["restart above", "restart below", "take away", "withdraw"])),
)
histories = st.lists(st.tuples(steps, st.sampled_from([0.0, 0.05, 2.0])), min_size=2, max_size=14)


class Fleet:
    """A central cloud and a site, each with its controllers, and people on both sides."""

    def __init__(self, link: Link) -> None:
        self.link, self.above, self.below = link, link.upper, link.lower
        self._running: dict[str, list[asyncio.Task[None]]] = {"above": [], "below": []}
        self.decided: set[tuple[str, int]] = set()

    async def begin(self) -> None:
        await self.above.save(Cloud(metadata=Metadata(name="central")))
        await self.below.save(Cloud(metadata=Metadata(name="harbor")))
        for name in ("harbor", "ridge"):
            spec = SubcloudSpec(management_state="managed")
            await self.above.save(Subcloud(metadata=Metadata(name=name), spec=spec))
        await self.share({})
        self.restart("above")
        self.restart("below")
        await self.rest()

    def restart(self, side: str) -> None:
        """The process of one side dies and another takes over."""
        for task in self._running[side]:
            task.cancel()
        store, made = (self.above, self._fleet()) if side == "above" else (self.below, self._site())
        self._running[side] = [asyncio.ensure_future(Runner(store, c).run()) for c in made]

    def _fleet(self) -> list[Controller]:
        book = PresenceBook(asyncio.get_running_loop().time)
        return list(controllers("central", book, lambda _: None).values())

    def _site(self) -> list[Controller]:
        return [OverrideController("harbor")]

    async def end(self) -> None:
        for task in (*self._running["above"], *self._running["below"]):
            task.cancel()
        await asyncio.sleep(0)

    async def rest(self) -> None:
        """Until both sides have told and done everything."""
        self.link.release()
        for _ in range(6):
            await self.link.settle()
            await asyncio.sleep(3)

    # -- people

    async def share(self, patch: Raw) -> None:
        def work(tx: Transaction) -> None:
            current = tx.find("FirewallPolicy", "central", "p")
            if current is None:
                spec = FirewallPolicySpec(networks=["oam"], subclouds=SubcloudSelector())
                tx.save(FirewallPolicy(metadata=Metadata(name="p", namespace="central"), spec=spec))
                current = tx.get("FirewallPolicy", "central", "p")
            tx.replace({**current.raw, "spec": patches.merge(current.raw["spec"], patch)})

        await self.above.transact(work)

    async def manage(self, state: str) -> None:
        def work(tx: Transaction) -> None:
            current = tx.load(Subcloud, "", "harbor")
            spec = SubcloudSpec(management_state=state)  # type: ignore[arg-type]
            tx.save(msgspec.structs.replace(current, spec=spec))

        await self.above.transact(work)

    async def override(self, patch: Raw, *, withdrawn: bool = False) -> None:
        def work(tx: Transaction) -> None:
            current = tx.seek(LocalOverride, "harbor", NAME)
            target = OverrideTarget(kind="FirewallPolicy", name=COPY)
            whole = patches.composed(current.spec.patch, patch) if current else patch
            out = withdrawn or (current is not None and current.spec.withdrawn)
            spec = LocalOverrideSpec(target=target, patch=whole, withdrawn=out, reason="because")
            metadata = current.metadata if current else Metadata(name=NAME, namespace="harbor")
            new = LocalOverride(metadata=metadata, spec=spec)
            _admit(tx, overriding.rules("harbor"), new, current)
            tx.save(msgspec.structs.replace(current, spec=spec) if current else new)

        await _try(self.below, work)

    async def give_up(self) -> None:
        def work(tx: Transaction) -> None:
            if tx.find(LOCAL_OVERRIDE.kind, "harbor", NAME):
                tx.remove(LOCAL_OVERRIDE.kind, "harbor", NAME)

        await self.below.transact(work)

    async def decide(self, decision: str) -> None:
        def work(tx: Transaction) -> None:
            override = tx.seek(LocalOverride, "harbor", NAME)
            if override is None:
                return
            meta = override.metadata
            spec = OverrideReviewSpec(
                override=NAME,
                uid=meta.uid,
                generation=meta.generation,
                decision=decision,  # type: ignore[arg-type]
            )
            current = tx.seek(OverrideReview, "harbor", NAME)
            metadata = current.metadata if current else Metadata(name=NAME, namespace="harbor")
            new = OverrideReview(metadata=metadata, spec=spec)
            _admit(tx, reviewing.rules("central"), new, current)
            tx.save(new)
            self.decided.add((meta.uid, meta.generation))

        await _try(self.above, work)

    async def step(self, what: str, *given: Any) -> None:
        match what:
            case "above":
                await self.share(given[0])
            case "below":
                await self.override(given[0])
            case "withdraw":
                await self.override({}, withdrawn=True)
            case "take away":
                await self.above.transact(_without_policy)
            case "give up":
                await self.give_up()
            case "adopt" | "revert":
                await self.decide(what)
            case "hold" | "release" | "cut":
                getattr(self.link, what)()
            case "unmanage" | "manage":
                await self.manage(f"{what}d")
            case _:
                self.restart(what.removeprefix("restart "))


def _without_policy(tx: Transaction) -> None:
    if tx.find("FirewallPolicy", "central", "p"):
        tx.remove("FirewallPolicy", "central", "p")


def _admit(tx: Transaction, rules: dict[str, list[Any]], new: Resource, old: Resource | None) -> None:
    info = BY_TYPE[type(new)]
    request = Request(operation="update" if old else "create", info=info, user="ada", old=old, new=new)
    for rule in rules[info.kind]:
        rule(tx, request)


async def _try(store: Store, work: Any) -> None:
    """What people ask for; the rules may refuse it."""
    try:
        await store.transact(work)
    except Refused:
        return


async def play(fleet: Fleet, history: list[tuple[tuple[Any, ...], float]]) -> None:
    await fleet.begin()
    for step, pause in history:
        await fleet.step(*step)
        await asyncio.sleep(pause)
    await fleet.rest()


async def check(fleet: Fleet) -> None:
    """What must hold once everything has been told."""
    above, below = fleet.above, fleet.below
    meant = await above.read(lambda tx: tx.find("FirewallPolicy", "harbor", COPY))
    copy = await below.read(lambda tx: tx.find("FirewallPolicy", "harbor", COPY))
    assert (copy is None) == (meant is None)
    if copy is not None and meant is not None:
        assert copy.raw["spec"] == meant.raw["spec"] and copy.origin == UP, "a copy is what the centre says"
    here = await below.read(lambda tx: tx.seek(LocalOverride, "harbor", NAME))
    there = await above.read(lambda tx: tx.seek(LocalOverride, "harbor", NAME))
    assert (here.spec, here.status) == (there.spec, there.status) if here and there else here is there
    if here is not None:
        await _is_in_force_and_shown(fleet, here, copy.raw if copy else None)
    await _ends_were_decided_on(fleet)
    other = await above.read(lambda tx: tx.find("FirewallPolicy", "ridge", COPY))
    shared = await above.read(lambda tx: tx.find("FirewallPolicy", "central", "p"))
    assert (other is None) == (shared is None)
    if other is not None and shared is not None:
        plain = {k: v for k, v in shared.raw["spec"].items() if k != "subclouds"}
        assert other.raw["spec"] == plain, "no other subcloud is touched"
    await _reviews_say_what_they_wait_for(fleet, here)


async def _is_in_force_and_shown(fleet: Fleet, override: LocalOverride, copy: Raw | None) -> None:
    status, spoken = override.status, patches.leaves(patch_of(override))
    if copy is None:
        assert not status.in_force
    else:
        laid = await fleet.below.read(lambda tx: in_force(tx, FirewallPolicy, "harbor"))
        assert bool(laid) is not override.spec.withdrawn
        spec = msgspec.to_builtins(laid[0])["spec"] if laid else {}
        for field in spec and FIELDS:
            assert spec[field] == spoken.get(f"/{field}", copy["spec"][field]), field
        differing = {p for p, v in spoken.items() if patches.at(copy["spec"], p) != v}
        differing |= {""} if override.spec.withdrawn else set()
        assert differing and {d.path for d in status.differences} == differing
        conflicts = sum(d.central != d.before for d in status.differences if d.path)
        whole = [d.conflict for d in status.differences if not d.path]
        assert status.conflicts == conflicts + sum(whole)
    subcloud = await fleet.above.load(Subcloud, "", "harbor")
    managed = subcloud.spec.management_state == "managed"
    alarms = [a.status.alarm_id for a in await fleet.above.every(Alarm, "central")]
    assert ("280.002" in alarms) is managed
    if managed:
        assert (
            subcloud.status.sync == "out-of-sync" and f"LocalOverride/{NAME}" in subcloud.status.out_of_sync
        )


async def _ends_were_decided_on(fleet: Fleet) -> None:
    """Reverting ends what somebody has decided on, once each; and all of it stands in the log above too."""
    told = [e.status.event for e in await fleet.below.every(LogEntry, "harbor")]
    assert told.count("override-reverted") <= len(fleet.decided)
    assert told == [e.status.event for e in await fleet.above.every(LogEntry, "harbor")]


async def _reviews_say_what_they_wait_for(fleet: Fleet, override: LocalOverride | None) -> None:
    reviews = await fleet.above.every(OverrideReview)
    if override is None:
        assert reviews == [], "a review goes with its override"
    for review in reviews:
        assert review.status.message, "it says what it waits for"
        assert override is not None and review.spec.uid == override.metadata.uid
        assert (review.spec.generation == override.metadata.generation) == (review.status.state != "outdated")
    exceptions = await fleet.above.every(SubcloudException)
    assert all(e.metadata.namespace == "harbor" for e in exceptions)


async def scenario(history: list[tuple[tuple[Any, ...], float]]) -> None:
    with tempfile.TemporaryDirectory() as path:

        async def work(link: Link) -> None:
            fleet = Fleet(link)
            try:
                await play(fleet, history)
                await check(fleet)
            finally:
                await fleet.end()

        await with_link(Path(path), HARBOR, work)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories)
def test_no_word_is_lost_silently_whatever_people_and_links_do(
    history: list[tuple[tuple[Any, ...], float]],
) -> None:
    run(lambda: scenario(history))


def test_both_sides_change_the_same_while_cut_off_and_each_decision_is_carried_out() -> None:
    for decision in ("adopt", "revert"):
        history = [
            (("hold",), 0.05),
            (("below", {"order": 1, "defaultIngress": "allow"}), 0.0),
            (("above", {"order": 2, "defaultEgress": "deny"}), 0.0),
            (("restart below",), 0.0),
            (("release",), 30.0),
            ((decision,), 0.0),
            (("cut",), 2.0),
        ]
        run(lambda history=history, decision=decision: _decided(history, decision))  # type: ignore[misc]


async def _decided(history: list[tuple[tuple[Any, ...], float]], decision: str) -> None:
    with tempfile.TemporaryDirectory() as path:

        async def work(link: Link) -> None:
            fleet = Fleet(link)
            try:
                await play(fleet, history)
                await check(fleet)
                assert await fleet.below.every(LocalOverride) == []
                spec = (await fleet.below.load(FirewallPolicy, "harbor", COPY)).spec
                order, ingress = (1, "allow") if decision == "adopt" else (2, "deny")
                assert (spec.order, spec.default_ingress, spec.default_egress) == (order, ingress, "deny")
            finally:
                await fleet.end()

        await with_link(Path(path), HARBOR, work)
