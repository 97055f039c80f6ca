"""The directory that holds everything of one running Roost: `$ROOST_HOME`, by default `~/.roost`.

    settings.json   what it was started as, so that the next start needs no options
    cloud.db        the cloud's store             agent.db   the host agent's store
    pki/            this cloud's CA and server certificate
    keys/           the keys that secret values are sealed by
    uplink/         identity on the link upwards: of the cloud to its central cloud, or of the host
    agent/          what aspects remember         kubeconfig the administrator's way in
    health.d/       executables that check this host    drain.d/   those that let its workloads leave
    lock            held by the process that runs here
    first-start.json what a first start is making that has not come to its end (`first_start`)

Everything is readable by its owner alone. Files are replaced whole, never written in place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Literal

import msgspec

from roost.link.files import write_private
from roost.model.cloud import SystemMode

API_PORT, LINK_PORT = 7443, 7444
ROLES = ("links", "control")


class StartError(Exception):
    """Roost can't start: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a home was started as. Addresses are `HOST:PORT`."""

    role: Literal["cloud", "agent"]
    cloud: str = ""
    host: str = ""
    mode: SystemMode = "simplex"
    api_address: str = "127.0.0.1:7443"
    link_address: str = "0.0.0.0:7444"
    advertise: list[str] = []
    database: str = ""
    keys: str = ""
    """File of the keys of secret values; empty: in the home. Processes that share a database share it."""
    contained: bool = False
    token_file: str = ""
    oidc_file: str = ""
    issuer: str = ""
    retry_seconds: float = 30.0
    """Longest pause between two tries to connect upwards."""
    roles: tuple[str, ...] = ROLES
    """What a process does for its cloud beside serving the API."""

    @property
    def takes_links(self) -> bool:
        """Whether subclouds may have their links here."""
        return "links" in self.roles

    @property
    def controls(self) -> bool:
        """Whether the process may be the active one."""
        return "control" in self.roles


class Home:
    """An opened home; one process at a time has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def uplink(self) -> Path:
        return self.path / "uplink"

    @property
    def agent(self) -> Path:
        return self.path / "agent"

    def open(self) -> None:
        """Make the directory and take its lock; raises StartError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._open_lock()
        except OSError as error:
            raise StartError(
                f"{self.path} can't be used: {error.strerror}", "choose another with --home or $ROOST_HOME"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(self._lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = -1
            raise StartError(
                f"Roost already runs on {self.path}, as process {pid}",
                "stop it first, or choose another home with --home",
            ) from error
        # For people; on a full or read-only disk the lock is held without it.
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _open_lock(self) -> int:
        path = self.path / "lock"
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def settings(self) -> Settings | None:
        """What this home was started as; None when never."""
        try:
            return msgspec.json.decode((self.path / "settings.json").read_bytes(), type=Settings)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StartError(
                f"{self.path / 'settings.json'} can't be read: {error}",
                "mend the file or start with a new home",
            ) from error

    def save_settings(self, settings: Settings) -> None:
        """Remember what this home is."""
        text = msgspec.json.format(msgspec.json.encode(settings)) + b"\n"
        write_private(self.path / "settings.json", text)


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[V6]:PORT` or `HOST`. Raises StartError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (host.count(":") and not host.startswith("[")):
        host, port = text, str(default_port)
    if not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise StartError(f"{text!r} is no address", "write HOST:PORT, as 0.0.0.0:7444 or [::]:7444")
    return host.strip("[]"), int(port)
