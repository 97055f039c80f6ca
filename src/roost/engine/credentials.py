"""Secrets that open something: bearer tokens and one-time enrolment tokens. Only hashes are kept.

A token is `ID.SECRET`; the id names the Credential, the secret has 256 random bits, so a plain
SHA-256 is enough and comparing takes constant time. A one-time token is bound to the public key that
uses it first: the same key may ask again until the token expires (the answer may have been lost),
another may not.

The id begins with what the token is for, hashed, so that the tokens of one subject are looked up: a token for
each of twenty thousand subclouds must not have all that were made before read.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from roost.model import chance, time
from roost.model.access import CREDENTIAL, Credential, CredentialSpec
from roost.model.meta import Metadata
from roost.store.transaction import Stored, Transaction

Purpose = Literal["bearer", "session", "enrol-host", "enrol-subcloud"]
PER_SUBJECT = 20
_NAMED = "00000000"
"""How ids begin that say what they are for. Older versions made them by chance alone."""
_PAGE = 100


class BadCredential(Exception):
    """The token opens nothing. Says no more than that to the outside; `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__("the token is not valid: it is wrong, used or expired; ask for a new one")
        self.reason = reason


class TooManyCredentials(Exception):
    """A subject has as many tokens as it may have."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"{subject} has {PER_SUBJECT} tokens in force; revoke some or let them expire")
        self.subject = subject


def issue(tx: Transaction, purpose: Purpose, subject: str, lifetime: timedelta) -> str:
    """Make a token for `subject`; the answer is the only time it is seen. Raises TooManyCredentials.

    Of sessions the oldest ends instead: nobody can be kept from logging in by his own forgotten ones.
    """
    in_force = []
    for credential in _of(tx, subject, purpose):
        if _expired(tx, credential):
            tx.remove(CREDENTIAL.kind, "", credential.metadata.name)
        else:
            in_force.append(credential)
    if len(in_force) >= PER_SUBJECT and purpose != "session":
        raise TooManyCredentials(subject)
    in_force.sort(key=lambda c: c.spec.expires_at)
    for oldest in in_force[: max(0, len(in_force) + 1 - PER_SUBJECT)]:
        tx.remove(CREDENTIAL.kind, "", oldest.metadata.name)
    name, secret = _stem(subject, purpose) + chance.digits(8), chance.secret(32)
    expires = time.seconds(tx.now + lifetime)
    spec = CredentialSpec(purpose=purpose, subject=subject, digest=_digest(secret), expires_at=expires)
    tx.save(Credential(metadata=Metadata(name=name), spec=spec))
    return f"{name}.{secret}"


def verify(tx: Transaction, token: str, *purposes: Purpose) -> Credential:
    """The credential that `token` proves; raises BadCredential."""
    return check(tx.seek(Credential, "", token.partition(".")[0]), token, tx.now, *purposes)


def check(found: Credential | None, token: str, now: datetime, *purposes: Purpose) -> Credential:
    """`found`, the credential that `token` names, if the token proves it; raises BadCredential."""
    name, _, secret = token.partition(".")
    if found is None:
        raise BadCredential(f"no credential {name[:16]!r}")
    if not hmac.compare_digest(found.spec.digest, _digest(secret)):
        raise BadCredential(f"wrong secret for credential {name}")
    if found.spec.purpose not in purposes:
        raise BadCredential(f"credential {name} is for {found.spec.purpose}")
    if time.parse(found.spec.expires_at) <= now:
        raise BadCredential(f"credential {name} expired at {found.spec.expires_at}")
    return found


def redeem(tx: Transaction, token: str, public_key: bytes, *purposes: Purpose) -> Credential:
    """Use a one-time token with a public key (DER); raises BadCredential when another key used it."""
    credential = verify(tx, token, *purposes)
    used_by = hashlib.sha256(public_key).hexdigest()
    if credential.spec.used_by and credential.spec.used_by != used_by:
        raise BadCredential(f"credential {credential.metadata.name} was used by another key")
    if credential.spec.used_by:
        return credential
    spec = msgspec.structs.replace(credential.spec, used_by=used_by, used_at=time.seconds(tx.now))
    return tx.save(msgspec.structs.replace(credential, spec=spec))


def revoke(tx: Transaction, subject: str, *purposes: Purpose) -> int:
    """Remove every credential of `subject` for these purposes; how many there were."""
    names = [c.metadata.name for c in _of(tx, subject, *purposes)]
    for name in names:
        tx.remove(CREDENTIAL.kind, "", name)
    return len(names)


def _of(tx: Transaction, subject: str, *purposes: Purpose) -> list[Credential]:
    """The credentials of a subject for some purposes."""
    found = [s for p in purposes for s in tx.select(CREDENTIAL.kind, "", prefix=_stem(subject, p))]
    some = [s.typed(Credential) for s in (*found, *_older(tx))]
    return [c for c in some if c.spec.subject == subject and c.spec.purpose in purposes]


def _older(tx: Transaction) -> Iterator[Stored]:
    """Those whose id does not say what they are for: they lie beyond the others, and all of them end."""
    after = ("", f"{_NAMED}~")
    while page := tx.select(CREDENTIAL.kind, "", after=after, limit=_PAGE):
        yield from page
        after = ("", page[-1].name)


def _stem(subject: str, purpose: Purpose) -> str:
    """How ids of a subject's tokens for a purpose begin. Hexadecimal: lower nodes check that they are."""
    return _NAMED + hashlib.sha256(f"{purpose}/{subject}".encode()).hexdigest()[:24]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _expired(tx: Transaction, credential: Credential) -> bool:
    return time.parse(credential.spec.expires_at) <= tx.now
