"""Calls that may hang, with a deadline.

A read of a dying disk or of a stale mount can block in the kernel for good, and no signal ends it. So
such a call runs in a thread of its own, and whoever waits stops waiting at the deadline.

The threads are daemons: unlike those of an executor they do not keep the process from ending. A call is
known by its key. While one with that key is overdue, no second one is started: a mount that hangs costs one
thread and, after the first time, no waiting, however often it is looked at.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from roost.host.observe.look import CannotTell

T = TypeVar("T")


class _Attempt:
    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.overdue = False


_attempts: dict[str, _Attempt] = {}
_guard = threading.Lock()


class NoAnswer(CannotTell):
    """The call did not return within its deadline, or an earlier one with its key has not returned yet."""

    def __init__(self, key: str, seconds: float, *, waiting: str) -> None:
        super().__init__(waiting)
        self.key = key
        self.seconds = seconds


def call(key: str, function: Callable[[], T], seconds: float) -> T:
    """Result of `function`, or what it raised, or NoAnswer after `seconds`."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    with _guard:
        earlier = _attempts.get(key)
    if earlier is not None:
        if not earlier.overdue:
            earlier.thread.join(seconds)
        if earlier.thread.is_alive():
            raise NoAnswer(key, seconds, waiting="an earlier attempt still waits for an answer")
    attempt = _Attempt(threading.Thread(target=run, name=f"deadline {key}", daemon=True))
    with _guard:
        _attempts[key] = attempt
        attempt.thread.start()
    attempt.thread.join(seconds)
    if attempt.thread.is_alive():
        attempt.overdue = True
        raise NoAnswer(key, seconds, waiting=f"no answer within {seconds:g} seconds")
    with _guard:
        if _attempts.get(key) is attempt:
            del _attempts[key]
    if failure:
        raise failure[0]
    return outcome[0]


async def call_async(key: str, function: Callable[[], T], seconds: float) -> T:
    """As `call`, without blocking the event loop."""
    # The waiting thread itself always ends, at the deadline, so the loop's own threads are safe to use.
    return await asyncio.to_thread(call, key, function, seconds)
