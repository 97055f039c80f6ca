"""The central cloud beside a site's overrides: drift, adoption for one subcloud alone, exceptions."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from roost.engine.admission import Refused, Request
from roost.fleet.admission import rules
from roost.model.codec import Raw, encode
from roost.model.fault import Alarm
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.kind import KindInfo
from roost.model.meta import Metadata, Resource
from roost.model.override import (
    OVERRIDE_REVIEW,
    SUBCLOUD_EXCEPTION,
    LocalOverride,
    LocalOverrideSpec,
    LocalOverrideStatus,
    Management,
    OverrideReview,
    OverrideReviewSpec,
    OverrideTarget,
    SubcloudException,
    SubcloudExceptionSpec,
)
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time

ORIGIN = "down:subcloud/harbor"


async def share(place: Centre, name: str = "p", **spec: Any) -> None:
    """A policy for all subclouds, as it is now."""

    def work(tx: Transaction) -> None:
        current = tx.seek(FirewallPolicy, CENTRE, name)
        metadata = current.metadata if current else Metadata(name=name, namespace=CENTRE)
        made = FirewallPolicySpec(networks=["oam"], subclouds=SubcloudSelector(), **spec)
        tx.save(FirewallPolicy(metadata=metadata, spec=made))

    await place.store.transact(work)


def override(patch: Raw, *, generation: int = 1, uid: str = "u", conflicts: int = 0) -> LocalOverride:
    target = OverrideTarget(kind="FirewallPolicy", name="p.central")
    return LocalOverride(
        metadata=Metadata(name="o", namespace="harbor", uid=uid, generation=generation),
        spec=LocalOverrideSpec(target=target, patch=patch, reason="because"),
        status=LocalOverrideStatus(in_force=True, conflicts=conflicts),
    )


async def tell(place: Centre, told: LocalOverride | None) -> None:
    """The link brings the site's override up, or that it is gone."""

    def work(tx: Transaction) -> None:
        if told is None:
            tx.drop("LocalOverride", "harbor", "o")
        else:
            tx.copy(encode(told), ORIGIN)

    await place.store.transact(work)


def review(decision: str, *, generation: int = 1, uid: str = "u", name: str = "o") -> OverrideReview:
    spec = OverrideReviewSpec(override="o", uid=uid, generation=generation, decision=decision, by="ada")  # type: ignore[arg-type]
    return OverrideReview(metadata=Metadata(name=name, namespace="harbor"), spec=spec)


def exception(**patch: Any) -> SubcloudException:
    spec = SubcloudExceptionSpec(kind="FirewallPolicy", name="p", patch=patch)
    return SubcloudException(metadata=Metadata(name="e", namespace="harbor"), spec=spec)


async def orders(place: Centre) -> dict[str, int]:
    """The order that the copy of each subcloud has."""
    copies = await place.store.every(FirewallPolicy)
    return {c.metadata.namespace: c.spec.order for c in copies if c.metadata.namespace != CENTRE}


async def begin(place: Centre, *, managed: bool = True) -> None:
    place.work()
    await place.declare("harbor", managed=managed)
    await place.declare("ridge")
    await share(place, order=1)
    place.link("harbor", up=True)
    await asyncio.sleep(5)


@on_fake_time
async def test_each_site_is_told_whether_it_is_managed() -> None:
    async with centre() as place:
        await begin(place)
        assert (await place.store.load(Management, "harbor", CENTRE)).spec.management_state == "managed"
        await place.manage("harbor", managed=False)
        await asyncio.sleep(5)
        assert (await place.store.load(Management, "harbor", CENTRE)).spec.management_state == "unmanaged"
        await place.store.transact(lambda tx: tx.remove("Management", "harbor", CENTRE))
        await asyncio.sleep(5)
        assert await place.store.load(Management, "harbor", CENTRE)
        await place.store.transact(lambda tx: tx.remove("Subcloud", "", "harbor"))
        await asyncio.sleep(5)
        assert [m.metadata.namespace for m in await place.store.every(Management)] == ["ridge"]


