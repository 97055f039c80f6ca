"""Digest: what one end of a stream has, in few bytes, so that silent drift between the two ends is found.

The sender hashes what it would tell of each resource, the receiver what it holds of it as the sender would
tell it. Hashes are summed (mod 2**128) in BUCKETS buckets by key: a sum does not depend on the order, and
two ends that differ learn in which buckets, then by which keys, at the price of those buckets.

Only what both ends know is compared: kinds of both versions, of a host's status the fields it says it owns,
of a subcloud's all but the fleet's. What was refused is left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from time import thread_time
from typing import Any

import msgspec

from roost.link.entries import ENTRY_LIMIT
from roost.link.flow import Span
from roost.link.messages import Entry, Key
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction

BUCKETS = 64
SIZE = 16
PAGE = 500
KEYS_LIMIT = 20_000
_MODULUS = 1 << (8 * SIZE)
_canonical = msgspec.json.Encoder(order="sorted").encode

Tell = Callable[[Stored], Entry | None]
Hashed = tuple[str, str, str, bytes]


class Content:
    """The hashes of one end, summed by bucket; of `wanted` buckets each key's own besides (KEYS_LIMIT)."""

    def __init__(self, excluded: Collection[Key], wanted: Collection[int]) -> None:
        self._sums = [0] * BUCKETS
        self._excluded, self._wanted = excluded, wanted
        self.keys: dict[Key, bytes] = {}

    def add(self, entry: Entry) -> None:
        """Count in what the sender tells of one resource."""
        if entry.key in self._excluded or len(entry.data) > ENTRY_LIMIT:
            return
        bucket, found = bucket_of(entry.key), fingerprint(entry)
        self._sums[bucket] = (self._sums[bucket] + int.from_bytes(found)) % _MODULUS
        if bucket in self._wanted and len(self.keys) < KEYS_LIMIT:
            self.keys[entry.key] = found

    @property
    def sums(self) -> list[bytes]:
        return [one.to_bytes(SIZE) for one in self._sums]

    def hashed(self) -> list[Hashed]:
        """Keys with their hashes, as they travel."""
        return [(*key, found) for key, found in self.keys.items()]


def bucket_of(key: Key) -> int:
    """The bucket that a resource is counted in."""
    return zlib.crc32("\0".join(key).encode()) % BUCKETS


def fingerprint(entry: Entry) -> bytes:
    """Hash of a resource's key and of what travels of it, whatever the order of its fields."""
    raw: Any = msgspec.json.decode(entry.data)
    return blake2b(_canonical([entry.type, *entry.key, raw]), digest_size=SIZE).digest()


def differing(mine: list[bytes], theirs: list[bytes]) -> list[int]:
    """Buckets whose sums differ."""
    return [n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]


def suspects(held: dict[Key, bytes], sent: Iterable[Hashed]) -> list[Key]:
    """Keys that only one end has, or whose content differs."""
    told = {(kind, namespace, name): found for kind, namespace, name, found in sent}
    return sorted({k for k in held.keys() | told.keys() if held.get(k) != told.get(k)})


async def read(
    store: Store, spans: Iterable[Span], tell: Tell, content: Content, spent: Callable[[float], None]
) -> int:
    """Count the resources of spans into `content`, a page at a time; the store's revision at the end.

    `spent` is told the processor seconds of each page. Pages are read one after another: who wants the state
    of one moment looks afterwards whether anything has changed meanwhile.
    """
    revision = 0
    for kind, namespace, name in spans:
        after: tuple[str, str] | None = None
        while True:
            page, revision, seconds = await store.read(_Page(kind, namespace, name, after, tell, content))
            spent(seconds)
            if page is None:
                break
            after = page
    return revision


class _Page(msgspec.Struct, frozen=True):
    """Reads one page and counts it in, where the store reads."""

    kind: str
    namespace: str
    name: str | None
    after: tuple[str, str] | None
    tell: Tell
    content: Content

    def __call__(self, tx: Transaction) -> tuple[tuple[str, str] | None, int, float]:
        began = thread_time()
        rows = self._rows(tx)
        for entry in map(self.tell, rows):
            if entry is not None:
                self.content.add(entry)
        last = (rows[-1].namespace, rows[-1].name) if len(rows) == PAGE else None
        return last, tx.revision, thread_time() - began

    def _rows(self, tx: Transaction) -> list[Stored]:
        if self.name is None:
            return tx.select(self.kind, self.namespace, after=self.after, limit=PAGE)
        found = tx.find(self.kind, self.namespace, self.name)
        return [found] if found else []
