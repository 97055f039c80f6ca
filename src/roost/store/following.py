"""Hears that another process has written to the same PostgreSQL.

NOTIFY only wakes: what has changed is read after the revision that is known. So nothing depends on a
notification to arrive. After each start of listening, and at least every POLL seconds, it is read anyway;
while the connection for listening is lost, at every try to get it back.

What nobody foresaw is logged and begun again after a pause, TRIES times in a row; then it is raised: who
does not hear of others must not go on with what he knew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from sqlalchemy import Engine

from roost.store import database
from roost.store.statements import BESIDE, CHANNEL

POLL = 10.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
ANSWER_WITHIN = 10.0
TRIES = 8
STEADY = 60.0
"""Seconds after which a failure is no longer one in a row."""
LONGEST_PAYLOAD = 19
"""Digits of the largest revision there can be."""

_log = structlog.get_logger("roost.store")

Catch = Callable[[], Awaitable[None]]
Heard = Callable[[int, int], bool]


async def follow(
    engine: Engine, heard: Heard, catch_up: Catch, beside: Callable[[], None] = lambda: None
) -> None:
    """Call `catch_up` whenever there may be news, until cancelled; `beside` for news that make no revision.

    `heard` is told the revision of each notification and the number of the connection it is from, and says
    whether it is news. Raises what was not foreseen when it goes on happening.
    """
    loop, failures = asyncio.get_running_loop(), 0
    while True:
        began = loop.time()
        try:
            await _follow(engine, heard, catch_up, beside)
        except Exception as error:
            failures = failures + 1 if loop.time() < began + STEADY else 1
            if failures >= TRIES:
                raise
            _log.exception("hearing of other processes failed, beginning again", error=type(error).__name__)
        await asyncio.sleep(min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE))


async def _follow(engine: Engine, heard: Heard, catch_up: Catch, beside: Callable[[], None]) -> None:
    """The same, until what was not foreseen."""
    pause, away = FIRST_PAUSE, False
    while True:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                connection = await _connected(engine)
            if away:
                away = False
                _log.info("the database is back")
            try:
                await catch_up()
                beside()
                pause = FIRST_PAUSE
                await _listen(connection, heard, catch_up, beside)
            finally:
                with contextlib.suppress(Exception):
                    await connection.close()
        except _lost() as error:
            if not away:
                away = True
                _log.warning("the database is away; tried again until it is back", reason=_line(error))
            await catch_up()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _lost() -> tuple[type[Exception], ...]:
    import psycopg

    return (psycopg.Error, OSError, TimeoutError)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


async def _connected(engine: Engine) -> Any:
    import psycopg

    parameters = database.parameters(engine)
    connection = await psycopg.AsyncConnection.connect(**parameters, autocommit=True)
    try:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
    except BaseException:
        # Also when the store is closed at this moment: who looks whether the database is in use would see it.
        await connection.close()
        raise
    return connection


async def _listen(connection: Any, heard: Heard, catch_up: Catch, beside: Callable[[], None]) -> None:
    while True:
        news = False
        async for notification in connection.notifies(timeout=POLL, stop_after=1):
            news = True
            # Whoever may connect may notify: what is no number is worth a look, and nothing more.
            if notification.payload == BESIDE:
                beside()
                continue
            payload, source = notification.payload[: LONGEST_PAYLOAD + 1], notification.pid
            if len(payload) > LONGEST_PAYLOAD or not payload.isdecimal() or heard(int(payload), source):
                await catch_up()
        if not news:
            async with asyncio.timeout(ANSWER_WITHIN):
                await connection.execute("SELECT 1")
            await catch_up()
