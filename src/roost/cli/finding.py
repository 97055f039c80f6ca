"""`roost find`: questions about everything of a kind that the cloud knows, in all clouds below as well.

The cloud answers from its own store (`api.finding`); no site is asked. This module puts the words into a
query, takes the pages of the answer and prints them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from roost.cli import answers, kinds, output, tables
from roost.cli.client import Client, path
from roost.cli.problems import OK, Failed, Misused
from roost.cli.session import CONNECT, SHOW, Connect, Show, opened

PAGE = 1000
Asked = dict[str, str | list[str]]


class Column(answers.TableColumn, frozen=True, kw_only=True):
    """A column, with the unit of its numbers."""

    unit: str = ""


class Answer(answers.Table, frozen=True, kw_only=True):
    """What was found. `unreadable` objects are not as their kind is, and were left out."""

    column_definitions: list[Column] = []  # type: ignore[assignment]
    unreadable: int = 0


def find(
    kind: Annotated[str, Parameter(name="KIND", help="A kind, as hosts, alarms or subclouds.")],
    conditions: Annotated[
        tuple[str, ...],
        Parameter(name="CONDITION", help="All must hold: FIELD, !FIELD, or as memory>=64Gi."),
    ] = (),
    /,
    *,
    show_fields: Annotated[
        tuple[str, ...], Parameter(name="--show", help="Fields to show, with commas between.")
    ] = (),
    count_by: Annotated[str, Parameter(help="Count the objects by the value of this field.")] = "",
    sum_: Annotated[
        tuple[str, ...], Parameter(name="--sum", help="Add this field up, over all or by what is counted.")
    ] = (),
    selector: Annotated[
        str, Parameter(name=("--selector", "-l"), help="In subclouds with these labels, as region=north.")
    ] = "",
    in_group: Annotated[str, Parameter(help="In subclouds of this group.")] = "",
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 0,
    continue_: Annotated[
        str, Parameter(name="--continue", help="Where a limited answer goes on: the token it gave.")
    ] = "",
    fields: Annotated[bool, Parameter(help="Only tell which fields there are.")] = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Find objects of a kind by any of their fields, in this cloud and all below; count them, add up.

    What subclouds told last is asked; an answer takes no word from a site. With -n NAME: in one cloud.

    For example:
        roost find hosts cpu.model~xeon 'memory>=64Gi' 'availability!=available' -l region=north
        roost find alarms severity=critical id=200.004
        roost find subclouds sync=out-of-sync 'version<0.2' --show version,location
        roost find hosts --count-by availability
        roost find hosts --count-by cpu.model --sum threads --sum memory
        roost find hosts --fields
    """
    if limit < 0:
        raise Misused(f"--limit {limit} is below 0", "give how many to show, or 0 for all")
    asked: Asked = {"where": list(conditions)}
    asked |= (
        _given("show", ",".join(show_fields)) | _given("sum", ",".join(sum_)) | _given("countBy", count_by)
    )
    asked |= _given("inSubclouds", selector) | _given("inGroup", in_group)
    # Asked even if nothing else is: without any, a list of whole objects would come.
    asked["where"] = asked["where"] or [""]
    with opened(connect) as session:
        found = kinds.find(kind, session.client)
        scope = connect.namespace if found.namespaced and connect.namespace else None
        if fields:
            answer, following = _ask(session.client, found, scope, {"fields": "true"}), ""
        else:
            answer, following = _pages(session.client, found, scope, asked, limit, continue_)
        everywhere = found.namespaced and scope is None and not (count_by or sum_ or fields)
        _print(found, answer, show, everywhere=everywhere)
        if answer.unreadable:
            output.note(f"{answer.unreadable} {found.plural} could not be read, and are left out.")
        if following:
            output.note(f"There are more: go on with --continue {following}")
    return OK


def _given(name: str, value: str) -> Asked:
    return {name: value} if value else {}


def _pages(
    client: Client, kind: kinds.Kind, scope: str | None, asked: Asked, limit: int, following: str
) -> tuple[Answer, str]:
    """Pages put together until there are `limit` rows (0: all), and the token to go on with."""
    rows: list[answers.TableRow] = []
    unreadable = 0
    while True:
        left = limit - len(rows) if limit else PAGE
        more = {"limit": str(min(PAGE, left))} | ({"continue": following} if following else {})
        page = _ask(client, kind, scope, {**asked, **({} if _counts(asked) else more)})
        rows += page.rows
        unreadable += page.unreadable
        following = page.metadata.continue_
        if not following or (limit and len(rows) >= limit):
            break
    whole = Answer(
        column_definitions=page.column_definitions, rows=rows, unreadable=unreadable, kind=page.kind
    )
    return whole, following


def _counts(asked: Asked) -> bool:
    return "countBy" in asked or "sum" in asked


def _ask(client: Client, kind: kinds.Kind, scope: str | None, query: Asked) -> Answer:
    body = client.request("GET", path(kind, scope), query=query, doing=f"find {kind.plural}")
    answer = _decoded(body)
    if answer.kind != "Table":
        raise Failed(
            "this cloud is of a version that takes no such questions",
            f"`roost get {kind.plural} -A --field-selector ...` asks what it can",
        )
    return answer


def _decoded(body: bytes) -> Answer:
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.MsgspecError as error:
        raise Failed(
            f"the answer is not understood: {error}", "`roost version` compares both sides"
        ) from error


def _print(kind: kinds.Kind, answer: Answer, show: Show, *, everywhere: bool) -> None:
    columns = answer.column_definitions
    if show.output in ("json", "yaml"):
        output.print_data([_named(row, columns) for row in answer.rows], show.output)
    elif show.output == "name":
        for row in answer.rows:
            output.say(_name(kind, row, everywhere=everywhere))
    else:
        headed = [
            answers.TableColumn(
                name=f"{c.name} {c.unit}".strip(), type=c.type, format=c.format, priority=c.priority
            )
            for c in columns
        ]
        table = answers.Table(column_definitions=headed, rows=answer.rows)
        grid = tables.from_server(table, wide=show.output == "wide", namespaces=everywhere)
        output.print_grid(grid, headers=show.headers, empty=f"No {kind.plural} are so.")


def _name(kind: kinds.Kind, row: answers.TableRow, *, everywhere: bool) -> str:
    """An object as other commands take it, after its cloud; of what was counted, the value."""
    meta = row.object.metadata
    if not meta.name:
        return str(row.cells[0])
    return f"{meta.namespace}/{kind.singular}/{meta.name}" if everywhere else f"{kind.singular}/{meta.name}"


def _named(row: answers.TableRow, columns: list[Column]) -> dict[str, Any]:
    """A row as an object: cells by the names of their fields as they were asked for."""
    meta = row.object.metadata
    cells = {_key(column.name): cell for column, cell in zip(columns, row.cells, strict=False)}
    return {"cloud": meta.namespace, **cells} if meta.namespace else cells


def _key(name: str) -> str:
    """Headings that are no fields, as Not known, in the words of JSON."""
    first, *rest = name.split(" ")
    low = first[:1].lower() + first[1:]
    return low + "".join(word.capitalize() for word in rest)
