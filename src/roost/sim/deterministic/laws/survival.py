"""What was accepted stays: each acknowledged write is in the final state of its home, or a later one is.

By the store's own history of restores a write is out of it when it was made after the snapshot that was put
back. A subcloud that was deleted takes with it what the centre held for it. What got no answer may have
happened or not.
"""

from __future__ import annotations

from typing import Literal

from roost.sim.deterministic.laws.books import HERE, Book, Restore
from roost.sim.deterministic.ledger import Key, Spec, Write

TRANSIENT = frozenset(("Alarm",))
"""Kinds that come and go with their causes, whatever people write to them."""

Stays = Literal["yes", "no", "perhaps"]


def stays(write: Write, identity: str, restores: list[Restore]) -> Stays:
    """Whether a write is part of what a store of this identity and these restores has lived through."""
    if not write.identity:
        return "perhaps"
    if write.identity == identity:
        return "yes"
    found: Stays = "no"
    for restore in restores:
        if restore.snapshot_of != write.identity:
            continue
        if write.high <= restore.at:
            return "yes"
        if write.low <= restore.at or write.answer != "accepted":
            found = "perhaps"
    return found


def lost(home: str, book: Book, writes: dict[Key, list[Write]]) -> list[str]:
    """What was accepted at a home and is not in its book."""
    removals = list[Write]()
    for key, of_key in writes.items():
        if key[0] == "Subcloud":
            removals += [w for w in of_key if w.sent is None]
    found = []
    for key, of_key in sorted(writes.items()):
        if key[0] in TRANSIENT:
            continue
        row = book.rows.get(key)
        final = row.spec if row is not None and row.origin == HERE else None
        takers = [r for r in removals if key[1] and r.key[2] == key[1]]
        said = _missing(final, of_key, takers, book)
        if said:
            found.append(f"{home}: {said}")
    return found


def _missing(final: Spec | None, writes: list[Write], takers: list[Write], book: Book) -> str:
    """Why a final spec (None: it is not there) can't have come of these writes; empty when it can."""
    lived = [(w, stays(w, book.identity, book.restores)) for w in writes]
    sure = [w for w, s in lived if s == "yes" and w.answer == "accepted"]
    if not sure:
        return ""
    last = max(sure, key=_order)
    possible = [w for w, s in lived if w is not last and _may_follow(w, last, s)]
    taken = any(
        _may_follow(t, last, stays(t, book.identity, book.restores))
        or (t.answer == "accepted" and t.ended >= last.began)
        for t in takers
    )
    if taken and final is None:
        return ""
    if any(_fits(final, candidate) for candidate in _candidates(last, possible)):
        return ""
    what = "it is not there" if final is None else "it says something else"
    return f"{last} was accepted, and {what} in the end"


def _order(write: Write) -> tuple[int, int]:
    """By revision; a deletion is known to lie in a span, and counts from its end."""
    return (write.low if write.sent is not None else write.high, write.number)


def _may_follow(write: Write, last: Write, stay: Stays) -> bool:
    """Whether a write may have happened after the last one that did for sure."""
    if stay == "no":
        return False
    if write.answer != "accepted":
        return write.ended >= last.began
    if stay == "perhaps":
        return True
    if write.sent is None or last.sent is None:
        return write.identity == last.identity and write.high >= last.low and write.low <= last.high
    return False


_Candidate = tuple[Spec | None, bool]
"""A spec, and whether it is the whole of it (else fields may be there besides). None: not there."""


def _candidates(last: Write, possible: list[Write]) -> list[_Candidate]:
    found: list[_Candidate] = [(last.spec if last.sent is not None else None, True)]
    for write in sorted(possible, key=lambda w: w.number)[:8]:
        found += [_after(write, before) for before in found]
    return found


def _after(write: Write, before: _Candidate) -> _Candidate:
    if write.sent is None:
        return (None, True)
    if write.spec is not None:
        return (write.spec, True)
    if before[0] is None:
        # A change of what is not there does nothing; only a declaration makes it.
        return (write.sent, False) if write.verb in ("post", "declare") else before
    return ({**before[0], **write.sent}, False)


def _fits(final: Spec | None, candidate: _Candidate) -> bool:
    spec, whole = candidate
    if final is None or spec is None:
        return final is None and spec is None
    if whole:
        return final == spec
    return _within(spec, final)


def _within(part: object, whole: object) -> bool:
    """Whether all that `part` says stands in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return part == whole
