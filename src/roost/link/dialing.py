"""Dialling as far as TCP: a name to addresses, addresses to a connected socket; each with its deadline.

Names are looked up in threads of their own. The system's resolver may take minutes over a name server that
does not answer, and can't be stopped: in a pool shared with others a few such look-ups would hold up
everything, the end of the process included. One that hangs is not begun again: who asks for the same name
waits for it, too.

Several addresses of a name get an equal share of the time each, so that one whose packets are swallowed
does not hide the next.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from typing import Any

from roost.link.errors import LinkError

ADDRESSES = 4
LOOKUPS = 16

Address = tuple[socket.AddressFamily, Any]
_pending: dict[tuple[str, int], Future[list[Address]]] = {}


class NotReached(LinkError):
    """No connection came about, and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def open_socket(host: str, port: int, *, within: float) -> socket.socket:
    """A connected socket. Looking up takes half of `within` seconds at most, connecting the other half.

    Raises NotReached.
    """
    addresses = (await resolve(host, port, within=within / 2))[:ADDRESSES]
    share, problems = within / 2 / len(addresses), dict[str, None]()
    for family, address in addresses:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setblocking(False)
            async with asyncio.timeout(share):
                await asyncio.get_running_loop().sock_connect(one, address)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return one
        except TimeoutError:
            one.close()
            problems[f"no connection within {share:g} s: what is sent there is not answered"] = None
        except ConnectionRefusedError:
            one.close()
            problems["nothing listens there (connection refused)"] = None
        except OSError as error:
            one.close()
            problems[error.strerror or str(error) or "the network failed"] = None
        except BaseException:
            one.close()
            raise
    raise NotReached("; ".join(problems))


async def resolve(host: str, port: int, *, within: float) -> list[Address]:
    """The addresses of a name, at least one. Raises NotReached."""
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass
    pending = _pending.get((host, port)) or _begin(host, port)
    try:
        async with asyncio.timeout(within):
            return await asyncio.shield(asyncio.wrap_future(pending))
    except TimeoutError:
        raise NotReached(f"its name was not resolved within {within:g} s: no name server answers") from None
    except socket.gaierror as error:
        raise NotReached(f"the name can't be resolved: {error.strerror}") from None
    except (OSError, UnicodeError) as error:
        raise NotReached(f"the name can't be resolved: {error}") from None


def _begin(host: str, port: int) -> Future[list[Address]]:
    if len(_pending) >= LOOKUPS:
        raise NotReached(f"{LOOKUPS} look-ups of names hang already: no name server answers")
    future: Future[list[Address]] = Future()
    _pending[host, port] = future

    def work() -> None:
        try:
            found = _look_up(host, port, 0)
        except Exception as error:
            _pending.pop((host, port), None)
            future.set_exception(error)
        else:
            _pending.pop((host, port), None)
            future.set_result(found)

    threading.Thread(target=work, name=f"look-up of {host}", daemon=True).start()
    return future


def _look_up(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]
