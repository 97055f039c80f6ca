"""Kubernetes' own kinds in protobuf: any bytes are read or refused, and what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roost.api import bodies, protobuf_kinds
from roost.api.protobuf import Malformed, integer, part, text
from roost.api.protobuf_kinds import KINDS, MAGIC, UnknownKind, decode
from roost.api.status import ApiError


def envelope(kind: str, message: bytes, version: str = "v1") -> bytes:
    return MAGIC + part(1, text(1, version) + text(2, kind)) + part(2, message)


def test_a_secret_with_everything() -> None:
    time = part(8, integer(1, 1_767_225_600))
    labels = part(11, text(1, "a") + text(2, "b")) + part(11, text(1, "c"))
    metadata = text(1, "s") + part(2, b"") + integer(7, 3) + time + labels + text(14, "x/y") + text(14, "z")
    body = (
        part(1, metadata) + part(2, text(1, "k") + part(2, b"\xff\x00")) + text(3, "Opaque") + integer(5, 1)
    )
    assert decode(envelope("Secret", body)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "s",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"a": "b", "c": ""},
            "finalizers": ["x/y", "z"],
        },
        "data": {"k": "/wA="},
        "type": "Opaque",
        "immutable": True,
    }


def test_a_lease_and_numbers_below_zero() -> None:
    spec = text(1, "me") + integer(2, (1 << 64) - 1) + part(4, integer(1, 1_767_225_600) + integer(2, 5_000))
    assert decode(envelope("Lease", part(2, spec)))["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": -1,
        "renewTime": "2026-01-01T00:00:00.000005Z",
    }


def test_what_is_not_read() -> None:
    with pytest.raises(UnknownKind, match="Pod is not read"):
        decode(envelope("Pod", b""))
    for body in (b"", b"k8s", envelope("Secret", b"\xff"), envelope("Secret", part(3, b"\xff"))):
        with pytest.raises(Malformed):
            decode(body)
    with pytest.raises(ApiError) as raised:
        bodies.from_protobuf(envelope("Pod", b""))
    assert raised.value.code == 415
    far = part(1, part(8, integer(1, 1 << 62)))
    with pytest.raises(Malformed, match="out of range"):
        decode(envelope("Role", far))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=80))
@example("Role", part(1, part(8, integer(1, 1) + integer(2, (1 << 63)))))
def test_any_bytes_are_read_or_refused(kind: str, message: bytes) -> None:
    try:
        found = decode(envelope(kind, message))
    except Malformed:
        return
    assert found["kind"] == kind and set(found) <= {"apiVersion", "kind"} | {
        name for name, _ in protobuf_kinds.KINDS[kind].values()
    }
