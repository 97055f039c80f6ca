"""Keeps secrets out of the log, should a line ever carry one: belt and braces, for no line is meant to.

A value is taken out where its key says that it is a secret, however deep it stands; where an object is a
Secret, its values are; and where a text carries a bearer token or the password of a URL, those are.
"""

from __future__ import annotations

import re
from typing import Any

from structlog.typing import EventDict

REDACTED = "(redacted)"
DEEPEST = 16

_KEYS = re.compile(
    r"(^|[-_.])(authorization|cookie|passphrase|passwd|password|private[-_]?key|secret|secrets|token)$",
    re.IGNORECASE,
)
_VALUES_OF_SECRETS = frozenset({"data", "stringData"})
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[-\w.~+/]{8,}=*")
_URL = re.compile(r"(?P<scheme>\b[a-z][-a-z0-9+.]*://[^\s/:@]*):[^\s/@]+@")


def redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A structlog processor; the event's own text is only searched for tokens."""
    return {key: _clean(key, value, DEEPEST) for key, value in event.items()}


def _clean(key: str, value: Any, deepest: int) -> Any:
    if value and not isinstance(value, bool) and _KEYS.search(key):
        return REDACTED
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return _text(value.decode("latin-1"))
    if not deepest:
        return REDACTED
    if isinstance(value, dict):
        secret = value.get("kind") == "Secret"
        return {
            k: REDACTED if secret and k in _VALUES_OF_SECRETS else _clean(str(k), v, deepest - 1)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean("", v, deepest - 1) for v in value]
    return value


def _text(text: str) -> str:
    if "://" in text:
        text = _URL.sub(rf"\g<scheme>:{REDACTED}@", text)
    lower = text.lower()
    if "bearer" in lower or "basic" in lower:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return text
