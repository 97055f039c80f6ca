"""A real Kubernetes API server beside ours: etcd and kube-apiserver on loopback, for tests and benchmarks.

    with kubernetes(directory) as server:
        ...  # server.url, server.authority, server.token (of a cluster administrator), server.kubeconfig

kube-apiserver comes from an archive `kubernetes-VERSION-ARCHITECTURE.tar.xz`, looked for in the folder
that KUBERNETES_PROGRAMS names, else in `shared/kubernetes` beside the checkout; etcd from the PATH or
Debian's package. Both are unpacked into the tests' cache once. Only these two processes run: no
controller manager, so nothing collects garbage and no namespace ever ends.

TLS on both listeners of the API, RBAC, a token file and client certificates; etcd syncs to disk as it does
anywhere. Where a program is absent `NotHere` tells which and what to do; tests skip with that line.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import platform
import secrets
import shutil
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import msgspec
from bench.process import free_port, running, wait_for

from tests.support import debian
from tests.support.certificates import Authority, Pair

ADMINISTRATORS = "system:masters"
PROGRAM = "kube-apiserver"
START_WITHIN = 120.0
_CHECKOUT = Path(__file__).resolve().parents[2]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class NotHere(Exception):
    """A program that this machine lacks: which, and how to get it."""


class Kubernetes(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A running API server and its store. `started_in` is seconds from the first process to ready."""

    directory: Path
    port: int
    authority: Path
    administrator: Pair
    token: str
    apiserver: int
    etcd: int
    started_in: float

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @cached_property
    def kubeconfig(self) -> Path:
        """A kubeconfig with the administrator's client certificate in it."""
        user = {
            "client-certificate-data": _data(self.administrator.certificate),
            "client-key-data": _data(self.administrator.key),
        }
        cluster = {"server": self.url, "certificate-authority-data": _data(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "kubernetes",
            "clusters": [{"name": "kubernetes", "cluster": cluster}],
            "users": [{"name": "admin", "user": user}],
            "contexts": [{"name": "kubernetes", "context": {"cluster": "kubernetes", "user": "admin"}}],
        }
        path = self.directory / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path


@contextlib.contextmanager
def kubernetes(directory: Path) -> Iterator[Kubernetes]:
    """An API server with an empty store until the end of the block; raises NotHere, DidNotStart."""
    program, etcd = _apiserver(), _etcd()
    authority = Authority(directory)
    server, administrator = authority.server(), authority.client("admin", ADMINISTRATORS)
    token, tokens = secrets.token_urlsafe(32), directory / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token},admin,admin,{ADMINISTRATORS}\n")
    client, peer, port = free_port(), free_port(), free_port()
    began = time.monotonic()
    with contextlib.ExitStack() as processes:
        log = directory / "etcd.log"
        command = _until_death(_etcd_command(etcd, directory / "etcd", client, peer))
        store = processes.enter_context(running(command, log))
        wait_for(lambda: _healthy(client), store, log, START_WITHIN)
        log = directory / "kube-apiserver.log"
        command = _until_death(_apiserver_command(program, port, client, authority.path, server, tokens))
        api = processes.enter_context(running(command, log))
        wait_for(lambda: _ready(port, authority.path, token), api, log, START_WITHIN)
        yield Kubernetes(
            directory=directory,
            port=port,
            authority=authority.path,
            administrator=administrator,
            token=token,
            apiserver=api.pid,
            etcd=store.pid,
            started_in=time.monotonic() - began,
        )


def _etcd_command(program: Path, data: Path, client: int, peer: int) -> list[str]:
    data.mkdir(mode=0o700)
    here, there = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        str(program),
        "--name=test",
        f"--data-dir={data}",
        f"--listen-client-urls={here}",
        f"--advertise-client-urls={here}",
        f"--listen-peer-urls={there}",
        f"--initial-advertise-peer-urls={there}",
        f"--initial-cluster=test={there}",
    ]


def _apiserver_command(
    program: Path, port: int, etcd: int, authority: Path, server: Pair, tokens: Path
) -> list[str]:
    return [
        str(program),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        # What it tells others of itself can't be loopback; nobody uses it here.
        "--advertise-address=192.0.2.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        f"--client-ca-file={authority}",
        f"--tls-cert-file={server.certificate}",
        f"--tls-private-key-file={server.key}",
        f"--token-auth-file={tokens}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={server.certificate}",
        f"--service-account-signing-key-file={server.key}",
    ]


def _until_death(command: list[str]) -> list[str]:
    """The command so that it ends with this process, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command] if shutil.which("setpriv") else command


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    return _succeeds(connection, "/health", {})


def _ready(port: int, authority: Path, token: str) -> bool:
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    return _succeeds(connection, "/readyz", {"Authorization": f"Bearer {token}"})


def _succeeds(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bool:
    with contextlib.closing(connection):
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _apiserver() -> Path:
    archive = _archive()
    directory = debian.cache() / archive.name.removesuffix(".tar.xz")
    if not (directory / PROGRAM).exists():
        part = directory.with_name(f"{directory.name}.{os.getpid()}")
        with tarfile.open(archive) as packed:
            packed.extract(PROGRAM, part, filter="data")
        directory.mkdir(parents=True, exist_ok=True)
        (part / PROGRAM).rename(directory / PROGRAM)
        part.rmdir()
    return directory / PROGRAM


def _archive() -> Path:
    named = os.environ.get("KUBERNETES_PROGRAMS")
    folder = Path(named) if named else _CHECKOUT.parent / "shared" / "kubernetes"
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    found = sorted(folder.glob(f"kubernetes-*-{architecture}.tar.xz"))
    if not found:
        raise NotHere(
            f"there is no kubernetes-VERSION-{architecture}.tar.xz with {PROGRAM}: "
            "let KUBERNETES_PROGRAMS name the folder that has one"
        )
    return found[-1]


def _etcd() -> Path:
    installed = shutil.which("etcd")
    if installed:
        return Path(installed)
    root = debian.unpacked("etcd-server")
    if root is None:
        raise NotHere("there is no etcd, and apt-get gets none: install Debian's etcd-server")
    return root / "usr" / "bin" / "etcd"


def _data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def version() -> str:
    """What the archive's API server says of itself, as `Kubernetes v1.20.2`; raises NotHere."""
    done = subprocess.run([_apiserver(), "--version"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()
