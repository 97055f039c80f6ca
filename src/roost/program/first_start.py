"""A cloud's first start leaves a whole cloud or nothing: also after Ctrl-C, SIGKILL or a power cut.

Before the home is settled, what is about to be made there is noted in `first-start.json`. The note is struck
out, on disk, right before the cloud can be asked anything: from then on everything it needs is there, and
nobody can have been promised anything before. Whoever starts a home with such a note first takes back what is
noted, so the next start may be of another name or address, and makes credentials of its own.

What the operator put there (a copied authority) stays, and the identity upwards, for its token was used up.
Where other processes may share the database its authority stays: it is written down there already.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from roost.link.files import write_private
from roost.program.home import Home, Settings, StartError

NOTE = "first-start.json"
_DATABASES = tuple(f"{name}.db{end}" for name in ("cloud", "agent") for end in ("", "-wal", "-shm"))
_EVER_MADE = frozenset({"settings.json", "kubeconfig", "pki", *_DATABASES})


class Making(msgspec.Struct, frozen=True):
    """What a first start makes, by its names in the home."""

    names: list[str] = []


def begin(home: Home, settings: Settings) -> None:
    """Note what the first start of a home will make, which is not there yet."""
    names = ["settings.json", "kubeconfig"]
    if settings.role == "cloud":
        names += _DATABASES
        if not settings.database:
            names.append("pki")
    _write(home, Making([n for n in names if not (home.path / n).exists()]))


def under_way(home: Home) -> Making | None:
    """What a first start is making that has not come to its end, None without one; raises StartError."""
    try:
        found = msgspec.json.decode((home.path / NOTE).read_bytes(), type=Making)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(
            f"{home.path / NOTE} can't be read: {error}", "start with a new home, or mend the file"
        ) from error
    return Making([name for name in found.names if name in _EVER_MADE])


def complete(home: Home) -> None:
    """Strike the note out, on disk. Without one nothing is done."""
    note = home.path / NOTE
    if note.exists():
        note.unlink()
        _sync(home.path)


def take_back(home: Home, making: Making) -> None:
    """Take away what a first start has made. One that is killed meanwhile is finished by the next start."""
    _write(home, making)
    for name in making.names:
        for path in (home.path / name, *home.path.glob(f".{name}.*")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    complete(home)


def take_back_unfinished(home: Home) -> None:
    """Take away what a first start has left that was killed. The home must be open. Raises StartError."""
    making = under_way(home)
    if making is not None:
        take_back(home, making)


def _write(home: Home, making: Making) -> None:
    write_private(home.path / NOTE, msgspec.json.encode(making) + b"\n")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
