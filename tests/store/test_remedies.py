from __future__ import annotations

import errno
import os
import sqlite3

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from roost.store.remedies import remedy


def _sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (_sqlite(sqlite3.SQLITE_FULL), "make room"),
        (_sqlite(sqlite3.SQLITE_READONLY_DBMOVED), "take a snapshot first"),
        (_sqlite(sqlite3.SQLITE_IOERR_FSYNC), "kernel's log"),
        (_sqlite(sqlite3.SQLITE_CORRUPT), "roost store restore"),
        (psycopg.errors.DiskFull("words"), "database server's disk"),
        (psycopg.errors.InvalidPassword("words"), ""),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "make room"),
        (FileNotFoundError(errno.ENOENT, "words"), ""),
        (ValueError("words"), ""),
    ],
)
def test_each_failure_has_its_next_step(error: Exception, word: str) -> None:
    assert word in remedy(error) if word else remedy(error) == ""


def test_a_server_that_is_not_there_is_told_so() -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("host=127.0.0.1 port=1 user=nobody dbname=none connect_timeout=2")
    assert "PostgreSQL runs" in remedy(raised.value)
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(OperationalError) as wrapped:
        engine.connect()
    assert "PostgreSQL runs" in remedy(wrapped.value)
