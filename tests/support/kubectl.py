"""The versions of kubectl that tests run: what is on the PATH, and the one of Debian 12."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.support import debian

PACKAGE = "kubernetes-client"
OLD = "debian"
NEW = "path"


@cache
def program(which: str) -> Path | None:
    """The kubectl asked for, or None when this machine has none and can't get it."""
    if which == NEW:
        found = shutil.which("kubectl")
        return Path(found) if found else None
    root = debian.unpacked(PACKAGE)
    return root / "usr" / "bin" / "kubectl" if root else None


@cache
def minor(which: str) -> int:
    """Minor version: 20 for 1.20."""
    binary = program(which)
    assert binary is not None
    command = [str(binary), "version", "--client", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+"))
