"""What every answer must keep, whatever was asked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.fuzz.serving import SECRETS, Server
from tests.fuzz.wire import Answer, Asked

DECLARED = frozenset({501, 503, 504})
"""Codes of 500 and above that say what a client may do next."""
_INSIDE = re.compile(
    r'Traceback|File "|site-packages|/src/roost|\.py\b|sqlalchemy|sqlite3|psycopg|0x[0-9a-f]{8}'
)
_OURS = re.compile(r"level=error|Traceback|Exception in")


def keeps(asked: Asked, answer: Answer) -> None:
    """The answer is no fault of the server, and a refusal is a Status of the same code."""
    about = (
        asked.method,
        asked.target[:300],
        asked.headers,
        asked.body[:300],
        answer.code,
        answer.body[:500],
    )
    assert answer.code < 500 or answer.code in DECLARED, about
    hides(answer.body.decode("utf-8", "replace"), asked)
    if answer.code < 400 or asked.method == "HEAD":
        return
    assert answer.is_json, about
    status = answer.raw
    assert status["kind"] == "Status" and status["apiVersion"] == "v1", about
    assert (status["status"], status["code"]) == ("Failure", answer.code), about
    assert re.fullmatch(r"[A-Z][A-Za-z]+", status["reason"]), about
    assert status["message"], about
    assert len(answer.body) < 64 * 1024, about
    if answer.code in (429, 503) and "retryAfterSeconds" in status.get("details", {}):
        assert answer.headers["retry-after"], about
    if answer.code == 401:
        assert answer.headers["www-authenticate"], about


def hides(text: str, asked: Asked) -> None:
    """An answer tells no secret that was not in its own request, and nothing of the program's inside."""
    sent = asked.octets.decode("utf-8", "replace") + asked.octets.decode("latin-1")
    for found in _INSIDE.findall(text):
        assert found in sent, (found, text[:500])
    for secret in SECRETS:
        assert secret not in text or secret in sent, (secret, text[:500])


def logged(server: Server, secrets: Iterable[str] = SECRETS) -> None:
    """The log tells no secret, and nothing of a fault of the server."""
    log = server.log
    for secret in secrets:
        assert secret not in log, secret
    found = _OURS.search(log)
    assert found is None, log[max(0, found.start() - 200) : found.start() + 3000]
