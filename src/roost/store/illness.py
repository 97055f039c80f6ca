"""What to do when the database fails: the next step for people, from the words of SQLite and PostgreSQL.

The words are those of sqlite3_errstr and of PostgreSQL's messages; what is not known gets the check.
"""

from __future__ import annotations

CHECK = '`roost store check` tells what is wrong; docs/operations.md, "When the store is ill", what to do'
_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("disk is full", "no space left", "disk full"),
        "nothing is lost: free room on the disk of the database, and writing goes on by itself",
    ),
    (
        ("readonly database", "read-only file system", "read-only transaction"),
        "see why the disk is read-only (dmesg, mount) and whose the files are; "
        "a disk that fails turns read-only: take a snapshot before anything else",
    ),
    (
        ("malformed", "not a database", "invalid page", "could not read block", "checksum"),
        "the file is damaged: keep a copy of it, see what `roost store check` says, "
        "and put the last snapshot in its place with `roost store restore`",
    ),
    (
        ("disk i/o error", "input/output error", "could not fsync"),
        "the disk fails: see dmesg, take a snapshot if that still works, and replace the disk",
    ),
    (
        ("database is locked",),
        "another process holds it longer than it should; see who has it open (fuser), and try again",
    ),
    (
        ("unable to open database file", "permission denied"),
        "see whose the directory and the files are: Roost must be able to write there",
    ),
    (
        ("connection refused", "could not connect", "connection to server", "server closed the connection"),
        "see whether PostgreSQL runs and is reached at that address",
    ),
    (
        ("password authentication", "no pg_hba.conf entry", "role "),
        "see whether user and password of the database's URL are right",
    ),
    (
        ("was deleted or replaced",),
        "bring the file back from where it was moved to, or restore a snapshot",
    ),
)


def remedy(cause: str) -> str:
    """The next step for a failure of the database that says `cause`."""
    words = cause.lower()
    return next((step for signs, step in _REMEDIES if any(sign in words for sign in signs)), CHECK)
