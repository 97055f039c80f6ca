"""Waiting on conditions, never on time: each wait has a deadline and tells what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.25


def until(what: str, look: Callable[[], T], within: float = 60.0) -> T:
    """Call `look` until it returns; AssertionErrors mean not yet. Raises the last with what was awaited."""
    start = time.monotonic()
    while True:
        try:
            found = look()
        except AssertionError as error:
            if time.monotonic() - start > within:
                raise AssertionError(f"after {within:g} s still not: {what}\n{error}") from None
            time.sleep(PAUSE)
            continue
        report(f"{what}: {time.monotonic() - start:.1f} s")
        return found


def report(text: str) -> None:
    """Timings, for information: shown with `pytest -s` or when the test fails."""
    print(f"  {text}", flush=True)
