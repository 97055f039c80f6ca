"""Subclouds that a command is for: by name, or chosen by label, by field and by group; and work on many.

Many are done one request after the other. Who waits at a terminal sees how far it is; what is refused is told
with its reason, and the others go on. Ctrl-C says what was done: doing it again does no harm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from roost.cli import answers, output
from roost.cli.kinds import SUBCLOUD
from roost.cli.problems import DENIED, INTERRUPTED, OK, UNREACHABLE, Misused, NotFound, Problem
from roost.cli.session import Session

_HOPELESS = (UNREACHABLE, DENIED)
"""What would befall all the others as well."""
FEW = 20
"""So many are told one by one; of more, how many it were."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Which:
    """Which subclouds, where none is named."""

    selector: Annotated[
        str, Parameter(name=("--selector", "-l"), help="Those with these labels, as region=north,tier!=test.")
    ] = ""
    field_selector: Annotated[
        str, Parameter(help="Those with these fields, as status.availability=online.")
    ] = ""
    in_group: Annotated[str, Parameter(help="Those in this group.")] = ""
    all_: Annotated[bool, Parameter(name="--all", help="All of them.")] = False

    def query(self) -> dict[str, str]:
        """The selectors as the API takes them."""
        fields = [self.field_selector, f"spec.group={self.in_group}" if self.in_group else ""]
        query = {"labelSelector": self.selector, "fieldSelector": ",".join(f for f in fields if f)}
        return {k: v for k, v in query.items() if v}


WHICH = Which()


def chosen(session: Session, names: Sequence[str], which: Which) -> list[str]:
    """The names of the subclouds that are meant. Raises Misused, NotFound."""
    query = which.query()
    if names and (query or which.all_):
        raise Misused("subclouds are named and chosen as well", "name them, or choose them")
    if which.all_ and query:
        raise Misused("--all and a selector exclude each other", "leave one of them out")
    if names:
        return list(dict.fromkeys(names))
    if not query and not which.all_:
        raise Misused(
            "no subcloud is named",
            "name some, choose them by -l, --field-selector or --in-group, or say --all",
        )
    found, _ = session.client.list_items(SUBCLOUD, None, answers.Item, query)
    if not found:
        raise NotFound("no subcloud is so", "`roost subcloud list` shows all")
    return [item.metadata.name for item in found]


def each(names: Sequence[str], do: Callable[[str], None], done: str) -> int:
    """Do something for every subcloud, which then is `done`, as "managed". The worst exit code."""
    worst, count = OK, 0
    with shown(len(names)) as advance:
        try:
            for name in names:
                try:
                    do(name)
                except Problem as problem:
                    if problem.code in _HOPELESS:
                        output.note(f"{count} of {len(names)} subclouds are {done}.")
                        raise
                    output.show_problem(problem)
                    worst = max(worst, problem.code)
                else:
                    count += 1
                    if len(names) <= FEW:
                        output.say(f"Subcloud {name} is {done}.")
                advance()
        except KeyboardInterrupt:
            output.note(f"Interrupted: {count} of {len(names)} subclouds are {done}.")
            return INTERRUPTED
    if len(names) > FEW:
        output.say(f"{count} of {len(names)} subclouds are {done}.")
    return worst


@contextmanager
def shown(total: int) -> Iterator[Callable[[], None]]:
    """A bar at a terminal, when there are many; call what is given for each that is over."""
    screen = output.console(sys.stderr)
    if total <= FEW or not screen.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=screen) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
