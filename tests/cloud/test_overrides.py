"""A site's overrides: what may be said, what is compiled, what ends them, and how a site leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from roost.cloud.leaving import rule, take_over
from roost.cloud.overriding import rules
from roost.engine.admission import Refused, Request
from roost.model.cloud import CLOUD as CLOUD_KIND
from roost.model.cloud import Cloud, CloudSpec, CloudStatus
from roost.model.codec import Raw, encode
from roost.model.configuration import HostConfiguration
from roost.model.fault import LogEntry
from roost.model.firewall import FirewallPolicy, FirewallRule
from roost.model.host import InterfaceAssignment
from roost.model.meta import Metadata, Resource, condition_is
from roost.model.override import LOCAL_OVERRIDE, LocalOverride, LocalOverrideSpec, OverrideTarget
from roost.store.transaction import HERE, UP, Transaction
from tests.cloud.site import Site, network, policy, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD, raw

WEB = FirewallRule(action="allow", protocol="tcp", ports=["443"])
SHELL = FirewallRule(action="allow", protocol="tcp", ports=["22"])


def shared(name: str = "base.central", generation: int = 1, **spec: Any) -> Raw:
    """A copy as the link brings it."""
    made = encode(policy(name, SHELL, **spec))
    made["metadata"] |= {"uid": f"uid-{name}", "generation": generation}
    made["metadata"]["labels"] = {"roost.edge/shared-by": "central", "team": "a"}
    return made


def override(patch: Raw, *, name: str = "o", target: str = "base.central", **more: Any) -> LocalOverride:
    spec = {"reason": "because", **more}
    seen = OverrideTarget(
        kind=spec.pop("kind", "FirewallPolicy"),
        name=target,
        uid=spec.pop("uid", ""),
        generation=spec.pop("generation", 0),
    )
    made = LocalOverrideSpec(target=seen, patch=patch, **spec)
    return LocalOverride(metadata=Metadata(name=name, namespace=CLOUD), spec=made)


async def bring(place: Site, *copies: Raw) -> None:
    """The link brings what the central cloud says."""

    def work(tx: Transaction) -> None:
        for one in copies:
            current = tx.find(one["kind"], CLOUD, one["metadata"]["name"])
            status = {"status": current.raw["status"]} if current and "status" in current.raw else {}
            tx.copy({**one, **status}, UP)

    await place.store.transact(work)


def told(state: str) -> Raw:
    meta = {"uid": "m", "generation": 1}
    return raw("Management", "central", metadata=meta, spec={"managementState": state})


def decided(decision: str, uid: str, generation: int = 1) -> Raw:
    spec = {"override": "o", "uid": uid, "generation": generation, "decision": decision, "by": "ada"}
    return raw("OverrideReview", "o", metadata={"uid": "r", "generation": 1}, spec=spec)


async def admit(place: Site, new: LocalOverride, old: LocalOverride | None = None, user: str = "eve") -> None:
    """Ask the rules; raises Refused."""
    request = Request(
        operation="update" if old else "create", info=LOCAL_OVERRIDE, user=user, old=old, new=new
    )

    def work(tx: Transaction) -> None:
        for one in rules(CLOUD)[LOCAL_OVERRIDE.kind]:
            one(tx, request)

    await place.store.transact(work)


async def compiled(place: Site) -> list[list[str]]:
    """Ports that the site's policies let through on its host."""
    found = await place.store.load(HostConfiguration, CLOUD, "h")
    networks = found.spec.firewall.networks if found.spec.firewall else []
    return [r.ports for n in networks for r in n.rules if not r.description.startswith("platform")]


async def begin(place: Site) -> None:
    """A site with a host on a network and a copy from above."""
    place.work()
    await place.declare("h", interfaces=[InterfaceAssignment(port="eth0", networks=["oam"])])
    await place.store.save(network("oam", "oam", "192.0.2.0/24"))
    await bring(place, shared(), told("managed"))
    await asyncio.sleep(5)


