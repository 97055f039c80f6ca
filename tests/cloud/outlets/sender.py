"""A process that raises alarms and sends them: to be killed in the middle.

Arguments: folder of the store, and how many alarms there shall be in the end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from roost.model.fault import LogEntry
from tests.cloud.outlets.receivers import site


async def main(folder: Path, number: int) -> None:
    async with site(folder) as here:
        told = [e for e in await here.store.every(LogEntry) if e.status.event == "alarm-set"]
        for n in range(len(told), number):
            await here.faults(f"h{n}", "100.101")
            await asyncio.sleep(0.002)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
