"""Anonymous network namespaces, and the rights to make them.

A namespace lives as long as something refers to it. Ours have no name and no mount: a descriptor
held by the laboratory and the processes inside are all that refers to them, so the end of the
laboratory, even by SIGKILL, is their end and the kernel takes ports, bridges and rules with them.

A thread that has moved into a namespace is thrown away: it must never serve anything else, so no
thread pool is used here. The laboratory itself stays in the namespace it was started in: sockets
it opens are reachable from the machine.

Rights: with CAP_SYS_ADMIN and CAP_NET_ADMIN namespaces are made directly; without, the process
first becomes root of its own user namespace, which needs nobody's permission on most systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from roost.sim.lab.enter import CLONE_NEWNET, CLONE_NEWUSER, join, unshare
from roost.sim.lab.errors import LabError

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
# Debian keeps the network tools out of an ordinary user's search path.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_PACKAGES = {"ip": "iproute2", "nft": "nftables"}

Result = TypeVar("Result")


class Rights(enum.StrEnum):
    """By which right the namespaces are made."""

    ROOT = "root"
    USER_NAMESPACE = "user namespace"


def has_rights() -> bool:
    """Whether this process may make namespaces as it is."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return bool(bits >> _CAP_NET_ADMIN & 1 and bits >> _CAP_SYS_ADMIN & 1)
    return False


def _limit(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def missing_right(number: int) -> LabError:
    """Say which setting of this system forbids namespaces to an ordinary user, and the way out."""
    root = "or run it as root"
    if number == errno.EINVAL:
        return LabError(
            "this process already has several threads and cannot get a user namespace",
            f"prepare the laboratory before anything starts a thread, {root}",
        )
    if _limit("/proc/sys/kernel/unprivileged_userns_clone") == 0:
        setting = "kernel.unprivileged_userns_clone=1"
    elif _limit("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
        setting = "kernel.apparmor_restrict_unprivileged_userns=0"
    elif _limit("/proc/sys/user/max_user_namespaces") == 0:
        setting = "user.max_user_namespaces=15000"
    else:
        return LabError(
            f"network namespaces are forbidden to this user ({os.strerror(number)}) and no setting says why; "
            "a container's security profile often does",
            f"run it outside the container, in a container with --privileged, {root}",
        )
    return LabError(
        "network namespaces are forbidden to ordinary users on this system",
        f"allow them with `sudo sysctl -w {setting}`, {root}",
    )


def become_capable() -> Rights:
    """Get the rights to make network namespaces; to be called before any thread is started.

    Without root this moves the process into its own user namespace, for good.
    """
    if has_rights():
        rights = Rights.ROOT
    else:
        user, group = os.geteuid(), os.getegid()
        try:
            unshare(CLONE_NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except OSError as error:
            raise missing_right(error.errno or 0) from error
        rights = Rights.USER_NAMESPACE
    try:
        # Some systems grant the user namespace and refuse what is done inside: find out now.
        Namespaces(["probe"]).close()
    except OSError as error:
        raise missing_right(error.errno or 0) from error
    return rights


def user_namespace() -> int:
    """The number that tells this process's user namespace from another."""
    return Path("/proc/self/ns/user").stat().st_ino


def require_programs(names: Iterable[str]) -> None:
    """Raise unless every program is installed."""
    absent = [name for name in names if shutil.which(name, path=SEARCH_PATH) is None]
    if absent:
        packages = " ".join(_PACKAGES.get(name, name) for name in absent)
        raise LabError(
            f"{' and '.join(absent)} not found on this machine",
            f"install with `sudo apt install {packages}`",
        )


class Namespaces:
    """Network namespaces by name, each kept by one descriptor. Close to let go of them all."""

    def __init__(self, names: Iterable[str]) -> None:
        self._descriptors: dict[str, int] = {}
        wanted = list(names)
        failure: list[OSError] = []

        def make() -> None:
            try:
                for name in wanted:
                    unshare(CLONE_NEWNET)
                    self._descriptors[name] = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=make, name="namespace-maker")
        thread.start()
        thread.join()
        if failure:
            self.close()
            raise failure[0]

    @property
    def descriptors(self) -> Mapping[str, int]:
        return self._descriptors

    def __getitem__(self, name: str) -> int:
        try:
            return self._descriptors[name]
        except KeyError:
            known = ", ".join(sorted(self._descriptors)) or "none, the laboratory is closed"
            raise LabError(f"there is no host or router named {name}", f"choose one of: {known}") from None

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


async def within(descriptor: int, function: Callable[[], Result]) -> Result:
    """Run a blocking function in the namespace, on a thread of its own. It must have a deadline itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    # A copy of its own: when this wait is cancelled the thread goes on for a while, and the
    # descriptor it was given may by then be closed or mean something else.
    own = os.dup(descriptor)

    def settle(set_outcome: Callable[[], None]) -> None:
        if not future.done():
            set_outcome()

    def tell(set_outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, set_outcome)

    def work() -> None:
        try:
            try:
                join(own, CLONE_NEWNET)
            finally:
                os.close(own)
            result = function()
        except Exception as error:
            failure = error  # the name of an except clause ends with it
            tell(lambda: future.set_exception(failure))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=work, name="namespace-worker", daemon=True).start()
    return await future
