"""Shared intent: which subclouds get a copy, and that copies follow their policy and their subcloud."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from roost.fleet.reach import Reach, Sums, copy_in, in_force
from roost.fleet.sharing import SHARED_BY, copy_name, copy_of, shared_status
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.codec import encode
from roost.model.firewall import (
    FirewallPolicy,
    FirewallPolicySpec,
    FirewallPolicyStatus,
    FirewallRule,
)
from roost.model.fleet import EARTH_KILOMETRES, Circle, SubcloudSelector, distance, selects
from roost.model.meta import Condition, Metadata
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time
from tests.support.stores import raw

_PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def _circle(place: tuple[float, float], kilometres: float) -> Circle:
    return Circle(latitude=place[0], longitude=place[1], kilometres=kilometres)


WEB = FirewallRule(action="allow", protocol="tcp", ports=["443"])


def subcloud(name: str = "harbor", **labels: str) -> Subcloud:
    return Subcloud(metadata=Metadata(name=name, labels=labels))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (SubcloudSelector(), True),
        (SubcloudSelector(names=["harbor"]), True),
        (SubcloudSelector(names=["ridge"]), False),
        (SubcloudSelector(labels={"region": "north"}), True),
        (SubcloudSelector(labels={"region": "south"}), False),
        (SubcloudSelector(names=["harbor"], labels={"region": "south"}), False),
    ],
)
def test_selectors_ask_for_all_of_their_conditions(selector: SubcloudSelector, expected: bool) -> None:  # noqa: FBT001
    assert selects(selector, subcloud(region="north")) is expected


KARLSRUHE, STUTTGART = (49.0069, 8.4037), (48.7758, 9.1829)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (SubcloudSelector(groups=["forest"]), True),
        (SubcloudSelector(groups=["coast", "forest"]), True),
        (SubcloudSelector(groups=["coast"]), False),
        (SubcloudSelector(near=_circle(KARLSRUHE, 1)), True),
        (SubcloudSelector(near=_circle(STUTTGART, 70)), True),
        (SubcloudSelector(near=_circle(STUTTGART, 50)), False),
        (SubcloudSelector(near=_circle(KARLSRUHE, 1), groups=["coast"]), False),
    ],
)
def test_selectors_know_groups_and_places(selector: SubcloudSelector, expected: bool) -> None:  # noqa: FBT001
    latitude, longitude = KARLSRUHE
    spec = SubcloudSpec(group="forest", latitude=latitude, longitude=longitude)
    assert selects(selector, Subcloud(metadata=Metadata(name="harbor"), spec=spec)) is expected


def test_what_has_no_place_is_in_no_circle() -> None:
    everywhere = SubcloudSelector(near=_circle(KARLSRUHE, 20040))
    assert not selects(everywhere, subcloud())
    assert not selects(everywhere, Subcloud(metadata=Metadata(name="a"), spec=SubcloudSpec(latitude=49.0)))


@given(_PLACES, _PLACES)
def test_distances_are_those_of_a_sphere(one: tuple[float, float], other: tuple[float, float]) -> None:
    there, back = distance(_circle(one, 1), *other), distance(_circle(other, 1), *one)
    assert math.isclose(there, back, abs_tol=1e-6) and 0 <= there <= math.pi * EARTH_KILOMETRES + 1e-6
    assert distance(_circle(one, 1), *one) == 0
    north = distance(_circle(one, 1), 90, other[1])
    assert math.isclose(north, math.radians(90 - one[0]) * EARTH_KILOMETRES, abs_tol=1e-3)


def policy(name: str = "p", selector: SubcloudSelector | None = None, **labels: str) -> FirewallPolicy:
    spec = FirewallPolicySpec(networks=["oam"], rules=[WEB], subclouds=selector)
    return FirewallPolicy(metadata=Metadata(name=name, namespace=CENTRE, labels=labels), spec=spec)


def test_a_copy_is_the_policy_without_its_selector() -> None:
    copy = copy_of(policy("p", SubcloudSelector(), team="a"), CENTRE, "harbor")
    assert (copy.metadata.name, copy.metadata.namespace) == ("p.central", "harbor")
    assert copy.metadata.labels == {"team": "a", SHARED_BY: CENTRE}
    assert copy.spec.subclouds is None and copy.spec.rules == [WEB]
    assert copy_name("p", CENTRE) == "p.central"


def reported(ready: str, generation: int = 2, observed: int = 2) -> FirewallPolicy:
    condition = Condition(type="Ready", status=ready, reason="R")  # type: ignore[arg-type]
    status = FirewallPolicyStatus(observed_generation=observed, hosts=3, applied=2, conditions=[condition])
    return FirewallPolicy(
        metadata=Metadata(name="p.central", namespace="harbor", generation=generation),
        spec=FirewallPolicySpec(networks=["oam"]),
        status=status,
    )


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        (reported("True"), True),
        (reported("False"), False),
        (reported("True", observed=1), False),
        (msgspec.structs.replace(reported("True"), status=FirewallPolicyStatus()), False),
    ],
)
def test_in_force_means_this_generation(copy: FirewallPolicy, expected: bool) -> None:  # noqa: FBT001
    assert in_force(copy) is expected


def test_the_status_of_a_shared_policy_sums_its_copies() -> None:
    status = shared_status(policy(), summed(valley=reported("True"), harbor=reported("False")), "t")
    assert (status.subclouds, status.in_sync, status.hosts, status.applied) == (2, 1, 6, 4)
    assert (status.conditions[0].status, status.conditions[0].reason) == ("False", "OutOfSync")
    assert status.conditions[0].message == "Not in force in harbor."
    assert shared_status(policy(), Sums(), "t").conditions[0].status == "True"
    many = summed(**{f"s{n:02}": reported("False") for n in range(30)})
    assert shared_status(policy(), many, "t").conditions[0].message.endswith("s18, s19, and more.")


def test_what_is_still_being_written_is_not_in_sync() -> None:
    status = shared_status(policy(), Sums(copies=1, settled=False), "t")
    assert (status.subclouds, status.in_sync) == (1, 1)
    assert (status.conditions[0].status, status.conditions[0].reason) == ("False", "OutOfSync")
    assert status.conditions[0].message == "Its copies are being written."


def summed(**copies: FirewallPolicy) -> Sums:
    """What copies come to, by their subclouds."""
    reach = Reach()
    for name, copy in copies.items():
        reach.put_copy("p", name, copy_in(msgspec.json.encode(encode(copy)).decode()))
    return reach.sums("p")


async def copies(c: Centre, name: str = "p") -> list[str]:
    found = await c.store.every(FirewallPolicy)
    return sorted(p.metadata.namespace for p in found if p.metadata.name == f"{name}.{CENTRE}")


async def shared(c: Centre, name: str = "p") -> tuple[int, int]:
    status = (await c.store.load(FirewallPolicy, CENTRE, name)).status
    return status.subclouds, status.in_sync


async def respecify(c: Centre, name: str = "p", **spec: Any) -> None:
    def work(tx: Transaction) -> None:
        current = tx.load(FirewallPolicy, CENTRE, name)
        tx.save(msgspec.structs.replace(current, spec=msgspec.structs.replace(current.spec, **spec)))

    await c.store.transact(work)


@on_fake_time
async def test_copies_follow_policy_selector_labels_and_management() -> None:
    async with centre() as c:
        c.work()
        for name, region in (("harbor", "north"), ("ridge", "north"), ("valley", "south")):
            await c.declare(name, region=region)
        await c.declare("apart", managed=False, region="north")
        await c.store.save(policy("local"))
        await c.store.save(policy("p", SubcloudSelector(labels={"region": "north"})))
        await asyncio.sleep(3)
        assert await copies(c) == ["harbor", "ridge"]
        assert await copies(c, "local") == []
        assert await shared(c) == (2, 0)

        await c.label("valley", region="north")
        await c.label("harbor", region="south")
        await asyncio.sleep(3)
        assert await copies(c) == ["ridge", "valley"]

        await respecify(c, subclouds=SubcloudSelector())
        await asyncio.sleep(3)
        assert await copies(c) == ["harbor", "ridge", "valley"]
        await respecify(c, rules=[])
        await asyncio.sleep(3)
        copy = await c.store.load(FirewallPolicy, "ridge", f"p.{CENTRE}")
        assert (copy.spec.rules, copy.metadata.generation) == ([], 2)

        await c.manage("apart", managed=True)
        await c.manage("ridge", managed=False)
        await respecify(c, rules=[WEB])
        await asyncio.sleep(3)
        assert await copies(c) == ["apart", "harbor", "ridge", "valley"], "nothing is taken away"
        left = await c.store.load(FirewallPolicy, "ridge", f"p.{CENTRE}")
        assert left.spec.rules == [], "nothing new flows to an unmanaged subcloud"

        await respecify(c, subclouds=None)
        await asyncio.sleep(3)
        assert await copies(c) == ["ridge"]
        await c.manage("ridge", managed=True)
        await asyncio.sleep(3)
        assert await copies(c) == []


@on_fake_time
async def test_a_deleted_policy_takes_its_copies_along_even_while_nobody_looked() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        await c.declare("ridge")
        for name in ("p", "q", "kept"):
            await c.store.save(policy(name, SubcloudSelector()))
        await asyncio.sleep(3)
        await c.store.transact(lambda tx: tx.remove("FirewallPolicy", CENTRE, "p"))
        await asyncio.sleep(3)
        assert (await copies(c), await copies(c, "q")) == ([], ["harbor", "ridge"])
        await c.stop()
        await c.store.transact(lambda tx: tx.remove("FirewallPolicy", CENTRE, "q"))
        c.work()
        await asyncio.sleep(3)
        assert await copies(c, "q") == []
        assert await copies(c, "kept") == ["harbor", "ridge"]


@on_fake_time
async def test_status_that_comes_back_is_summed_and_a_changed_copy_is_mended() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        await c.declare("ridge")
        await c.store.save(policy("p", SubcloudSelector()))
        await asyncio.sleep(3)
        await c.report("harbor", f"p.{CENTRE}", ready="True")
        await asyncio.sleep(3)
        assert await shared(c) == (2, 1)
        await c.report("ridge", f"p.{CENTRE}", ready="True")
        await asyncio.sleep(3)
        assert await shared(c) == (2, 2)

        def tamper(tx: Transaction) -> None:
            current = tx.get("FirewallPolicy", "ridge", f"p.{CENTRE}").raw
            tx.replace({**current, "spec": {**current["spec"], "rules": []}})

        await c.store.transact(tamper)
        await asyncio.sleep(3)
        mended = await c.store.load(FirewallPolicy, "ridge", f"p.{CENTRE}")
        assert mended.spec.rules == [WEB]
        revision = c.store.revision
        await asyncio.sleep(3600)
        assert c.store.revision == revision


@on_fake_time
async def test_policies_that_are_at_home_in_a_subcloud_are_left_alone() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        spec = {"networks": ["oam"]}

        def mirror(tx: Transaction) -> None:
            for name in ("p", "q.central"):
                tx.copy(
                    raw("FirewallPolicy", name, "harbor", spec=spec, metadata={"uid": name}),
                    "down:subcloud/harbor",
                )

        await c.store.transact(mirror)
        await c.store.save(policy("p", SubcloudSelector()))
        await asyncio.sleep(3)
        await c.store.transact(lambda tx: tx.remove("FirewallPolicy", CENTRE, "p"))
        await asyncio.sleep(3)
        names = {p.metadata.name for p in await c.store.every(FirewallPolicy)}
        assert names == {"p", "q.central"}


@on_fake_time
async def test_a_subcloud_that_leaves_is_counted_no_more() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        await c.declare("ridge")
        await c.store.save(policy("p", SubcloudSelector()))
        await asyncio.sleep(3)
        assert await shared(c) == (2, 0)
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "ridge"))
        await asyncio.sleep(3)
        assert await copies(c) == ["harbor"]
        assert await shared(c) == (1, 0)
        spec = (await c.store.load(Subcloud, "", "harbor")).spec
        assert isinstance(spec, SubcloudSpec)