@on_fake_time
async def test_what_is_overridden_is_compiled_and_the_copy_stays() -> None:
    async with site() as place:
        await begin(place)
        assert await compiled(place) == [["22"]]
        await place.store.save(
            override({"rules": [{"action": "allow", "protocol": "tcp", "ports": ["443"]}]})
        )
        await asyncio.sleep(5)
        assert await compiled(place) == [["443"]]
        assert (await place.store.load(FirewallPolicy, CLOUD, "base.central")).spec.rules == [SHELL]
        found = await place.store.load(LocalOverride, CLOUD, "o")
        assert found.status.in_force and condition_is(found.status.conditions, "InForce")
        cloud = await place.store.load(Cloud, "", CLOUD)
        assert (cloud.status.local_overrides, cloud.status.management_state) == (1, "managed")
        await place.store.transact(lambda tx: tx.remove(LOCAL_OVERRIDE.kind, CLOUD, "o"))
        await asyncio.sleep(5)
        assert await compiled(place) == [["22"]]


@on_fake_time
async def test_what_is_withdrawn_is_compiled_no_more_and_says_so() -> None:
    async with site() as place:
        await begin(place)
        await place.store.save(override({}, withdrawn=True))
        await asyncio.sleep(5)
        assert await compiled(place) == []
        status = (await place.store.load(FirewallPolicy, CLOUD, "base.central")).status
        assert condition_is(status.conditions, "Ready", "False") and status.applied == 0
        await place.store.transact(lambda tx: tx.remove(LOCAL_OVERRIDE.kind, CLOUD, "o"))
        await asyncio.sleep(5)
        assert await compiled(place) == [["22"]]


@on_fake_time
async def test_a_review_that_arrives_ends_it_and_one_of_an_older_word_does_not() -> None:
    async with site() as place:
        await begin(place)
        made = await place.store.save(override({"order": 5}))
        await asyncio.sleep(5)
        await bring(place, decided("revert", made.metadata.uid, generation=9))
        await asyncio.sleep(5)
        assert await place.store.every(LocalOverride) != []
        await place.stop()
        await bring(place, decided("revert", made.metadata.uid))
        place.work("two")
        await asyncio.sleep(5)
        assert await place.store.every(LocalOverride) == []
        events = [e.status.event for e in await place.store.every(LogEntry)]
        assert "override-made" in events and events.count("override-reverted") == 1


@on_fake_time
async def test_an_adopted_override_ends_when_the_copy_says_the_same() -> None:
    async with site() as place:
        await begin(place)
        await place.store.save(override({"order": 5}))
        await asyncio.sleep(5)
        await bring(place, shared(generation=2, order=7))
        await asyncio.sleep(5)
        found = await place.store.load(LocalOverride, CLOUD, "o")
        assert found.status.conflicts == 1 and found.status.central_generation == 2
        await bring(place, shared(generation=3, order=5))
        await asyncio.sleep(5)
        assert await place.store.every(LocalOverride) == []
        assert "override-conflict" in [e.status.event for e in await place.store.every(LogEntry)]


@on_fake_time
async def test_a_copy_that_changes_before_anybody_has_looked_is_a_conflict_all_the_same() -> None:
    async with site() as place:
        await bring(place, shared())
        await place.store.save(override({"order": 5}))
        await bring(place, shared(generation=2, order=7))
        place.work()
        await asyncio.sleep(5)
        found = await place.store.load(LocalOverride, CLOUD, "o")
        assert found.status.conflicts == 1 and found.status.differences[0].before == "1000"
        assert found.status.base is not None and found.status.base.generation == 1


