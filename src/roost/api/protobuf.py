"""Protobuf's wire format, as far as kubectl makes us read and write it.

Writing is for the OpenAPI v2 document, reading for the reviews of `kubectl auth`, which new versions
send in protobuf alone. A message is read into its fields by number; only varints and length-delimited
fields are kept.
"""

from __future__ import annotations

import struct

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


class Malformed(ValueError):
    """Not a protobuf message."""


def fields(message: bytes) -> dict[int, bytes]:
    """Length-delimited fields of a message by number; of a repeated one the last. Raises Malformed."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        match wire:
            case 0:
                _, at = _read_varint(message, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                size, at = _read_varint(message, at)
                found[number] = message[at : at + size]
                at += size
            case _:
                raise Malformed(f"wire type {wire}")
        if at > len(message):
            raise Malformed("a field ends after the message")
    return found


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
