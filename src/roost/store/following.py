"""Hears that another process has written to the same PostgreSQL.

NOTIFY only wakes: what has changed is read after the revision that is known. So nothing depends on a
notification to arrive. After each start of listening, and at least every POLL seconds, it is read anyway;
while the connection for listening is lost, at every try to get it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Engine

from roost.store import database
from roost.store.statements import CHANNEL

POLL = 10.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
ANSWER_WITHIN = 10.0

Catch = Callable[[], Awaitable[None]]


async def follow(engine: Engine, heard: Callable[[int], bool], catch_up: Catch) -> None:
    """Call `catch_up` whenever there may be news, until cancelled.

    `heard` is told the revision of each notification and says whether it is news.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                connection = await _connected(engine)
            try:
                await catch_up()
                pause = FIRST_PAUSE
                await _listen(connection, heard, catch_up)
            finally:
                with contextlib.suppress(Exception):
                    await connection.close()
        except _lost():
            await catch_up()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _lost() -> tuple[type[Exception], ...]:
    import psycopg

    return (psycopg.Error, OSError, TimeoutError)


async def _connected(engine: Engine) -> Any:
    import psycopg

    parameters = database.parameters(engine)
    connection = await psycopg.AsyncConnection.connect(**parameters, autocommit=True)
    await connection.execute(f"LISTEN {CHANNEL}".encode())
    return connection


async def _listen(connection: Any, heard: Callable[[int], bool], catch_up: Catch) -> None:
    while True:
        news = False
        async for notification in connection.notifies(timeout=POLL, stop_after=1):
            news = True
            # Whoever may connect may notify: what is no number is worth a look, and nothing more.
            if not notification.payload.isdecimal() or heard(int(notification.payload)):
                await catch_up()
        if not news:
            async with asyncio.timeout(ANSWER_WITHIN):
                await connection.execute("SELECT 1")
            await catch_up()
