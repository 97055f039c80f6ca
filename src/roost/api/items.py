"""Stored resources on their way out: decoded only when somebody must look inside.

Most answers are the stored text with its revision in it. An `Item` keeps it as text for as long as that will
do: the whole object as JSON, its labels, its metadata are had without building the object. A `Matcher` asks
an item only for what its selector is about.
"""

from __future__ import annotations

import contextlib
from functools import cached_property

import msgspec

from roost.api.forms import View
from roost.model.codec import Raw
from roost.model.selector import Selector, text_at
from roost.store.transaction import Change, Stored


class _Metadata(msgspec.Struct):
    metadata: msgspec.Raw


class _Labels(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct):
    metadata: _Labels


_metadata = msgspec.json.Decoder(_Metadata)
_labelled = msgspec.json.Decoder(_Labelled)


class Item:
    """One resource as a view shows it."""

    def __init__(self, stored: Stored, view: View) -> None:
        self.stored, self._view = stored, view

    @cached_property
    def raw(self) -> Raw:
        """The object; do not change it in place."""
        return self._view.shape(self.stored.raw)

    @property
    def encoded(self) -> bytes:
        """The object as JSON."""
        return self.stored.encoded if self._view.as_stored else msgspec.json.encode(self.raw)

    @property
    def metadata(self) -> bytes:
        """Its metadata as JSON."""
        return bytes(_metadata.decode(self.encoded).metadata)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        if self._view.as_stored:
            # What a peer of another version sent was not held to our model.
            with contextlib.suppress(msgspec.ValidationError):
                return _labelled.decode(self.stored.data).metadata.labels or {}
        return self.raw["metadata"].get("labels") or {}

    def text_at(self, path: str) -> str:
        """The value of a field as selectors compare it."""
        match path:
            case "metadata.name":
                return self.stored.name
            case "metadata.namespace":
                return self.stored.namespace
            case _:
                return text_at(self.raw, path)


class Matcher:
    """Which items a selector is about."""

    def __init__(self, selector: Selector) -> None:
        self._labels, self._fields = selector.labels, selector.fields
        self.everything = selector.everything
        self.name = selector.exactly("metadata.name")

    def matches(self, item: Item) -> bool:
        """Whether an item fulfils every condition; the cheap ones are asked first."""
        if self.everything:
            return True
        if self.name and item.stored.name != self.name:
            return False
        if self._labels:
            labels = item.labels
            if not all(requirement.holds(labels) for requirement in self._labels):
                return False
        return all((item.text_at(field.path) == field.value) is field.equal for field in self._fields)


def after(change: Change) -> Stored:
    """The resource after (for DELETED: before) a change, at the change's revision."""
    return _stored(change, change.data)


def before(change: Change) -> Stored:
    """The resource before a change (MODIFIED or DELETED), at the change's revision."""
    return _stored(change, change.previous)


def _stored(change: Change, data: str) -> Stored:
    # The uid stands in the text too, which is all that is shown of it.
    return Stored(change.kind, change.namespace, change.name, "", change.revision, change.origin, data)
