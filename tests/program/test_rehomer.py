"""What a site does with an order to move, at real links: done, undone, refused, taken up after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from roost.engine.admission import Refused as NotAllowed
from roost.link import identity, rehoming, rehoming_files
from roost.link.errors import Refused
from roost.link.exchange import Caller
from roost.link.lower import Backoff, LowerLink, TlsDialer
from roost.link.messages import Hello
from roost.link.node import Node, subcloud
from roost.link.pki import Authority
from roost.link.rehoming import Ownership
from roost.model import codec
from roost.model.cloud import Cloud, CloudSpec, CloudStatus, Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.meta import Condition, Metadata
from roost.model.override import Management, ManagementSpec
from roost.program.enrolments import remember_enrolment
from roost.program.rehoming import Rehomer, asked, finish_interrupted
from roost.store.store import Store
from roost.store.transaction import UP, Transaction
from tests.link.test_tls import TIMING, Site, clock, until

HARBOR = subcloud("harbor")
ABOVE = Caller("eve", ["roost:administrators"], linked=True)
LOCAL = Caller("admin", ["roost:administrators"])


class Centre(Site):
    """A central cloud that keeps epochs, and may be told to let nobody in."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self.authority = Authority.open(path / "ca", name, clock())
        self.name, self.closed = name, False

    async def begin(self) -> None:
        async def welcome(node: Node, hello: Hello) -> int:
            return await rehoming.welcome(self.store, node, hello)

        async def admit(_node: Node) -> None:
            if self.closed:
                raise Refused("closed", "nobody is let in", "wait")

        await self.start(welcome=welcome, admit=admit, on_enrolled=remember_enrolment)
        self.upper._gate._name = self.upper.name = self.name
        await self.store.save(Subcloud(metadata=Metadata(name="harbor")))

    async def known(self) -> Ownership:
        return await self.store.read(lambda tx: rehoming.ownership(tx, HARBOR))


