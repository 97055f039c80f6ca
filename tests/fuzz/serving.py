"""The API of a cloud in a process of its own, with all that a real one has: rules, subresources, a vault,
a token file, a subcloud to forward to. Its log goes to a file, its memory can be read.

Run as a program (`python -m tests.fuzz.serving DIRECTORY URL`) it serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roost.api import tokens
from roost.api.access import ADMINISTRATORS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import shipped
from roost.api.identity.tokenfile import TokenFile
from roost.api.server import serve
from roost.api.through import handler
from roost.cloud import admission as cloud_admission
from roost.cloud.configuration import PlatformPorts
from roost.engine.vault import Vault
from roost.fleet import admission as fleet_admission
from roost.link import exchange, pki
from roost.link.files import write_private
from roost.model.account import ServiceAccount
from roost.model.cloud import Cloud, CloudSpec, Subcloud
from roost.model.host import Host, HostSpec
from roost.model.meta import Metadata
from roost.program.access import enrolment_subresources
from roost.program.plans import plan_subresource
from roost.program.start import configure_logging
from roost.store.store import Store
from tests.fuzz.wire import PATIENCE, Answer, Asked, Headers, Line, trusting
from tests.support.certificates import Authority

CLOUD, SUBCLOUD = "central", "harbor"
ADMINISTRATOR, READER = "token-of-ada-5f1e8c", "token-of-rita-77ab31"
"""Bearer tokens: none may ever stand in the log or in an answer."""
PASSWORD = "a-password-of-ada-19b2"
SEALED = "a-value-of-a-secret-c0ffee"
SECRETS = (ADMINISTRATOR, READER, PASSWORD, SEALED)


class Server:
    """The process, from outside."""

    def __init__(self, directory: Path, url: str = "") -> None:
        self._directory = directory
        self.log_file = directory / "log"
        self._url = url or f"sqlite:///{directory / 'store.db'}"
        self.asked = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """From its first answer to its end."""
        command = [sys.executable, "-m", "tests.fuzz.serving", str(self._directory), self._url]
        with (
            self.log_file.open("wb") as log,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ
            ) as process,
        ):
            assert process.stdout and process.stdin
            told = process.stdout.readline()
            assert told, self.log
            self.process, self.port = process, int(json.loads(told)["port"])
            self._context = trusting(self._directory / "ca.crt")
            self._probe = self.line(ADMINISTRATOR)
            try:
                yield self
            finally:
                self._probe.close()
                process.stdin.close()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    def line(self, token: str = ADMINISTRATOR, *headers: tuple[str, str]) -> Line:
        """A connection that shows a token; none when it is empty."""
        shown: list[tuple[str, str]] = [("Authorization", f"Bearer {token}")] if token else []
        return Line(self.port, self._context, [*shown, *headers])

    @property
    def context(self) -> Any:
        """How to connect."""
        return self._context

    @property
    def log(self) -> str:
        """All that was logged."""
        return self.log_file.read_text(errors="replace")

    @property
    def memory(self) -> int:
        """Bytes of memory in use (RSS)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def alive(self) -> None:
        """It serves others."""
        assert self.process.poll() is None, f"the server ended: {self.log[-2000:]}"
        answer = self._probe.get("/livez")
        assert (answer.code, answer.body) == (200, b"ok"), answer

    def revision(self) -> str:
        """The store's revision, which every change raises."""
        answer = self._probe.get("/apis/roost.edge/v1/subclouds?limit=1")
        return str(answer.raw["metadata"]["resourceVersion"])

    def administer(self, method: str, target: str, body: object = None, headers: Headers = ()) -> Answer:
        """What an administrator does, apart from the connection that is tried."""
        encoded = b"" if body is None else json.dumps(body).encode()
        return self._probe.ask(
            Asked(method, target, [("Content-Type", "application/json"), *headers], encoded)
        )


# -- inside


async def _store(url: str, cloud: str) -> Store:
    store = await Store.open(url)
    await store.save(Cloud(metadata=Metadata(name=cloud), spec=CloudSpec(system_mode="standard")))
    await store.transact(shipped.declare)
    await store.save(Host(metadata=Metadata(name="edge", namespace=cloud), spec=HostSpec()))
    await store.save(ServiceAccount(metadata=Metadata(name="builder", namespace=cloud)))
    return store


async def _api(directory: Path, url: str, cloud: str, **options: Any) -> tuple[Store, Api]:
    store = await _store(url, cloud)
    now = datetime.now(UTC)
    authority = pki.Authority.open(directory / "pki", cloud, now)
    rules = {**cloud_admission.rules(cloud, "edge"), **fleet_admission.rules(cloud), **tokens.RULES}
    context = ApiContext(
        store=store,
        cloud=cloud,
        rules=rules,
        vault=Vault.open(directory / "keys", write_private, now),
        subresources={
            **enrolment_subresources(cloud, authority, lambda: ["127.0.0.1:1"]),
            **plan_subresource(PlatformPorts()),
        },
        **options,
    )
    return store, Api(context)


def _calling(below: Api) -> Callable[[str, exchange.Request], Any]:
    answer = handler(below)

    async def call(cloud: str, request: exchange.Request) -> exchange.Response:
        if cloud != SUBCLOUD:
            raise exchange.Unreachable(f"subcloud/{cloud}", "no link")
        return await answer(request)

    return call


async def _serve(directory: Path, url: str) -> None:
    authority = Authority(directory)
    pair = authority.server()
    token_file = directory / "tokens"
    token_file.write_text(f'{ADMINISTRATOR},ada,1,"{ADMINISTRATORS}"\n{READER},rita,2,"roost:readers"\n')
    for part in ("harbor", "central"):
        os.makedirs(directory / part)  # noqa: PTH103
    lower, below = await _api(directory / "harbor", f"sqlite:///{directory / 'harbor.db'}", SUBCLOUD)
    options = {"call_cloud": _calling(below), "authenticate": [TokenFile(token_file)]}
    store, app = await _api(directory / "central", url, CLOUD, **options)
    await store.save(Subcloud(metadata=Metadata(name=SUBCLOUD)))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[list[tuple[str, int]]] = loop.create_future()
    serving = asyncio.create_task(
        serve(
            app,
            certificate=pair.certificate,
            key=pair.key,
            client_ca=authority.path,
            stop=stop,
            host="127.0.0.1",
            ready=ready,
        )
    )
    print(json.dumps({"port": (await ready)[0][1]}), flush=True)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    await serving
    for api in (app, below):
        await api.close()
    for opened in (store, lower):
        await opened.close()


def main() -> None:
    """Serve until standard input ends."""
    import uvloop

    configure_logging()
    uvloop.run(_serve(Path(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
