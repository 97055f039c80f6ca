"""What commands print, and where: results to standard output, everything else to standard error.

Commands in hints are named with the cloud that was chosen (`addressing`). Colours come only with a terminal
and without NO_COLOR. The consoles are made when first used, because rich and the terminal's size are needed
only then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import IO, Any, Literal

import msgspec
from rich.console import Console
from rich.text import Text

from roost.cli import tables
from roost.cli.addressing import addressed, addressed_text, aim
from roost.cli.problems import Problem

Format = Literal["table", "wide", "json", "yaml", "name"]
_CONTROLS = dict.fromkeys(
    (*(n for n in range(0x20) if n not in b"\t\n"), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}"
)
"""What a terminal would obey; texts of lower clouds and boards may hold it."""


class _Console(Console):
    """Leaves a broken pipe to whoever runs the command."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stream: IO[str] | None = None) -> Console:
    """A console on a stream, by default standard output."""
    return _Console(
        file=stream or sys.stdout,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )


def width_of(screen: Console) -> int | None:
    """Width to keep to; None when the output is no terminal."""
    return screen.width if screen.is_terminal else None


def say(text: str | Text = "") -> None:
    """One line of the result."""
    console().print(_aimed(text), soft_wrap=True)


def note(text: str | Text) -> None:
    """One line to the person at the terminal that is no result."""
    console(sys.stderr).print(_aimed(text), soft_wrap=True)


def print_lines(lines: Iterable[Text]) -> None:
    """Lines of a result."""
    screen = console()
    for line in lines:
        screen.print(_aimed(line), soft_wrap=True)


def _aimed(text: str | Text) -> str | Text:
    if isinstance(text, Text):
        return _harmless(addressed_text(text, aim.get()))
    return addressed(text, aim.get()).translate(_CONTROLS)


def _harmless(text: Text) -> Text:
    """The text with nothing in it that a terminal obeys."""
    plain = text.plain.translate(_CONTROLS)
    if plain != text.plain:
        text = text.copy()
        text.plain = plain
    return text


def print_grid(grid: tables.Grid, *, headers: bool = True, empty: str = "") -> None:
    """A table; `empty` goes to standard error when there are no rows."""
    if not grid.rows:
        if empty:
            note(empty)
        return
    screen = console()
    for line in tables.lay_out(grid, now(), width=width_of(screen), headers=headers):
        screen.print(_harmless(line), soft_wrap=True)


def print_data(value: Any, form: Format) -> None:
    """A value as JSON or YAML."""
    raw = msgspec.to_builtins(value)
    if form == "json":
        text = msgspec.json.format(msgspec.json.encode(raw), indent=2).decode()
    else:
        text = yaml_text(raw).rstrip("\n")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def yaml_text(value: Any) -> str:
    """A value as YAML, strings of several lines as blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=False, width=1000)
    return dumped


def fields(pairs: Iterable[tuple[str, Any]], *, indent: int = 0) -> list[Text]:
    """Names and values in two columns; empty values are left out."""
    kept = [(n, v) for n, v in pairs if v not in (None, "", [], {})]
    wide = max((len(n) for n, _ in kept), default=0) + 1
    lines = []
    for name, value in kept:
        line = Text(" " * indent)
        line.append(f"{name}:".ljust(wide + 1), "bold")
        if isinstance(value, Text):
            line.append_text(value)
        else:
            word = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            line.append(word, tables.style_of(word))
        lines.append(line)
    return lines


def show_problem(problem: Problem) -> None:
    """A problem on standard error: reason, details, next step."""
    screen = console(sys.stderr)
    line = Text("roost: ", "bold red" if screen.is_terminal else "")
    line.append(problem.reason, "")
    screen.print(_aimed(line), soft_wrap=True)
    for detail in (*problem.details, *((problem.remedy,) if problem.remedy else ())):
        screen.print(_aimed(Text(f"  {detail}")), soft_wrap=True)


def now() -> datetime:
    """The time that ages are counted to."""
    return datetime.now(UTC)