@pytest.mark.parametrize(
    ("new", "reason", "field"),
    [
        (override({"order": 5}, reason=" "), "will want to know why", "spec.reason"),
        (override({"order": 5}, by="ada"), "you are eve", "spec.by"),
        (override({"order": 5}, kind="Host"), "Host can't be overridden", "spec.target.kind"),
        (override({"order": 5}, target="none.central"), "there is no FirewallPolicy", "spec.target.name"),
        (override({"order": 5}, target="mine"), "is here", "spec.target.name"),
        (override({"order": 5}, generation=3), "at generation 1 by now", "spec.target.generation"),
        (override({"order": 5}, uid="other"), "by now", "spec.target.generation"),
        (override({"order": 1000}), "says so already", "spec.patch"),
        (override({"order": 99999}), "no right FirewallPolicy", "spec.patch.order"),
        (override({"oder": 1}), "no such field", "spec.patch.oder"),
        (override({"subclouds": {}}), "can't be overridden", "spec.patch.subclouds"),
        (override({"rules": [{"action": "perhaps"}]}), "no right", "spec.patch.rules[0].action"),
        (override({"order": 5}, target="taken.central"), "overrides FirewallPolicy", "spec.target"),
    ],
)
@on_fake_time
async def test_what_an_override_may_not_say(new: LocalOverride, reason: str, field: str) -> None:
    async with site() as place:
        await place.store.save(policy("mine", WEB))
        await bring(place, shared(), shared("taken.central"), told("managed"))
        await place.store.save(override({"order": 1}, name="other", target="taken.central"))
        with pytest.raises(Refused) as refused:
            await admit(place, new)
        assert reason in refused.value.reason and refused.value.field == field and refused.value.remedy


@on_fake_time
async def test_an_unmanaged_site_owes_no_reason() -> None:
    async with site() as place:
        await bring(place, shared(), told("unmanaged"))
        await admit(place, override({"order": 5}, reason="", by="eve"))
        await bring(place, told("managed"))
        old = await place.store.save(override({"order": 5}, reason=""))
        with pytest.raises(Refused):
            await admit(place, override({"order": 6}, reason=""), old)
        with pytest.raises(Refused) as refused:
            await admit(place, override({"order": 6}, target="elsewhere.central"), old)
        assert refused.value.field == "spec.target"
        await admit(place, override({"order": 6}), old)


@on_fake_time
async def test_what_people_do_to_an_override_is_in_the_log() -> None:
    async with site() as place:
        await bring(place, shared(), told("managed"))
        old = await place.store.save(override({"order": 5}))
        await admit(place, override({"order": 6, "hosts": {"labels": {"a": "b"}}}), old)
        await admit(place, override({"order": 5}, withdrawn=True), old)
        out = msgspec.structs.replace(old, spec=msgspec.structs.replace(old.spec, withdrawn=True))
        await admit(place, override({"order": 5}), out)
        await admit(place, override({"order": 5}, generation=1), old)
        await admit(place, override({"order": 5}, reason="said otherwise"), old)
        delete = Request(operation="delete", info=LOCAL_OVERRIDE, user="eve", old=old)
        await place.store.transact(lambda tx: [r(tx, delete) for r in rules(CLOUD)[LOCAL_OVERRIDE.kind]])
        found = [e.status for e in await place.store.every(LogEntry)]
        assert [(e.event, e.entity) for e in found] == [
            *[("override-changed", "override=o")] * 4,
            ("override-removed", "override=o"),
        ]
        words = ["is changed in /order, /hosts/labels/a by eve", "puts all of it out of force by eve"]
        words += ["no longer puts it out of force", "is held to against generation 1", "is removed by eve"]
        assert all(w in e.text for w, e in zip(words, found, strict=True)), found


async def stands(place: Site, *, alone: bool) -> None:
    def work(tx: Transaction) -> None:
        current = tx.load(Cloud, "", CLOUD)
        status = CloudStatus(upper="central", upper_connected=False)
        tx.save(Cloud(metadata=current.metadata, spec=CloudSpec(stands_alone=alone), status=status))

    await place.store.transact(work)


