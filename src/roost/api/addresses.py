"""From where a client comes, as far as bounds are concerned. Pure.

An IPv6 network hands out a whole /64 to one machine, which can then come from any address of it: so one
client is a /64. An IPv4 address written as IPv6, as a socket for both shows it, is the IPv4 address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

_OF_ONE = 64
_KEPT = 4096


@lru_cache(_KEPT)
def origin(host: str) -> str:
    """What an address is counted under; what is no address, such as the path of a socket, stays as it is."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _OF_ONE), strict=False))
