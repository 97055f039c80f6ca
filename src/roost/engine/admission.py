"""Admission: rules that stand between a user's write and the store.

A rule is a plain function of the transaction and the request. It lives beside the controller of its
domain and raises `Refused` with the field, the reason and the remedy. Rules run inside the
transaction of the write, so what they read can't change before it commits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from roost.model.kind import KindInfo
from roost.model.meta import Resource
from roost.store.transaction import Transaction


class Refused(Exception):
    """A write that the rules of its domain do not allow now."""

    def __init__(self, reason: str, remedy: str, *, field: str = "") -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy, self.field = reason, remedy, field


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A write that asks for admission. `old` is absent on create, `new` on delete.

    `origin` is the home of `old` ("" here, "up", "down:NODE").
    """

    operation: Literal["create", "update", "delete"]
    info: KindInfo
    user: str
    old: Resource | None = None
    new: Resource | None = None
    origin: str = ""


Rule = Callable[[Transaction, Request], None]
