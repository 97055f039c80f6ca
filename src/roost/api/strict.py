"""Bodies that say what is written: JSON or YAML, with what is said twice in them.

JSON is decoded fast; only then is it counted whether any key can have been lost, and only if so is it read
again, slowly, for the paths. YAML is read event by event, without recursion: plain data alone (no tag makes
an object), no deeper than DEEPEST, and no larger than LARGEST once its aliases are counted as often as they
are used, so that a few lines can't stand for gigabytes.

In YAML a key that is no text becomes text, as when it is turned into JSON, and a date stays as written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import yaml
from starlette.requests import Request

from roost.api import bodies
from roost.api.protobuf_kinds import MEDIA_TYPE
from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw

YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
MOST_DUPLICATES = 20
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Plain = yaml.constructor.SafeConstructor()
_SPACED = re.compile(rb'"[ \t\r\n]+:')
_TAG = "tag:yaml.org,2002:"


class Document(NamedTuple):
    """An object, and what is wrong with how it was written, in Kubernetes' words."""

    raw: Raw
    duplicates: Sequence[str] = ()


async def document(request: Request) -> Document:
    """The body of a create or update; raises ApiError 400, 413 and 415."""
    kind = bodies.media_type(request)
    body = await bodies.read(request)
    if kind == "application/json":
        return from_json(body)
    if kind in YAML_TYPES:
        return from_yaml(body)
    if kind == MEDIA_TYPE:
        return Document(bodies.from_protobuf(body))
    raise ApiError(415, f"Content-Type {kind!r} is not read here; send application/json or application/yaml")


def from_json(body: bytes) -> Document:
    """A JSON object; raises ApiError 400."""
    raw, duplicates = parsed(body)
    if not isinstance(raw, dict):
        raise bad_request("the body must be a JSON object")
    return Document(raw, duplicates)


def parsed(body: bytes) -> tuple[Any, Sequence[str]]:
    """Any JSON within the limits, and what it says twice; raises ApiError 400."""
    try:
        value = msgspec.json.decode(body)
        keys = _keys(value)
    except RecursionError as error:
        raise bad_request(f"the body is nested deeper than {bodies.DEEPEST} levels") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from error
    if keys == TOO_DEEP:
        raise bad_request(f"the body is nested deeper than {bodies.DEEPEST} levels")
    return value, () if _said_once(body, keys) else _duplicates(body)


def from_yaml(body: bytes) -> Document:
    """A YAML object, of which JSON is a part; raises ApiError 400 and 413."""
    if body.lstrip()[:1] == b"{":
        try:
            raw = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
        else:
            keys = _keys(raw)
            if isinstance(raw, dict) and keys != TOO_DEEP:
                return Document(raw, () if _said_once(body, keys) else _duplicates(body))
    reader = _Yaml()
    raw = reader.read(body)
    if not isinstance(raw, dict):
        raise bad_request("the body must be a YAML mapping")
    return Document(raw, reader.duplicates)


def _said_once(body: bytes, keys: int) -> bool:
    """Whether no key of JSON can have been lost when `keys` of them were decoded.

    Every key is followed by a colon. So when there are no more quotes with a colon than keys that were
    decoded, none was lost; text that looks like a key only makes the slow way taken for nothing.
    """
    return body.count(b'":') == keys and not _SPACED.search(body)


