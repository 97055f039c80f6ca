"""Which databases a home has, and who may open them: for `roost store`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roost.cli.problems import Failed
from roost.cli.store import Place, Use
from roost.program.home import Home, StartError
from roost.store.database import sqlite_url


@contextmanager
def locate(path: Path, use: Use) -> Iterator[list[Place]]:
    """The databases of a home, its own first. To have them `alone` the home's lock is held meanwhile.

    Raises Failed: there is no such home, or Roost runs on it.
    """
    home = Home(path)
    try:
        settings = home.settings() if path.is_dir() else None
        if settings is None:
            raise StartError(f"{path} is no home of Roost", "name one with --home or $ROOST_HOME")
        if use == "alone":
            home.open()
    except StartError as error:
        raise Failed(error.reason, error.remedy) from error
    try:
        cloud, agent = path / "cloud.db", path / "agent.db"
        places = []
        if settings.role == "cloud":
            places.append(Place("cloud", settings.database or sqlite_url(cloud), settings.cloud, known=True))
        if settings.role == "agent" or agent.exists():
            places.append(Place("agent", sqlite_url(agent), known=True))
        yield places
    finally:
        home.close()
