"""The launcher: step into a host's namespaces, tie this process's life to the laboratory, and exec.

It is started as a file, `python -I -S enter.py ... -- program arguments`, and imports only the
standard library: half the start of a Python process is site-packages, and every process of the
laboratory passes through here. It replaces a function run between fork and exec, which could
deadlock on a lock another thread held at the moment of the fork.

Order matters:
1. join the user namespace, if any: it brings the rights for the rest;
2. join the network namespace; make a private mount and host-name namespace, and mount a /sys that
   shows the ports of this host and not those of the machine;
3. ask the kernel for SIGKILL when the parent dies. Joining a user namespace clears that wish, so
   it comes after; then see whether the parent died before the wish was made;
4. lay inherited listening sockets out from descriptor 3 upwards, as systemd's socket activation
   does (LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), and exec.

The death wish belongs to the program itself. A program that starts others which may outlive it
puts them in its own process group (the supervisor ends the group) or gives them the same wish.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
_FIRST_LISTENING = 3
CANNOT_ENTER = 71
CANNOT_EXECUTE = 127

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces of the kinds in `flags`."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def join(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `descriptor`."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    _checked(result, f"mount {target}")


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the thread that started this process ends; leave if it already did."""
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(CANNOT_ENTER)


def _join_path(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        join(descriptor, kind)
    finally:
        os.close(descriptor)


def _mount_sys() -> None:
    """Show this network namespace's ports in /sys, and keep the control groups that were there.

    Some containers forbid it; the program then sees the machine's ports in /sys, and is told.
    """
    groups = -1
    try:
        groups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        groups = -1
    safe = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:
        try:
            _mount("sysfs", "/sys", "sysfs", safe)
        except OSError:
            # Where the machine's /sys is read-only the kernel lets a user namespace mount no other.
            _mount("sysfs", "/sys", "sysfs", safe | _MS_RDONLY)
        if groups >= 0:
            _mount(f"/proc/self/fd/{groups}", "/sys/fs/cgroup", "", _MS_BIND | _MS_REC)
    except OSError as error:
        sys.stderr.write(f"roost: /sys here may show the machine's own ports ({error})\n")
    finally:
        if groups >= 0:
            os.close(groups)


def _enter(options: dict[str, str]) -> None:
    if "user" in options:
        _join_path(options["user"], CLONE_NEWUSER)
    if "net" in options:
        _join_path(options["net"], CLONE_NEWNET)
        unshare(CLONE_NEWNS | CLONE_NEWUTS)
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount_sys()
    if "hostname" in options:
        socket.sethostname(options["hostname"])
    if "parent" in options:
        die_with_parent(int(options["parent"]))


def _lay_out(listening: str) -> None:
    """Place inherited descriptors, given as `name=number,...`, from 3 upwards."""
    pairs = [item.split("=", 1) for item in listening.split(",")]
    # Copies above the range first, so that no descriptor is overwritten before it is moved.
    above = _FIRST_LISTENING + len(pairs)
    copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, above) for _, number in pairs]
    for _, number in pairs:
        os.close(int(number))
    for place, copy in enumerate(copies):
        os.dup2(copy, _FIRST_LISTENING + place, inheritable=True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(pairs))
    os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in pairs)


def _parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    if "--" not in arguments:
        raise ValueError("no program given: write `--` and the program after the options")
    end = list(arguments).index("--")
    options: dict[str, str] = {}
    for item in arguments[:end]:
        name, _, value = item.removeprefix("--").partition("=")
        if name not in {"user", "net", "hostname", "parent", "listen"} or not value:
            raise ValueError(
                f"unknown option {item!r}: use --user=, --net=, --hostname=, --parent=, --listen="
            )
        options[name] = value
    program = list(arguments[end + 1 :])
    if not program:
        raise ValueError("no program given after `--`")
    return options, program


def main(arguments: Sequence[str]) -> NoReturn:
    """Enter as the options say and become the program; never returns."""
    try:
        options, program = _parse(arguments)
        _enter(options)
        if "listen" in options:
            _lay_out(options["listen"])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"roost: cannot enter the host: {error}\n")
        sys.exit(CANNOT_ENTER)
    try:
        os.execvp(program[0], program)  # noqa: S606  the point of a launcher
    except OSError as error:
        sys.stderr.write(f"roost: cannot run {program[0]}: {error.strerror}\n")
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(sys.argv[1:])
