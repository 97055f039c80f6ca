"""One server in a process of its own for all of these tests; what it logged is looked at in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz import TIMES
from tests.fuzz.promises import logged
from tests.fuzz.serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server. At its end the log must be clean, whatever was sent."""
    with Server(tmp_path_factory.mktemp("fuzz")).running() as running:
        yield running
        running.alive()
        print(f"fuzz: {running.asked} requests, {running.memory >> 20} MiB")
        logged(running)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """More examples may take longer."""
    for item in items:
        if "tests/fuzz/" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(300 * max(1.0, TIMES)))
