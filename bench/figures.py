"""Figures: rows of measured runs, and the one table they become."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

RUNS = 3


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `runs` holds one value per run; `peer` the same of what it stands beside, if anything."""

    room: str
    what: str
    unit: str
    runs: Sequence[float]
    peer: Sequence[float] = ()
    beside: str = "bare peer"
    goal: str = ""


def percentile(values: Iterable[float], share: float) -> float:
    """The value below or at which a share (0 to 1) of the values lies: nearest rank."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(rows: Iterable[Row]) -> str:
    """Markdown tables, one for each kind of peer."""
    tables: dict[str, list[str]] = {}
    for row in rows:
        lines = tables.setdefault(
            row.beside,
            [
                f"| room | figure | unit | median | span of runs | {row.beside} | ratio | goal |",
                "|---|---|---|---:|---:|---:|---:|---|",
            ],
        )
        middle = median(row.runs)
        span = f"{number(min(row.runs))} to {number(max(row.runs))} ({len(row.runs)})"
        peer = number(median(row.peer)) if row.peer else ""
        # A delay below 0 (an event that came before its answer) has no ratio that would mean anything.
        ratio = f"{middle / median(row.peer):.2f}" if row.peer and min(middle, median(row.peer)) > 0 else ""
        cells = [row.room, row.what, row.unit, number(middle), span, peer, ratio, row.goal]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join("\n".join(lines) + "\n" for lines in tables.values())


def number(value: float) -> str:
    """Three significant digits, and no more zeros than it needs."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"
