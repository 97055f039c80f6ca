"""What is secret does not get into a line of the log, and what is not stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engine.redaction import REDACTED, redact

PLANTED = "s3cret-value"


@pytest.mark.parametrize(
    "event",
    [
        {"password": PLANTED},
        {"token": PLANTED},
        {"join_token": PLANTED},
        {"headers": {"Authorization": f"Bearer {PLANTED}", "Cookie": PLANTED}},
        {"event": f"sent Authorization: Bearer {PLANTED}"},
        {"reason": f"postgresql://roost:{PLANTED}@192.0.2.1/roost can't be reached"},
        {"body": {"kind": "Secret", "data": {"a": PLANTED}, "stringData": {"b": PLANTED}}},
        {"bodies": [{"items": [{"kind": "Secret", "data": {"a": PLANTED}}]}]},
        {"raw": f"bearer {PLANTED}".encode()},
        {"private-key": [PLANTED]},
    ],
)
def test_secrets_are_taken_out(event: dict[str, Any]) -> None:
    found = redact(None, "info", event)
    assert PLANTED not in repr(found) and REDACTED in repr(found)


def test_the_rest_stays() -> None:
    event = {
        "event": "write",
        "user": "ada",
        "code": 200,
        "resource": "secrets",
        "name": "db-token",
        "ok": True,
    }
    event |= {"path": "/api/v1/namespaces/a/secrets/db", "url": "https://192.0.2.1/x", "token": ""}
    assert redact(None, "info", dict(event)) == event
    config = {"body": {"kind": "ConfigMap", "data": {"a": "shown"}}}
    assert redact(None, "info", config) == config


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), NESTED))
def test_no_event_breaks_it(event: dict[str, Any]) -> None:
    assert set(redact(None, "info", event)) == set(event)


def test_what_is_too_deep_is_not_shown() -> None:
    deep: Any = PLANTED
    for _ in range(40):
        deep = [deep]
    assert PLANTED not in repr(redact(None, "info", {"deep": deep}))
