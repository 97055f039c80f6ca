"""kubectl on a subcloud through the centre: one context, no open port at the site."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from roost.api.through import handler
from roost.link import exchange
from roost.model.meta import API_VERSION
from tests.api.client import host
from tests.api.test_kubectl import rows
from tests.support import kubectl
from tests.support.api import ApiServer


def test_subcloud_through_the_centre(tmp_path: Path, version: str) -> None:
    with ApiServer(_made(tmp_path / "harbor"), cloud="harbor") as harbor:

        async def call(cloud: str, request: exchange.Request) -> exchange.Response:
            if cloud != "harbor":
                raise exchange.Unreachable(cloud, "its link has been down since noon")

            async def ask() -> exchange.Response:
                return await handler(harbor.app)(request)

            answer = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), harbor.loop))
            return exchange.Response(answer.status, answer.headers, _across(answer.body, harbor))

        with ApiServer(_made(tmp_path / "centre"), call_cloud=call) as centre:
            pair = centre.authority.client("admin", "roost:administrators")
            ridge = json.dumps({"apiVersion": API_VERSION, "kind": "Subcloud", "metadata": {"name": "ridge"}})
            program = kubectl.program(version) or ""
            config = centre.kubeconfig(pair)
            made = centre.kubectl("create", "-f", "-", program=program, kubeconfig=config, stdin=ridge)
            assert made.returncode == 0, made.stderr
            config = centre.kubeconfig(pair, server=f"{centre.url}/clouds/harbor")
            text = config.read_text().replace('"namespace": "central"', '"namespace": "harbor"')
            config.write_text(text)

            def run(*arguments: str, stdin: str = "") -> str:
                done = centre.kubectl(*arguments, program=program, kubeconfig=config, stdin=stdin)
                assert done.returncode == 0, done.stderr
                return done.stdout

            assert run("apply", "-f", "-", stdin=json.dumps(host("h1"))) == "host.roost.edge/h1 created\n"
            assert rows(run("get", "hosts"))[1][0] == "h1"
            watch_through(centre, program, config)
            assert "hysteresis" in run("explain", "host.spec.thresholds")
            assert run("delete", "host", "h1") == 'host.roost.edge "h1" deleted\n'
            config.write_text(text.replace("/clouds/harbor", "/clouds/ridge"))
            done = centre.kubectl("get", "hosts", program=program, kubeconfig=config)
            assert "cloud ridge can't be reached: its link has been down since noon" in done.stderr
            config.write_text(text.replace("/clouds/harbor", "/clouds/rigde"))
            done = centre.kubectl("get", "hosts", program=program, kubeconfig=config)
            assert "cloud central has no subcloud rigde" in done.stderr


def watch_through(centre: ApiServer, program: str | Path, config: Path) -> None:
    """Changes stream through while the watch is open."""
    command = [str(program), "get", "hosts", "-w", "--no-headers"]
    environment = centre.environment(config)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as watching:
        guard = threading.Timer(60, watching.kill)
        guard.start()
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline().split()[0] == "h1"
            centre.kubectl("label", "host", "h1", "seen=yes", program=program, kubeconfig=config)
            assert watching.stdout.readline().split()[0] == "h1"
        finally:
            guard.cancel()
            watching.terminate()


def _made(path: Path) -> Path:
    path.mkdir()
    return path


async def _across(body: Any, server: ApiServer) -> Any:
    """A body that lives in another server's loop."""

    async def step() -> bytes | None:
        return await anext(body, None)

    try:
        while True:
            future = asyncio.run_coroutine_threadsafe(step(), server.loop)
            part = await asyncio.wrap_future(future)
            if part is None:
                return
            yield part
    finally:
        asyncio.run_coroutine_threadsafe(body.aclose(), server.loop)
