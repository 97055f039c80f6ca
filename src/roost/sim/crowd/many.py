"""Several processes of simulated sites, for who has more than one can bear: started, told, asked, ended.

What a process says is added up. A process that ends by itself is an error that says what it said last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from roost.sim.crowd.crowd import Plan
from roost.sim.crowd.process import LINE, Answer, Order, Setup
from roost.sim.crowd.script import Step, chosen

SITES = 5000
"""In one process at most: each takes a file, and some tens of KiB."""
ANSWERS_WITHIN = 60.0
ENDS_WITHIN = 10.0


class Ended(Exception):
    """A process of sites is no more."""

    def __init__(self, number: int, code: int | None, said: str) -> None:
        super().__init__(f"process {number} of the simulated sites ended with {code}: {said or 'no word'}")
        self.code = code


class Many:
    """Sites `0` to `count - 1`, in as few processes as bear them. An asynchronous context."""

    def __init__(
        self,
        *,
        count: int,
        hosts: int,
        endpoint: str,
        directory: Path,
        heartbeat: float,
        processes: int = 0,
        more: Sequence[str] = (),
    ) -> None:
        """`more` are other endpoints of the same centre."""
        processes = processes or -(-count // SITES)
        each = -(-count // processes)
        self._setups = [
            Setup(
                plan=Plan(first=first, count=min(each, count - first), hosts=hosts, heartbeat=heartbeat),
                endpoints=[endpoint, *more],
                directory=str(directory),
            )
            for first in range(0, count, each)
        ]
        self._directory = directory
        self._running: list[asyncio.subprocess.Process] = []
        self._turns: list[asyncio.Lock] = []

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._running]

    async def __aenter__(self) -> Self:
        try:
            for setup in self._setups:
                self._running.append(await self._start(setup))
                self._turns.append(asyncio.Lock())
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    # -- orders

    async def enrol(self, tokens: Mapping[int, str]) -> list[str]:
        """Turn tokens, by number of site, into certificates; what went wrong."""
        orders = []
        for setup in self._setups:
            plan = setup.plan
            own = {n: tokens[n] for n in range(plan.first, plan.first + plan.count) if n in tokens}
            orders.append(Order(verb="enrol", tokens=own))
        answers = await self._ask(orders, within=3600.0)
        return [problem for answer in answers for problem in answer.problems]

    async def begin(self) -> None:
        """Have all dial."""
        await self._ask([Order(verb="begin")] * len(self._running))

    async def do(self, step: Step) -> None:
        """Begin a step in all processes. A rate is shared out among them."""
        plans = [setup.plan for setup in self._setups]
        meant = [len(list(chosen(step, range(p.first, p.first + p.count)))) for p in plans]
        rates = [step.rate * some / max(1, sum(meant)) for some in meant]
        steps = [msgspec.structs.replace(step, rate=rate) if rate else step for rate in rates]
        await self._ask([Order(verb="do", step=one) for one in steps])

    async def standing(self) -> tuple[dict[str, float], str]:
        """How all is, added up, and the last failure."""
        answers = await self._ask([Order(verb="standing")] * len(self._running))
        total = Counter[str]()
        for answer in answers:
            total.update(answer.standing)
        return dict(total), next((a.last_failure for a in answers if a.last_failure), "")

    async def delays(self) -> list[float]:
        """Delays of intent in seconds, as measured since the last time."""
        answers = await self._ask([Order(verb="delays")] * len(self._running))
        return [delay for answer in answers for delay in answer.delays]

    # -- inside

    async def _ask(self, orders: Sequence[Order], *, within: float = ANSWERS_WITHIN) -> list[Answer]:
        return await asyncio.gather(*(self._order(n, order, within) for n, order in enumerate(orders)))

    async def _order(self, number: int, order: Order, within: float) -> Answer:
        process = self._running[number]
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("it was started with pipes")
        async with self._turns[number], asyncio.timeout(within):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(order) + b"\n")
                await process.stdin.drain()
            line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            raise Ended(number, code, self._log(number).read_text("utf-8", "replace")[-2000:].strip())
        return msgspec.json.decode(line, type=Answer)

    async def _start(self, setup: Setup) -> asyncio.subprocess.Process:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._log(len(self._running)).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "roost.sim.crowd.process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE,
                # Ctrl-C at a terminal is for who started it, who ends it by closing its input.
                start_new_session=True,
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            )
        if process.stdin is None:
            raise RuntimeError("it was started with pipes")
        process.stdin.write(msgspec.json.encode(setup) + b"\n")
        await process.stdin.drain()
        return process

    def _log(self, number: int) -> Path:
        return self._directory / f"process-{number}.log"

    async def _end(self) -> None:
        for process in self._running:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._running:
            try:
                async with asyncio.timeout(ENDS_WITHIN):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        self._running.clear()
