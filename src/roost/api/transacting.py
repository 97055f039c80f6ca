"""What every write on one target has: who does it, its rules of admission, and its transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from roost.api import tokens
from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.status import refused
from roost.api.target import Target
from roost.api.write_options import WriteOptions
from roost.engine import admission
from roost.link.exchange import Caller
from roost.model.registry import BY_KIND
from roost.store.transaction import Transaction

T = TypeVar("T")


class Undo(Exception):
    """Leaves the transaction of a dry run with its result."""

    def __init__(self, result: Any) -> None:
        super().__init__("dry run")
        self.result = result


class Write:
    """One caller's write on one target. `info` is the kind as asked for, `stored` as the store has it."""

    def __init__(
        self, context: ApiContext, caller: Caller, target: Target, view: View, options: WriteOptions
    ) -> None:
        self.context, self.caller, self.target, self.view, self.options = (
            context,
            caller,
            target,
            view,
            options,
        )
        self.info, self.stored = target.info, BY_KIND[view.source]
        self.warnings: list[str] = []

    def admit(self, tx: Transaction, request: admission.Request) -> None:
        """Ask the rules of the kind's domain; raises ApiError."""
        subject = request.new or request.old
        name = subject.metadata.name if subject else ""
        kind = self.stored.kind
        try:
            for rule in (*tokens.RULES.get(kind, ()), *self.context.rules.get(kind, ())):
                rule(tx, request)
        except admission.Refused as refusal:
            raise refused(self.info, name, refusal) from refusal

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Do the work; in a dry run, undo it and give its result all the same."""
        if not self.options.dry_run:
            return await self.context.store.transact(work)

        def undone(tx: Transaction) -> T:
            raise Undo(work(tx))

        try:
            return await self.context.store.transact(undone)
        except Undo as undo:
            result: T = undo.result
            return result
