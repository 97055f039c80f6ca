"""Lists as of one revision, slice by slice.

The first slice fixes the revision; later ones, be it further pages of a client (the continue token carries
the revision) or further pieces of one long answer, read the present and undo what has happened to the kind
since, from the store's history. So all slices together are the state at that one revision, nothing twice,
nothing missing, and no database transaction stays open between them. When the history no longer reaches back,
the client is told so (410), with a token that goes on from the same place at the present revision, for those
who would rather have a list that is not of one moment than begin again.

A slice looks only at the history of its own keys, so its cost follows its size. It is bounded by number and
by bytes, of what is there and of what was: large resources take no more memory than small ones.
An undone resource carries a resourceVersion that is older than its present one, so a write based on
it is refused as a conflict, as it should be.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw
from roost.store import former, present
from roost.store.errors import Compacted
from roost.store.former import Range
from roost.store.transaction import Stored, Transaction

Key = tuple[str, str]
SIZE = 1024 * 1024
PRESENT = -1
"""Revision in a token that goes on at whatever revision is the present one."""
UNCOUNTED = -1


class Continue(msgspec.Struct, frozen=True, array_like=True):
    """Where a list goes on: the revision of all its pages and the last key already given.

    `left` is how many resources lie beyond that key, so that they are counted once and not for each page.
    """

    revision: int
    namespace: str
    name: str
    left: int = UNCOUNTED

    def token(self) -> str:
        """For the client: opaque text."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> Continue:
        """From a client; raises ApiError 400."""
        try:
            padded = token + "=" * (-len(token) % 4)
            return msgspec.json.decode(base64.urlsafe_b64decode(padded.encode("ascii")), type=cls)
        except (binascii.Error, UnicodeError, msgspec.MsgspecError) as error:
            raise bad_request("continue: this is not a token of this server; list from the start") from error


class Scope(msgspec.Struct, frozen=True):
    """Which resources a list is about: of some kinds, in a namespace (all: ""), of one name (all: "")."""

    kinds: tuple[str, ...]
    namespace: str = ""
    name: str = ""


class Slice(msgspec.Struct, frozen=True):
    """Resources in the order of their keys. `upto` is the last key looked at, None at the end."""

    items: list[Stored]
    upto: Key | None


def read(
    tx: Transaction, scope: Scope, revision: int, after: Key | None, rows: int, size: int = SIZE
) -> Slice:
    """The next resources as of a revision: of each kind about `rows`, and `size` bytes or one larger.

    Raises Compacted and FutureRevision.
    """
    slices = [_read_kind(tx, kind, scope, revision, after, rows, size) for kind in scope.kinds]
    if len(slices) == 1:
        return slices[0]
    upto = min((part.upto for part in slices if part.upto is not None), default=None)
    items = [stored for part in slices for stored in part.items if upto is None or key_of(stored) <= upto]
    return Slice(sorted(items, key=key_of), upto)


def _read_kind(
    tx: Transaction, kind: str, scope: Scope, revision: int, after: Key | None, rows: int, size: int
) -> Slice:
    upto: Key | None = None
    if scope.name:
        found = tx.find(kind, scope.namespace, scope.name)
        there = [found] if found and (after is None or key_of(found) > after) else []
    else:
        there, cut = tx.portion(kind, scope.namespace or None, after, limit=rows, size=size)
        if cut:
            upto = key_of(there[-1])
    if revision == tx.revision:
        return Slice(there, upto)
    within = Range(kind=kind, namespace=scope.namespace, name=scope.name, after=after, upto=upto)
    then = former.read(tx, within, revision, size)
    kept = [
        stored
        for stored in there
        if key_of(stored) not in then.resources and (then.upto is None or key_of(stored) <= then.upto)
    ]
    undone = [stored for stored in then.resources.values() if stored is not None]
    return Slice(sorted([*kept, *undone], key=key_of), then.upto)


def remaining(tx: Transaction, scope: Scope, after: Key) -> int:
    """How many resources there are now beyond a key."""
    return present.count_after(tx, scope.kinds, scope.namespace, after)


def key_of(stored: Stored) -> Key:
    """Namespace and name."""
    return (stored.namespace, stored.name)


class Expired(ApiError):
    """410: a revision that is no longer kept. `token` goes on at the present revision, if there is one."""

    def __init__(self, error: Exception, start: Continue | None = None) -> None:
        what = "resourceVersion is" if start is None else "continue token is"
        message = f"The {what} too old: {error}"
        self.token = ""
        if start is not None and isinstance(error, Compacted):
            self.token = Continue(PRESENT, start.namespace, start.name).token()
            message += ", or go on with the token in this answer, and the list is not of one moment"
        super().__init__(410, message, reason="Expired")

    def body(self) -> Raw:
        """The Status object, with the token where lists have theirs."""
        status = super().body()
        return {**status, "metadata": {"continue": self.token}} if self.token else status
