"""A real API server with TLS for tests, in its own thread and event loop, with kubeconfigs for it.

with ApiServer(tmp_path, cloud="central") as server:
    server.kubectl("get", "hosts")            # as administrator
    server.do(server.store.save(host))        # a coroutine, in the server's loop
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from roost.api.access import ADMINISTRATORS, READERS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.server import serve
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.store.store import Store
from tests.support.certificates import Authority, Pair

T = TypeVar("T")
PATIENCE = 60.0


class ApiServer:
    """One cloud's API on an ephemeral port. `options` go into its ApiContext."""

    def __init__(self, directory: Path, cloud: str = "central", **options: Any) -> None:
        self.directory, self.cloud, self._options = directory, cloud, options
        self.authority = Authority(directory)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api-server", daemon=True)
        self._stop: asyncio.Event
        self._serving: asyncio.Task[None]
        self.store: Store
        self.app: Api
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._start())
        self.administrator = self.kubeconfig(self.authority.client("admin", ADMINISTRATORS))
        self.reader = self.kubeconfig(self.authority.client("rita", READERS))
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def kubeconfig(self, client: Pair | str, server: str = "") -> Path:
        """A kubeconfig with a client certificate, or a bearer token."""
        if isinstance(client, str):
            user: dict[str, str] = {"token": client}
            path = self.directory / f"kubeconfig-token-{abs(hash(client))}"
        else:
            user = {"client-certificate": str(client.certificate), "client-key": str(client.key)}
            path = self.directory / f"kubeconfig-{client.certificate.stem}"
        cluster = {"server": server or self.url, "certificate-authority": str(self.authority.path)}
        context = {"cluster": self.cloud, "user": "user", "namespace": self.cloud}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.cloud,
            "clusters": [{"name": self.cloud, "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": self.cloud, "context": context}],
        }
        path.write_text(json.dumps(config))
        return path

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """What kubectl is run with: nothing of the person who runs the tests."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "TMPDIR", "LANG")}
        return {**keep, "HOME": str(home), "KUBECONFIG": str(kubeconfig or self.administrator)}

    def kubectl(
        self,
        *arguments: str,
        program: str | Path = "",
        kubeconfig: Path | None = None,
        stdin: str = "",
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end."""
        return subprocess.run(
            [str(program or shutil.which("kubectl") or "kubectl"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**self.environment(kubeconfig), **(environment or {})},
        )

    # -- in the server's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _start(self) -> None:
        self._stop = asyncio.Event()
        self.store = await Store.open(f"sqlite:///{self.directory / 'store.db'}")
        await self.store.save(Cloud(metadata=Metadata(name=self.cloud)))
        self.app = Api(ApiContext(store=self.store, cloud=self.cloud, **self._options))
        pair = self.authority.server()
        ready: asyncio.Future[list[tuple[str, int]]] = self.loop.create_future()
        self._serving = asyncio.create_task(
            serve(
                self.app,
                certificate=pair.certificate,
                key=pair.key,
                client_ca=self.authority.path,
                stop=self._stop,
                host="127.0.0.1",
                ready=ready,
            )
        )
        either: list[asyncio.Future[Any]] = [ready, self._serving]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            await self._serving
        self.port = ready.result()[0][1]

    async def _end(self) -> None:
        self._stop.set()
        await self._serving
        await self.app.close()
        await self.store.close()
