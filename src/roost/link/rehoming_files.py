"""What a move to another owner leaves on disk, so that it is finished or undone wherever it is interrupted.

Beside the identity in force (`uplink/`) stand, in the same home:

- `uplink-next/`: the order with its token, then the identity that was got with it, then the mark `ready`.
  Without the mark, taking the directory away undoes everything. With it, the switch is done to its end,
  at the latest by the next start;
- `uplink-former/EPOCH/`: an identity that was followed under this epoch, or that was given up under its own
  before it was proven: for the last word to its owner.

The switch: the identity in force is copied to `uplink-former` (by a rename of a finished copy), then each
file of the next one is put in its place, then `uplink-next` goes. Each step may be done again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from datetime import datetime
from pathlib import Path

import msgspec

from roost.link import identity
from roost.link.errors import LinkError
from roost.link.files import write_private
from roost.link.identity import AUTHORITY_FILE, FACTS_FILE, NODE_FILE, SPENT_KEPT, Identity
from roost.model import time

CURRENT, NEXT, FORMER = "uplink", "uplink-next", "uplink-former"
ORDER_FILE, READY_FILE, SINCE_FILE = "order.json", "ready", "since.json"
FORMER_KEPT = 8


class Order(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """To move: where to, as the token says, until when, and who said so. A secret as a whole."""

    token: str
    ordered_at: str
    deadline: str
    by: str

    def __repr__(self) -> str:
        return f"Order(ordered_at={self.ordered_at!r}, deadline={self.deadline!r}, by={self.by!r})"


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """An owner before: where its identity is kept, and since when it is the owner no more."""

    directory: Path
    identity: Identity
    since: datetime


class _Since(msgspec.Struct, frozen=True):
    since: str


def order(home: Path) -> Order | None:
    """What is ordered and neither done nor undone. What can't be read is undone."""
    try:
        return msgspec.json.decode((home / NEXT / ORDER_FILE).read_bytes(), type=Order)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        undo(home)
        return None


def keep_order(home: Path, given: Order) -> None:
    """Keep an order, on disk when this returns. Raises OSError."""
    undo(home)
    write_private(home / NEXT / ORDER_FILE, msgspec.json.encode(given))


def undo(home: Path) -> None:
    """Take everything of a move away that has not come to its switch."""
    shutil.rmtree(home / NEXT, ignore_errors=True)


def give_up(home: Path, now: datetime) -> None:
    """Undo a move, so that nobody can hold it for done. Raises OSError, LinkError.

    An owner that was enrolled with has an epoch above the present one's. So the present one is put above that
    again, and the other one is to hear the last word. Told twice, nothing more happens.
    """
    try:
        following = identity.load(home / NEXT)
    except identity.NotEnrolled:
        undo(home)
        return
    if same_owner(home / NEXT, home / CURRENT):
        identity.note_epoch(home / CURRENT, epoch=following.epoch)
    elif following.epoch:
        identity.note_epoch(home / CURRENT, epoch=max(following.epoch, following.highest) + 1)
        kept = home / FORMER / f"{following.epoch}"
        if not kept.exists():
            _keep_former(home / NEXT, kept, msgspec.json.encode(_Since(time.seconds(now))))
    (home / NEXT / ORDER_FILE).unlink(missing_ok=True)
    undo(home)


def same_owner(one: Path, other: Path) -> bool:
    """Whether two identities are of one owner: an authority is its key, whatever its certificate is now."""
    from cryptography import x509

    found = [x509.load_pem_x509_certificate((path / AUTHORITY_FILE).read_bytes()) for path in (one, other)]
    return found[0].public_key() == found[1].public_key()


def is_ready(home: Path) -> bool:
    """Whether a switch was begun."""
    return (home / NEXT / READY_FILE).exists()


def make_ready(home: Path, now: datetime) -> None:
    """Decide for the next identity: from here on there is no way back. Raises LinkError, OSError."""
    current, following = identity.load(home / CURRENT), identity.load(home / NEXT)
    if following.epoch <= current.epoch:
        raise LinkError(f"epoch {following.epoch} does not follow {current.epoch}")
    write_private(home / NEXT / READY_FILE, msgspec.json.encode(_Since(time.seconds(now))))


def finish_switch(home: Path) -> Identity | None:
    """Do a switch to its end that was decided; the identity in force then, None where none was decided.

    Raises OSError, LinkError; then it is to be tried again.
    """
    if not is_ready(home):
        return None
    following = identity.load(home / NEXT)
    kept = home / FORMER / f"{following.epoch}"
    if not kept.exists():
        _keep_former(home / CURRENT, kept, (home / NEXT / READY_FILE).read_bytes())
    former = identity.load(kept)
    spent = [*former.spent, *([former.token] if former.token else [])][-SPENT_KEPT:]
    settled = msgspec.structs.replace(
        following, spent=spent, highest=max(following.highest, former.highest, following.epoch)
    )
    for name in (AUTHORITY_FILE, NODE_FILE):
        write_private(home / CURRENT / name, (home / NEXT / name).read_bytes())
    write_private(home / CURRENT / FACTS_FILE, msgspec.json.format(msgspec.json.encode(settled)))
    for used in (home / CURRENT).glob("enrol-*.key"):
        used.unlink()
    # In this order: without an order nothing begins anew, and while the mark is there all can be repeated.
    (home / NEXT / ORDER_FILE).unlink(missing_ok=True)
    (home / NEXT / READY_FILE).unlink()
    undo(home)
    return settled


def has_switched(home: Path, present: Identity) -> bool:
    """Whether the present identity came by a switch, as far as that is still to be seen."""
    return (home / FORMER / f"{present.epoch}").exists()


def _keep_former(directory: Path, kept: Path, since: bytes) -> None:
    unfinished = kept.with_name(f".{kept.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in (AUTHORITY_FILE, NODE_FILE, FACTS_FILE):
        write_private(unfinished / name, (directory / name).read_bytes())
    write_private(unfinished / SINCE_FILE, since)
    os.replace(unfinished, kept)  # noqa: PTH105 - the rename is the step
    for old in sorted(_numbered(kept.parent), key=lambda path: int(path.name))[:-FORMER_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def formers(home: Path) -> list[Former]:
    """Owners before that have not heard the last word, the latest first. What can't be read goes."""
    found = []
    for directory in sorted(_numbered(home / FORMER), key=lambda path: -int(path.name)):
        try:
            known = identity.load(directory)
            said = msgspec.json.decode((directory / SINCE_FILE).read_bytes(), type=_Since)
            found.append(Former(directory=directory, identity=known, since=time.parse(said.since)))
        except (LinkError, OSError, ValueError):
            forget(directory)
    return found


def forget(directory: Path) -> None:
    """A former owner has heard the last word, or will not."""
    shutil.rmtree(directory, ignore_errors=True)


def _numbered(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in directory.iterdir() if path.name.isdigit()]
    return []
