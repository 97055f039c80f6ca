"""A database of SQLite that another process has open is not replaced, and who asked is told why."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from roost.store import restore
from tests.store.random_stores import hosts, live
from tests.store.test_snapshot import put, take
from tests.support.stores import new_database, opened


async def test_a_file_that_somebody_has_open_is_left_as_it_is(tmp_path: Path) -> None:
    with new_database("sqlite") as url:
        async with opened(url) as store:
            await live(store, 5)
            kept = await hosts(store)
        take(url, tmp_path / "a.roost")
        # A reader in the midst of its transaction, as a process that is dying in the midst of its start.
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        try:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM resources").fetchone()
            with pytest.raises(restore.InUse, match="another process"):
                put(url, tmp_path / "a.roost")
        finally:
            other.close()
        async with opened(url) as store:
            assert await hosts(store) == kept
        assert put(url, tmp_path / "a.roost").kept
