"""Answers to questions about all objects of a kind: which fulfil conditions, how many have which value, sums.

What a central cloud knows of its fleet lies in its own store, so no site is asked. The database reads the
objects through in the order of their keys and leaves out at once what can't fit: another namespace than those
asked for, or text without a word that every fitting object has (`Condition.literal`). What is left comes in
portions of PORTION bytes, each in a short transaction of its own in a reader's thread, where the values that
are asked for are read from the text and judged; only what fits is kept. So a question of any size takes the
memory of a portion and of its answer, holds up no writer, and lets other readers in between.

An answer is not of one moment: each object is as it was at some moment while the question was answered.
Questions at once are bounded, of one client to half of these, and so is their time: who asks for rows is
given those found by then and a token to go on, who counts is told to ask for less.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import compression
from roost.api.context import ApiContext
from roost.api.forms import View, as_json
from roost.api.gates import client_of
from roost.api.questions import Named, Question, read, wants_fields
from roost.api.snapshots import PRESENT, Continue, Key, key_of
from roost.api.status import ApiError
from roost.api.tables import META
from roost.api.target import Target
from roost.model.cloud import SUBCLOUD
from roost.model.codec import Raw
from roost.model.fields import Field, Scalar, fields_of, short
from roost.model.kind import KindInfo
from roost.model.selector import Requirement
from roost.model.values import Unreadable, Values, reader
from roost.store.statements import AMONG, HOLDS
from roost.store.store import Store
from roost.store.transaction import Transaction

PORTION = 2 * 1024 * 1024
PORTION_ROWS = 2000
AT_ONCE = 4
SECONDS = 20.0
MOST_VALUES = 10_000
"""Values that are counted apart; of more, all others together."""
OTHERS = "(others)"
LONGEST_VALUE = 253


async def respond(context: ApiContext, request: Request, target: Target, view: View) -> Response:
    """The answer to a list that is a question. Raises ApiError, StoreError."""
    if wants_fields(request.query_params):
        return as_json(_table(_FIELD_COLUMNS, _field_rows(view.info), {}))
    question = read(view, target, request.query_params, context.clock())
    with _asking.admitted(client_of(request.scope)):
        answer = await _answer(context.store, question, time.monotonic() + SECONDS)
    body = msgspec.json.encode(answer)
    if len(body) > compression.THRESHOLD and compression.accepted(request.headers.get("accept-encoding", "")):
        zipped = await asyncio.to_thread(compression.whole, body)
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(zipped, headers=headers, media_type="application/json")
    return Response(body, media_type="application/json")


class _Asking:
    """Counts the questions that this process answers now."""

    def __init__(self) -> None:
        self._of = Counter[str]()

    @contextmanager
    def admitted(self, client: str) -> Iterator[None]:
        """Within the bounds; raises ApiError 429."""
        if self._of.total() >= AT_ONCE or self._of[client] >= AT_ONCE // 2:
            message = f"{AT_ONCE} questions are being answered, {AT_ONCE // 2} of one client; ask again"
            raise ApiError(429, message, details={"retryAfterSeconds": 1}, headers={"Retry-After": "1"})
        self._of[client] += 1
        try:
            yield
        finally:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]


_asking = _Asking()


async def _answer(store: Store, question: Question, deadline: float) -> Raw:
    chosen = await _chosen(store, question, deadline) if question.chooses else None
    scan = Scan(question, chosen)
    metadata: Raw = {"resourceVersion": str(store.revision)}
    if question.counts:
        tally = Tally(question)
        while not scan.over:
            _in_time(deadline, question)
            await store.read(lambda tx: tally.add(scan.more(tx)))
        return _table(tally.columns(), tally.rows(), metadata, scan.unreadable)
    rows = list[Found]()
    while not scan.over and len(rows) < question.limit and time.monotonic() < deadline:
        rows += await store.read(scan.more)
    upto = scan.after
    if len(rows) > question.limit:
        del rows[question.limit :]
        upto = rows[-1].key
    elif scan.over:
        upto = None
    if upto is not None:
        metadata["continue"] = Continue(PRESENT, *upto).token()
    return _table(_columns(question), [_row(row, question) for row in rows], metadata, scan.unreadable)


def _in_time(deadline: float, question: Question) -> None:
    if time.monotonic() > deadline:
        raise ApiError(
            504,
            f"{question.info.plural} could not be read through in {SECONDS:g} seconds; ask for fewer of them",
        )


# -- reading through


class Found(msgspec.Struct, frozen=True, gc=False):
    """An object that fits, with the values that are told of it."""

    key: Key
    values: list[Values]


class Scan:
    """One way through the objects of a kind. `more` until it is `over`; it runs in reader threads."""

    def __init__(self, question: Question, chosen: Sequence[str] | None) -> None:
        info = question.info
        self._kind, self._namespace = info.kind, question.namespace or None
        self._conditions = question.conditions
        fields = [*(c.field for c in question.conditions), *(named.field for named in question.told)]
        self._read = reader(info, fields)
        self._literals = {
            f"holds{n}": f"%{literal}%"
            for n, literal in enumerate(islice(filter(None, (c.literal for c in question.conditions)), HOLDS))
        }
        self.after = question.after
        self.unreadable = 0
        self._filters = self._places(chosen, "among" if info.namespaced else "named")
        self._filter = next(self._filters, None)

    @property
    def over(self) -> bool:
        """Whether all was looked at."""
        return self._filter is None

    def _places(self, chosen: Sequence[str] | None, which: str) -> Iterator[dict[str, str]]:
        """What each part of the way is narrowed to."""
        if chosen is None:
            yield {}
            return
        first = 0
        if self.after is not None:
            first = bisect_left(chosen, self.after[0] if which == "among" else self.after[1])
        for begin in range(first, len(chosen), AMONG):
            some = chosen[begin : begin + AMONG]
            yield {f"{which}{n}": some[min(n, len(some) - 1)] for n in range(AMONG)}

    def more(self, tx: Transaction) -> list[Found]:
        """Those of the next portion that fit."""
        if self._filter is None:
            return []
        narrowed = {**self._literals, **self._filter}
        read, cut = tx.portion(
            self._kind, self._namespace, self.after, limit=PORTION_ROWS, size=PORTION, narrowed=narrowed
        )
        if read:
            self.after = key_of(read[-1])
        if not cut:
            self._filter = next(self._filters, None)
        found = list[Found]()
        several = len(self._conditions)
        for stored in read:
            try:
                values = self._read(stored.data)
            except Unreadable:
                self.unreadable += 1
                continue
            if all(c.holds(v) for c, v in zip(self._conditions, values, strict=False)):
                found.append(Found(key_of(stored), values[several:]))
        return found


async def _chosen(store: Store, question: Question, deadline: float) -> list[str]:
    """The names of the subclouds that a question is about, in order."""
    names, after, over = list[str](), None, False
    group = question.group
    narrowed = {"holds0": f'%"group":"{group}"%'} if group.isascii() and group.isprintable() else {}

    def more(tx: Transaction) -> tuple[Key | None, bool]:
        read, cut = tx.portion(
            SUBCLOUD.kind, None, after, limit=PORTION_ROWS, size=PORTION, narrowed=narrowed if group else {}
        )
        names.extend(stored.name for stored in read if _is_meant(stored.data, question.labels, group))
        return (key_of(read[-1]) if read else after), not cut

    while not over:
        _in_time(deadline, question)
        after, over = await store.read(more)
    if question.namespace:
        names = [name for name in names if name == question.namespace]
    return names


class _Metadata(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True):
    group: str = ""


class _Site(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


_site = msgspec.json.Decoder(_Site).decode


def _is_meant(data: str, labels: Sequence[Requirement], group: str) -> bool:
    site = _site(data)
    if group and site.spec.group != group:
        return False
    return all(requirement.holds(site.metadata.labels or {}) for requirement in labels)


# -- counting


class Tally:
    """Objects by the value of a field, and what is added up over them. An object that has several values
    counts for each of them, once."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._by = 1 if question.count_by else 0
        self._found: dict[Scalar, list[float]] = {}

    def add(self, found: Sequence[Found]) -> None:
        """Count some."""
        if not self._question.sums:
            # Most have the same few values: these are told apart once.
            for several, number in Counter(one.values[0] for one in found).items():
                for value in dict.fromkeys(several) or ("",):
                    self._count(value, [number, 0])
            return
        for one in found:
            given = one.values[self._by :]
            numbers = [[v for v in values if isinstance(v, (int, float))] for values in given]
            sums = [sum(some) for some in numbers]
            unknown = not all(numbers)
            for value in dict.fromkeys(one.values[0]) or ("",) if self._by else ("",):
                self._count(value, [1, unknown, *sums])

    def _count(self, value: Scalar, figures: Sequence[float]) -> None:
        if isinstance(value, str):
            value = value[:LONGEST_VALUE]
        row = self._found.get(value)
        if row is None:
            if len(self._found) >= MOST_VALUES and value != OTHERS:
                self._count(OTHERS, figures)
                return
            row = self._found[value] = [0.0] * len(figures)
        for n, figure in enumerate(figures):
            row[n] += figure

    def columns(self) -> list[Raw]:
        """Of the table: the value, how many, the sums, and of how many something was not known."""
        by, sums = self._question.count_by, self._question.sums
        columns = [_column(by)] if by else []
        columns.append(_figure("Count", "How many."))
        columns += [_column(named) for named in sums]
        if sums:
            columns.append(_figure("Not known", "Of how many a value that is added up is not known."))
        return columns

    def rows(self) -> list[Raw]:
        """The most frequent first."""
        if not self._by and not self._found:
            self._found[""] = [0.0] * (2 + len(self._question.sums))
        ordered = sorted(self._found.items(), key=lambda item: (-item[1][0], str(item[0])))
        rows = []
        for value, (count, unknown, *sums) in ordered:
            cells: list[Any] = [value] if self._by else []
            cells += [_whole(count), *map(_whole, sums)]
            rows.append({"cells": [*cells, _whole(unknown)] if self._question.sums else cells})
        return rows