@on_fake_time
async def test_a_site_that_leaves_keeps_what_is_in_force_as_its_own() -> None:
    async with site() as place:
        await begin(place)
        await place.store.save(override({"order": 5}))
        await place.store.save(policy("base-central", WEB, order=1))
        await place.store.transact(lambda tx: tx.set_cursor(UP, "store", 7))
        assert await place.store.transact(lambda tx: take_over(tx, CLOUD)) == 0, "it does not want to leave"
        await stands(place, alone=True)
        assert await place.store.transact(lambda tx: take_over(tx, CLOUD)) == 1
        assert await place.store.transact(lambda tx: take_over(tx, CLOUD)) == 0
        await asyncio.sleep(5)
        assert await compiled(place) == [["443"], ["22"]]
        found = await place.store.load(FirewallPolicy, CLOUD, "base-central-2")
        assert found.spec.order == 5 and found.metadata.labels == {"team": "a"}
        assert await place.store.every(LocalOverride) == []
        kinds = ("FirewallPolicy", "Management", "OverrideReview")
        left = await place.store.read(
            lambda tx: [s.name for k in kinds for s in tx.select(k, CLOUD, origin=UP)]
        )
        assert left == [] and await place.store.read(lambda tx: tx.cursor(UP)) == ("", 0)
        homes = await place.store.read(
            lambda tx: {s.name: s.origin for s in tx.select("FirewallPolicy", CLOUD)}
        )
        assert homes == {"base-central": HERE, "base-central-2": HERE}
        cloud = await place.store.load(Cloud, "", CLOUD)
        assert cloud.status.upper == "" and cloud.status.management_state == ""
        texts = [e.status.text for e in await place.store.every(LogEntry) if e.status.event == "cloud-alone"]
        assert len(texts) == 1 and "FirewallPolicy/base-central-2" in texts[0], texts


@pytest.mark.parametrize(
    ("state", "linked", "refused"),
    [("managed", True, True), ("managed", False, False), ("unmanaged", True, False), ("", True, False)],
)
@on_fake_time
async def test_a_managed_site_that_is_linked_is_let_go_first(state: str, linked: bool, refused: bool) -> None:  # noqa: FBT001
    async with site() as place:
        if state:
            await bring(place, told(state))
        meta, status = Metadata(name=CLOUD), CloudStatus(upper="central", upper_connected=linked)
        old: Resource = Cloud(metadata=meta, status=status)
        new: Resource = Cloud(metadata=meta, spec=CloudSpec(stands_alone=True), status=status)
        request = Request(operation="update", info=CLOUD_KIND, user="eve", old=old, new=new)
        try:
            await place.store.read(lambda tx: rule(CLOUD)(tx, request))
            assert not refused
        except Refused as error:
            assert refused and "roost subcloud unmanage" in error.remedy


@on_fake_time
async def test_a_cloud_without_a_central_cloud_leaves_none_and_who_rejoins_is_in_the_log() -> None:
    async with site() as place:
        meta = Metadata(name=CLOUD)
        linked: Resource = Cloud(metadata=meta)
        alone: Resource = Cloud(metadata=meta, spec=CloudSpec(stands_alone=True))
        leaves = Request(operation="update", info=CLOUD_KIND, user="eve", old=linked, new=alone)
        with pytest.raises(Refused) as refused:
            await place.store.read(lambda tx: rule(CLOUD)(tx, leaves))
        assert "no central cloud" in refused.value.reason and "--cloud" in refused.value.remedy
        await bring(place, told("unmanaged"))
        await place.store.read(lambda tx: rule(CLOUD)(tx, leaves))
        rejoins = Request(operation="update", info=CLOUD_KIND, user="eve", old=alone, new=linked)
        await place.store.transact(lambda tx: rule(CLOUD)(tx, rejoins))
        entries = [e.status for e in await place.store.every(LogEntry) if e.status.event == "cloud-rejoins"]
        assert len(entries) == 1 and "eve" in entries[0].text, entries
