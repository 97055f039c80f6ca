"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

# Imported here, for its plugin does so after the tests otherwise, where CPython 3.11 can fail to parse it.
import hypothesis  # noqa: F401
import pytest

from roost.store.store import Store
from tests.support.stores import BACKENDS, opened


@pytest.fixture(params=sorted(BACKENDS))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database, on each backend."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store with its threads, on each backend."""
    async with opened(store_url) as made:
        yield made