def _whole(figure: float) -> float | int:
    return int(figure) if figure == int(figure) else round(figure, 6)


# -- tables


def _table(columns: list[Raw], rows: list[Raw], metadata: Raw, unreadable: int = 0) -> Raw:
    """A table as Kubernetes' API has it; `unreadable` objects could not be told."""
    table: Raw = {"kind": "Table", "apiVersion": META, "metadata": metadata}
    table |= {"columnDefinitions": columns, "rows": rows}
    return {**table, "unreadable": unreadable} if unreadable else table


def _columns(question: Question) -> list[Raw]:
    name = {"name": "Name", "type": "string", "format": "name", "description": "Name.", "priority": 0}
    return [name, *(_column(named) for named in question.shown)]


_TYPES = {"whole": "integer", "number": "number", "boolean": "boolean"}


def _column(named: Named) -> Raw:
    field = named.field
    return {
        "name": named.name,
        "type": "string" if field.several else _TYPES.get(field.type, "string"),
        "format": "date-time" if field.type == "time" else "",
        "description": field.description,
        "priority": 0,
        "unit": field.unit,
    }


def _figure(name: str, description: str) -> Raw:
    return {"name": name, "type": "integer", "format": "", "description": description, "priority": 0}


def _row(found: Found, question: Question) -> Raw:
    namespace, name = found.key
    cells = [_cell(named.field, values) for named, values in zip(question.shown, found.values, strict=True)]
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    about = {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata}
    return {"cells": [name, *cells], "object": about}


def _cell(field: Field, values: Values) -> Any:
    if not field.several:
        return values[0] if values else None
    return ",".join(dict.fromkeys(str(v).lower() if isinstance(v, bool) else str(v) for v in values))


_FIELD_COLUMNS: list[Raw] = [
    {"name": name, "type": "string", "format": "", "description": "", "priority": priority}
    for name, priority in (
        ("Field", 0),
        ("Type", 0),
        ("Unit", 0),
        ("Values", 0),
        ("Path", 1),
        ("Description", 0),
    )
]


def _field_rows(info: KindInfo) -> list[Raw]:
    return [
        {
            "cells": [
                short(info, field).replace(".*", ".KEY"),
                ("several " if field.several else "") + field.type,
                field.unit,
                ",".join(field.choices),
                field.path,
                field.description,
            ]
        }
        for field in fields_of(info).values()
    ]
