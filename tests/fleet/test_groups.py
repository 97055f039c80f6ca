"""Groups of subclouds: their figures follow from what their subclouds are, and one that holds some stays."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from roost.engine.admission import Refused, Request
from roost.fleet import groups as groups_module
from roost.fleet.admission import rules
from roost.fleet.groups import GroupController, GroupSums, Member, member_of
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.codec import decode
from roost.model.fleet import SUBCLOUD_GROUP, SubcloudGroup, SubcloudGroupSpec, SubcloudGroupStatus
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time


def member(
    group: str, managed: str = "managed", availability: str = "online", sync: str = "in-sync"
) -> Member:
    spec = {"group": group, "managementState": managed}
    return member_of(
        msgspec.json.encode({"spec": spec, "status": {"availability": availability, "sync": sync}})
    )


MEMBERS = st.builds(
    member,
    st.sampled_from(["", "north", "south"]),
    st.sampled_from(["managed", "unmanaged"]),
    st.sampled_from(["online", "offline", "unknown"]),
    st.sampled_from(["in-sync", "out-of-sync", "unknown"]),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | MEMBERS), max_size=30))
def test_the_running_figures_are_the_figures(moves: list[tuple[str, Member | None]]) -> None:
    sums, known = GroupSums(), dict[str, Member]()
    for name, one in moves:
        before = {group: sums.of(group) for group in ("north", "south")}
        moved = sums.put(name, one)
        known.pop(name, None)
        if one is not None:
            known[name] = one
        for group in ("north", "south"):
            inside = [m for m in known.values() if m.group == group]
            assert sums.of(group) == SubcloudGroupStatus(
                subclouds=len(inside),
                managed=sum(m.spec.management_state == "managed" for m in inside),
                online=sum(m.status.availability == "online" for m in inside),
                in_sync=sum(m.status.sync == "in-sync" for m in inside),
            )
            assert group in moved or sums.of(group) == before[group]
    assert sums.names() == set(known)
    assert sums.of("") == SubcloudGroupStatus(), "no group is no group"


async def declare(c: Centre, name: str, group: str, *, managed: bool = False) -> None:
    spec = SubcloudSpec(group=group, management_state="managed" if managed else "unmanaged")
    await c.store.save(Subcloud(metadata=Metadata(name=name), spec=spec))


async def figures(c: Centre, group: str) -> SubcloudGroupStatus:
    return (await c.store.load(SubcloudGroup, "", group)).status


@on_fake_time
async def test_figures_follow_moves_links_and_restarts() -> None:
    async with centre() as c:
        await c.store.save(SubcloudGroup(metadata=Metadata(name="north")))
        c.work()
        for name in ("harbor", "ridge"):
            await declare(c, name, "north", managed=True)
        await declare(c, "valley", "south")
        await asyncio.sleep(1)
        assert await figures(c, "north") == SubcloudGroupStatus(subclouds=2, managed=2)
        c.link("harbor", up=True)
        await asyncio.sleep(2)
        assert await figures(c, "north") == SubcloudGroupStatus(subclouds=2, managed=2, online=1, in_sync=1)
        await c.store.save(SubcloudGroup(metadata=Metadata(name="south")))
        await asyncio.sleep(1)
        assert await figures(c, "south") == SubcloudGroupStatus(subclouds=1), "declared after its subcloud"
        await declare(c, "ridge", "south", managed=True)
        await asyncio.sleep(1)
        assert (await figures(c, "north")).subclouds == 1 and (await figures(c, "south")).subclouds == 2
        await c.stop()
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "valley"))
        c.work()
        await asyncio.sleep(1)
        assert (await figures(c, "south")).subclouds == 1


@on_fake_time
async def test_one_change_reads_one_subcloud(monkeypatch: pytest.MonkeyPatch) -> None:
    async with centre() as c:

        def many(tx: Transaction) -> None:
            tx.save(SubcloudGroup(metadata=Metadata(name="north")))
            for number in range(300):
                spec = SubcloudSpec(group="north")
                tx.save(Subcloud(metadata=Metadata(name=f"s{number:03}"), spec=spec))

        await c.store.transact(many)
        c.start([GroupController()])
        await asyncio.sleep(1)
        assert (await figures(c, "north")).subclouds == 300
        read: list[str] = []

        def noted(data: str) -> Member:
            read.append(data)
            return member_of(data)

        monkeypatch.setattr(groups_module, "member_of", noted)
        revision = c.store.revision
        await declare(c, "s007", "south")
        await asyncio.sleep(1)
        assert (await figures(c, "north")).subclouds == 299
        assert len(read) == 3, "the row before, the row after, and the row as it is"
        assert c.store.revision == revision + 2


@on_fake_time
async def test_a_group_that_holds_subclouds_stays() -> None:
    (rule,) = rules(CENTRE)["SubcloudGroup"]
    group = SubcloudGroup(metadata=Metadata(name="north"))
    asked = Request(operation="delete", info=SUBCLOUD_GROUP, user="ada", old=group)
    async with centre() as c:
        await c.store.read(lambda tx: rule(tx, asked))
        for name in ("harbor", "ridge"):
            await declare(c, name, "north")
        with pytest.raises(Refused, match="2 subclouds are in group north") as refused:
            await c.store.read(lambda tx: rule(tx, asked))
        assert "roost subcloud update --in-group north" in refused.value.remedy


@on_fake_time
async def test_a_group_and_its_subclouds_in_one_write_are_counted() -> None:
    async with centre() as c:
        c.work()
        await asyncio.sleep(1)

        def both(tx: Transaction) -> None:
            tx.save(Subcloud(metadata=Metadata(name="a"), spec=SubcloudSpec(group="north")))
            tx.save(SubcloudGroup(metadata=Metadata(name="north")))

        await c.store.transact(both)
        await asyncio.sleep(2)
        assert (await figures(c, "north")).subclouds == 1


@pytest.mark.parametrize("budget", ["0", "12", "5%", "100%"])
def test_budgets(budget: str) -> None:
    assert _group(failureBudget=budget).failure_budget == budget


@pytest.mark.parametrize(
    "spec", [{"failureBudget": "101%"}, {"failureBudget": "-1"}, {"failureBudget": ""}, {"maxParallel": 0}]
)
def test_what_makes_no_sense_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _group(**spec)


def _group(**spec: object) -> SubcloudGroupSpec:
    raw = {"apiVersion": "roost.edge/v1", "kind": "SubcloudGroup", "metadata": {"name": "g"}, "spec": spec}
    return decode(SubcloudGroup, raw).spec
