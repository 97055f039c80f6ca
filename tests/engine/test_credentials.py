"""Tokens: kept as hashes, bound to the first key, ended by time, and refused in the same words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from roost.engine.credentials import (
    PER_SUBJECT,
    BadCredential,
    TooManyCredentials,
    issue,
    redeem,
    revoke,
    verify,
)
from roost.link.token import Token, encode
from roost.model import time
from roost.model.access import Credential, CredentialSpec
from roost.model.meta import Metadata
from roost.store.transaction import Stored, Transaction
from tests.support.clock import on_fake_time
from tests.support.stores import world

HOUR = timedelta(hours=1)


@on_fake_time
async def test_a_token_proves_its_subject_for_its_purpose_until_it_ends() -> None:
    async with world() as w:
        token = await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        found = await w.store.transact(lambda tx: verify(tx, token, "bearer"))
        assert found.spec.subject == "ada"
        secret = token.partition(".")[2]
        stored = await w.store.transact(lambda tx: tx.select("Credential")[0].data)
        assert secret not in stored and len(secret) >= 43
        w.clock.jump(3599)
        await w.store.transact(lambda tx: verify(tx, token, "bearer"))
        w.clock.jump(1)
        with pytest.raises(BadCredential, match="ask for a new one"):
            await w.store.transact(lambda tx: verify(tx, token, "bearer"))


@on_fake_time
async def test_every_refusal_has_the_same_words_and_a_reason_for_the_log() -> None:
    async with world() as w:
        token = await w.store.transact(lambda tx: issue(tx, "enrol-host", "harbor/h", HOUR))
        used = await w.store.transact(lambda tx: issue(tx, "enrol-host", "harbor/g", HOUR))
        old = await w.store.transact(lambda tx: issue(tx, "bearer", "ada", timedelta(seconds=-1)))
        await w.store.transact(lambda tx: redeem(tx, used, b"key", "enrol-host"))
        name, _, secret = token.partition(".")
        tries = [
            ("", "no credential ''"),
            ("nonsense", "no credential 'nonsense'"),
            ("x" * 5000, f"no credential {'x' * 16!r}"),
            (f"{name}.", "wrong secret"),
            (f"{name}.{secret[:-1]}", "wrong secret"),
            (f"{old.partition('.')[0]}.{secret}", "wrong secret"),
            (old, "is for bearer"),
            (used, "was used by another key"),
        ]
        words = set()
        for given, reason in tries:
            with pytest.raises(BadCredential) as caught:
                await w.store.transact(lambda tx, t=given: redeem(tx, t, b"other", "enrol-host"))  # type: ignore[misc]
            words.add(str(caught.value))
            assert reason in caught.value.reason
            assert secret not in caught.value.reason
        assert len(words) == 1


@on_fake_time
async def test_a_one_time_token_belongs_to_the_key_that_used_it() -> None:
    async with world() as w:
        token = await w.store.transact(lambda tx: issue(tx, "enrol-subcloud", "ridge", HOUR))
        first = await w.store.transact(lambda tx: redeem(tx, token, b"mine", "enrol-subcloud"))
        revision = w.store.revision
        again = await w.store.transact(lambda tx: redeem(tx, token, b"mine", "enrol-subcloud"))
        assert again.spec == first.spec and w.store.revision == revision
        with pytest.raises(BadCredential):
            await w.store.transact(lambda tx: redeem(tx, token, b"yours", "enrol-subcloud"))
        w.clock.jump(3600)
        with pytest.raises(BadCredential):
            await w.store.transact(lambda tx: redeem(tx, token, b"mine", "enrol-subcloud"))


@on_fake_time
async def test_a_subject_has_so_many_tokens_at_once() -> None:
    async with world() as w:
        for _ in range(PER_SUBJECT):
            await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        with pytest.raises(TooManyCredentials) as caught:
            await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        assert caught.value.subject == "ada"
        await w.store.transact(lambda tx: issue(tx, "enrol-host", "ada", HOUR))
        await w.store.transact(lambda tx: issue(tx, "bearer", "grace", HOUR))
        w.clock.jump(3601)
        await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        left = [c for c in await w.store.every(Credential) if c.spec.subject == "ada"]
        assert len([c for c in left if c.spec.purpose == "bearer"]) == 1, (
            "expired ones go with the next issue"
        )


@on_fake_time
async def test_revoking_takes_what_it_names() -> None:
    async with world() as w:
        for purpose, subject in (("bearer", "ada"), ("enrol-host", "ada"), ("bearer", "grace")):
            await w.store.transact(lambda tx, p=purpose, s=subject: issue(tx, p, s, HOUR))  # type: ignore[misc]
        assert await w.store.transact(lambda tx: revoke(tx, "ada", "bearer")) == 1
        left = {(c.spec.purpose, c.spec.subject) for c in await w.store.every(Credential)}
        assert left == {("enrol-host", "ada"), ("bearer", "grace")}


@on_fake_time
async def test_the_oldest_session_ends_for_a_new_one() -> None:
    async with world() as w:
        tokens = []
        for _ in range(PER_SUBJECT + 1):
            tokens.append(await w.store.transact(lambda tx: issue(tx, "session", "ada", HOUR)))
            w.clock.jump(1)
        with pytest.raises(BadCredential):
            await w.store.transact(lambda tx: verify(tx, tokens[0], "session"))
        for token in tokens[1:]:
            await w.store.transact(lambda tx, t=token: verify(tx, t, "session"))  # type: ignore[misc]


@on_fake_time
async def test_tokens_of_older_versions_are_counted_ended_and_revoked_too() -> None:
    async with world() as w:

        def older(tx: Transaction) -> None:
            for number in range(150):
                subject = "ada" if number % 10 == 0 else f"other-{number}"
                expires = time.seconds(tx.now + (HOUR if number else -HOUR))
                spec = CredentialSpec(purpose="bearer", subject=subject, digest="d", expires_at=expires)
                tx.save(Credential(metadata=Metadata(name=f"{number + 1:016x}"[::-1]), spec=spec))

        await w.store.transact(older)
        for _ in range(PER_SUBJECT - 14):
            await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        with pytest.raises(TooManyCredentials):
            await w.store.transact(lambda tx: issue(tx, "bearer", "ada", HOUR))
        assert await w.store.transact(lambda tx: revoke(tx, "ada", "bearer")) == PER_SUBJECT
        assert len(await w.store.every(Credential)) == 135


@on_fake_time
async def test_a_token_for_one_of_many_has_only_its_own_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:

        def many(tx: Transaction) -> None:
            for number in range(500):
                issue(tx, "enrol-subcloud", f"site-{number}", HOUR)

        await w.store.transact(many)
        token = await w.store.transact(lambda tx: issue(tx, "enrol-subcloud", "site-7", HOUR))
        read = list[str]()
        select = Transaction.select

        def selected(self: Transaction, kind: str, *place: Any, **where: Any) -> list[Stored]:
            found = select(self, kind, *place, **where)
            read.extend(stored.name for stored in found)
            return found

        monkeypatch.setattr(Transaction, "select", selected)
        await w.store.transact(lambda tx: issue(tx, "enrol-subcloud", "site-7", HOUR))
        assert len(read) == 2
        assert await w.store.transact(lambda tx: revoke(tx, "site-7", "enrol-subcloud")) == 3
        assert len(read) == 5
        with pytest.raises(BadCredential):
            await w.store.transact(lambda tx: verify(tx, token, "enrol-subcloud"))
        encode(Token(endpoints=["192.0.2.1:6443"], ca="0" * 64, secret=token))
        msgspec.convert({"endpoints": ["a:1"], "ca": "0" * 64, "secret": token}, Token)
