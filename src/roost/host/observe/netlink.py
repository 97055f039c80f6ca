"""Links and addresses of this network namespace, asked of the kernel over rtnetlink.

Netlink answers for the namespace this process is in. /sys/class/net answers for the namespace in which
/sys was mounted, which may be another one: it is not read.

Written on the bare socket: two dumps and three structures are all that is needed, and a general netlink
library would be the largest part of an agent's memory. Attributes are type, length and value, so what a
newer kernel adds is skipped. `parse_*` are pure; `read_*` ask, with a deadline.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator

import msgspec

from roost.host.observe.look import CannotTell

GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS = 0x1, 0x10, 0x100

_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_MESSAGE_ERROR, _MESSAGE_DONE = 2, 3
_REQUEST, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
_ATTRIBUTE_MASK = 0x3FFF
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_EXT_MASK, _SKIP_STATISTICS = 29, 8
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP, _LOOPBACK, _LOWER_UP = 0x1, 0x8, 0x10000
_TYPES = {1: "ethernet", 32: "infiniband", 512: "ppp", 65534: "none"}

_SECONDS = 4.0
_ATTEMPTS = 3
_BUFFER = 1 << 16
_MAXIMUM_BYTES = 64 << 20


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device as the kernel tells it."""

    index: int
    name: str
    kind: str
    mac: str = ""
    mtu: int = 0
    up: bool = False
    carrier: bool = False
    loopback: bool = False
    master: int = 0


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a network device, with its prefix length."""

    index: int
    address: str


class NetlinkError(CannotTell):
    """The kernel refused a request or answered nonsense."""


def read_links() -> list[Link]:
    """All network devices of this namespace. Raises OSError or NetlinkError."""
    # Statistics are the bulk of a link's message and are not looked at.
    mask = _ATTRIBUTE.pack(8, _IFLA_EXT_MASK) + struct.pack("=I", _SKIP_STATISTICS)
    return parse_links(_dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0) + mask))


def read_addresses() -> list[Address]:
    """All addresses of this namespace. Raises OSError or NetlinkError."""
    return parse_addresses(_dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)))


def open_notifications() -> socket.socket:
    """A socket that becomes readable when a link or an address changes."""
    groups = GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        listener.setblocking(False)
        listener.bind((0, groups))
    except OSError:
        listener.close()
        raise
    return listener


def parse_links(payload: bytes) -> list[Link]:
    """Links in netlink messages, by index. Raises NetlinkError."""
    links = []
    for kind, _, body in messages(payload):
        if kind != _NEW_LINK:
            continue
        family, type_, index, flags, _ = _unpack(_LINK, body)
        if family != socket.AF_UNSPEC:
            continue
        found = dict(_attributes(body[_LINK.size :]))
        links.append(
            Link(
                index=index,
                name=_string(found.get(_IFLA_IFNAME, b"")),
                kind=_kind(found.get(_IFLA_LINKINFO, b""), type_),
                mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
                mtu=_number(found.get(_IFLA_MTU, b"")),
                up=bool(flags & _UP),
                carrier=bool(flags & _LOWER_UP),
                loopback=bool(flags & _LOOPBACK),
                master=_number(found.get(_IFLA_MASTER, b"")),
            )
        )
    return sorted(links, key=lambda link: link.index)


def parse_addresses(payload: bytes) -> list[Address]:
    """Addresses in netlink messages. Raises NetlinkError."""
    addresses = []
    for kind, _, body in messages(payload):
        if kind != _NEW_ADDRESS:
            continue
        family, prefix, _, _, index = _unpack(_ADDRESS, body)
        found = dict(_attributes(body[_ADDRESS.size :]))
        # On a point-to-point link the local address is ours and the other one is the peer's.
        raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
        if family not in (socket.AF_INET, socket.AF_INET6) or len(raw) not in (4, 16):
            continue
        addresses.append(Address(index=index, address=f"{socket.inet_ntop(family, raw)}/{prefix}"))
    return addresses


def messages(payload: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message. Raises NetlinkError."""
    at = 0
    while at + _HEADER.size <= len(payload):
        length, kind, flags, _, _ = _HEADER.unpack_from(payload, at)
        if length < _HEADER.size or at + length > len(payload):
            raise NetlinkError(f"a netlink message says it has {length} bytes, {len(payload) - at} are there")
        yield kind, flags, payload[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _dump(request: int, body: bytes) -> bytes:
    # The kernel marks a dump during which something changed: it may lack an entry, so it is asked again.
    for _ in range(_ATTEMPTS):
        payload, interrupted = _dump_once(request, body)
        if not interrupted:
            return payload
    raise NetlinkError(f"links or addresses changed during each of {_ATTEMPTS} attempts to list them")


def _dump_once(request: int, body: bytes) -> tuple[bytes, bool]:
    end = time.monotonic() + _SECONDS
    collected, interrupted, size = [], False, 0
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as asking:
        asking.bind((0, 0))
        header = _HEADER.pack(_HEADER.size + len(body), request, _REQUEST | _DUMP, 1, 0)
        asking.settimeout(_SECONDS)
        asking.send(header + body)
        while True:
            asking.settimeout(max(end - time.monotonic(), 0.001))
            part = asking.recv(_BUFFER)
            size += len(part)
            if size > _MAXIMUM_BYTES:
                raise NetlinkError(f"the answer is longer than {_MAXIMUM_BYTES} bytes")
            collected.append(part)
            finished, torn = progress(part)
            interrupted = interrupted or torn
            if finished:
                return b"".join(collected), interrupted


def progress(part: bytes) -> tuple[bool, bool]:
    """Whether this is the last part of a dump, and whether something changed meanwhile. Raises OSError
    when the kernel refused, NetlinkError for nonsense."""
    finished = torn = False
    for kind, flags, body in messages(part):
        torn = torn or bool(flags & _DUMP_INTERRUPTED)
        if kind not in (_MESSAGE_ERROR, _MESSAGE_DONE):
            continue
        # Both carry a negative error number; an end mark of old kernels carries nothing.
        code = -_unpack(_CODE, body)[0] if body or kind == _MESSAGE_ERROR else 0
        if code > 0:
            raise OSError(code, f"the kernel refused to list links or addresses: {os.strerror(code)}")
        finished = True
    return finished, torn


def _attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        if length < _ATTRIBUTE.size or at + length > len(payload):
            raise NetlinkError(
                f"a netlink attribute says it has {length} bytes, {len(payload) - at} are there"
            )
        yield kind & _ATTRIBUTE_MASK, payload[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _kind(link_info: bytes, type_: int) -> str:
    for kind, value in _attributes(link_info):
        if kind == 1:
            return _string(value)
    return _TYPES.get(type_, f"type {type_}")


def _unpack(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < layout.size:
        raise NetlinkError(f"a netlink message of {len(body)} bytes is too short")
    return layout.unpack_from(body)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)
