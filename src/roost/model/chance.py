"""Chance: the one source of all that may turn out either way: identities, names made up, jitter, secrets.

It is the operating system's, which nobody can foresee. A simulation puts one in its place that its seed
determines (`seeded`), and then makes everything again as it was. Keys and certificates are not made here:
they are the cryptographic library's.
"""

from __future__ import annotations

import base64
import random
import uuid as identities
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Source = random.Random

_source: Source = random.SystemRandom()


def uuid() -> str:
    """A random UUID (RFC 9562, version 4)."""
    return str(identities.UUID(bytes=_source.randbytes(16), version=4))


def digits(octets: int) -> str:
    """So many random octets, as hexadecimal digits."""
    return _source.randbytes(octets).hex()


def secret(octets: int) -> str:
    """So many random octets, as text that may stand in a URL."""
    return base64.urlsafe_b64encode(_source.randbytes(octets)).rstrip(b"=").decode()


def between(low: float, high: float) -> float:
    """A number between two."""
    return _source.uniform(low, high)


def pick(among: Sequence[T]) -> T:
    """One of several."""
    return _source.choice(among)


@contextmanager
def seeded(source: Source) -> Iterator[None]:
    """Within, all chance of this process comes from `source`: for simulations, where nothing is secret."""
    global _source
    former, _source = _source, source
    try:
        yield
    finally:
        _source = former
