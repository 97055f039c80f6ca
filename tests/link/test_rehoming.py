"""A subcloud has one owner: epochs only rise, a switch is whole or not begun, former ones hear of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.link import identity, moving, rehoming, rehoming_files
from roost.link.errors import LinkError, Refused
from roost.link.files import write_private
from roost.link.messages import Hello
from roost.link.node import Node, subcloud
from roost.link.pki import Authority, new_key, request
from roost.link.rehoming import Ownership, check_owner, check_welcome, heard
from roost.link.rehoming_files import Order
from roost.model import time
from roost.model.cloud import Subcloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.link.test_tls import Site, clock, until
from tests.support.clock import START

HARBOR = subcloud("harbor")
OWNER, GONE = Ownership(epoch=3), Ownership(epoch=3, moved_to="west")

# -- decisions


@pytest.mark.parametrize(
    ("known", "epoch", "moved_to", "then"),
    [
        (OWNER, 3, "", OWNER),
        (OWNER, 0, "", OWNER),
        (OWNER, 2, "", OWNER),
        (OWNER, 5, "", Ownership(epoch=5)),
        (OWNER, 4, "west", Ownership(epoch=4, moved_to="west")),
        (OWNER, 3, "west", OWNER),
        (OWNER, 2, "west", OWNER),
        (GONE, 2, "", GONE),
        (GONE, 3, "", GONE),
        (GONE, 4, "", Ownership(epoch=4)),
        (GONE, 5, "south", Ownership(epoch=5, moved_to="south")),
        (Ownership(), 1, "west", Ownership(epoch=1, moved_to="west")),
        (OWNER, rehoming.HIGHEST, "west", OWNER),
        (OWNER, -1, "west", OWNER),
    ],
)
def test_what_an_upper_cloud_learns(known: Ownership, epoch: int, moved_to: str, then: Ownership) -> None:
    assert heard(known, epoch, moved_to) == then


def test_who_is_let_in() -> None:
    check_welcome(OWNER, HARBOR, "")
    with pytest.raises(Refused, match="has moved to west at epoch 3") as gone:
        check_welcome(GONE, HARBOR, "")
    assert gone.value.code == rehoming.MOVED and gone.value.retry_after > 0
    with pytest.raises(Refused, match="later than that word"):
        check_welcome(OWNER, HARBOR, "west")


@pytest.mark.parametrize(("said", "own", "taken"), [(0, 7, True), (7, 7, True), (8, 7, True), (6, 7, False)])
def test_from_whom_intent_is_taken(said: int, own: int, taken: bool) -> None:  # noqa: FBT001 - what is expected
    if taken:
        check_owner("central", said, own)
        return
    with pytest.raises(Refused, match="at epoch 6, and it is owned at epoch 7"):
        check_owner("central", said, own)


class World:
    """A site and some central clouds, each with what it remembers; steps in any order."""

    def __init__(self, clouds: int) -> None:
        self.known = [Ownership() for _ in range(clouds)]
        self.backups = list(self.known)
        self.owner, self.epoch, self.highest = 0, 0, 0
        self.former: set[int] = set()
        self.accepted: dict[int, int] = {}
        self.move(0, proven=True)

    def move(self, to: int, *, proven: bool) -> None:
        """The site enrols; it takes the cloud for its owner when the proof succeeds."""
        epoch = max(self.known[to].epoch, self.highest) + 1
        self.known[to] = Ownership(epoch=epoch)
        self.highest = epoch
        if not proven:
            # It stays, above what it has given up.
            self.epoch = self.highest = epoch if to == self.owner else epoch + 1
            self.former |= {to} - {self.owner}
            return
        check_owner("c", epoch, self.epoch)
        self.former = (self.former | {self.owner}) - {to}
        self.owner, self.epoch = to, epoch
        self.dial()

    def dial(self) -> None:
        """A session with the owner, as both ends decide it."""
        known = self.known[self.owner] = heard(self.known[self.owner], self.epoch, "")
        check_welcome(known, HARBOR, "")
        check_owner("c", known.epoch, self.epoch)
        self.epoch = max(self.epoch, known.epoch)
        self.highest = max(self.highest, self.epoch)
        assert self.accepted.setdefault(self.epoch, self.owner) == self.owner, "two owners at one epoch"

    def last_word(self, to: int) -> None:
        if to not in self.former:
            return
        self.known[to] = heard(self.known[to], self.epoch, f"cloud-{self.owner}")
        self.former.discard(to)
        with pytest.raises(Refused):
            check_welcome(self.known[to], HARBOR, f"cloud-{self.owner}")
        with pytest.raises(Refused):
            # Neither would it be let in by mistake, as by an identity from an old backup.
            check_welcome(heard(self.known[to], self.epoch - 1, ""), HARBOR, "")


STEP = st.tuples(
    st.sampled_from(["move", "fail", "dial", "tell", "back up", "restore"]),
    st.integers(min_value=0, max_value=2),
)


@settings(max_examples=400)
@given(st.lists(STEP, max_size=40))
def test_in_whatever_order_things_happen_no_two_owners_are_accepted_under_one_epoch(
    steps: list[tuple[str, int]],
) -> None:
    world, before = World(3), 0
    for what, which in steps:
        match what:
            case "move" | "fail":
                world.move(which, proven=what == "move")
            case "dial":
                world.dial()
            case "tell":
                world.last_word(which)
            case "back up":
                world.backups[which] = world.known[which]
            case "restore":
                world.known[which] = world.backups[which]
        assert world.epoch >= before, "an epoch never falls"
        before = world.epoch
    world.dial()


# -- files


class Cut(Exception):
    """The power goes."""


def _kept(path: Path, upper: str, epoch: int, token: str) -> identity.Identity:
    authority, key = Authority.create(upper, START), new_key()
    certificate = authority.sign_node(request(key), HARBOR, START, timedelta(days=90))
    return identity.save(
        path,
        node=HARBOR,
        upper=upper,
        endpoints=[f"{upper}:7444"],
        authority=authority.certificate_pem,
        key=key,
        certificate=certificate,
        now=START,
        token=token,
        epoch=epoch,
    )


def _furnish(home: Path) -> None:
    _kept(home / "uplink", "central", 1, "t1")
    given = Order(token="roost1.x", ordered_at=time.seconds(START), deadline=time.seconds(START), by="eve")
    rehoming_files.keep_order(home, given)
    _kept(home / "uplink-next", "west", 2, "t2")


class Steps:
    """Lets so many changes of the disk happen, then cuts."""

    def __init__(self, allowed: int) -> None:
        self.left, self.done = allowed, 0

    def take(self) -> None:
        if self.left == 0:
            raise Cut
        self.left -= 1
        self.done += 1

    def wrapped(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            self.take()
            return work(*arguments, **named)

        return step

    @contextlib.contextmanager
    def at_work(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("roost.link.rehoming_files.write_private", self.wrapped(write_private))
            patch.setattr(os, "replace", self.wrapped(os.replace))
            patch.setattr(Path, "unlink", self.wrapped(Path.unlink))
            patch.setattr(shutil, "rmtree", self.wrapped(shutil.rmtree))
            yield


def test_a_switch_that_is_cut_anywhere_is_done_to_its_end_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = 0
    while True:
        home = tmp_path / f"{cuts}"
        _furnish(home)
        steps = Steps(cuts)
        with steps.at_work(monkeypatch), contextlib.suppress(Cut):
            rehoming_files.make_ready(home, START)
            rehoming_files.finish_switch(home)
        decided = rehoming_files.is_ready(home) or rehoming_files.order(home) is None
        rehoming_files.finish_switch(home)
        now = identity.load(home / "uplink")
        assert now.upper == ("west" if decided else "central"), cuts
        assert rehoming_files.is_ready(home) is False
        assert (rehoming_files.order(home) is None) == decided
        if decided:
            assert (now.epoch, now.highest, now.spent) == (2, 2, ["t1"])
            ca = (home / "uplink" / identity.AUTHORITY_FILE).read_bytes()
            assert b"BEGIN CERTIFICATE" in ca
            former = rehoming_files.formers(home)
            assert [(f.identity.upper, f.since) for f in former] == [("central", START)]
        if steps.left:
            assert cuts > 8, "the switch has that many steps at least"
            return
        cuts += 1


def test_a_move_that_is_given_up_leaves_the_present_owner_above_the_other_which_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = 0
    while True:
        home = tmp_path / f"{cuts}"
        _furnish(home)
        steps = Steps(cuts)
        with steps.at_work(monkeypatch), contextlib.suppress(Cut):
            rehoming_files.give_up(home, START)
        if rehoming_files.order(home) is not None:
            rehoming_files.give_up(home, START)
        now = identity.load(home / "uplink")
        assert (now.upper, now.epoch, now.highest) == ("central", 3, 3)
        assert [f.identity.upper for f in rehoming_files.formers(home)] == ["west"]
        if steps.left:
            return
        cuts += 1


def test_a_new_identity_of_the_present_owner_is_no_other_owner(tmp_path: Path) -> None:
    _furnish(tmp_path)
    assert not rehoming_files.same_owner(tmp_path / "uplink", tmp_path / "uplink-next")
    shutil.copy(tmp_path / "uplink" / "ca.crt", tmp_path / "uplink-next")
    rehoming_files.give_up(tmp_path, START)
    assert identity.load(tmp_path / "uplink").epoch == 2, "it has granted that one itself"
    assert rehoming_files.formers(tmp_path) == []


def test_an_epoch_that_does_not_rise_is_not_switched_to(tmp_path: Path) -> None:
    _furnish(tmp_path)
    _kept(tmp_path / "uplink", "central", 2, "t1")
    with pytest.raises(LinkError, match="does not follow"):
        rehoming_files.make_ready(tmp_path, START)
    rehoming_files.undo(tmp_path)
    assert rehoming_files.order(tmp_path) is None
    assert identity.load(tmp_path / "uplink").upper == "central"


def test_what_is_kept_of_former_owners_is_bounded_and_orders_hide_their_token(tmp_path: Path) -> None:
    _kept(tmp_path / "uplink", "c0", 0, "t0")
    for epoch in range(1, 2 * rehoming_files.FORMER_KEPT):
        _kept(tmp_path / "uplink-next", f"c{epoch}", epoch, f"t{epoch}")
        rehoming_files.make_ready(tmp_path, START)
        rehoming_files.finish_switch(tmp_path)
    assert len(rehoming_files.formers(tmp_path)) == rehoming_files.FORMER_KEPT
    given = Order(token="roost1.secret", ordered_at="", deadline="", by="eve")
    assert "secret" not in repr(given)


# -- over TLS


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)

    async def welcome(node: Node, hello: Hello) -> int:
        return await rehoming.welcome(made.store, node, hello)

    await made.start(welcome=welcome)
    await made.store.save(Subcloud(metadata=Metadata(name="harbor")))
    try:
        yield made
    finally:
        await made.close()


async def _known(store: Store) -> Ownership:
    return await store.read(lambda tx: rehoming.ownership(tx, HARBOR))


async def test_an_enrolment_gives_an_epoch_above_all_that_are_known(site: Site) -> None:
    first = await site.enrol(await site.token())
    assert (first.epoch, first.highest) == (1, 1)
    identity.note_epoch(site.path / "harbor", highest=6)
    again = await site.enrol(await site.token())
    assert (again.epoch, again.highest) == (7, 7)
    assert await _known(site.store) == Ownership(epoch=7)


async def test_a_proof_is_one_whole_session_that_takes_nothing_in(site: Site) -> None:
    await site.enrol(await site.token())
    hello = await moving.prove(site.path / "harbor", "store", clock=clock)
    assert (hello.node, hello.epoch) == ("central", 1)
    presence = site.upper.presence(HARBOR)
    assert presence.connected, "it said that it comes to stay"
    await until(lambda: not site.upper.presence(HARBOR).connected)


async def test_a_cloud_that_says_no_epoch_is_not_moved_to(site: Site) -> None:
    await site.enrol(await site.token())

    async def unknowing(_node: Node, _hello: Hello) -> int:
        return 0

    site.upper._welcome = unknowing
    with pytest.raises(Refused, match="knows nothing of moving"):
        await moving.prove(site.path / "harbor", "store", clock=clock)
    answer = await moving.say_last_word(site.path / "harbor", "store", moved_to="west", epoch=2, clock=clock)
    assert answer is None


async def test_a_former_owner_notes_the_last_word_and_lets_the_old_identity_in_no_more(site: Site) -> None:
    link = await site.joined()
    await link.stop()
    answer = await moving.say_last_word(site.path / "harbor", "store", moved_to="west", epoch=2, clock=clock)
    assert answer is not None and "has moved to west at epoch 2" in answer.reason
    assert await _known(site.store) == Ownership(epoch=2, moved_to="west")
    link.start()
    await until(lambda: "has moved to west at epoch 2" in link.state.error)
    assert not link.state.connected
    await link.stop()
    back = await site.enrol(await site.token())
    assert back.epoch == 3
    link.start()
    await until(lambda: link.state.connected)


async def test_a_restored_owner_is_reminded_of_the_epoch_and_one_that_is_behind_is_refused(
    site: Site,
) -> None:
    await site.enrol(await site.token())
    identity.note_epoch(site.path / "harbor", epoch=5)
    link = await site.lower()
    await until(lambda: link.state.connected)
    assert await _known(site.store) == Ownership(epoch=5), "who dials as to its owner is believed"

    async def behind(_node: Node, _hello: Hello) -> int:
        return 4

    site.upper._welcome = behind
    await site.upper.disconnect(HARBOR)
    await until(lambda: "owned at epoch 5" in link.state.error)

    async def ahead(_node: Node, _hello: Hello) -> int:
        return 9

    site.upper._welcome = ahead
    link.dial_now()
    await until(lambda: link.state.connected)
    assert identity.load(site.path / "harbor").epoch == 9


async def test_what_is_done_between_two_sessions_sees_none_and_the_link_comes_back(site: Site) -> None:
    link = await site.joined()
    seen = []

    async def work() -> None:
        seen.append(link._session is not None)

    await link.between("a change", work)
    await until(lambda: link.state.connected)
    assert seen == [False]
    site.upper._stopping = True
    await site.upper.disconnect(HARBOR)
    await until(lambda: not link.state.connected)
    await link.between("another", work)
    assert len(seen) == 2, "also while nobody answers"


def test_a_hello_of_before_says_no_epoch() -> None:
    said = Hello(
        protocol_min=1,
        protocol_max=1,
        version="0",
        node="subcloud/harbor",
        store_id="s",
        taken_store_id="",
        taken_revision=0,
    )
    assert (said.epoch, said.moved_to) == (0, "")
    assert b"epoch" not in msgspec.msgpack.encode(said)