@on_fake_time
async def test_what_a_managed_site_overrides_is_drift_and_a_warning() -> None:
    async with centre() as place:
        await begin(place)
        await place.report("harbor", "p.central", ready="True")
        await asyncio.sleep(5)
        assert (await place.subcloud()).sync == "in-sync"
        await tell(place, override({"order": 5}, conflicts=1))
        await asyncio.sleep(5)
        status = await place.subcloud()
        assert status.sync == "out-of-sync" and status.out_of_sync == ["LocalOverride/o"]
        synced = next(c for c in status.conditions if c.type == "InSync")
        assert synced.reason == "LocalOverrides" and "changed here too" in synced.message
        alarms = [a.status for a in await place.store.every(Alarm, CENTRE)]
        assert [(a.alarm_id, a.severity) for a in alarms] == [("280.002", "warning")]
        assert "FirewallPolicy/p.central" in alarms[0].reason
        place.link("harbor", up=False)
        await asyncio.sleep(90)
        assert ("280.002", "subcloud=harbor.resource=platform") in await place.alarms(), (
            "cut off clears nothing"
        )
        await place.manage("harbor", managed=False)
        await asyncio.sleep(5)
        assert "280.002" not in dict(await place.alarms())
        await place.manage("harbor", managed=True)
        await asyncio.sleep(5)
        assert (await place.subcloud()).sync == "out-of-sync", "managed again, the difference shows first"
        await tell(place, None)
        await asyncio.sleep(5)
        assert "280.002" not in dict(await place.alarms())


@on_fake_time
async def test_adopting_makes_an_exception_for_that_site_alone() -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 5}))
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 5, "ridge": 1}
        made = (await place.store.every(SubcloudException))[0]
        assert (made.metadata.namespace, made.metadata.name) == ("harbor", "firewallpolicy.p")
        assert made.spec.patch == {"order": 5} and made.status.in_force
        await place.stop()
        await share(place, order=2, default_ingress="allow")
        place.work()
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 5, "ridge": 2}, "the rest follows, the exception holds"
        copies = {
            c.metadata.namespace: c.spec.default_ingress for c in await place.store.every(FirewallPolicy)
        }
        assert copies["harbor"] == "allow"
        assert (await place.store.load(OverrideReview, "harbor", "o")).status.state == "pending"
        await tell(place, None)
        await asyncio.sleep(5)
        assert await place.store.every(OverrideReview) == []
        await place.store.transact(
            lambda tx: tx.remove(SUBCLOUD_EXCEPTION.kind, "harbor", "firewallpolicy.p")
        )
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 2, "ridge": 2}


@on_fake_time
async def test_a_second_adoption_is_laid_over_the_first() -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 5}))
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        await tell(place, None)
        await asyncio.sleep(5)
        await tell(place, override({"defaultEgress": "deny"}, uid="v"))
        await place.store.save(review("adopt", uid="v"))
        await asyncio.sleep(5)
        made = (await place.store.every(SubcloudException))[0]
        assert made.spec.patch == {"order": 5, "defaultEgress": "deny"}


@on_fake_time
async def test_adoption_goes_into_the_exception_that_is_there_whatever_its_name() -> None:
    async with centre() as place:
        await begin(place)
        there = exception(order=3, defaultEgress="deny")
        named = msgspec.structs.replace(there.metadata, name="z")
        await place.store.save(msgspec.structs.replace(there, metadata=named))
        await tell(place, override({"order": 5}))
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        made = await place.store.every(SubcloudException)
        assert [(e.metadata.name, e.spec.patch) for e in made] == [
            ("z", {"order": 5, "defaultEgress": "deny"})
        ]
        assert await orders(place) == {"harbor": 5, "ridge": 1}


@on_fake_time
async def test_adopting_that_a_policy_is_withdrawn_takes_it_away_from_that_site_alone() -> None:
    async with centre() as place:
        await begin(place)
        plain = override({})
        out = msgspec.structs.replace(plain, spec=msgspec.structs.replace(plain.spec, withdrawn=True))
        await tell(place, out)
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        assert await orders(place) == {"ridge": 1}
        made = (await place.store.every(SubcloudException))[0]
        assert made.spec.withdrawn and made.status.in_force
        await tell(place, None)
        await share(place, order=2)
        await asyncio.sleep(5)
        assert await orders(place) == {"ridge": 2}
        await place.store.transact(
            lambda tx: tx.remove(SUBCLOUD_EXCEPTION.kind, "harbor", made.metadata.name)
        )
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 2, "ridge": 2}


