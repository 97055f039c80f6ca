"""Driver, firmware, bus address and speed of a network device, by the SIOCETHTOOL ioctl.

Works in every network namespace and without privilege. A device whose driver has nothing to say answers
EOPNOTSUPP: that is "not present". `parse_*` are pure; `read_*` ask the kernel.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

import msgspec

_SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_LINK_SETTINGS = 0x03, 0x4C
_DRIVER = struct.Struct("=I32s32s32s32s32s12sIIIII")
# Head of ethtool_link_settings; three masks of as many words as the kernel asks for come after it.
_SETTINGS = struct.Struct("=IIBBBBBBBbBBBB7I")
_WORDS_AT = 15
_MAXIMUM_WORDS = 127
_UNKNOWN_SPEED = 0xFFFFFFFF
_DUPLEX = {0: "half", 1: "full"}
_NOT_PRESENT = {errno.EOPNOTSUPP, errno.ENODEV}


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """What a network device's driver says of itself."""

    name: str = ""
    version: str = ""
    firmware: str = ""
    bus: str = ""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of a link; 0 and "" when not known."""

    mbit: int = 0
    duplex: str = ""


def read_driver(port: str) -> Driver:
    """The port's driver; empty when it has none. Raises OSError."""
    buffer = bytearray(_DRIVER.size)
    struct.pack_into("=I", buffer, 0, _GET_DRIVER)
    return parse_driver(buffer) if _ask(port, buffer) else Driver()


def read_speed(port: str) -> Speed:
    """The port's speed; empty when it has none. Raises OSError."""
    buffer = bytearray(_SETTINGS.size)
    struct.pack_into("=I", buffer, 0, _GET_LINK_SETTINGS)
    if not _ask(port, buffer):
        return Speed()
    # The first answer is the negative count of mask words; the second, asked with that count, is complete.
    words = -struct.unpack_from("=b", buffer, _WORDS_AT)[0]
    if not 0 < words <= _MAXIMUM_WORDS:
        return Speed()
    buffer = bytearray(_SETTINGS.size + 3 * 4 * words)
    struct.pack_into("=I", buffer, 0, _GET_LINK_SETTINGS)
    struct.pack_into("=b", buffer, _WORDS_AT, words)
    return parse_speed(buffer) if _ask(port, buffer) else Speed()


def parse_driver(buffer: bytes | bytearray) -> Driver:
    """An `ethtool_drvinfo`."""
    _, name, version, firmware, bus, *_ = _DRIVER.unpack_from(buffer)
    return Driver(name=_string(name), version=_string(version), firmware=_string(firmware), bus=_string(bus))


def parse_speed(buffer: bytes | bytearray) -> Speed:
    """The head of an `ethtool_link_settings`."""
    _, speed, duplex, *_ = _SETTINGS.unpack_from(buffer)
    return Speed(mbit=0 if speed == _UNKNOWN_SPEED else speed, duplex=_DUPLEX.get(duplex, ""))


def _ask(port: str, buffer: bytearray) -> bool:
    """Let the kernel fill `buffer`; False when the device has no such thing."""
    space = array.array("B", buffer)
    address, _ = space.buffer_info()
    # struct ifreq: the name, then a union that is 24 bytes on 64-bit machines and holds our pointer.
    request = struct.pack("16sP16x", port.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno in _NOT_PRESENT:
                return False
            raise
    buffer[:] = space.tobytes()
    return True


def _string(value: bytes) -> str:
    text = value.split(b"\0", 1)[0].decode(errors="replace").strip()
    return "" if text in ("N/A", "n/a") else text
