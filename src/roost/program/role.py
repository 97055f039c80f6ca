"""`python -m roost.program.role --home DIRECTORY`: run what a home is, and nothing more.

`roost up` and `roost agent` prepare the home and then become this, so that a cloud or an agent does
not carry the command line's libraries about. A cloud's first start that ends before it served leaves
nothing that would stand in the way of the next one, under another name perhaps (`first_start`).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

from roost.program import first_start, start
from roost.program.home import Home, Settings, StartError

INTERRUPTED = 130
SWITCH_AFTER = 0.0005
"""Seconds for which one thread keeps the others of a cloud's process waiting."""
COLLECT_AFTER = (5_000, 20, 20)
KEPT = 16 * 1024 * 1024
"""Bytes of free memory that each of two pools keeps."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def main(arguments: list[str]) -> int:
    """Run the role of a home until a signal; the exit code."""
    if len(arguments) != 2 or arguments[0] != "--home":
        print("usage: python -m roost.program.role --home DIRECTORY", file=sys.stderr)
        return 2
    home = Home(Path(arguments[1]))
    try:
        home.open()
        settings = home.settings()
        if settings is None:
            raise StartError(f"{home.path} was never started", "run `roost up` or `roost agent --join FILE`")
        if settings.role == "agent":
            from roost.program.agent import run_agent

            return start.run(lambda stop, leave: run_agent(home, settings, stop, leave))
        return _run_cloud(home, settings)
    except StartError as error:
        print(f"roost: {error.reason}\n  {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Before the loop took the signal over: what was made is taken back by the next start.
        return INTERRUPTED
    finally:
        home.close()


def _run_cloud(home: Home, settings: Settings) -> int:
    import uvloop

    from roost.program.cloud import CloudRole

    making = first_start.under_way(home)
    role: CloudRole | None = None

    async def main(stop: asyncio.Event, leave: Callable[[], None]) -> None:
        nonlocal role
        role = CloudRole(home, settings, stop, leave)
        await role.run()

    tune()
    # A cloud serves many connections over TLS: on this loop each takes a quarter of a megabyte less.
    code = start.run(main, uvloop.new_event_loop)
    if making is not None and not (role and role.has_served):
        first_start.take_back(home, making)
    return code


def tune() -> None:
    """Fit the interpreter to a cloud's process, once its modules are there.

    Its writer is a thread of its own: after each commit it would wait for up to five milliseconds until a
    busy loop hands over; a tenth of that gave a quarter more writes a second. Looking for garbage among all
    that was imported, which stays for good, held everybody up for 30 to 100 milliseconds every few seconds:
    it is left out, and the rest looked at less often, which gave a third more writes.

    The C library gives memory back to the kernel, and takes it anew, for every answer of some 100 KiB, and
    the kernel clears each page of it. It keeps KEPT bytes instead.
    """
    _keep_memory()
    sys.setswitchinterval(SWITCH_AFTER)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _keep_memory() -> None:
    # mallopt(3), of the GNU C library; others do well without.
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        for parameter, value in ((_ARENA_MAX, 2), (_TRIM_THRESHOLD, KEPT), (_MMAP_THRESHOLD, KEPT)):
            adjust(parameter, value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
