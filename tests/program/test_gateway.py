"""What a process of several takes, says of itself, and shows of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.cli.options import UpOptions
from roost.cli.problems import Misused
from roost.program.commands import _roles
from roost.program.gateway import introduction
from roost.program.home import ROLES, Home, Settings
from roost.program.processes import MOST, listed
from roost.program.start import settle
from roost.store.links import Process

DATABASE = "postgresql+psycopg://db/roost"


def options(*roles: str, database: str = "") -> UpOptions:
    return UpOptions(home=Path("home"), roles=roles, database=database)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "known", "roles"),
    [
        (options(), None, ROLES),
        (options("links", database=DATABASE), None, ("links",)),
        (options("control", "links", database=DATABASE), None, ROLES),
        (options("control"), Settings(role="cloud", database=DATABASE), ("control",)),
        (options(), Settings(role="cloud", database=DATABASE, roles=("links",)), ("links",)),
        (options("control", "links"), Settings(role="cloud", database=DATABASE, roles=("links",)), ROLES),
        (options("control", "links"), None, ROLES),
    ],
)
def test_roles_are_those_given_or_those_known(
    given: UpOptions, known: Settings | None, roles: tuple[str, ...]
) -> None:
    assert _roles(given, known) == roles


def test_on_sqlite_there_is_nobody_to_share_the_work_with() -> None:
    with pytest.raises(Misused, match="on SQLite there is one"):
        _roles(options("links"), None)


def test_roles_are_remembered_and_changed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = Settings(role="cloud", cloud="c", database=DATABASE, roles=("links",))
    assert settle(home, first).roles == ("links",)
    both = Settings(role="cloud", cloud="c", database=DATABASE)
    assert settle(home, both).roles == ROLES
    known = home.settings()
    assert known is not None and known.takes_links and known.controls
    (tmp_path / "settings.json").write_text('{"role": "cloud", "cloud": "c"}')
    former = home.settings()
    assert former is not None and former.roles == ROLES, "a home of before there were roles"


def test_what_a_process_says_of_itself() -> None:
    said = introduction("m/1", Settings(role="cloud", roles=("control",)), "192.0.2.1:7444")
    assert (said.name, said.roles, said.links) == ("m/1", ["api", "control"], "192.0.2.1:7444")


def test_the_list_of_processes() -> None:
    one = Process(name="b", roles=["api"], links="192.0.2.1:7444", since=20.0, version="0.1.0")
    two = Process(name="a", since=10.0)
    first, second = listed([one, two], {"b": 7, "gone": 3}, "b")
    assert (first.name, first.active, first.links) == ("a", False, 0)
    assert (second.name, second.active, second.links) == ("b", True, 7)
    assert second.since == "1970-01-01T00:00:20Z"
    assert len(listed([Process(name=str(n)) for n in range(200)], {}, "")) == MOST
