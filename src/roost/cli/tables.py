"""Tables made for terminals: plain columns, no borders, as wide as the screen and no wider. Pure.

On a terminal a table that is too wide first gets its long headings shortened, then its columns of
prose folded onto further lines; nothing is ever cut off. Without a terminal each row stays one line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.text import Text

from roost.api.tables import human
from roost.cli import answers
from roost.model import time

GAP = 2
LONGEST_WORD = 30
SHORT = {
    "ADMINISTRATIVE": "ADMIN",
    "OPERATIONAL": "OPER",
    "AVAILABILITY": "AVAIL",
    "PERSONALITIES": "ROLES",
    "MANAGEMENT": "MANAGED",
    "ACKNOWLEDGED": "ACK",
}
PROSE = frozenset({"REASON", "MESSAGE", "TEXT", "REPAIR", "TASK", "DESCRIPTION", "ADDRESSES"})
LISTS = frozenset(
    {"PERSONALITIES", "ROLES", "NETWORKS", "SUBNETS", "ENTITY", "LOCATION", "PEERS", "PORTS", "MODEL"}
)
"""Columns that are folded as well when folding prose was not enough."""

_RED, _YELLOW, _GREEN, _DIM = "red", "yellow", "green", "dim"
STYLES = {
    "critical": "bold red",
    "major": _RED,
    "minor": _YELLOW,
    "warning": "cyan",
    "available": _GREEN,
    "enabled": _GREEN,
    "online": _GREEN,
    "in-sync": _GREEN,
    "applied": _GREEN,
    "succeeded": _GREEN,
    "degraded": _YELLOW,
    "locked": _YELLOW,
    "out-of-sync": _YELLOW,
    "running": "cyan",
    "paused": _YELLOW,
    "intest": "cyan",
    "trial": "cyan",
    "offline": _RED,
    "failed": _RED,
    "rolled-back": _RED,
    "power-off": _RED,
    "disabled": _YELLOW,
    "unknown": "magenta",
    "pending": _DIM,
    "skipped": _DIM,
    "aborted": _YELLOW,
}


class Column(msgspec.Struct, frozen=True):
    """A heading; `kind` is string, integer, number, boolean or date."""

    name: str
    kind: str = "string"


class Grid(msgspec.Struct, frozen=True):
    """A table ready to be laid out. Date cells hold RFC 3339 text."""

    columns: list[Column]
    rows: list[list[Any]]


def lay_out(grid: Grid, now: datetime, *, width: int | None, headers: bool = True) -> list[Text]:
    """The lines of a table. `width` is the screen's, None when there is no screen."""
    heads = [c.name.upper() for c in grid.columns]
    cells = [[_cell(v, c.kind, now) for v, c in zip(row, grid.columns, strict=False)] for row in grid.rows]
    widths = _widths(heads if headers else [""] * len(heads), cells)
    if width is not None and _total(widths) > width:
        heads = [SHORT.get(h, h) for h in heads]
        widths = _widths(heads if headers else [""] * len(heads), cells)
        widths = _squeeze(heads, cells, widths, width)
    lines = [_line(heads, grid.columns, widths, "bold")] if headers else []
    for row in cells:
        lines += _row(row, grid.columns, widths)
    return lines


def from_server(
    table: answers.Table, *, wide: bool = False, namespaces: bool = False, namespace_heading: str = "Cloud"
) -> Grid:
    """The grid of a table that the server printed."""
    shown = [(i, c) for i, c in enumerate(table.column_definitions) if wide or c.priority == 0]
    columns = [Column(c.name, _kind(c)) for _, c in shown]
    rows = [[row.cells[i] if i < len(row.cells) else "" for i, _ in shown] for row in table.rows]
    if namespaces:
        columns = [Column(namespace_heading), *columns]
        rows = [[r.object.metadata.namespace, *cells] for r, cells in zip(table.rows, rows, strict=True)]
    return Grid(columns, rows)


def age(then: str | None, now: datetime) -> str:
    """How long ago, as the server's own tables say it; the text itself when it is no time."""
    if not then:
        return ""
    try:
        return human(max(now - time.parse(then), timedelta()))
    except ValueError:
        return then


def style_of(value: str) -> str:
    """Colour of a state or a severity; empty for other words."""
    return STYLES.get(value, "")


def _kind(column: answers.TableColumn) -> str:
    return "date" if column.type == "date" or column.format == "date-time" else column.type


def _cell(value: Any, kind: str, now: datetime) -> str:
    if value is None or value == "":
        return "-"
    if kind == "date":
        return age(str(value), now)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(str(v) for v in value) or "-"
    return str(value).replace("\n", " ")


def _widths(heads: Sequence[str], cells: list[list[str]]) -> list[int]:
    return [max([cell_len(h), *(cell_len(row[i]) for row in cells)]) for i, h in enumerate(heads)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _squeeze(heads: Sequence[str], cells: list[list[str]], widths: list[int], width: int) -> list[int]:
    """Narrow the columns that can be folded, the widest first, down to their longest word."""
    widths = list(widths)
    for foldable in (PROSE, LISTS):
        floors = {i: _floor(h, [row[i] for row in cells]) for i, h in enumerate(heads) if h in foldable}
        for _ in range(_total(widths) - width):
            giving = [i for i, floor in floors.items() if widths[i] > floor]
            if not giving:
                break
            widths[max(giving, key=lambda i: widths[i])] -= 1
    return widths


def _floor(head: str, cells: Sequence[str]) -> int:
    longest = max((cell_len(word) for cell in cells for word in _spaced(cell).split()), default=0)
    return max(cell_len(head), min(longest, LONGEST_WORD))


def _spaced(cell: str) -> str:
    """Places where a cell may be folded: at blanks, after commas, between parts of an entity."""
    return cell.replace(",", ", ").replace(".", ". ") if " " not in cell else cell


def _fold(cell: str, width: int) -> list[str]:
    if cell_len(cell) <= width:
        return [cell]
    lines = textwrap.wrap(_spaced(cell), width, break_on_hyphens=False) or [""]
    return lines if " " in cell else [line.replace(", ", ",").replace(". ", ".") for line in lines]


def _row(row: list[str], columns: Sequence[Column], widths: list[int]) -> list[Text]:
    folded = [_fold(cell, width) for cell, width in zip(row, widths, strict=False)]
    height = max((len(f) for f in folded), default=1)
    return [_line([f[n] if n < len(f) else "" for f in folded], columns, widths, "") for n in range(height)]


def _line(cells: Sequence[str], columns: Sequence[Column], widths: list[int], style: str) -> Text:
    line = Text(no_wrap=True)
    for i, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=False)):
        fill = " " * (width - cell_len(cell))
        number = column.kind in ("integer", "number")
        line.append(fill if number else "")
        line.append(cell, style or style_of(cell))
        if i < len(cells) - 1:
            line.append(("" if number else fill) + " " * GAP)
    line.rstrip()
    return line
