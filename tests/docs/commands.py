"""Every command of `roost`, as the program has it: its path, its summary, its options.

`python -m tests.docs.commands` writes the table of docs/cli.md anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
from cyclopts import App

from roost.cli import main, simulating, store
from roost.cli.demo import commands as demo
from roost.cli.options import node_commands
from roost.program import stores

PAGE = Path(__file__).parents[2] / "docs/cli.md"
HEADING = "| Command | What it does | Own options |\n| --- | --- | --- |\n"
SHARED = frozenset(
    {
        *("--cloud", "--context", "--namespace", "--kubeconfig", "--request-timeout"),
        *("--output", "--no-headers"),
        *("--all-namespaces", "--selector", "--field-selector", "--watch"),
    }
)
"""Options that many commands have; docs/cli.md tells them once."""


class Command(msgspec.Struct, frozen=True):
    """One command that does something, as `host lock`."""

    path: tuple[str, ...]
    summary: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def row(self) -> str:
        """Its row in docs/cli.md."""
        typed = " ".join(("roost", *self.path, *self.arguments))
        own = ", ".join(f"`{o}`" for o in self.options if o not in SHARED or self.path == ("login",))
        return f"| `{typed}` | {self.summary} | {own} |"


@cache
def application() -> App:
    """The whole application, as `program` assembles it."""
    app = main.make_app()
    node_commands(app, lambda _: 0, lambda _: 0)
    store.register(app, stores.locate)
    demo.register(app)
    simulating.register(app)
    return app


@cache
def commands() -> dict[tuple[str, ...], Command]:
    """Commands by path."""
    return {c.path: c for c in sorted(_walk(application(), ()), key=lambda c: c.path)}


def groups() -> set[str]:
    """First words that are followed by a second."""
    return {path[0] for path in commands() if len(path) > 1}


def _walk(app: App, path: tuple[str, ...]) -> Iterator[Command]:
    names = sorted((n for n in app if not n.startswith("-")), key=lambda n: (-len(n), n))
    seen: set[object] = set()
    for name in names:
        inner = app[name]
        does = inner.default_command
        if name in inner.name[1:] or (does is not None and does in seen):
            continue  # an alias, which is shorter than the name
        seen.add(does)
        yield from _walk(inner, (*path, name))
    if not names and path:
        collection = app.assemble_argument_collection(parse_docstring=True)
        found = [n for argument in collection for n in argument.names]
        options = [n for n in found if n.startswith("--") and not _automatic(n, found)]
        arguments = [n for n in found if n[0] not in "-*"]
        yield Command(path, _summary(app), tuple(arguments), tuple(dict.fromkeys(options)))


def _automatic(name: str, all_names: list[str]) -> bool:
    """Negations that the library adds and the application turns off."""
    positive = f"--{name.removeprefix('--no-')}"
    negated = name.startswith("--no-") and (positive in all_names or positive.startswith("--no-"))
    return name.startswith("--empty-") or (negated and name != "--no-wait")


def _summary(app: App) -> str:
    text = (app.help or "").strip()
    paragraph: str = text.split("\n\n")[0]
    return " ".join(paragraph.split())


def with_table(text: str) -> str:
    """The page with the table as it should be."""
    before, _, after = text.partition(HEADING)
    _, _, rest = after.partition("\n\n")
    rows = "\n".join(c.row for c in commands().values())
    return f"{before}{HEADING}{rows}\n\n{rest}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
