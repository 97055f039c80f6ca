"""Answers as bytes: one resource, a list piece by piece, the events of a watch.

A list is a head, its items, and a tail, so that it can be sent while it is still being read. Where the form
asked for is the plain object, an item is the stored text; nothing is decoded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
import yaml

from roost.api import forms, tables
from roost.api.forms import YAML, Form, Shape, View
from roost.api.items import Item
from roost.api.status import ApiError
from roost.model.codec import Raw
from roost.store.encoding import with_revisions
from roost.store.transaction import Stored

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]

_encode = msgspec.json.Encoder().encode
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def one(view: View, item: Item, form: Form, now: datetime) -> bytes:
    """One resource."""
    if form.media == YAML:
        return in_yaml(forms.one(view, item.raw, form, now))
    match form.shape:
        case Shape.OBJECT:
            return item.encoded
        case Shape.PARTIAL:
            return _partial(item, form)
        case Shape.TABLE:
            return _encode(forms.one(view, item.raw, form, now))


def _joined(view: View, items: Sequence[Item]) -> bytes:
    if view.as_stored:
        return with_revisions([(i.stored.kind, i.stored.data, i.stored.revision) for i in items])
    return b",".join([item.encoded for item in items])


def in_yaml(raw: Raw | list[Raw]) -> bytes:
    """An object as YAML."""
    text: str = yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text.encode()


def _partial(item: Item, form: Form) -> bytes:
    return b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":%b}' % (
        form.meta.encode(),
        item.metadata,
    )


class ListEncoder:
    """Writes one list as JSON: `head`, then `items` as often as there are some, then `tail`."""

    def __init__(self, view: View, form: Form, now: datetime) -> None:
        self._view, self._form, self._now = view, form, now
        self._begun = False

    def head(self, metadata: Raw) -> bytes:
        """All up to the first item."""
        name = b"rows" if self._form.shape is Shape.TABLE else b"items"
        return _encode(forms.list_head(self._view, self._form, metadata))[:-1] + b',"%b":[' % name

    def items(self, items: Sequence[Item]) -> list[bytes]:
        """The next items, as parts to be joined."""
        if not items:
            return []
        if self._form.shape is Shape.OBJECT:
            joined = _joined(self._view, items)
        else:
            joined = b",".join([self._item(item) for item in items])
        return self._after(joined)

    def resources(self, found: Sequence[Stored]) -> list[bytes]:
        """The same of resources as they were read, into which nobody has looked."""
        if self._form.shape is not Shape.OBJECT or not self._view.as_stored or not found:
            return self.items([Item(stored, self._view) for stored in found])
        return self._after(with_revisions([(s.kind, s.data, s.revision) for s in found]))

    def _after(self, joined: bytes) -> list[bytes]:
        begun, self._begun = self._begun, True
        return [b",", joined] if begun else [joined]

    def tail(self) -> bytes:
        """What closes the list."""
        return b"]}"

    def _item(self, item: Item) -> bytes:
        form = self._form
        if form.shape is Shape.PARTIAL:
            return _partial(item, form)
        return _encode(tables.row(self._view.info, item.raw, self._now, form.include, form.meta))


class YamlListEncoder(ListEncoder):
    """Writes one list as YAML, in the same steps."""

    def head(self, metadata: Raw) -> bytes:
        """All up to the first item."""
        name = b"rows:\n" if self._form.shape is Shape.TABLE else b"items:\n"
        return in_yaml(forms.list_head(self._view, self._form, metadata)) + name

    def items(self, items: Sequence[Item]) -> list[bytes]:
        """The next items, as parts to be joined."""
        self._begun = self._begun or bool(items)
        return [in_yaml([self._whole(item)]) for item in items]

    def resources(self, found: Sequence[Stored]) -> list[bytes]:
        """The same of resources as they were read."""
        return self.items([Item(stored, self._view) for stored in found])

    def tail(self) -> bytes:
        """What closes the list; a list without items needs a word for that."""
        return b"" if self._begun else b"  []\n"

    def _whole(self, item: Item) -> Raw:
        form = self._form
        if form.shape is Shape.TABLE:
            return tables.row(self._view.info, item.raw, self._now, form.include, form.meta)
        return forms.one(self._view, item.raw, form, self._now)


def list_encoder(view: View, form: Form, now: datetime) -> ListEncoder:
    """What writes a list in the form asked for."""
    return (YamlListEncoder if form.media == YAML else ListEncoder)(view, form, now)


class Events:
    """Writes events, one JSON object a line. The first line of a table tells its columns, others do not."""

    def __init__(self, view: View, form: Form, *, columns: bool = True) -> None:
        self._view, self._form = view, form
        self._columns = columns and form.shape is Shape.TABLE

    @property
    def stateless(self) -> bool:
        """Whether the next line is what any watcher of this form would be sent."""
        return not self._columns

    def event(self, type: EventType, item: Item, now: datetime) -> bytes:
        """A change, or the state at the beginning."""
        return b'{"type":"%b","object":%b}\n' % (type.encode(), self._object(item, now))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        """Tells how far the watcher has come."""
        metadata: Raw = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        info = self._view.info
        if self._form.shape is Shape.TABLE:
            head = forms.table_head(self._view, self._form, metadata, columns=False)
            return _line("BOOKMARK", {**head, "rows": []})
        kind, version = info.kind, info.api_version
        if self._form.shape is Shape.PARTIAL:
            kind, version = "PartialObjectMetadata", self._form.meta
        return _line("BOOKMARK", {"kind": kind, "apiVersion": version, "metadata": metadata})

    def error(self, error: ApiError) -> bytes:
        """The last event of a watch that can't go on."""
        return _line("ERROR", error.body())

    def _object(self, item: Item, now: datetime) -> bytes:
        if self._form.shape is not Shape.TABLE:
            return one(self._view, item, self._form, now)
        first, self._columns = self._columns, False
        return _encode(forms.one(self._view, item.raw, self._form, now, columns=first))


def _line(type: EventType, body: Raw) -> bytes:
    return _encode({"type": type, "object": body}) + b"\n"
