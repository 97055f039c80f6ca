"""What people wrote during a run, and what they were told of it: what must still be there in the end.

A `Write` knows the store it went to, by identity and revision, so a restore can be reckoned with by the rules
that hold for snapshots alone: what was written up to the snapshot's revision stays, the rest is gone. A write
that got no answer may have happened or not, and both are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import msgspec

if TYPE_CHECKING:
    from roost.sim.deterministic.tree import Tree

Key = tuple[str, str, str]
"""Kind, namespace and name."""

Spec = dict[str, Any]
Answer = Literal["open", "accepted", "refused", "unknown"]


class Write(msgspec.Struct, kw_only=True, eq=False):
    """One write that somebody asked for.

    `home` is the node whose store it is for, `identity` that store's; the write's revision lies in `low` to
    `high`. `sent` is what was asked of the spec, None for a deletion; `spec` is all of it as answered.
    `began` and `ended` are simulated seconds.
    """

    number: int
    home: str
    key: Key
    verb: str
    identity: str
    low: int
    began: float
    sent: Spec | None
    answer: Answer = "open"
    high: int = 2**62
    ended: float = float("inf")
    spec: Spec | None = None

    def __str__(self) -> str:
        where = f"{self.key[0]} {self.key[1]}/{self.key[2]}"
        return f"{self.verb} of {where} at {self.home}, asked at {self.began:.3f} s"


class Ledger:
    """All writes of one run, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.writes: list[Write] = []

    def begin(
        self, home: str, key: Key, verb: str, sent: Spec | None, at: tuple[str, int], now: float
    ) -> Write:
        """Somebody asks for a write; `at` are identity and revision of the store as it is now."""
        write = Write(
            number=len(self.writes),
            home=home,
            key=key,
            verb=verb,
            sent=sent,
            identity=at[0],
            low=at[1],
            began=now,
        )
        self.writes.append(write)
        return write

    def of(self, home: str) -> dict[Key, list[Write]]:
        """Writes to one store by key; refused ones are left out."""
        found: dict[Key, list[Write]] = {}
        for write in self.writes:
            if write.home == home and write.answer != "refused":
                found.setdefault(write.key, []).append(write)
        return found

    def asked(self, verb: str, home: str = "") -> int:
        """How many writes of a verb may have happened."""
        return sum(w.verb == verb and home in ("", w.home) and w.answer != "refused" for w in self.writes)


_LEDGERS: WeakKeyDictionary[Tree, Ledger] = WeakKeyDictionary()


def ledger(tree: Tree) -> Ledger:
    """The ledger of a tree; the same for all who ask."""
    if tree not in _LEDGERS:
        _LEDGERS[tree] = Ledger()
    return _LEDGERS[tree]
