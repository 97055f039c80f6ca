"""Callers whom somebody other than this cloud knows, and what those others may not give."""

from __future__ import annotations

import math
from collections.abc import Iterable

from roost.link.exchange import Caller

RESERVED = ("system:", "roost:")
"""How groups begin that mean something of themselves, in Kubernetes or here."""


class Foreign(Caller, frozen=True):
    """Known by an issuer elsewhere: a User of the same name here is somebody else, whose role is not his.

    `until` is when what he showed ends, in seconds of the epoch.
    """

    until: float = math.inf


def divided(groups: Iterable[str]) -> tuple[list[str], list[str]]:
    """The groups that an issuer may give, and those that are not an issuer's to give."""
    every = list(groups)
    return [g for g in every if not g.startswith(RESERVED)], [g for g in every if g.startswith(RESERVED)]
