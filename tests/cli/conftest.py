"""The command run in this process against a real API on a real store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import structlog

from roost.api.context import ApiContext
from roost.cli.main import app, run
from roost.engine import credentials
from roost.link.exchange import Caller
from roost.model.codec import Raw
from roost.model.host import Host
from roost.model.meta import Metadata
from tests.support.api import ApiServer


class Result(msgspec.Struct, frozen=True):
    """What a command gave."""

    code: int
    out: str
    err: str


Roost = Callable[..., Result]


async def enrolment(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
    """Answers POST .../enrolment as the platform does, for tests of the command alone."""
    token = await context.store.transact(
        lambda tx: credentials.issue(tx, "enrol-host", f"{namespace}/{name}", timedelta(hours=1))
    )
    return {"status": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"}}


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """The server under test logs in this process; its lines are not the command's."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    places = {("hosts", "enrolment"): enrolment, ("subclouds", "enrolment"): enrolment}
    with ApiServer(tmp_path, cloud="central", subresources=places) as running:
        yield running


@pytest.fixture
def roost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Roost:
    """Runs a command line; with a `server` in the test, as its administrator."""
    for name in ("KUBECONFIG", "ROOST_KUBECONFIG", "ROOST_TOKEN", "ROOST_JOIN_TOKEN", "ROOST_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROOST_HOME", str(tmp_path / "roost-home"))
    monkeypatch.chdir(tmp_path)
    if "server" in request.fixturenames:
        running: ApiServer = request.getfixturevalue("server")
        monkeypatch.setenv("KUBECONFIG", str(running.administrator))

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run(app, arguments)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def controller(server: ApiServer) -> Host:
    """A host of the cloud."""
    return server.do(server.store.save(Host(metadata=Metadata(name="controller-0", namespace="central"))))
