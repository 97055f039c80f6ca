"""What strangers can provoke at will is logged once a minute."""

from __future__ import annotations

import logging
import time

SAY_AGAIN_AFTER = 60.0


class OncePerMinute(logging.Filter):
    """Passes each text once in SAY_AGAIN_AFTER seconds. Keeps MOST texts at most."""

    MOST = 256

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record of the logging library is passed; what tells of an exception always is."""
        return record.exc_info is not None or self.first(record.getMessage())

    def forget(self) -> None:
        """Say everything again."""
        self._said.clear()

    def first(self, text: str) -> bool:
        """Whether a text is to be said now."""
        now = time.monotonic()
        if now - self._said.get(text, -SAY_AGAIN_AFTER) < SAY_AGAIN_AFTER:
            return False
        if len(self._said) >= self.MOST:
            self._said.clear()
        self._said[text] = now
        return True


said = OncePerMinute()
