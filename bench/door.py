"""Roost's API server alone: the store and the API with TLS, and no controllers.

`python -m bench.door DIRECTORY PORT DATABASE-URL`. It is to Roost what kube-apiserver with etcd is to
Kubernetes: what answers requests, without what acts on them. DIRECTORY gets the authority's certificate
(`ca.crt`) and a bearer token of an administrator (`token`). It serves until it is told to stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path

import uvloop
from tests.support.certificates import Authority

from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.server import serve
from roost.cloud import admission as cloud_admission
from roost.engine import credentials
from roost.fleet import admission as fleet_admission
from roost.model.access import User, UserSpec
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.program.role import tune
from roost.program.start import configure_logging
from roost.store.store import Store
from roost.store.transaction import Transaction

CLOUD = "bench"
USER = "bench"


def _declare(tx: Transaction) -> str:
    """The cloud and an administrator with a token."""
    if tx.seek(Cloud, "", CLOUD) is None:
        tx.save(Cloud(metadata=Metadata(name=CLOUD)))
    if tx.seek(User, "", USER) is None:
        tx.save(User(metadata=Metadata(name=USER), spec=UserSpec(role="administrator")))
    return credentials.issue(tx, "bearer", USER, timedelta(days=1))


async def main(directory: Path, port: int, url: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    configure_logging()
    authority = Authority(directory)
    pair = authority.server()
    store = await Store.open(url)
    try:
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(await store.transact(_declare))
        rules = {**cloud_admission.rules(CLOUD, ""), **fleet_admission.rules(CLOUD)}
        app = Api(ApiContext(store=store, cloud=CLOUD, rules=rules))
        await serve(
            app,
            certificate=pair.certificate,
            key=pair.key,
            client_ca=authority.path,
            stop=stop,
            host="127.0.0.1",
            port=port,
        )
    finally:
        await store.close()


if __name__ == "__main__":
    tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
