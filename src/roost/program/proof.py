"""The proof that a link can be dialled anew.

A proof is a fresh connection, with TLS verified against the pinned CA, on which a first word comes
back. It goes to the enrolment door, so that it never takes the place of the session that runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from roost.link import identity, sockets
from roost.link.errors import ConnectionLost, LinkError
from roost.link.sockets import CannotConnect

PROBE_WITHIN = 5.0


async def probe(directory: Path) -> None:
    """Dial the upper end kept in `directory` anew; raises LinkError when nothing comes back in time."""
    known = identity.load(directory)
    context = sockets.verified_context((directory / identity.AUTHORITY_FILE).read_text())
    problems = []
    for where in known.endpoints:
        try:
            connection = await sockets.connect(where, context, sockets.ENROL_PATH, within=PROBE_WITHIN)
        except CannotConnect as error:
            problems.append(str(error))
            continue
        try:
            async with asyncio.timeout(PROBE_WITHIN):
                await connection.receive()
            return
        except (ConnectionLost, TimeoutError) as error:
            problems.append(f"{where}: {error or 'nothing came back'}")
        finally:
            await sockets.close_quietly(connection)
    raise LinkError("; ".join(problems) or "there is no endpoint")
