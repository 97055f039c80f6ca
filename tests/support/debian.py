"""Programs of Debian packages that nobody installed: downloaded with apt-get, unpacked into a cache.

The cache is `roost-tests` below XDG_CACHE_HOME. Nothing is installed and nothing is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DOWNLOAD_WITHIN = 100.0


def cache() -> Path:
    """Where tests keep what is slow to get. It may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "roost-tests"


def unpacked(package: str) -> Path | None:
    """The root of an unpacked package; None when this machine can't get it."""
    directory = cache() / package
    if not directory.exists():
        _unpack(package, directory)
    return directory if directory.exists() else None


def _unpack(package: str, directory: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return
    downloads = directory.with_name(f"{package}.download")
    downloads.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "download", "-qq", package]
    got = subprocess.run(command, cwd=downloads, capture_output=True, timeout=DOWNLOAD_WITHIN, check=False)
    packages = sorted(downloads.glob(f"{package}_*.deb"))
    if got.returncode or not packages:
        return
    part = directory.with_name(f"{package}.{os.getpid()}")
    subprocess.run(["dpkg", "-x", str(packages[-1]), str(part)], timeout=DOWNLOAD_WITHIN, check=True)
    if directory.exists():
        shutil.rmtree(part)
    else:
        part.rename(directory)
