"""The demo with disks of their own under some homes, small enough to be filled to the last byte.

    python -m tests.acceptance.disk_demo --directory DIRECTORY --port PORT --disk NAME=KIND ...

KIND is tmpfs, or ext4 on a loop device, which turns read-only at an error as an operator's disk does. The
kernel refuses to remount a filesystem read-only while a file of it is open for writing, as a store's is: such
an error is the one way by which a disk turns read-only under a process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from roost.cli.demo import commands, story
from roost.sim.lab import lab
from roost.sim.lab.ground import prepare
from roost.sim.lab.supervisor import Process

MEGABYTES = 24
FILLER = "somebody-elses-file"
CHUNK = 1024 * 1024


def can_break() -> bool:
    """Whether this machine has loop devices and lets ext4 be told of an error."""
    return Path("/dev/loop-control").exists() and Path("/sys/fs/ext4").is_dir()


def mount(kind: str, home: Path) -> None:
    """A disk of its own at `home`."""
    home.mkdir(mode=0o700, exist_ok=True)
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0700", "tmpfs", str(home))
        return
    image = home.with_name(f"{home.name}.image")
    with image.open("wb") as file:
        file.truncate(MEGABYTES * CHUNK)
    # No room kept for root, which Roost is.
    _run("mkfs.ext4", "-q", "-m", "0", str(image))
    attach(image, home)


def attach(image: Path, home: Path) -> None:
    """Mount an image."""
    _run("mount", "-o", "loop,errors=remount-ro", str(image), str(home))


def fill(home: Path) -> None:
    """Fill a disk to its last byte."""
    with (home / FILLER).open("ab", buffering=0) as file:
        size = CHUNK
        while size:
            try:
                if file.write(b"\0" * size) < size:
                    size //= 2
            except OSError:
                size //= 2


def make_room(home: Path) -> None:
    (home / FILLER).unlink(missing_ok=True)


def break_disk(home: Path) -> None:
    """Have the filesystem find an error, after which it is read-only."""
    device = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", str(home)], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    (Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error").write_text("1")


def replace_disk(home: Path) -> None:
    """What an operator does with such a disk: copy it, mend the copy, put it in place."""
    broken, mended = home.with_name(f"{home.name}.image"), home.with_name(f"{home.name}.mended")
    _run("cp", "--sparse=always", str(broken), str(mended))
    subprocess.run(["fsck.ext4", "-y", "-f", str(mended)], capture_output=True, check=False, timeout=60)
    _run("umount", "-l", str(home))
    attach(mended, home)


def unmount(directory: Path) -> None:
    """Take away all disks under a directory."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        where = line.split()[1]
        if where.startswith(f"{directory}/"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("umount", "-l", where)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


class DiskedLab(lab.Lab):
    """A laboratory in which some processes have a disk of their own."""

    disks: dict[str, str] = {}

    def add(self, process: Process) -> None:
        if kind := self.disks.get(process.name):
            mount(kind, self.directory / process.name)
        super().add(process)


def main() -> int:
    """Run it until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--disk", action="append", default=[], metavar="NAME=KIND")
    options = parser.parse_args()
    DiskedLab.disks = dict(one.split("=", 1) for one in options.disk)
    lab.Lab = DiskedLab  # type: ignore[misc]
    ground = prepare(options.directory)
    story.clear(ground.directory)
    try:
        return asyncio.run(commands._run(ground, options.port, str(options.directory)))
    finally:
        unmount(options.directory)


if __name__ == "__main__":
    sys.exit(main())