@on_fake_time
async def test_a_review_of_an_older_word_does_nothing_and_says_so() -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 6}, generation=2))
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        found = await place.store.load(OverrideReview, "harbor", "o")
        assert found.status.state == "outdated" and "generation 2" in found.status.message
        assert await orders(place) == {"harbor": 1, "ridge": 1}


@on_fake_time
async def test_what_is_shared_no_longer_can_only_be_reverted() -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 5}))
        await place.store.transact(lambda tx: tx.remove("FirewallPolicy", CENTRE, "p"))
        await place.store.save(review("adopt"))
        await asyncio.sleep(5)
        found = await place.store.load(OverrideReview, "harbor", "o")
        assert found.status.state == "refused" and "revert" in found.status.message


@on_fake_time
async def test_an_exception_that_no_longer_fits_leaves_the_copy_as_it_was() -> None:
    async with centre() as place:
        await begin(place)
        await place.store.save(exception(order=5))
        await asyncio.sleep(5)
        broken = exception(order=99999)
        current = await place.store.load(SubcloudException, "harbor", "e")
        await place.store.save(msgspec.structs.replace(current, spec=broken.spec))
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 5, "ridge": 1}
        found = await place.store.load(SubcloudException, "harbor", "e")
        assert not found.status.in_force and "spec.order" in found.status.message


@on_fake_time
async def test_an_unmanaged_site_is_left_as_it_is() -> None:
    async with centre() as place:
        await begin(place)
        await place.manage("harbor", managed=False)
        await share(place, order=9)
        await place.store.save(exception(order=5))
        await asyncio.sleep(5)
        assert await orders(place) == {"harbor": 1, "ridge": 9}


@pytest.mark.parametrize(
    ("info", "new", "reason"),
    [
        (OVERRIDE_REVIEW, review("adopt", name="x"), "has the name of its override"),
        (OVERRIDE_REVIEW, review("adopt", generation=2), "another by now"),
        (OVERRIDE_REVIEW, review("revert", uid="w"), "another by now"),
        (SUBCLOUD_EXCEPTION, exception(order=99999), "no right FirewallPolicy"),
        (SUBCLOUD_EXCEPTION, exception(oder=1), "no such field"),
        (SUBCLOUD_EXCEPTION, exception(subclouds={}), "can't be overridden"),
    ],
)
@on_fake_time
async def test_what_may_not_be_said(info: KindInfo, new: Resource, reason: str) -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 5}))
        await asyncio.sleep(5)
        with pytest.raises(Refused) as refused:
            await admit(place, info, new)
        assert reason in refused.value.reason and refused.value.remedy


async def admit(place: Centre, info: KindInfo, new: Resource) -> None:
    request = Request(operation="create", info=info, user="ada", new=new)

    def work(tx: Transaction) -> None:
        for rule in rules(CENTRE)[info.kind]:
            rule(tx, request)

    await place.store.read(work)


@on_fake_time
async def test_reviews_are_for_managed_subclouds_that_are_there() -> None:
    async with centre() as place:
        await begin(place)
        await tell(place, override({"order": 5}))
        await admit(place, OVERRIDE_REVIEW, review("adopt"))
        await place.manage("harbor", managed=False)
        with pytest.raises(Refused, match="its own affair"):
            await admit(place, OVERRIDE_REVIEW, review("adopt"))
        await place.manage("harbor", managed=True)
        await tell(place, None)
        with pytest.raises(Refused, match="has no override"):
            await admit(place, OVERRIDE_REVIEW, review("adopt"))
        lost = msgspec.structs.replace(review("revert"), metadata=Metadata(name="o", namespace="nowhere"))
        with pytest.raises(Refused, match="no subcloud of central"):
            await admit(place, OVERRIDE_REVIEW, lost)
