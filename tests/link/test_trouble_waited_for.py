"""Who says that its disk is full takes nothing in, and is waited for as long as it says so, and no longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from roost.link.messages import Heartbeat
from tests.link.test_session import HARBOR, Stranger, policy, with_stranger
from tests.link.world import TIMING, put_all, run

FULL = "database or disk is full (make room)"


def test_a_node_that_can_take_nothing_in_is_waited_for_while_it_says_why(tmp_path: Path) -> None:
    """More is under way to it than may be unacknowledged, for longer than an acknowledgement may take."""
    trouble = [FULL]

    async def work(stranger: Stranger) -> None:
        await put_all(stranger.link.upper, [policy(f"p{n}") for n in range(1100)])
        await stranger.hello()

        async def live() -> None:
            for n in range(1000):
                await stranger.say(Heartbeat(sequence=n, trouble=trouble[0]))
                await asyncio.sleep(1)

        async def listen() -> None:
            while True:
                await stranger.mine.receive()

        others = [asyncio.create_task(live()), asyncio.create_task(listen())]
        await asyncio.sleep(6 * TIMING.acknowledge_within)
        assert not stranger.outcome.done(), stranger.outcome
        trouble[0] = ""
        assert "no acknowledgement came" in await asyncio.wait_for(stranger.outcome, 60)
        await asyncio.gather(*others, return_exceptions=True)

    run(lambda: with_stranger(tmp_path, HARBOR, work))
