"""One API server for all client libraries, with nothing but its cloud in it at the start of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roost.store.transaction import Transaction
from tests.support.api import ApiServer

KINDS = ("FirewallPolicy", "PlatformNetwork", "Subcloud")


@pytest.fixture(scope="package")
def package_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("clients")) as server:
        yield server


@pytest.fixture
def server(package_server: ApiServer) -> Iterator[ApiServer]:
    yield package_server
    package_server.do(package_server.store.transact(_clear))


def _clear(tx: Transaction) -> None:
    for kind in KINDS:
        for stored in tx.select(kind):
            tx.drop(kind, stored.namespace, stored.name)
