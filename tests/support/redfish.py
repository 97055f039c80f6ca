"""Board controllers for tests: OpenStack's emulator over TLS, and broken ones that answer as told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import msgspec

from tests.support.certificates import Authority

USER, PASSWORD = "admin", "correct horse"
SYSTEM = "27946b59-9e44-4fa7-8e91-f3527a1ef094"
START_WITHIN = 60.0


class Emulated(msgspec.Struct, frozen=True):
    """A running board controller."""

    address: str
    ca_bundle: str


@contextlib.contextmanager
def emulator(directory: Path) -> Iterator[Emulated]:
    """sushy-tools' emulator with one made-up machine that is off; its power follows after some seconds."""
    authority = Authority(directory)
    pair = authority.server()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "users").write_text(f"{USER}:{hashed}\n")
    port = _free_port()
    (directory / "emulator.conf").write_text(
        f"SUSHY_EMULATOR_AUTH_FILE = {str(directory / 'users')!r}\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(directory)!r}\n"
        "SUSHY_EMULATOR_FEATURE_SET = 'full'\n"
    )
    command = [sys.executable, "-c", "from sushy_tools.emulator.main import main; main()", "--fake"]
    command += ["--config", str(directory / "emulator.conf"), "-i", "127.0.0.1", "-p", str(port)]
    command += ["--ssl-certificate", str(pair.certificate), "--ssl-key", str(pair.key)]
    with (directory / "emulator.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        try:
            _wait_for(port, process)
            yield Emulated(f"https://127.0.0.1:{port}", authority.path.read_text())
        finally:
            process.kill()
            process.wait()


Answer = Callable[[ssl.SSLSocket], None]


@contextlib.contextmanager
def broken(directory: Path, answer: Answer) -> Iterator[Emulated]:
    """A board controller that does `answer` with each connection once a request has come."""

    def heard(secured: ssl.SSLSocket) -> None:
        secured.recv(65536)
        answer(secured)

    with serving(directory, heard) as found:
        yield found


@contextlib.contextmanager
def serving(directory: Path, answer: Answer) -> Iterator[Emulated]:
    """A board controller that does `answer` with each connection once the TLS of it stands."""
    authority = Authority(directory)
    pair = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(accepted,), daemon=True).start()

    def talk(accepted: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            accepted,
            context.wrap_socket(accepted, server_side=True) as secured,
        ):
            answer(secured)

    threading.Thread(target=serve, daemon=True).start()
    try:
        port = listener.getsockname()[1]
        yield Emulated(f"https://127.0.0.1:{port}", authority.path.read_text())
    finally:
        listener.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"the emulator did not start: exit code {process.poll()}")
