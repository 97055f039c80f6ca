"""Print the inventory of this machine, or of one laid out below a directory, as JSON."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from roost.host.observe import Source, observe


def main(arguments: list[str]) -> int:
    """Exit status 0, 1 when something could not be read, 2 for wrong arguments."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print("usage: python -m roost.host.observe [ROOT]", file=sys.stderr)
        return 2
    source = Source.under(Path(arguments[0])) if arguments else Source()
    inventory = asyncio.run(observe(source))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(inventory), indent=2).decode() + "\n")
    return 1 if inventory.unknown else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
