"""The watch: whom it looks at and when, and that a second of it is bounded. On a fake clock."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter

from roost.link import watch
from roost.link.watch import NEVER, Watch
from tests.link.world import run


class Seen:
    """Notes when it is looked at, and wants the next look after `every` seconds."""

    def __init__(self, every: float = NEVER) -> None:
        self.every, self.looks = every, list[float]()

    def look(self, now: float) -> float:
        self.looks.append(round(now, 1))
        return now + self.every


def now() -> float:
    return asyncio.get_running_loop().time()


def test_each_is_looked_at_when_it_says() -> None:
    async def work() -> None:
        ticking, once, sooner = Seen(2.0), Seen(), Seen()
        of = Watch()
        of.by(ticking, now() + 1)
        of.by(once, now() + 3.5)
        of.by(sooner, now() + 60)
        of.by(sooner, now() + 5)
        of.by(sooner, now() + 30)
        await asyncio.sleep(8.5)
        assert ticking.looks == [1.0, 3.0, 5.0, 7.0]
        assert once.looks == [3.5]
        assert sooner.looks == [5.0]
        assert of.watched == 1

    run(work)


def test_a_tick_looks_at_so_many_and_no_one_waits_for_ever() -> None:
    async def work() -> None:
        of, many = Watch(most=10), [Seen() for _ in range(95)]
        for one in many:
            of.by(one, now() + 1)
        await asyncio.sleep(1.05)
        assert sum(map(len, (one.looks for one in many))) == 10
        await asyncio.sleep(1)
        assert [len(one.looks) for one in many] == [1] * 95
        assert max(Counter(one.looks[0] for one in many).values()) == 10

    run(work)


def test_one_that_can_not_be_looked_at_hides_no_other() -> None:
    class Broken(Seen):
        def look(self, now: float) -> float:
            super().look(now)
            raise ZeroDivisionError

    async def work() -> None:
        of, broken, fine = Watch(), Broken(), Seen(1.0)
        of.by(broken, now() + 1)
        of.by(fine, now() + 1)
        await asyncio.sleep(3.5)
        assert len(broken.looks) == len(fine.looks) == 3

    run(work)


def test_who_is_forgotten_is_looked_at_no_more_and_held_no_more() -> None:
    async def work() -> None:
        of, kept = Watch(), Seen(1.0)
        of.by(kept, now() + 1)
        gone = [Seen(1.0) for _ in range(500)]
        held = [weakref.ref(one) for one in gone]
        for one in gone:
            of.by(one, now() + 60)
        for one in gone:
            of.forget(one)
        looks = [one.looks for one in gone]
        del one
        gone.clear()
        gc.collect()
        assert sum(ref() is not None for ref in held) <= 2 * of.watched + 64
        await asyncio.sleep(61.5)
        assert not any(looks) and len(kept.looks) == 61
        of.forget(kept)
        assert of._timer is None and not of._heap

    run(work)


def test_a_signal_has_all_looked_at() -> None:
    async def work() -> None:
        word = ""
        of, many = Watch(lambda: word, most=10), [Seen(60.0) for _ in range(25)]
        for one in many:
            of.by(one, now() + 60)
        await asyncio.sleep(10.5)
        assert not any(one.looks for one in many)
        word = "the disk is full"
        await asyncio.sleep(1.5)
        assert [len(one.looks) for one in many] == [1] * 25

    run(work)


async def test_who_did_not_look_finds_nobody_lost() -> None:
    """After a pause of the process others read first what came meanwhile. On a real clock, which goes on."""
    of, seen = Watch(), Seen()
    of.by(seen, now() + 0.2)
    await asyncio.sleep(0)
    time.sleep(0.2 + watch.LATE + 0.3)  # noqa: ASYNC251 - the process stands still
    read = asyncio.create_task(asyncio.sleep(0))
    await read
    assert not seen.looks
    await asyncio.sleep(watch.AFTER_LATE + 0.3)
    assert len(seen.looks) == 1
