"""Datagrams of the heartbeat: they come back as they were sealed, and nothing else is taken for one."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from roost.engine.heartbeat import (
    ID_BYTES,
    LONGEST,
    SECRET_BYTES,
    BadBeat,
    Beat,
    Registration,
    claimed_id,
    new_id,
    new_secret,
    seal,
    unseal,
)

NAMES = st.text(min_size=1, max_size=15).filter(lambda t: t.isprintable() and len(t.encode()) <= 63)
NUMBERS = st.integers(min_value=0, max_value=2**64 - 1)
IDS = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(id_=IDS, sequence=NUMBERS, sent=NUMBERS, name=NAMES, secret=SECRETS)
def test_a_beat_comes_back_as_it_was(id_: bytes, sequence: int, sent: int, name: str, secret: bytes) -> None:
    beat = Beat(id_, sequence, sent, name)
    datagram = seal(beat, secret)
    assert len(datagram) <= LONGEST
    assert claimed_id(datagram) == id_
    assert unseal(datagram, secret) == beat


@given(place=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
def test_one_bit_otherwise_and_it_is_none(place: int, bit: int) -> None:
    secret = new_secret()
    datagram = bytearray(seal(Beat(new_id(), 1, 2, "mgmt0"), secret))
    datagram[place % len(datagram)] ^= 1 << bit
    with pytest.raises(BadBeat):
        claimed_id(bytes(datagram))
        unseal(bytes(datagram), secret)


@given(data=st.binary(max_size=2 * LONGEST))
def test_nothing_that_comes_raises_anything_else(data: bytes) -> None:
    for datagram in (data, b"RHB1" + data):
        with pytest.raises(BadBeat):
            claimed_id(datagram)
            unseal(datagram, bytes(SECRET_BYTES))


def test_another_key_opens_nothing() -> None:
    datagram = seal(Beat(new_id(), 1, 2, "mgmt0"), new_secret())
    with pytest.raises(BadBeat):
        unseal(datagram, new_secret())


@pytest.mark.parametrize("name", ["", "n" * 64])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        seal(Beat(new_id(), 1, 2, name), new_secret())


@pytest.mark.parametrize(
    "wrong",
    [
        {"secret": b"short"},
        {"period_milliseconds": 1},
        {"networks": []},
        {"networks": [""]},
        {"networks": ["n"] * 17},
        {"networks": ["n" * 64]},
    ],
)
def test_registrations_are_bounded(wrong: dict[str, object]) -> None:
    right = {"secret": new_secret(), "period_milliseconds": 100, "networks": ["mgmt0"]}
    msgspec.msgpack.decode(msgspec.msgpack.encode(right | {"later": 1}), type=Registration)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(right | wrong), type=Registration)


def test_no_key_is_printed() -> None:
    secret = new_secret()
    shown = repr(Registration(secret=secret, period_milliseconds=100, networks=["mgmt0"]))
    assert "secret" not in shown and repr(secret) not in shown
