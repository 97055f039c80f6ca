"""Netlink and ethtool: messages as bytes, and the real kernel in namespaces of its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.host.observe import netlink, port_signature
from roost.host.observe.ethtool import Driver, Speed, parse_driver, parse_speed, read_driver, read_speed
from roost.host.observe.netlink import Address, Link, NetlinkError, parse_addresses, parse_links
from roost.host.observe.watching import drain


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", len(body) + 16, kind, 2, 1, 0) + body


def link(index: int, flags: int, *attributes: bytes, type_: int = 1, family: int = 0) -> bytes:
    return message(16, struct.pack("=BxHiII", family, type_, index, flags, 0) + b"".join(attributes))


DONE = message(3, struct.pack("=i", 0))


def test_links() -> None:
    payload = (
        link(
            7,
            0x11043,
            attribute(3, b"veth0\0"),
            attribute(1, bytes.fromhex("0200000000ff")),
            attribute(4, struct.pack("=I", 1500)),
            attribute(10, struct.pack("=I", 3)),
            attribute(0x8000 | 18, attribute(1, b"veth\0") + attribute(2, b"\1\2\3\4")),
            attribute(999, b"from a newer kernel"),
        )
        + link(1, 0x10049, attribute(3, b"lo\0"), type_=772)
        + link(3, 0x1002, attribute(3, b"eth0\0"))
        + link(3, 0x1002, attribute(3, b"eth0\0"), family=socket.AF_BRIDGE)
        + DONE
    )
    assert parse_links(payload) == [
        Link(index=1, name="lo", kind="type 772", up=True, carrier=True, loopback=True),
        Link(index=3, name="eth0", kind="ethernet"),
        Link(
            index=7,
            name="veth0",
            kind="veth",
            mac="02:00:00:00:00:ff",
            mtu=1500,
            up=True,
            carrier=True,
            master=3,
        ),
    ]


def test_addresses() -> None:
    def address(family: int, prefix: int, index: int, *attributes: bytes) -> bytes:
        return message(20, struct.pack("=BBBBI", family, prefix, 0, 0, index) + b"".join(attributes))

    peer, mine = socket.inet_aton("198.51.100.2"), socket.inet_aton("198.51.100.1")
    payload = (
        address(socket.AF_INET, 32, 2, attribute(1, peer), attribute(2, mine))
        + address(socket.AF_INET6, 64, 3, attribute(1, socket.inet_pton(socket.AF_INET6, "fd00::9")))
        + address(99, 8, 3, attribute(1, b"abcd"))
        + DONE
    )
    assert parse_addresses(payload) == [
        Address(index=2, address="198.51.100.1/32"),
        Address(index=3, address="fd00::9/64"),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("=IHHII", 8, 16, 0, 0, 0),
        struct.pack("=IHHII", 400, 16, 0, 0, 0),
        message(16, b"short"),
        link(1, 0, struct.pack("=HH", 200, 3)),
        link(1, 0, struct.pack("=HH", 0, 3)),
    ],
)
def test_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(NetlinkError):
        parse_links(payload)


def test_progress_of_a_dump() -> None:
    changed = struct.pack("=IHHII", 16, 16, 0x12, 1, 0)
    assert netlink.progress(link(1, 0)) == (False, False)
    assert netlink.progress(link(1, 0) + DONE) == (True, False)
    assert netlink.progress(changed + message(3, b"")) == (True, True)
    for kind in (2, 3):
        with pytest.raises(PermissionError, match="refused"):
            netlink.progress(message(kind, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(NetlinkError):
        netlink.progress(message(2, b""))


def test_a_dump_during_which_something_changed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(b"", True), (link(1, 0, attribute(3, b"lo\0")) + DONE, False)]
    monkeypatch.setattr(netlink, "_dump_once", lambda request, body: answers.pop(0))
    assert [one.name for one in netlink.read_links()] == ["lo"]
    monkeypatch.setattr(netlink, "_dump_once", lambda request, body: (DONE, True))
    with pytest.raises(NetlinkError, match="changed during each of 3 attempts"):
        netlink.read_addresses()


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(payload: bytes) -> None:
    for parse in (parse_links, parse_addresses, netlink.progress):
        try:
            parse(payload)
        except (NetlinkError, OSError):
            continue


def test_driver_and_speed() -> None:
    words = (b"i40e", b"6.1.0", b"N/A", b"0000:5e:00.0", b"")
    raw = struct.pack("=I32s32s32s32s32s12sIIIII", 3, *words, b"", 0, 0, 0, 0, 0)
    assert parse_driver(raw) == Driver(name="i40e", version="6.1.0", bus="0000:5e:00.0")
    assert parse_speed(struct.pack("=IIB39x", 0x4C, 25000, 1)) == Speed(mbit=25000, duplex="full")
    assert parse_speed(struct.pack("=IIB39x", 0x4C, 0xFFFFFFFF, 0xFF)) == Speed()


def test_a_port_that_is_gone_has_no_driver() -> None:
    assert read_driver("nosuchport0") == Driver()
    assert read_speed("nosuchport0") == Speed()


def test_loopback_of_this_namespace() -> None:
    (loopback,) = [one for one in netlink.read_links() if one.loopback]
    assert loopback.name == "lo"
    assert port_signature() == port_signature()


def test_a_lost_notification_counts_as_one() -> None:
    class Overrun:
        def __init__(self, *errors: OSError) -> None:
            self.errors = list(errors)

        def recv(self, size: int) -> bytes:
            raise self.errors.pop(0)

    lost = OSError(errno.ENOBUFS, "No buffer space available")
    assert drain(Overrun(lost, BlockingIOError())) is None  # type: ignore[arg-type]
    broken = OSError(errno.EBADF, "Bad file descriptor")
    assert drain(Overrun(broken)) is broken  # type: ignore[arg-type]


def in_namespace(script: str) -> object:
    """Run Python in a network namespace of its own, with /sys as it is outside; what it prints as JSON."""
    command = ["unshare", "--net", sys.executable, "-c", textwrap.dedent(script)]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.namespaces
def test_ports_of_another_namespace() -> None:
    ports = in_namespace(
        """
        import json, msgspec, subprocess
        from roost.host.observe import Source, port_signature
        from roost.host.observe.ports import observe_ports
        def ip(words): subprocess.run(["ip", *words.split()], check=True)
        signatures = [port_signature()]
        ip("link add br0 type bridge")
        ip("link add v0 type veth peer name v1")
        ip("link set v0 master br0 up mtu 1400")
        signatures.append(port_signature())
        ip("address add 192.0.2.7/24 dev br0")
        ip("-6 address add fd00:7::1/64 dev br0 nodad")
        ip("link set br0 up")
        ports, unknowns = observe_ports(Source())
        signatures.append(port_signature())
        print(json.dumps([msgspec.to_builtins(ports), msgspec.to_builtins(unknowns), len(set(signatures))]))
        """
    )
    assert isinstance(ports, list)
    found, unknowns, signatures = ports
    assert unknowns == []
    assert signatures == 3
    by_name = {port["name"]: port for port in found}
    assert sorted(by_name) == ["br0", "v0", "v1"]
    assert by_name["br0"]["kind"] == by_name["br0"]["driver"] == "bridge"
    assert {"192.0.2.7/24", "fd00:7::1/64"} <= set(by_name["br0"]["addresses"])
    assert by_name["v0"]["kind"] == by_name["v0"]["driver"] == "veth"
    assert by_name["v0"]["master"] == "br0"
    assert by_name["v0"]["mtu"] == 1400
    assert by_name["v0"]["up"] is True
    assert "carrier" not in by_name["v0"]  # its peer is down
    assert "up" not in by_name["v1"]


@pytest.mark.namespaces
def test_changes_of_ports_are_noticed_and_coalesced() -> None:
    told = in_namespace(
        """
        import asyncio, contextlib, json, subprocess
        from roost.host.observe import watch_ports
        async def ip(words):
            assert await (await asyncio.create_subprocess_exec("ip", *words.split())).wait() == 0
        async def main():
            told = []
            async with contextlib.aclosing(watch_ports(0.2)) as changes:
                ahead = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0)
                assert not ahead.done()
                await ip("link add v0 type veth peer name v1")
                await asyncio.wait_for(ahead, 20)
                told.append("link")
                for n in range(30):
                    await ip(f"address add 192.0.2.{n + 1}/24 dev v0")
                seen = 0
                with contextlib.suppress(TimeoutError):
                    while True:
                        await asyncio.wait_for(anext(changes), 1.0)
                        seen += 1
                told.append(seen)
            print(json.dumps(told))
        asyncio.run(main())
        """
    )
    assert isinstance(told, list)
    assert told[0] == "link"
    assert 1 <= told[1] < 30


def open_sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return sum(one.startswith("socket:") for one in links)


def test_no_socket_is_left_open() -> None:
    before = open_sockets()
    for _ in range(3):
        port_signature()
        read_driver("lo")
        read_speed("lo")
    assert open_sockets() == before
