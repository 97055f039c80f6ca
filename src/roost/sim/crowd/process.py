"""`python -m roost.sim.crowd.process`: a process of simulated sites, told what to do on standard input.

The first line is a `Setup`, each further one an `Order`; each order is answered by one line. It ends with its
input, so it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import sys
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection

from roost.link import sockets, token
from roost.sim.crowd import enrolling
from roost.sim.crowd.crowd import DIALLING, Crowd, Plan
from roost.sim.crowd.enrolling import Identities
from roost.sim.crowd.script import Step
from roost.sim.crowd.site import FAILURES
from roost.sim.subcloud import site_name

LINE = 16 * 1024 * 1024
ENROLLING = 32
SHOWN = 5


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a process simulates, where it dials, and where certificates are kept."""

    plan: Plan
    endpoints: list[str]
    directory: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do.

    - `enrol`: turn `tokens`, by number of site, into certificates; answered when that is done;
    - `begin`: dial; `do`: this step; `standing`: say how all is; `delays`: say and forget measured delays.
    """

    verb: Literal["enrol", "begin", "do", "standing", "delays"]
    tokens: dict[int, str] = {}
    step: Step | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order."""

    standing: dict[str, float] = {}
    delays: list[float] = []
    problems: list[str] = []
    last_failure: str = ""


class _Process:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._where = [token.endpoint(one) for one in setup.endpoints]
        self._identities = Identities(Path(setup.directory))
        self.crowd = Crowd(setup.plan, self._dial)

    async def _dial(self, number: int, name: str) -> ClientConnection:
        """At the first endpoint that takes it; sites begin at different ones, as real ones do."""
        context, first = self._identities.context(name), number % len(self._where)
        *others, last = [*self._where[first:], *self._where[:first]]
        for where in others:
            with contextlib.suppress(*FAILURES):
                return await enrolling.dial(where, number, context, sockets.LINK_PATH)
        return await enrolling.dial(last, number, context, sockets.LINK_PATH)

    async def answer(self, order: Order) -> Answer:
        crowd = self.crowd
        match order.verb:
            case "enrol":
                return Answer(problems=await self._enrol(order.tokens))
            case "begin":
                crowd.begin()
            case "do" if order.step is not None:
                crowd.do(order.step)
            case "standing":
                return Answer(standing=crowd.standing(), last_failure=crowd.heard.last_failure)
            case "delays":
                delays, crowd.delays = crowd.delays, []
                return Answer(delays=delays)
        return Answer()

    async def _enrol(self, tokens: dict[int, str]) -> list[str]:
        turns, problems = asyncio.Semaphore(min(ENROLLING, DIALLING)), list[str]()

        async def one(number: int, text: str) -> None:
            async with turns:
                try:
                    await enrolling.enrol(self._identities, site_name(number), number, text)
                except (*FAILURES, token.BadToken) as error:
                    problems.append(f"{site_name(number)}: {type(error).__name__}: {error}"[:300])

        await asyncio.gather(*(one(number, text) for number, text in tokens.items()))
        return problems[:SHOWN] if len(problems) <= SHOWN else [*problems[:SHOWN], f"{len(problems)} in all"]


async def main() -> None:
    """Read and answer to the end of the input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    process = _Process(msgspec.json.decode(await reader.readline(), type=Setup))
    try:
        while line := await reader.readline():
            answer = await process.answer(msgspec.json.decode(line, type=Order))
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.buffer.flush()
    finally:
        await process.crowd.end()


def _run() -> None:
    import gc

    import uvloop

    # Failures of sites are counted, not told one by one; the libraries' words on them say nothing more.
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


if __name__ == "__main__":
    _run()
