"""The versions of kubectl that tests run: what is on the PATH, and the one of Debian 12."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

PACKAGE = "kubernetes-client"
OLD = "debian"
NEW = "path"


@cache
def program(which: str) -> Path | None:
    """The kubectl asked for, or None when this machine has none and can't get it."""
    if which == NEW:
        found = shutil.which("kubectl")
        return Path(found) if found else None
    directory = _cache() / PACKAGE
    binary = directory / "usr" / "bin" / "kubectl"
    if not binary.exists():
        _unpack(directory)
    return binary if binary.exists() else None


@cache
def minor(which: str) -> int:
    """Minor version: 20 for 1.20."""
    binary = program(which)
    assert binary is not None
    command = [str(binary), "version", "--client", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+"))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "roost-tests"


def _unpack(directory: Path) -> None:
    """Download the package of the distribution and unpack it; nothing is installed."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return
    downloads = directory.with_suffix(".download")
    downloads.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "download", "-qq", PACKAGE]
    got = subprocess.run(command, cwd=downloads, capture_output=True, timeout=100, check=False)
    packages = sorted(downloads.glob(f"{PACKAGE}_*.deb"))
    if got.returncode or not packages:
        return
    part = directory.with_suffix(f".{os.getpid()}")
    subprocess.run(["dpkg", "-x", str(packages[-1]), str(part)], timeout=100, check=True)
    if not directory.exists():
        part.rename(directory)
