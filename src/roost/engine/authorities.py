"""Certificates that people give, PEM, to vouch for what they want to be spoken to."""

from __future__ import annotations

import ssl


def trusting(bundle: str) -> ssl.SSLContext:
    """A client's context that trusts these authorities, the machine's when there are none given.

    What stands around the certificates is no part of PEM (RFC 7468, 2) and may be in any language; `ssl`
    wants ASCII. Raises ssl.SSLError, also for what can't be read as certificates.
    """
    plain = bundle.encode("ascii", "replace").decode()
    try:
        return ssl.create_default_context(cadata=plain or None)
    except ValueError as error:
        raise ssl.SSLError(str(error)) from error
