"""Identity: what a lower end keeps of its enrolment, in one directory.

- `ca.crt`: certificate of the upper cloud's CA, the only one trusted;
- `node.pem`: private key and certificate in one file, so that a renewal swaps both at once;
- `node.json`: who the node is, where to dial, and the certificate's life. Written last.

The certificate's life stands in `node.json` so that reading it needs no X.509 code; it names the
certificate it speaks of, and when a crash left another in place, the certificate itself is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from roost.link.errors import LinkError
from roost.link.files import write_private
from roost.link.node import Node, parse
from roost.model import time

SPENT_KEPT = 16
AUTHORITY_FILE, NODE_FILE, FACTS_FILE = "ca.crt", "node.pem", "node.json"


class NotEnrolled(LinkError):
    """The directory holds no identity."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(
            f"{directory} holds no identity: {reason}; "
            "ask the upper cloud for an enrolment token and enrol this node"
        )
        self.directory, self.reason = directory, reason


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What `node.json` says."""

    node: str
    upper: str
    endpoints: list[str]
    fingerprint: str
    issued_at: str
    expires_at: str
    token: str = ""
    """Name of the enrolment token that it was got with; no secret."""
    epoch: int = 0
    """Under which the node is owned (`rehoming`); 0 where that was not told."""
    highest: int = 0
    """The highest epoch that was ever granted to the node, by whomever."""
    spent: list[str] = []
    """Names of the tokens of identities that this one has followed, the last SPENT_KEPT."""

    def who(self) -> Node:
        return parse(self.node)

    def expires(self) -> datetime:
        return time.parse(self.expires_at)

    def renewal_due(self) -> datetime:
        """When two thirds of the certificate's life are over."""
        issued = time.parse(self.issued_at)
        return issued + (self.expires() - issued) * 2 / 3


def load(directory: Path) -> Identity:
    """The identity kept in a directory; raises NotEnrolled."""
    try:
        identity = msgspec.json.decode((directory / FACTS_FILE).read_bytes(), type=Identity)
        pem = (directory / NODE_FILE).read_bytes()
        (directory / AUTHORITY_FILE).read_bytes()
    except OSError as error:
        raise NotEnrolled(directory, f"{error.filename}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise NotEnrolled(directory, f"{FACTS_FILE} can't be read: {error}") from None
    if identity.fingerprint == _fingerprint(pem):
        return identity
    from roost.link import pki

    return msgspec.structs.replace(
        identity, fingerprint=_fingerprint(pem), expires_at=time.seconds(pki.expires_at(pem))
    )


def save(
    directory: Path,
    *,
    node: Node,
    upper: str,
    endpoints: list[str],
    authority: bytes,
    key: bytes,
    certificate: bytes,
    now: datetime,
    token: str = "",
    epoch: int = 0,
    highest: int = 0,
    spent: Sequence[str] = (),
) -> Identity:
    """Keep an identity; the old one stays whole until the new one is."""
    from roost.link import pki

    pem = key + certificate
    identity = Identity(
        node=str(node),
        upper=upper,
        endpoints=endpoints,
        fingerprint=_fingerprint(pem),
        # A clock that runs ahead now and is set right later must not put renewal behind the end.
        issued_at=time.stamp(min(now, pki.issued_at(certificate))),
        expires_at=time.stamp(pki.expires_at(certificate)),
        token=token,
        epoch=epoch,
        highest=max(epoch, highest),
        spent=list(spent)[-SPENT_KEPT:],
    )
    if _kept(directory / AUTHORITY_FILE) != authority:
        write_private(directory / AUTHORITY_FILE, authority)
    write_private(directory / NODE_FILE, pem)
    write_private(directory / FACTS_FILE, msgspec.json.format(msgspec.json.encode(identity)))
    return identity


def replace_certificate(
    directory: Path, key: bytes, certificate: bytes, now: datetime, *, authority: bytes = b""
) -> Identity:
    """Put a renewed key and certificate in place, and the CA's successor where one is given."""
    old = load(directory)
    return save(
        directory,
        node=old.who(),
        upper=old.upper,
        endpoints=old.endpoints,
        authority=authority or (directory / AUTHORITY_FILE).read_bytes(),
        key=key,
        certificate=certificate,
        now=now,
        token=old.token,
        epoch=old.epoch,
        highest=old.highest,
        spent=old.spent,
    )


def note_epoch(directory: Path, *, epoch: int = 0, highest: int = 0) -> Identity:
    """Raise the epochs of a kept identity to these, if they are higher."""
    old = load(directory)
    epoch = max(old.epoch, epoch)
    noted = msgspec.structs.replace(old, epoch=epoch, highest=max(old.highest, highest, epoch))
    if noted != old:
        write_private(directory / FACTS_FILE, msgspec.json.format(msgspec.json.encode(noted)))
    return noted


def _kept(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _fingerprint(pem: bytes) -> str:
    """Of the certificate part alone: the key is nobody's business."""
    start = pem.find(b"-----BEGIN CERTIFICATE-----")
    return hashlib.sha256(pem[start:]).hexdigest()
