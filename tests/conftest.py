"""Fixtures that several rooms share."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# Imported here, for its plugin does so after the tests otherwise, where CPython 3.11 can fail to parse it.
import hypothesis
import pytest
import structlog

from roost.store.store import Store
from tests.support.stores import BACKENDS, opened

# How long an example takes says something of the machine, and nothing of the program.
hypothesis.settings.register_profile("roost", deadline=None)
hypothesis.settings.load_profile("roost")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background, where shells have Ctrl-C ignored: what tests start would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """How a test, or a command run in its process, sets up the log ends with the test."""
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.fixture(params=sorted(BACKENDS))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a new, empty database, on each backend."""
    with BACKENDS[request.param](tmp_path) as url:
        yield url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store with its threads, on each backend."""
    async with opened(store_url) as made:
        yield made
