"""Where a machine is read from: the roots of its pseudo file systems.

Observers take a `Source` and read below its roots only, so a test can lay out a machine as plain files.
What is no file (netlink, ioctl, system calls, programs) is read by thin functions beside a pure parser.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Roots to read below. The defaults are the machine this process runs on."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    run: Path = Path("/run")
    misc: Path = Path("/usr/share/misc")

    @staticmethod
    def under(root: Path) -> Source:
        """The source of a machine laid out below `root` as it would be below `/`."""
        return Source(
            proc=root / "proc",
            sys=root / "sys",
            etc=root / "etc",
            run=root / "run",
            misc=root / "usr/share/misc",
        )
