"""Stored objects as JSON text, and the way from that text to an answer without decoding it.

Stored text does not hold its revision, for it is compared and copied; readers are given it as
`metadata.resourceVersion`. `ordered` puts apiVersion, kind and metadata in front, so that stored text
begins `{"apiVersion":"..","kind":"..","metadata":{` and `with_revisions` can splice the revision in right
there. Text in another order, such as an older version wrote, is decoded and encoded instead: slower, and
the same object.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.model.codec import Raw

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode

_START = '{"apiVersion":"'
_LONGEST_VERSION = 64
_NEVER = "\0"


def ordered(raw: Raw) -> Raw:
    """The object as it is stored: its head in the order that `with_revision` looks for, no revision."""
    metadata = raw["metadata"]
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    head: Raw = {"apiVersion": raw["apiVersion"]} if "apiVersion" in raw else {}
    head["kind"], head["metadata"] = raw["kind"], metadata
    return {**head, **raw, "metadata": metadata}


def text(raw: Raw) -> str:
    """JSON of an object, in the object's own order."""
    return _encode(raw).decode()


def octets(data: str) -> int:
    """How many bytes a text has in UTF-8; counted without encoding it when it is ASCII."""
    return len(data) if data.isascii() else len(data.encode())


def with_revision(kind: str, data: str, revision: int) -> bytes:
    """JSON of a stored object with its revision as metadata.resourceVersion."""
    return with_revisions([(kind, data, revision)])


def with_revisions(stored: Iterable[tuple[str, str, int]]) -> bytes:
    """The same of many, each a kind, data and a revision, with commas between them."""
    parts, start, inside = list[str](), _NEVER, 0
    for kind, data, revision in stored:
        # Those of one kind and version begin alike, so a long list looks for the place once.
        if not data.startswith(start):
            inside = _inside_metadata(kind, data)
            if not inside:
                start = _NEVER
                parts += (",", _decoded_with_revision(data, revision))
                continue
            start = data[:inside]
        comma = "" if data.startswith("}", inside) else ","
        parts += (",", start, f'"resourceVersion":"{revision}"{comma}', data[inside:])
    return "".join(parts[1:]).encode()


def _decoded_with_revision(data: str, revision: int) -> str:
    raw: Raw = _decode(data)
    raw["metadata"]["resourceVersion"] = str(revision)
    return text(raw)


def _inside_metadata(kind: str, data: str) -> int:
    """Where the members of metadata begin, when the text begins as `ordered` makes it; 0 otherwise."""
    if not data.startswith(_START):
        return 0
    follows = f'","kind":"{kind}","metadata":{{'
    at = data.find(follows, len(_START), len(_START) + _LONGEST_VERSION + len(follows))
    if at < 0 or '"' in data[len(_START) : at]:
        return 0
    return at + len(follows)
