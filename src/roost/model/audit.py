"""What is written of each write and each refusal, and the chain that shows when it was tampered with.

A record is canonical JSON: keys sorted, no spaces, UTF-8. Its digest is the SHA-256 of the digest before it
(32 bytes) followed by the record's bytes; the first record follows 32 zero bytes. `sequence` and `offset`
(bytes of all records before this one) stand in the record, so neither place nor size can be changed.

Whoever has noted a digest elsewhere (`roost audit head`) can prove that nothing up to it was rewritten:
who rewrites a record must rewrite all digests after it, and then the noted one no longer fits.

Everything here is pure; `store.audit` keeps the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from roost.model.codec import Raw

ORIGIN = "0" * 64
LONGEST_VALUE = 256
MOST_CHANGES = 64
MOST_BYTES = 8 * 1024
HIDDEN = "(not shown)"

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BOOKKEEPING = frozenset({"resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"})

Path = tuple[str, ...]
_encode = msgspec.json.Encoder(order="sorted").encode
_MISSING = object()
_HOLDING = frozenset({dict, list})
_ENVELOPE = frozenset({"apiVersion", "kind"})


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field that was changed; absent `old` or `new`: it was not there. Long text is cut."""

    path: str
    old: Any = msgspec.UNSET
    new: Any = msgspec.UNSET


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One write, one refusal, or several equal refusals (`count`, the last at `until`)."""

    sequence: int = 0
    offset: int = 0
    time: str = ""
    audit_id: str = ""
    request_id: str = ""
    user: str = ""
    groups: list[str] = []
    real_user: str = ""
    """Who asked in the name of `user`, when somebody did."""
    address: str = ""
    through: str = ""
    """Clouds that the request came through, the farthest first."""
    agent: str = ""
    verb: str = ""
    group: str = ""
    resource: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    path: str = ""
    """URL path, where no resource is meant."""
    cloud: str = ""
    """Subcloud that the request was forwarded to."""
    code: int = 0
    reason: str = ""
    dry_run: bool = False
    revision: int = 0
    """Revision of the store after the write."""
    changes: list[Changed] = []
    more: int = 0
    """Changed fields beyond those listed."""
    count: int = 1
    until: str = ""


class Head(msgspec.Struct, frozen=True):
    """Where a chain stands: its last record, and the bytes of all records up to it."""

    sequence: int = 0
    digest: str = ORIGIN
    offset: int = 0

    def same(self, other: Head) -> bool:
        """Whether both are one; a head that was noted knows no offset."""
        return (self.sequence, self.digest) == (other.sequence, other.digest)


class Entry(msgspec.Struct, frozen=True):
    """A record as it is kept: `data` is its canonical JSON."""

    sequence: int
    data: str
    digest: str


class Broken(Exception):
    """A record that does not fit the chain: which, and why."""

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(f"record {sequence}: {reason}")
        self.sequence, self.reason = sequence, reason


def digest_of(previous: str, data: str) -> str:
    """Digest of a record that follows the digest `previous`."""
    return hashlib.sha256(bytes.fromhex(previous) + data.encode()).hexdigest()


def chain(head: Head, records: Iterable[Record]) -> tuple[list[Entry], Head]:
    """Records as they follow `head`, and the new head."""
    entries = []
    sequence, digest, offset = head.sequence, head.digest, head.offset
    for record in records:
        sequence += 1
        data = _encode(msgspec.structs.replace(record, sequence=sequence, offset=offset))
        digest = hashlib.sha256(bytes.fromhex(digest) + data).hexdigest()
        offset += len(data)
        entries.append(Entry(sequence, data.decode(), digest))
    return entries, Head(sequence, digest, offset)


def follow(head: Head, entry: Entry) -> Head:
    """The head after an entry; raises Broken unless it is the one that follows `head`."""
    expected = head.sequence + 1
    if entry.sequence != expected:
        gone = "is missing" if entry.sequence > expected else "is not where it should be"
        raise Broken(expected, f"{gone}: record {entry.sequence} stands in its place")
    digest = digest_of(head.digest, entry.data)
    if digest != entry.digest:
        raise Broken(expected, "its content or the one before it was changed: the digest does not fit")
    try:
        record = msgspec.json.decode(entry.data, type=Record)
    except msgspec.MsgspecError as error:
        raise Broken(expected, f"it can't be read: {error}") from error
    if record.sequence != expected:
        raise Broken(expected, f"it was record {record.sequence} when it was written")
    size = len(entry.data.encode())
    if expected > 1 and head.offset and record.offset != head.offset:
        raise Broken(expected, f"it was written after {record.offset} bytes, there are {head.offset}")
    return Head(expected, digest, record.offset + size)


def verify(start: Head, entries: Iterable[Entry], known: Sequence[Head] = ()) -> Head:
    """Follow a chain from `start` to its end; raises Broken at the first record that does not fit.

    `known` are heads noted earlier: the chain must pass through those that it reaches back to.
    """
    noted = {k.sequence: k.digest for k in known}
    head = start
    _check_noted(head, noted)
    for entry in entries:
        head = follow(head, entry)
        _check_noted(head, noted)
    beyond = [s for s in noted if s > head.sequence]
    if beyond:
        raise Broken(min(beyond), f"it is missing: it was noted earlier, the audit ends at {head.sequence}")
    return head


def _check_noted(head: Head, noted: dict[int, str]) -> None:
    if noted.get(head.sequence, head.digest) != head.digest:
        raise Broken(
            head.sequence, "its digest is not the one that was noted: it, or one before, was rewritten"
        )


# -- what changed


def nothing_hidden(_: Path) -> bool:
    """Of a kind without secrets every field may be shown."""
    return False


def differences(
    old: Raw, new: Raw, hidden: Callable[[Path], bool] = nothing_hidden
) -> tuple[list[Changed], int]:
    """Changed fields between two objects, in order, and how many more there are past the limits.

    Fields for which `hidden` holds are named, without their values. The store's own bookkeeping is left out.
    """
    found = _Differences(hidden)
    for key in {**old, **new}:
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        if key == "metadata":
            found.inside((key,), key, *(_without_bookkeeping(v) for v in (before, after)))
        elif key not in _ENVELOPE and before != after:
            found.compare((key,), key, before, after)
    return found.changes, found.more


def _without_bookkeeping(metadata: Any) -> Any:
    if not isinstance(metadata, dict):
        return {}
    return {key: value for key, value in metadata.items() if key not in _BOOKKEEPING}


class _Differences:
    """Gathers changed fields within the limits."""

    def __init__(self, hidden: Callable[[Path], bool]) -> None:
        self._hidden = hidden
        self.changes: list[Changed] = []
        self.more = 0
        self._left = MOST_BYTES

    def compare(self, path: Path, text: str, old: Any, new: Any) -> None:
        """Look at a field that has changed, or whose inside has."""
        full = self._left <= 0 or len(self.changes) >= MOST_CHANGES
        if (old is _MISSING or new is _MISSING) and self._is_told_whole(path):
            # What came or went as one is told as one.
            old, new = _text(old), _text(new)
        if full and (old is _MISSING or new is _MISSING):
            # Past the limits fields are only counted: all of an object that came or went as one.
            self.more += 1
        elif type(old) in _HOLDING or type(new) in _HOLDING:
            self.inside(path, text, old, new)
        elif full:
            self.more += 1
        else:
            self._add(path, text, old, new)

    def _is_told_whole(self, path: Path) -> bool:
        """A part of spec or status in which no field is hidden."""
        return len(path) > 1 and path[0] != "metadata" and self._hidden is nothing_hidden

    def inside(self, path: Path, text: str, old: Any, new: Any) -> None:
        """Look at what an object or a list holds."""
        before, after = _parts(old), _parts(new)
        if before is None or after is None or (type(old) is not type(new) and before and after):
            # Something of one shape became another: what went, and what came.
            self.compare(path, text, old, _MISSING)
            self.compare(path, text, _MISSING, new)
            return
        keys = after if not before else before if not after else {**before, **after}
        if not keys and path != ("metadata",):
            self._add(path, text, old, new)
        for key in keys:
            first, second = before.get(key, _MISSING), after.get(key, _MISSING)
            if first != second or type(first) is not type(second):
                if type(key) is str:
                    inner = f'{text}."{key}"' if "." in key or "/" in key else f"{text}.{key}"
                    self.compare((*path, key), inner, first, second)
                else:
                    self.compare((*path, "[]"), f"{text}[{key}]", first, second)

    def _add(self, path: Path, text: str, old: Any, new: Any) -> None:
        text = cut(text)
        if path[-1] == LAST_APPLIED or self._hidden(path):
            old = HIDDEN if old is not _MISSING else old
            new = HIDDEN if new is not _MISSING else new
        old = msgspec.UNSET if old is _MISSING else cut(old)
        new = msgspec.UNSET if new is _MISSING else cut(new)
        self._left -= (
            len(text) + (len(old) if type(old) is str else 8) + (len(new) if type(new) is str else 8)
        )
        self.changes.append(Changed(path=text, old=old, new=new))


def _text(value: Any) -> Any:
    """An object or a list as JSON text."""
    return _encode(value).decode() if type(value) in _HOLDING and value else value


def _parts(value: Any) -> dict[Any, Any] | None:
    """What is inside a value; None when it is neither object nor list. What is missing has nothing inside."""
    if value is _MISSING:
        return {}
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else None


def cut(value: Any, longest: int = LONGEST_VALUE) -> Any:
    """A value for a record: text no longer than allowed, with the number of characters that were cut."""
    if type(value) is not str or len(value) <= longest:
        return value
    return f"{value[:longest]}... (+{len(value) - longest})"