class Below:
    """A site that is linked to the first of two centres."""

    def __init__(self, home: Path, store: Store, first: Centre, second: Centre) -> None:
        self.home, self.store, self.first, self.second = home, store, first, second
        self.ahead = timedelta()
        self.link: LowerLink
        self.rehomer: Rehomer
        self._task: asyncio.Task[None] | None = None

    def clock(self) -> datetime:
        return clock() + self.ahead

    def begin(self) -> None:
        """A process of the site begins."""
        finish_interrupted(self.home)
        dialer = TlsDialer(self.home / "uplink", clock=clock)
        backoff = Backoff(first=0.05, cap=0.2)
        self.link = LowerLink(self.store, dialer, node=HARBOR, clock=clock, timing=TIMING, backoff=backoff)
        self.rehomer = Rehomer(self.store, "harbor", self.home, self.link, clock=self.clock, facts={})
        self.link.start()
        self._task = asyncio.ensure_future(self.rehomer.run())

    async def end(self) -> None:
        """It dies."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.link.stop()

    async def condition(self) -> Condition | None:
        cloud = await self.store.load(Cloud, "", "harbor")
        return next((c for c in cloud.status.conditions if c.type == "Rehomed"), None)

    async def until_over(self) -> Condition:
        for _ in range(3000):
            found = await self.condition()
            if found is not None and found.reason != "Moving":
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"it is not over: {await self.condition()}")

    async def until_told(self, centre: Centre, wanted: Ownership) -> None:
        for _ in range(3000):
            if await centre.known() == wanted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{centre.name} knows {await centre.known()}")


@pytest.fixture
async def below(tmp_path: Path) -> AsyncIterator[Below]:
    first, second = Centre(tmp_path / "first", "central"), Centre(tmp_path / "second", "west")
    for centre in (first, second):
        await centre.begin()
    home = tmp_path / "home"
    await first.enrol(await first.token(), "../home/uplink")
    store = await first.open("site")
    status = CloudStatus(upper="central", upper_connected=True)
    await store.save(Cloud(metadata=Metadata(name="harbor"), status=status))
    made = Below(home, store, first, second)
    made.begin()
    await until(lambda: made.link.state.connected)
    try:
        yield made
    finally:
        await made.end()
        for centre in (second, first):
            await centre.close()


async def test_an_order_is_carried_out_and_the_former_owner_hears_of_it(below: Below) -> None:
    token = await below.second.token()
    deadline = await below.rehomer.order(token, 60, ABOVE)
    assert await below.rehomer.order(token, 60, ABOVE) == deadline, "said twice it is one order"
    end = await below.until_over()
    assert (end.status, end.reason, end.message) == ("True", "Moved", "It moved to west at epoch 2.")
    await until(lambda: below.link.state.connected)
    assert below.link.state.upper == "west"
    await below.until_told(below.first, Ownership(epoch=2, moved_to="west"))
    assert await below.second.known() == Ownership(epoch=2)

    def restored(tx: Transaction) -> None:
        current = tx.load(Subcloud, "", "harbor")
        tx.report(msgspec.structs.replace(current, status=SubcloudStatus(epoch=1)))

    await below.first.store.transact(restored)
    await below.end()
    below.begin()
    await below.until_told(below.first, Ownership(epoch=2, moved_to="west"))
    await below.end()
    below.ahead = timedelta(days=31)
    below.begin()
    await until(lambda: rehoming_files.formers(below.home) == [])


async def test_what_is_not_proven_in_time_stays_where_it_is_and_the_other_hears_of_that(below: Below) -> None:
    below.second.closed = True
    ended = 0

    def count(_: object) -> None:
        nonlocal ended
        ended += not below.link.state.connected

    below.link.listen(count)
    await below.rehomer.order(await below.second.token(), 60, ABOVE)
    await until(lambda: (below.home / "uplink-next" / "node.json").exists())
    below.ahead = timedelta(seconds=61)
    end = await below.until_over()
    assert (end.status, end.reason) == ("False", "RolledBack"), end
    assert "It stays with central" in end.message and "nobody is let in" in end.message
    assert below.link.state.connected and ended == 0, "the link that stood was never cut"
    assert identity.load(below.home / "uplink").epoch == 3, "above the one that was granted"
    below.second.closed = False
    await below.end()
    below.begin()
    await below.until_told(below.second, Ownership(epoch=3, moved_to="central"))
    await below.until_told(below.first, Ownership(epoch=3))
    await below.rehomer.order(await below.second.token(), 60, ABOVE)
    await until(lambda: below.link.state.upper == "west" and below.link.state.connected)
    assert await below.second.known() == Ownership(epoch=4)


async def test_a_move_goes_on_after_a_restart_and_after_its_decision_to_the_end(below: Below) -> None:
    below.second.closed = True
    await below.rehomer.order(await below.second.token(), 600, ABOVE)
    await until(lambda: (below.home / "uplink-next" / "node.json").exists())
    await below.end()
    below.second.closed = False
    rehoming_files.make_ready(below.home, clock())
    below.begin()
    end = await below.until_over()
    assert end.message == "It moved to west at epoch 2."
    await until(lambda: below.link.state.upper == "west" and below.link.state.connected)
    await below.until_told(below.first, Ownership(epoch=2, moved_to="west"))


async def test_a_token_that_opens_nothing_or_is_of_the_owner_or_of_another_undoes_the_order(
    below: Below,
) -> None:
    used = await below.second.token(hours=-1)
    await below.rehomer.order(used, 60, ABOVE)
    assert "the token is not valid" in (await below.until_over()).message
    await below.rehomer.order(await below.first.token(), 60, ABOVE)
    for _ in range(500):
        if "owns it already" in (await below.until_over()).message:
            break
        await asyncio.sleep(0.01)
    assert "central owns it already" in (await below.until_over()).message
    await below.second.store.save(Subcloud(metadata=Metadata(name="ridge")))
    await below.rehomer.order(await below.second.token(subject="ridge"), 60, ABOVE)
    for _ in range(500):
        if "ridge" in (await below.until_over()).message:
            break
        await asyncio.sleep(0.01)
    assert "the token is for subcloud/ridge" in (await below.until_over()).message
    assert below.link.state.connected and rehoming_files.order(below.home) is None
    assert (await below.first.known()).moved_to == ""


async def _tell_managed(below: Below, state: Literal["managed", "unmanaged"]) -> None:
    """What the first centre has told the site: whether it is managed, and one policy."""
    spec = ManagementSpec(management_state=state)
    told = Management(metadata=Metadata(name="central", namespace="harbor", uid="u"), spec=spec)
    policy = FirewallPolicy(
        metadata=Metadata(name="baseline.central", namespace="harbor", uid="v"),
        spec=FirewallPolicySpec(networks=["oam"], order=7),
    )

    def work(tx: Transaction) -> None:
        tx.copy(codec.encode(told), UP)
        tx.copy(codec.encode(policy), UP)

    # All that it really says must have come before, or it would take this away again.
    for _ in range(500):
        if await below.store.read(lambda tx: tx.cursor(UP)) != ("", 0):
            break
        await asyncio.sleep(0.01)
    await below.store.transact(work)


async def test_a_managed_site_does_not_move_where_nobody_manages_it(below: Below) -> None:
    await _tell_managed(below, "managed")
    token = await below.second.token()
    await below.rehomer.order(token, 60, ABOVE)
    end = await below.until_over()
    assert "unmanaged here" in end.message and "roost subcloud manage harbor" in end.message
    spec = SubcloudSpec(management_state="managed")
    current = await below.second.store.load(Subcloud, "", "harbor")
    await below.second.store.save(msgspec.structs.replace(current, spec=spec))
    await below.rehomer.order(token, 60, ABOVE)
    await until(lambda: below.link.state.upper == "west" and below.link.state.connected)
    for _ in range(500):
        if await below.store.read(lambda tx: tx.find("FirewallPolicy", "harbor", "baseline.central")) is None:
            break
        await asyncio.sleep(0.01)
    assert await below.store.every(FirewallPolicy, "harbor") == [], "what the new owner lacks goes"


async def test_what_an_unmanaged_site_had_from_above_is_its_own_when_it_moves(below: Below) -> None:
    await _tell_managed(below, "unmanaged")
    await below.rehomer.order(await below.second.token(), 60, ABOVE)
    await until(lambda: below.link.state.upper == "west" and below.link.in_step)
    (policy,) = await below.store.every(FirewallPolicy, "harbor")
    assert (policy.metadata.name, policy.spec.order) == ("baseline-central", 7)


async def test_orders_that_make_no_sense_change_nothing(below: Below) -> None:
    token = await below.second.token()
    with pytest.raises(NotAllowed, match="no enrolment token"):
        await below.rehomer.order("roost1.x", 60, ABOVE)
    with pytest.raises(NotAllowed, match="can't take 5 seconds"):
        await below.rehomer.order(token, 5, ABOVE)
    await _tell_managed(below, "managed")
    with pytest.raises(NotAllowed, match="roost subcloud rehome harbor"):
        await below.rehomer.order(token, 60, LOCAL)
    cloud = await below.store.load(Cloud, "", "harbor")
    alone = Cloud(metadata=cloud.metadata, spec=CloudSpec(stands_alone=True), status=cloud.status)
    await below.store.save(alone)
    with pytest.raises(NotAllowed, match="rejoin"):
        await below.rehomer.order(token, 60, ABOVE)
    assert rehoming_files.order(below.home) is None and await below.condition() is None
    free = Rehomer(below.store, "harbor", below.home, None, clock=clock, facts={})
    with pytest.raises(NotAllowed, match="roost up --join"):
        await free.order(token, 60, LOCAL)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "there is no token"),
        ({"spec": []}, "there is no token"),
        ({"spec": {"token": 7}}, "there is no token"),
        ({"spec": {"token": "t", "withinSeconds": "soon"}}, "no number"),
        ({"spec": {"token": "t", "withinSeconds": True}}, "no number"),
    ],
)
def test_requests_that_can_not_be_read_are_refused(body: dict[str, object], said: str) -> None:
    with pytest.raises(NotAllowed, match=said):
        asked(body)
    assert asked({"spec": {"token": "t", "withinSeconds": 60}}) == ("t", 60.0)
