"""The bearer token of a request."""

from __future__ import annotations

from collections.abc import Iterable


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The token of an Authorization header of the scheme Bearer; empty when there is none."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
