"""What to do about a database that fails, beside its own words for what failed.

Failures are told by their codes: SQLite's, SQLSTATE, errno. Why PostgreSQL could not be reached has none
(libpq gives words alone), so that is one case.
"""

from __future__ import annotations

import errno
import sqlite3

CHECK = '`roost store check` tells what is wrong; docs/operations.md, "When the store is ill", what to do'
_FULL = "make room where the database lies, then writing goes on by itself"
_READONLY = "let the user that runs Roost write the database and its directory"
_RESTORE = "restore a snapshot (`roost store restore`)"
_DISK = "look for the disk's errors in the kernel's log, and whether it is full"
_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: f"{_READONLY}; a disk that fails turns read-only: take a snapshot first",
    sqlite3.SQLITE_CORRUPT: f"stop Roost and {_RESTORE}; until then what can be read is served",
    sqlite3.SQLITE_NOTADB: f"{_RESTORE}, or name another database",
    sqlite3.SQLITE_IOERR: _DISK,
    sqlite3.SQLITE_BUSY: "find the other process that holds the database (fuser)",
    sqlite3.SQLITE_CANTOPEN: "look whether the file is there and may be opened",
}
_SQLSTATES = {
    "53100": "make room on the database server's disk, then writing goes on by itself",
    "53300": "allow more connections at the database server, or end idle ones",
    "25006": "this server only reads, as a standby does: name the one that writes",
    "55P03": "find the other process that holds the lock",
    "XX001": "the database server's files are damaged: restore a backup",
}
_ERRNOS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READONLY,
    errno.EACCES: _READONLY,
    errno.EPERM: _READONLY,
    errno.EIO: _DISK,
}
_UNREACHED = "see whether PostgreSQL runs, is reached at that address, and takes this user and password"
_PRIMARY = 0xFF


def remedy(error: Exception) -> str:
    """The next step, or nothing where the error speaks for itself."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & _PRIMARY, "")
    if isinstance(original, OSError):
        return _ERRNOS.get(original.errno or 0, "")
    state = getattr(original, "sqlstate", "")
    if state is None and any(c.__name__ == "OperationalError" for c in type(original).__mro__):
        return _UNREACHED
    return _SQLSTATES.get(str(state), "")
