"""Network namespaces for tests: real kernels' worth of hosts, joined by veth pairs, gone afterwards.

    with namespaces("host", "peer") as world:
        world.join("host", "eth0", ["10.0.0.1/24"], "peer", "eth0", ["10.0.0.2/24", "fd00::2/64"])
        world["host"].run("nft", "list", "ruleset")
        server = world["peer"].socket(socket.AF_INET, socket.SOCK_STREAM)

Names get a prefix unique to this use, so that parallel runs never meet. Whatever happens inside the
block, processes in the namespaces and the namespaces themselves are removed. Where namespaces are not
permitted the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

PREFIX = "rt-"
"""What the names of all namespaces of tests begin with."""
DEADLINE_SECONDS = 20.0
DROPPED_SECONDS = 0.4
"""A packet that is not there by then was dropped: the way is one veth pair long."""

_CLONE_NEWNET = 0x40000000
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix: tuple[str, ...] = ("ip", "netns", "exec", name)
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, *command: str, check: bool = True, data: str | None = None) -> str:
        """Standard output of a command run inside; with `check`, failure fails the test and says why."""
        done = subprocess.run(
            [*self.prefix, *command],
            capture_output=True,
            text=True,
            input=data,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} in {self.name}: {done.stderr.strip()}")
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A process inside, with its standard input and output as pipes; killed at the end."""
        process = subprocess.Popen(
            [*self.prefix, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        return process

    def call(self, function: Callable[[], T]) -> T:
        """`function` run in a thread that is inside; sockets it makes stay inside for good."""
        result: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with Path("/run/netns", self.name).open("rb") as handle:
                    if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"cannot enter namespace {self.name}")
                result.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join(DEADLINE_SECONDS)
        if failure:
            raise failure[0]
        assert result, f"no answer from inside {self.name}"
        return result[0]

    def socket(self, family: int, type: int, protocol: int = 0) -> socket.socket:
        """A socket that lives inside; the caller closes it."""
        made = self.call(lambda: socket.socket(family, type, protocol))
        made.settimeout(DEADLINE_SECONDS)
        return made

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=DEADLINE_SECONDS)


class World:
    """The namespaces of one test, by their short names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"{PREFIX}{os.getpid():x}{secrets.token_hex(2)}"
        self._members: dict[str, Namespace] = {}
        self._names = names

    def __getitem__(self, name: str) -> Namespace:
        return self._members[name]

    def open(self) -> None:
        for name in self._names:
            self.add(name)

    def add(self, name: str) -> Namespace:
        """A new, empty namespace with loopback up."""
        full = f"{self._prefix}-{name}"
        _ip("netns", "add", full)
        member = self._members[name] = Namespace(full)
        # Addresses are ours alone: no time is lost on looking for a duplicate.
        member.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        member.run("ip", "link", "set", "lo", "up")
        return member

    def replace(self, name: str) -> Namespace:
        """The namespace anew and empty, as after a restart of a machine."""
        self._members.pop(name).close()
        return self.add(name)

    def join(
        self,
        one: str,
        one_port: str,
        one_addresses: Sequence[str],
        two: str,
        two_port: str,
        two_addresses: Sequence[str],
    ) -> None:
        """A veth pair between two namespaces, both ends with their addresses and up."""
        a, b = self[one], self[two]
        ends = ["name", one_port, "netns", a.name, "type", "veth"]
        _ip("link", "add", *ends, "peer", "name", two_port, "netns", b.name)
        for member, port, addresses in ((a, one_port, one_addresses), (b, two_port, two_addresses)):
            for address in addresses:
                options = ("nodad",) if ":" in address else ()
                member.run("ip", "address", "add", address, "dev", port, *options)
            member.run("ip", "link", "set", port, "up")

    def close(self) -> None:
        for member in self._members.values():
            member.close()


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[World]:
    """A world with these namespaces; skips the test where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("needs the ip command: install iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    world = World(names)
    try:
        try:
            world.open()
        except PermissionError as error:
            pytest.skip(f"needs the right to make network namespaces: {error}")
        yield world
    finally:
        world.close()


def tcp_passes(
    client: Namespace,
    server: Namespace,
    address: str,
    port: int,
    *,
    source: str = "",
    expected: bool = True,
) -> bool:
    """Whether a new TCP connection from client to server comes about. `expected` only sets the patience."""
    family = _family(address)
    with (
        server.socket(family, socket.SOCK_STREAM) as listener,
        client.socket(family, socket.SOCK_STREAM) as out,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        out.settimeout(_patience(expected))
        if source:
            out.bind((source, 0))
        try:
            out.connect((address, port))
        except TimeoutError:
            return False
        except PermissionError:  # what the kernel answers when our own output hook drops the packet
            return False
        return True


def udp_passes(
    client: Namespace, server: Namespace, address: str, port: int, *, expected: bool = True
) -> bool:
    """Whether a datagram from client reaches server."""
    family = _family(address)
    with (
        server.socket(family, socket.SOCK_DGRAM) as listener,
        client.socket(family, socket.SOCK_DGRAM) as out,
    ):
        listener.bind((address, port))
        listener.settimeout(_patience(expected))
        try:
            out.sendto(b"datagram", (address, port))
            return listener.recv(64) == b"datagram"
        except (TimeoutError, PermissionError):
            return False


def echo_passes(client: Namespace, address: str, *, expected: bool = True) -> bool:
    """Whether an ICMP or ICMPv6 echo is answered."""
    family = _family(address)
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    identity = secrets.randbits(16)
    with client.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(_patience(expected))
        head = struct.pack("!BBHHH", _ECHO_REQUEST[family], 0, 0, identity, 1)
        checksum = 0 if family == socket.AF_INET6 else _checksum(head)  # the kernel fills it in for IPv6
        try:
            raw.sendto(head[:2] + struct.pack("!H", checksum) + head[4:], (address, 0))
            while True:
                packet = raw.recv(2048)
                body = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
                kind, _, _, got, _ = struct.unpack("!BBHHH", body[:8])
                if kind == _ECHO_REPLY[family] and got == identity:
                    return True
        except (TimeoutError, PermissionError):
            return False


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    if done.returncode != 0:
        said = done.stderr.strip()
        kind = PermissionError if "not permitted" in said or "denied" in said else AssertionError
        raise kind(f"ip {' '.join(arguments)}: {said}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _patience(expected: bool) -> float:  # noqa: FBT001
    return DEADLINE_SECONDS if expected else DROPPED_SECONDS


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
