"""Protobuf's wire format, as far as kubectl makes us read and write it.

Writing is for the OpenAPI v2 document, reading for the reviews of `kubectl auth`, which new versions
send in protobuf alone. A message is read into its fields by number; only varints and length-delimited
fields are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


class Malformed(ValueError):
    """Not a protobuf message."""


def fields(message: bytes) -> dict[int, bytes]:
    """Length-delimited fields of a message by number; of a repeated one the last. Raises Malformed."""
    return {number: values[-1] for number, values in repeated(message).items()}


def repeated(message: bytes) -> dict[int, list[bytes]]:
    """Length-delimited fields of a message by number, all of each. Raises Malformed."""
    found: dict[int, list[bytes]] = {}
    for number, value in _read(message):
        if isinstance(value, bytes):
            found.setdefault(number, []).append(value)
    return found


def numbers(message: bytes) -> dict[int, int]:
    """Varint fields of a message by number; of a repeated one the last. Raises Malformed."""
    return {number: value for number, value in _read(message) if isinstance(value, int)}


def _read(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: bytes | int = b""
        match wire:
            case 0:
                value, at = _read_varint(message, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                size, at = _read_varint(message, at)
                value = message[at : at + size]
                at += size
            case _:
                raise Malformed(f"wire type {wire}")
        if at > len(message):
            raise Malformed("a field ends after the message")
        if wire in (_VARINT, _LENGTH):
            yield number, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Malformed("a number ends after the message")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("a number is too long")


def varint(value: int) -> bytes:
    """A non-negative number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def part(number: int, body: bytes) -> bytes:
    """A message or bytes as a field."""
    return varint(number << 3 | _LENGTH) + varint(len(body)) + body


def text(number: int, value: str) -> bytes:
    """A string field; nothing when empty."""
    return part(number, value.encode()) if value else b""


def integer(number: int, value: int) -> bytes:
    """A number field."""
    return varint(number << 3 | _VARINT) + varint(value)


def truth(number: int) -> bytes:
    """A boolean field that is true."""
    return integer(number, 1)


def double(number: int, value: float) -> bytes:
    """A floating-point field."""
    return varint(number << 3 | _FIXED64) + struct.pack("<d", value)
