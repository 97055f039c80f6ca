"""A store and its API for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.api.client import Client
from tests.support import kubectl
from tests.support.api import ApiServer

Run = Callable[..., str]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path / 'store.db'}", inline=True)
    await opened.save(Cloud(metadata=Metadata(name="central")))
    yield opened
    await opened.close()


@pytest.fixture
def client(store: Store) -> Client:
    return Client(Api(ApiContext(store=store, cloud="central")))


@pytest.fixture(params=[kubectl.NEW, kubectl.OLD])
def version(request: pytest.FixtureRequest) -> str:
    which = str(request.param)
    if kubectl.program(which) is None:
        where = "on the PATH" if which == kubectl.NEW else f"as package {kubectl.PACKAGE} from apt"
        pytest.skip(f"there is no kubectl {where}")
    return which


@pytest.fixture
def run(server: ApiServer, version: str) -> Run:
    """Run kubectl of this version and give what it printed; `fails` for the error instead."""

    def call(*arguments: str, fails: bool = False, **options: Any) -> str:
        done = server.kubectl(*arguments, program=kubectl.program(version) or "", **options)
        if fails:
            assert done.returncode != 0, done.stdout
            return done.stderr
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{done.stdout}"
        return done.stdout

    return call
