"""gzip of large answers, for clients that take it.

As Kubernetes does it: answers above 128 KiB, at level 1, which costs a third of the default level's time and
gives away a tenth of its effect; never watches, whose events must not wait in a compressor. Compressing is
done where the answer is made, in the store's reader threads; zlib lets other threads run meanwhile.
"""

from __future__ import annotations

import zlib

THRESHOLD = 128 * 1024
LEVEL = 1
_GZIP_HEADER = 16


def accepted(header: str) -> bool:
    """Whether an Accept-Encoding header takes gzip (RFC 9110 section 12.5.3)."""
    for part in header.lower().split(","):
        coding, *parameters = [p.strip() for p in part.split(";")]
        if coding in ("gzip", "*"):
            return not any(p.startswith("q=") and not p.removeprefix("q=").strip("0.") for p in parameters)
    return False


class Gzip:
    """Compresses one answer piece by piece."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS + _GZIP_HEADER)

    def add(self, piece: bytes) -> bytes:
        """What is ready to be sent once `piece` was added; often nothing."""
        return self._compressor.compress(piece)

    def finish(self) -> bytes:
        """The rest."""
        return self._compressor.flush()


def whole(body: bytes) -> bytes:
    """All of an answer at once."""
    gzip = Gzip()
    return gzip.add(body) + gzip.finish()
