"""What to do about a database that fails, beside its own words for what failed."""

from __future__ import annotations

import sqlite3

_SQLITE = {
    sqlite3.SQLITE_FULL: "make room where the database lies, then writing goes on by itself",
    sqlite3.SQLITE_READONLY: "let the user that runs Roost write the database and its directory",
    sqlite3.SQLITE_CORRUPT: "stop Roost and restore a snapshot; until then what can be read is served",
    sqlite3.SQLITE_NOTADB: "restore a snapshot, or name another database",
    sqlite3.SQLITE_IOERR: "look for the disk's errors in the kernel's log, and whether it is full",
    sqlite3.SQLITE_BUSY: "find the other process that holds the database",
    sqlite3.SQLITE_CANTOPEN: "look whether the file is there and may be opened",
}
_SQLSTATES = {
    "53100": "make room on the database server's disk, then writing goes on by itself",
    "53300": "allow more connections at the database server, or end idle ones",
    "25006": "this server only reads, as a standby does: name the one that writes",
    "55P03": "find the other process that holds the lock",
    "XX001": "the database server's files are damaged: restore a backup",
}
_PRIMARY = 0xFF


def remedy(error: Exception) -> str:
    """The next step, or nothing where the error speaks for itself."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & _PRIMARY, "")
    return _SQLSTATES.get(str(getattr(original, "sqlstate", "")), "")