def _duplicates(body: bytes) -> Sequence[str]:
    """`duplicate field "spec.x"` for each key that stands twice in an object of JSON."""
    found: list[str] = []

    def pairs(given: list[tuple[str, Any]]) -> Any:
        return _Object(given)

    tree = json.JSONDecoder(object_pairs_hook=pairs, parse_int=str, parse_float=str).decode(body.decode())
    _collect(tree, "", found)
    return found


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object as they were written."""


def _collect(value: Any, at: str, found: list[str]) -> None:
    if isinstance(value, _Object):
        seen = set[str]()
        for key, inner in value:
            path = f"{at}.{key}" if at else key
            if key in seen and len(found) < MOST_DUPLICATES:
                found.append(f'duplicate field "{path[:200]}"')
            seen.add(key)
            _collect(inner, path, found)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            _collect(inner, f"{at}[{n}]", found)


TOO_DEEP = -1


def _keys(value: Any) -> int:
    """How many keys the objects inside a value have; TOO_DEEP when it is nested deeper than DEEPEST."""
    count, level = 0, [value]
    for _ in range(bodies.DEEPEST + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                count += len(item)
                below += item.values()
            elif type(item) is list:
                below += item
        if not below:
            return count
        level = below
    return TOO_DEEP


class _Open:
    """A mapping or sequence that is being read; `key` is the one whose value comes next."""

    def __init__(self, value: Any, anchor: str | None, weight: int) -> None:
        self.value, self.anchor, self.weight = value, anchor, weight
        self.key: str | None = None
        self.merged: list[Any] = []


class _Yaml:
    """Reads one YAML document."""

    def __init__(self) -> None:
        self.duplicates: list[str] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open: list[_Open] = []
        self._root: Any = None
        self._weight = 0

    def read(self, body: bytes) -> Any:
        """The document as plain data."""
        try:
            loader = _Loader(body)
            try:
                self._events(loader)
            finally:
                loader.dispose()
        except (yaml.YAMLError, UnicodeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise bad_request(f"error decoding YAML: {reason}") from error
        return self._root

    def _events(self, loader: Any) -> None:
        documents = 0
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise bad_request("the body must be one YAML document")
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self._anchors:
                    raise bad_request(f"error decoding YAML: unknown anchor {str(event.anchor)[:100]!r}")
                value, weight = self._anchors[event.anchor]
                self._put(value, weight, event)
            elif isinstance(event, yaml.ScalarEvent):
                value, weight = self._scalar(loader, event), len(event.value) + 1
                if event.anchor:
                    self._anchors[event.anchor] = (value, weight)
                self._put(value, weight, event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._end(event)

    def _begin(self, event: Any) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
            raise bad_request(f"error decoding YAML: the tag {str(event.tag)[:100]!r} is not taken")
        if len(self._open) >= bodies.DEEPEST:
            raise bad_request(f"the body is nested deeper than {bodies.DEEPEST} levels")
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise bad_request("error decoding YAML: a key must be plain text")
        self._open.append(_Open({} if mapping else [], event.anchor, self._weight))

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        for other in done.merged:
            for key, value in other.items():
                done.value.setdefault(key, value)
        weight = self._weight - done.weight
        if done.anchor:
            self._anchors[done.anchor] = (done.value, weight)
        # What is inside has been counted as it was read.
        self._put(done.value, 1, event)

    def _put(self, value: Any, weight: int, event: Any) -> None:
        self._weight += weight
        if self._weight > bodies.LARGEST:
            raise ApiError(413, f"the body stands for more than {bodies.LARGEST} bytes; write it out shorter")
        if not self._open:
            self._root = value
            return
        above = self._open[-1]
        if isinstance(above.value, list):
            above.value.append(value)
        elif above.key is None:
            above.key = self._key(value)
        else:
            self._member(above, value, event)

    def _member(self, above: _Open, value: Any, event: Any) -> None:
        key, above.key = above.key or "", None
        if key == _MERGE:
            others = value if isinstance(value, list) else [value]
            if not all(isinstance(other, dict) for other in others):
                raise bad_request("error decoding YAML: << takes mappings")
            above.merged += others
            return
        if key in above.value and len(self.duplicates) < MOST_DUPLICATES:
            line = event.start_mark.line + 1
            self.duplicates.append(f"line {line}: key {json.dumps(key[:200])} already set in map")
        above.value[key] = value

    def _key(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value is None or isinstance(value, bool | int | float):
            return json.dumps(value)
        raise bad_request("error decoding YAML: a key must be plain text")

    def _scalar(self, loader: Any, event: Any) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        text = event.value
        match str(tag).removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return _Plain.construct_yaml_bool(yaml.ScalarNode(tag, text))
            case "int" if ":" not in text:
                return _number(_Plain.construct_yaml_int, tag, text)
            case "float" if ":" not in text:
                return _number(_Plain.construct_yaml_float, tag, text)
            case "merge":
                return _MERGE
            case "str" | "timestamp" | "value" | "int" | "float":
                return text
        raise bad_request(f"error decoding YAML: the tag {str(tag)[:100]!r} is not taken")


_MERGE = "\0<<"
"""The key `<<` when it stands for a merge; no plain text has a NUL."""


def _number(construct: Any, tag: str, text: str) -> Any:
    try:
        value = construct(yaml.ScalarNode(tag, text))
    except ValueError as error:
        raise bad_request(f"error decoding YAML: {text[:100]!r} is not a number") from error
    if value != value or value in (float("inf"), float("-inf")):
        raise bad_request(f"error decoding YAML: {text[:100]!r} is not a number that JSON has")
    return value
