"""Lists as people want them: a table, a document, names, or a live view that follows changes.

Tables are the server's own: a newer cloud shows its new columns through an older `roost`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from roost.cli import answers, lastknown, output, tables
from roost.cli.client import TABLE, Client, Query
from roost.cli.kinds import Kind
from roost.cli.problems import Expired
from roost.cli.session import Pick, Session, Show
from roost.cli.watching import Snapshot, changes, follow


def show_list(session: Session, kind: Kind, pick: Pick, show: Show, *, empty: str = "") -> int:
    """List a kind; follow its changes with --watch."""
    scope = session.scope(pick) if kind.namespaced else None
    if pick.watch:
        watch_list(session, kind, scope, pick.query(), show, namespaces=kind.namespaced and scope is None)
        return 0
    if show.output in ("json", "yaml", "name"):
        items, revision = session.client.list_items(kind, scope, dict, pick.query())
        print_items(kind, items, revision, show)
        return 0
    table = session.client.table(kind, scope, pick.query())
    grid = tables.from_server(
        table, wide=show.output == "wide", namespaces=kind.namespaced and pick.all_namespaces
    )
    where = f" in {scope}" if scope else ""
    if pick.query():  # the advice for an empty cloud would mislead
        empty = f"No {kind.plural}{where} match."
    output.print_grid(grid, headers=show.headers, empty=empty or f"No {kind.plural}{where}.")
    if kind.namespaced:
        lastknown.note_of_list(session, pick)
    return 0


def show_one(session: Session, kind: Kind, name: str, show: Show) -> int:
    """One object in the form asked for."""
    namespace = session.namespace if kind.namespaced else ""
    if show.output in ("json", "yaml"):
        output.print_data(session.client.get(kind, namespace, name, dict), show.output)
    elif show.output == "name":
        item = session.client.get(kind, namespace, name, answers.Item)
        output.say(f"{kind.singular}/{item.metadata.name}")
    else:
        table = session.client.table(kind, namespace, name=name)
        output.print_grid(tables.from_server(table, wide=show.output == "wide"), headers=show.headers)
    return 0


def print_items(kind: Kind, items: list[dict[str, Any]], revision: str, show: Show) -> None:
    """Objects as names, or as one List."""
    if show.output == "name":
        for item in items:
            output.say(f"{kind.singular}/{item['metadata']['name']}")
        return
    version = kind.group_path.removeprefix("/apis/").removeprefix("/api/")
    body = {
        "apiVersion": version,
        "kind": f"{kind.kind}List",
        "metadata": {"resourceVersion": revision},
        "items": items,
    }
    output.print_data(body, show.output)


class LiveTable:
    """Rows that change; ages go on by themselves because it is laid out anew at each refresh."""

    def __init__(self, columns: list[tables.Column], *, headers: bool) -> None:
        self.columns, self.headers = columns, headers
        self.rows: dict[str, list[Any]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [self.rows[key] for key in sorted(self.rows)]
        grid = tables.Grid(self.columns, rows)
        most = max(1, options.max_height - 2)
        lines = tables.lay_out(grid, output.now(), width=options.max_width, headers=self.headers)
        yield from lines[:most]
        if len(lines) > most:
            yield Text(f"... and {len(lines) - most} more lines", style="dim")


def watch_list(
    session: Session, kind: Kind, scope: str | None, query: Query, show: Show, *, namespaces: bool
) -> None:
    """Follow a list until interrupted: a live table on a terminal, else one line for each change."""
    if show.output in ("json", "yaml", "name"):
        _watch_documents(session, kind, scope, query, show)
        return
    source = TableWatch(session.client, kind, scope, query, wide=show.output == "wide", namespaces=namespaces)
    screen = output.console()
    if not screen.is_terminal:
        _watch_lines(source, show)
        return
    from rich.live import Live

    live = LiveTable([], headers=show.headers)
    with Live(live, console=screen, refresh_per_second=4, vertical_overflow="crop") as view:
        for rows, gone, anew in source.events():
            if anew:
                live.rows.clear()
            live.columns = source.columns
            live.rows.update(rows)
            for key in gone:
                live.rows.pop(key, None)
            view.refresh()


class TableWatch:
    """A list as tables, and the changes that follow it as rows."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        scope: str | None,
        query: Query,
        *,
        wide: bool = False,
        namespaces: bool = False,
    ) -> None:
        self._client, self._kind, self._scope, self._query = client, kind, scope, query
        self._wide, self._namespaces = wide, namespaces
        self._definitions: list[answers.TableColumn] = []
        self.columns: list[tables.Column] = []

    def events(self) -> Iterator[tuple[dict[str, list[Any]], list[str], bool]]:
        """(rows by key, keys that have gone, whether it is a whole new list), for ever."""
        while True:
            table = self._client.table(self._kind, self._scope, self._query)
            yield self._rows(table), [], True
            try:
                for event in changes(
                    self._client,
                    self._kind,
                    self._scope,
                    answers.Table,
                    self._query,
                    table.metadata.resource_version,
                    accept=TABLE,
                ):
                    rows = self._rows(event.item)
                    yield ({}, list(rows), False) if event.type == "DELETED" else (rows, [], False)
            except Expired:
                continue

    def _rows(self, table: answers.Table) -> dict[str, list[Any]]:
        self._definitions = table.column_definitions or self._definitions
        whole = msgspec.structs.replace(table, column_definitions=self._definitions)
        grid = tables.from_server(whole, wide=self._wide, namespaces=self._namespaces)
        self.columns = grid.columns
        keys = [f"{r.object.metadata.namespace}/{r.object.metadata.name}" for r in table.rows]
        return dict(zip(keys, grid.rows, strict=True))


def _watch_lines(source: TableWatch, show: Show) -> None:
    headers = show.headers
    for rows, gone, _ in source.events():
        if not rows and not gone:
            continue
        shown = list(rows.values())
        grid = tables.Grid(source.columns, shown)
        output.print_lines(tables.lay_out(grid, output.now(), width=None, headers=headers))
        for key in gone:
            output.say(f"{key.lstrip('/')} deleted")
        headers = False
        sys.stdout.flush()


def _watch_documents(session: Session, kind: Kind, scope: str | None, query: Query, show: Show) -> None:
    """Each object, and each object that changes, as a document of its own."""
    for event in follow(session.client, kind, scope, dict, query):
        for item in event.items if isinstance(event, Snapshot) else [event.item]:
            if show.output == "name":
                output.say(f"{kind.singular}/{item['metadata']['name']}")
            else:
                if show.output == "yaml":
                    output.say("---")
                output.print_data(item, show.output)
