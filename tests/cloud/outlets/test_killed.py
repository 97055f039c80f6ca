"""The sender is killed with SIGKILL again and again: nothing is lost, and what is doubled says so."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.cloud.outlets.programs import running
from tests.cloud.outlets.receivers import receiver, site, until

NUMBER = 400
ROOT = Path(__file__).parents[3]


async def test_each_delivery_comes_once_or_says_that_it_is_doubled(tmp_path: Path) -> None:
    async with receiver() as there:
        async with site(tmp_path) as here:
            await here.declare(
                "webhook",
                f"http://127.0.0.1:{there.port}/",
                limits={"batch": 7, "burst": 10_000, "longestPauseSeconds": 1},
            )
            await until(lambda: any(m["what"] == "snapshot-end" for m in there.messages))
        command = [sys.executable, "-m", "tests.cloud.outlets.sender", str(tmp_path), str(NUMBER)]
        async with running(command, tmp_path / "log", PYTHONPATH=str(ROOT)) as sender:
            for kills in range(1, 6):
                before = len(there.messages)
                # In the middle of things: a little later each time, wherever that is.
                await until(lambda: len(there.messages) >= before + 10 * kills)  # noqa: B023
                await asyncio.sleep(0.003 * kills)
                await sender.kill()
                if kills == 3:
                    await there.stop()
                await sender.start()
                if kills == 3:
                    await asyncio.sleep(0.5)
                    await there.start()
            await until(lambda: len({m["id"] for m in there.messages if m["what"] == "set"}) >= NUMBER, 60.0)
    told = [m for m in there.messages if m["what"] == "set"]
    assert {m["alarm"]["name"] for m in told} == {f"host.h{n}.100.101" for n in range(NUMBER)}
    seen: set[str] = set()
    for message in told:
        assert message["id"] not in seen or message["again"], (
            f"{message['id']} is doubled and does not say so"
        )
        seen.add(message["id"])
    assert len(seen) == NUMBER
    firsts = [m["alarm"]["name"] for n, m in enumerate(told) if m["id"] not in {t["id"] for t in told[:n]}]
    assert firsts == [f"host.h{n}.100.101" for n in range(NUMBER)], "in order"
