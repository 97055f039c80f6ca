"""`python -m roost.program.role --home DIRECTORY`: run what a home is, and nothing more.

`roost up` and `roost agent` prepare the home and then become this, so that a cloud or an agent does
not carry the command line's libraries about.
"""

from __future__ import annotations

import sys
from pathlib import Path

from roost.program import start
from roost.program.home import Home, StartError

SWITCH_AFTER = 0.0005
"""Seconds for which one thread keeps the others of a cloud's process waiting."""


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
        import uvloop

        from roost.program.cloud import CloudRole

        # A cloud serves many connections over TLS: on this loop each takes a quarter of a megabyte less.
        # Its writer is a thread of its own: after each commit it would wait for up to five milliseconds
        # until a busy loop hands over; a tenth of that gave a quarter more writes a second.
        sys.setswitchinterval(SWITCH_AFTER)
        return start.run(
            lambda stop, leave: CloudRole(home, settings, stop, leave).run(), uvloop.new_event_loop
        )
    except StartError as error:
        print(f"roost: {error.reason}\n  {error.remedy}", file=sys.stderr)
        return 1
    finally:
        home.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
