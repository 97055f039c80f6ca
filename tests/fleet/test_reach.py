"""Which policy reaches which subcloud: what memory says is what a look at everything would find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from roost.fleet import sharing
from roost.fleet.reach import Copy, Reach, Site, Wanted, anchors, copy_in, site_of
from roost.fleet.sharing import SHARED_BY, SharingController, wanted_of
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.codec import Raw, encode
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import Circle, SubcloudSelector, selects
from roost.model.meta import Metadata
from roost.model.override import SubcloudException, SubcloudExceptionSpec
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time

SITES, POLICIES = ("a", "b", "c", "d"), ("p", "q", "r")
LABELS = st.dictionaries(st.sampled_from(["region", "tier"]), st.sampled_from(["1", "2"]))
SELECTORS = st.builds(
    SubcloudSelector,
    names=st.lists(st.sampled_from([*SITES, "x"]), max_size=2, unique=True),
    labels=LABELS,
    groups=st.lists(st.sampled_from(["", "g", "h"]), max_size=2, unique=True),
    near=st.none()
    | st.builds(Circle, latitude=st.just(0.0), longitude=st.just(0.0), kilometres=st.just(1000.0)),
)
SUBCLOUDS = st.builds(
    lambda state, group, labels, latitude: Subcloud(
        metadata=Metadata(name="", labels=labels),
        spec=SubcloudSpec(management_state=state, group=group, latitude=latitude, longitude=0.0),
    ),
    st.sampled_from(["managed", "unmanaged"]),
    st.sampled_from(["", "g", "h"]),
    LABELS,
    st.none() | st.sampled_from([0.0, 45.0]),
)


def stored(resource: Any) -> str:
    """As the store has it."""
    return msgspec.json.encode(encode(resource)).decode()


def named(subcloud: Subcloud, name: str) -> Subcloud:
    metadata = msgspec.structs.replace(subcloud.metadata, name=name)
    return msgspec.structs.replace(subcloud, metadata=metadata)


@given(selector=SELECTORS, subcloud=SUBCLOUDS, name=st.sampled_from(SITES))
def test_a_subcloud_in_memory_is_chosen_as_the_subcloud_itself(
    selector: SubcloudSelector, subcloud: Subcloud, name: str
) -> None:
    subcloud = named(subcloud, name)
    assert site_of(stored(subcloud)).is_chosen(selector) == selects(selector, subcloud)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("site"), st.sampled_from(SITES), st.none() | SUBCLOUDS),
        st.tuples(
            st.just("policy"), st.sampled_from(POLICIES), st.none() | st.tuples(SELECTORS, st.integers(0, 1))
        ),
        st.tuples(
            st.just("copy"),
            st.tuples(st.sampled_from(POLICIES), st.sampled_from(SITES)),
            st.none() | st.builds(Copy, print=st.integers(0, 1), late=st.booleans(), hosts=st.integers(0, 3)),
        ),
        st.tuples(
            st.just("exception"),
            st.tuples(st.sampled_from(SITES), st.sampled_from(["e", "f"])),
            st.sampled_from(["", *POLICIES]),
        ),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(moves=MOVES)
def test_what_is_not_right_is_found_from_either_side(moves: Sequence[tuple[str, Any, Any]]) -> None:
    reach = Reach()
    sites, policies = dict[str, Site](), dict[str, Wanted]()
    copies, exceptions = dict[tuple[str, str], Copy](), dict[tuple[str, str], str]()

    def put(known: dict[Any, Any], key: Any, value: Any) -> None:
        known.pop(key, None)
        if value:
            known[key] = value

    for what, key, value in moves:
        if what == "site":
            site = site_of(stored(named(value, key))) if value else None
            assert reach.put_site(key, site) == (sites.get(key) != site)
            put(sites, key, site)
        elif what == "policy":
            wanted = Wanted(selector=value[0], generation=1, print=value[1]) if value else None
            assert reach.put_policy(key, wanted) == (policies.get(key) != wanted)
            put(policies, key, wanted)
        elif what == "copy":
            reach.put_copy(key[0], key[1], value)
            put(copies, key, value)
        else:
            before = exceptions.get(key, "")
            assert reach.put_exception(key[0], key[1], value) == {before, value} - {""}
            put(exceptions, key, value)
    for policy in POLICIES:
        of_it = [copy for (name, _), copy in copies.items() if name == policy]
        sums = reach.sums(policy)
        assert (sums.copies, sums.late) == (len(of_it), sum(c.late for c in of_it))
        assert sums.hosts == sum(c.hosts for c in of_it)
        assert set(sums.named) == {s for (name, s), c in copies.items() if name == policy and c.late}
        for name in SITES:
            there, wanted = copies.get((policy, name)), policies.get(policy)
            site = sites.get(name)
            right = True
            if site is not None and site.spec.management_state == "managed":
                excepted = policy in [p for (s, _), p in exceptions.items() if s == name]
                if wanted is None or not site.is_chosen(wanted.selector):
                    right = there is None
                else:
                    right = not excepted and there is not None and there.print == wanted.print
            assert reach.is_right(policy, name) == right
            assert right or (name in reach.sites_for(policy) and policy in reach.policies_for(name))


@given(selector=SELECTORS)
def test_a_selector_of_names_is_filed_by_them_alone(selector: SubcloudSelector) -> None:
    found = anchors(selector)
    assert found
    if selector.names:
        assert found == [("name", name) for name in selector.names]


# -- the controller


def policy(name: str, selector: SubcloudSelector | None, order: int = 1) -> FirewallPolicy:
    spec = FirewallPolicySpec(networks=["oam"], subclouds=selector, order=order)
    return FirewallPolicy(metadata=Metadata(name=name, namespace=CENTRE), spec=spec)


def test_the_print_of_a_copy_that_was_made_is_the_one_wanted() -> None:
    shared = policy("p", SubcloudSelector())
    wanted = wanted_of(stored(shared), CENTRE)
    assert wanted is not None
    reach = Reach()
    reach.put_site("a", site_of(stored(named(_managed(), "a"))))
    reach.put_policy("p", wanted)
    assert not reach.is_right("p", "a")
    for spelled, right in ((sharing.copy_of(shared, CENTRE, "a"), True), (shared, False)):
        reach.put_copy("p", "a", copy_in(stored(spelled)))
        assert reach.is_right("p", "a") == right
    assert wanted_of(stored(policy("q", None)), CENTRE) is None


def _managed() -> Subcloud:
    return Subcloud(metadata=Metadata(name=""), spec=SubcloudSpec(management_state="managed"))


ORDERS = st.integers(1, 3)
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("site"), st.sampled_from(SITES), SUBCLOUDS),
        st.tuples(st.just("site gone"), st.sampled_from(SITES), st.none()),
        st.tuples(st.just("policy"), st.sampled_from(POLICIES), st.tuples(st.none() | SELECTORS, ORDERS)),
        st.tuples(st.just("policy gone"), st.sampled_from(POLICIES), st.none()),
        st.tuples(st.just("exception"), st.sampled_from(SITES), st.tuples(st.sampled_from(POLICIES), ORDERS)),
        st.tuples(st.just("exception gone"), st.sampled_from(SITES), st.none()),
        st.tuples(st.just("withdrawn"), st.sampled_from(SITES), st.sampled_from(POLICIES)),
        st.tuples(st.just("tampered"), st.sampled_from(SITES), st.sampled_from(POLICIES)),
        st.tuples(st.just("restart"), st.just(""), st.none()),
        st.tuples(st.just("settle"), st.just(""), st.none()),
    ),
    min_size=1,
    max_size=14,
)


class Model:
    """The naive one: after each deed everything is gone over."""

    def __init__(self) -> None:
        self.sites: dict[str, Subcloud] = {}
        self.policies: dict[str, tuple[SubcloudSelector | None, int]] = {}
        self.exceptions: dict[str, tuple[str, int | None]] = {}
        self.copies: dict[tuple[str, str], int] = {}

    def settle(self) -> None:
        for name, site in self.sites.items():
            if site.spec.management_state != "managed":
                continue
            for policy in POLICIES:
                selector, order = self.policies.get(policy, (None, 0))
                excepted = self.exceptions.get(name)
                own: int | None = order
                if excepted is not None and excepted[0] == policy:
                    own = excepted[1]
                self.copies.pop((policy, name), None)
                if selector is not None and selects(selector, site) and own is not None:
                    self.copies[policy, name] = own
        for policy, name in list(self.copies):
            if name not in self.sites:
                del self.copies[policy, name]


def _deed(what: str, name: str, said: Any) -> Callable[[Transaction], None]:
    """What people do, and somebody who tampers with a copy."""

    def work(tx: Transaction) -> None:
        if what == "site":
            current = tx.seek(Subcloud, "", name)
            new = named(said, name)
            if current is not None:
                metadata = msgspec.structs.replace(current.metadata, labels=new.metadata.labels)
                new = msgspec.structs.replace(current, metadata=metadata, spec=new.spec)
            tx.save(new)
        elif what == "site gone":
            tx.drop("Subcloud", "", name)
        elif what == "policy":
            existing = tx.seek(FirewallPolicy, CENTRE, name)
            made = policy(name, *said)
            tx.save(msgspec.structs.replace(existing, spec=made.spec) if existing else made)
        elif what == "policy gone":
            tx.drop("FirewallPolicy", CENTRE, name)
        elif what in ("exception", "withdrawn"):
            of, patch = (said, {}) if what == "withdrawn" else (said[0], {"order": said[1]})
            spec = SubcloudExceptionSpec(kind="FirewallPolicy", name=of, patch=patch, withdrawn=not patch)
            there = tx.seek(SubcloudException, name, "e")
            fresh = SubcloudException(metadata=Metadata(name="e", namespace=name), spec=spec)
            tx.save(msgspec.structs.replace(there, spec=spec) if there else fresh)
        elif what == "exception gone":
            tx.drop("SubcloudException", name, "e")
        elif what == "tampered":
            copy = tx.find("FirewallPolicy", name, f"{said}.{CENTRE}")
            if copy is not None:
                spec_now: Raw = {**copy.raw["spec"], "order": 9}
                tx.replace({**copy.raw, "spec": spec_now})

    return work


def _tell(model: Model, what: str, name: str, said: Any) -> None:
    match what:
        case "site":
            model.sites[name] = named(said, name)
        case "site gone":
            model.sites.pop(name, None)
            model.exceptions.pop(name, None)
        case "policy":
            model.policies[name] = said
        case "policy gone":
            model.policies.pop(name, None)
        case "exception" | "withdrawn":
            model.exceptions[name] = (said, None) if what == "withdrawn" else (said[0], said[1])
        case "exception gone":
            model.exceptions.pop(name, None)


@settings(max_examples=60, deadline=None)
@given(deeds=DEEDS)
@on_fake_time
async def test_copies_are_those_of_one_who_goes_over_everything(deeds: list[tuple[str, str, Any]]) -> None:
    model = Model()
    async with centre() as c:
        c.work()
        for what, name, said in [*deeds, ("settle", "", None)]:
            exceptional = what in ("exception", "withdrawn")
            if exceptional and name not in model.sites:
                continue
            managed = name in model.sites and model.sites[name].spec.management_state == "managed"
            if what == "tampered" and not managed:
                continue
            if what == "restart":
                await c.stop()
                c.work()
            elif what != "settle":
                await c.store.transact(_deed(what, name, said))
                _tell(model, what, name, said)
            await asyncio.sleep(5)
            model.settle()
        found = {
            (p.metadata.name.removesuffix(f".{CENTRE}"), p.metadata.namespace): p
            for p in await c.store.every(FirewallPolicy)
            if p.metadata.namespace != CENTRE
        }
        assert {key: p.spec.order for key, p in found.items()} == model.copies
        for name, (selector, _) in model.policies.items():
            if selector is not None:
                shared = await c.store.load(FirewallPolicy, CENTRE, name)
                places = [site for of, site in model.copies if of == name]
                assert shared.status.subclouds == len(places)
                assert shared.status.observed_generation == shared.metadata.generation
                assert (shared.status.conditions[0].status == "True") == (not places)


class Spied(SharingController):
    """Says which pairs were looked at, together."""

    def __init__(self) -> None:
        super().__init__(CENTRE)
        self.looks: list[list[tuple[str, str]]] = []

    def _settle(self, tx: Transaction, pairs: Sequence[tuple[str, str]]) -> int:
        self.looks.append(list(pairs))
        return super()._settle(tx, pairs)


async def fleet(c: Centre, count: int) -> None:
    def work(tx: Transaction) -> None:
        for n in range(count):
            tx.save(named(_managed(), f"s{n:04}"))

    await c.store.transact(work)


@on_fake_time
async def test_a_policy_for_one_of_two_thousand_looks_at_that_one() -> None:
    async with centre() as c:
        await fleet(c, 2000)
        spied = Spied()
        c.start([spied])
        await asyncio.sleep(1)
        await c.store.save(policy("p", SubcloudSelector(names=["s0777"])))
        await asyncio.sleep(5)
        assert spied.looks == [[("p", "s0777")]], "its own copy, when it comes, needs no second look"
        copy = await c.store.load(FirewallPolicy, "s0777", f"p.{CENTRE}")
        assert copy.metadata.labels == {SHARED_BY: CENTRE}
        await c.store.transact(lambda tx: tx.remove("FirewallPolicy", CENTRE, "p"))
        await asyncio.sleep(5)
        assert spied.looks[1:] == [[("p", "s0777")]]


@on_fake_time
async def test_a_policy_for_all_goes_in_batches_and_holds_up_none_that_is_for_one() -> None:
    async with centre() as c:
        await fleet(c, 2000)
        spied = Spied()
        c.start([spied])
        await asyncio.sleep(1)
        await c.store.save(policy("all", SubcloudSelector()))
        while not spied.looks:  # noqa: ASYNC110 - fake time
            await asyncio.sleep(0)
        await c.store.save(policy("one", SubcloudSelector(names=["s0001"])))
        await asyncio.sleep(20)
        assert all(len(pairs) <= sharing.TOGETHER for pairs in spied.looks)
        assert sum(map(len, spied.looks)) == 2001
        assert spied.looks.index([("one", "s0001")]) < len(spied.looks) // 2
        status = (await c.store.load(FirewallPolicy, CENTRE, "all")).status
        assert (status.subclouds, status.in_sync) == (2000, 0)
        await c.stop()

        again = Spied()
        revision = c.store.revision
        c.start([again])
        await asyncio.sleep(20)
        assert again.looks == [] and c.store.revision == revision, "after a restart all is as it should be"
