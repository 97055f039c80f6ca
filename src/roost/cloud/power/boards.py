"""Board controllers asked at the same time, a few at once, each with a deadline.

The calls block, so they run in threads of their own: a board controller that hangs holds one of them up to
its deadline and no other part of the cloud. When all threads are held, who comes next waits for one, also
not beyond a deadline.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from roost.cloud.power import redfish
from roost.cloud.power.redfish import WITHIN, Board, BoardFailed, Seen
from roost.model.power import BootDevice

AT_ONCE = 8
PATIENCE = WITHIN + 5.0

T = TypeVar("T")


class Boards:
    """The way to all board controllers of a cloud. Lives on one event loop; `close` in the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "board-controller")

    async def look(self, board: Board, ca_bundle: str) -> Seen:
        """Whether a machine has power; raises BoardFailed."""
        return await self._run(board, ca_bundle, redfish.look)

    async def command(self, board: Board, ca_bundle: str, wanted: str) -> None:
        """Turn a machine `on` or `off`, or `reset` it; raises BoardFailed."""
        await self._run(board, ca_bundle, lambda one: redfish.command(one, wanted))

    async def boot_once(self, board: Board, ca_bundle: str, device: BootDevice) -> None:
        """Have a machine start from a device once; raises BoardFailed."""
        await self._run(board, ca_bundle, lambda one: redfish.boot_once(one, device))

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, board: Board, ca_bundle: str, work: Callable[[Board], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: _with_bundle(board, ca_bundle, work)
        )
        try:
            async with asyncio.timeout(PATIENCE):
                return await running
        except TimeoutError:
            raise BoardFailed(
                f"{board.address} was not done in {PATIENCE:g} s", "restart the board controller"
            ) from None


def _with_bundle(board: Board, ca_bundle: str, work: Callable[[Board], T]) -> T:
    """The certificates of a board controller in a file, which is how they are wanted."""
    if not ca_bundle:
        return work(board)
    import msgspec

    with tempfile.TemporaryDirectory(prefix="roost-board-") as directory:
        path = Path(directory) / "ca.pem"
        path.write_text(ca_bundle)
        return work(msgspec.structs.replace(board, verify=str(path)))
