"""Where a cloud listens: checked before a first start keeps anything, explained when it can't be had.

The check binds and lets go again. Somebody may take the address in between: then the start itself fails,
and takes back what it made.
"""

from __future__ import annotations

import os

from roost.api.server import bind
from roost.program.home import API_PORT, LINK_PORT, Settings, StartError, split_address


def check_addresses(settings: Settings) -> None:
    """Raise StartError when the API's or the links' address can't be listened at."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        # Else the supervisor holds the API's socket already.
        try:
            _try(settings.api_address, API_PORT)
        except OSError as error:
            raise api_taken(settings.api_address, error) from error
    if settings.link_address:
        try:
            _try(settings.link_address, LINK_PORT)
        except OSError as error:
            raise links_taken(settings.link_address, error) from error


def api_taken(address: str, error: OSError) -> StartError:
    """What to do when the API can't listen."""
    return StartError(
        f"the API can't listen at {address}: {_why(error)}",
        "end what uses that address, or choose another with --address",
    )


def links_taken(address: str, error: OSError) -> StartError:
    """What to do when links can't be taken."""
    return StartError(
        f"links can't be taken at {address}: {_why(error)}",
        "end what uses that address, or choose another with --link-address",
    )


def _try(address: str, default_port: int) -> None:
    for one in bind(*split_address(address, default_port)):
        one.close()


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
