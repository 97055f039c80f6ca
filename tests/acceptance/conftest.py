"""Fixtures of the acceptance tests: a short directory, and one demo for each module that asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import Demo, free_port

HERE = Path(__file__).parent
TIMEOUT = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder run the whole program, in namespaces, and take their time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.acceptance)
            item.add_marker(pytest.mark.namespaces)
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session", autouse=True)
def needs_root() -> None:
    """Faults, other users' processes and the whole kernel are looked at."""
    if os.geteuid() != 0:
        pytest.skip("the acceptance tests need root: they look into every process and namespace")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short path, for Unix sockets have a limit."""
    made = Path(tempfile.mkdtemp(prefix="roost-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Demo]:
    """A demo that is ready, for all tests of a module."""
    running = Demo(place / "demo", free_port())
    try:
        # How soon it is up is a matter of `test_life`; here it is enough that it comes up.
        yield running.until_ready(180)
    finally:
        running.close()
