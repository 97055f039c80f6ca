"""The laboratory's network on the real kernel: who reaches whom, and what a cut does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from roost.sim.lab.control import Finished
from roost.sim.lab.errors import LabError
from roost.sim.lab.ground import prepare
from roost.sim.lab.lab import Lab, open_listener
from roost.sim.lab.namespaces import has_rights
from roost.sim.lab.supervisor import Process
from roost.sim.lab.topology import CENTRE, DEMO
from roost.sim.lab.uplink import Impairment
from tests.sim import lab_stand_in

pytestmark = [
    pytest.mark.namespaces,
    # Without root the laboratory moves its whole process into a user namespace: see test_lab_run.
    pytest.mark.skipif(not has_rights(), reason="needs root; test_lab_run covers the way without"),
]
LONG = 30.0
CENTRE_4, CENTRE_6, PORT = "198.18.0.100", "fd00:18::100", "9000"
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as link:
        print(link.recv(100).decode())
except OSError as error:
    print("no:", error)
"""
LISTEN = """
import os, socket
server = socket.create_server(("::", 8000), family=socket.AF_INET6, dualstack_ipv6=True)
notice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notice.connect(os.environ["NOTIFY_SOCKET"])
notice.send(b"READY=1")
while True:
    link, who = server.accept()
    link.sendall(b"heard " + who[0].encode())
    link.close()
"""


@pytest_asyncio.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(prepare(tmp_path), DEMO, report=print) as made:
        made.add(Process(name="central", argv=(sys.executable, lab_stand_in.__file__, "centre"), host=CENTRE))
        await made.supervisor.ready(within=LONG)
        yield made


async def ask(lab: Lab, host: str, address: str, port: str = PORT, *, patience: float = 5.0) -> str:
    """What the listener at an address says to a host, or why there is none."""
    argv = [sys.executable, "-I", "-S", "-c", ASK, address, port, str(patience)]
    done = await lab.run(host, argv, within=LONG)
    assert done.code == 0, done.output
    return done.output.strip()


async def listen(lab: Lab, *hosts: str) -> None:
    for host in hosts:
        argv = (sys.executable, "-I", "-S", "-c", LISTEN)
        lab.add(Process(name=f"listener-{host}", argv=argv, host=host))
    await lab.supervisor.ready(within=LONG)


async def test_every_host_reaches_the_centre_only_as_its_router(lab: Lab) -> None:
    for site in lab.plan.sites:
        for host in site.hosts:
            assert await ask(lab, host.name, CENTRE_4) == f"centre to {site.wan.ipv4}"
            assert await ask(lab, host.name, CENTRE_6) == f"centre to {site.wan.ipv6}"


async def test_the_centre_reaches_no_site(lab: Lab) -> None:
    host = lab.plan.host("harbor-controller-0")
    router = lab.plan.site("harbor").wan.ipv4
    await listen(lab, host.name)
    assert (
        await ask(lab, CENTRE, host.oam.ipv4, "8000", patience=1) == "no: [Errno 101] Network is unreachable"
    )
    assert (await ask(lab, CENTRE, host.oam.ipv6, "8000", patience=1)).startswith("no:")
    # Nor does a route that knows the way help: the router lets nothing in.
    added = await lab.run(CENTRE, ["ip", "route", "add", "10.1.0.0/24", "via", router])
    assert added.code == 0, added.output
    assert await ask(lab, CENTRE, host.oam.ipv4, "8000", patience=1) == "no: timed out"


async def test_sites_do_not_reach_one_another(lab: Lab) -> None:
    host = lab.plan.host("ridge-controller-0")
    await listen(lab, host.name)
    for address in (host.oam.ipv4, host.oam.ipv6):
        assert (await ask(lab, "harbor-controller-0", address, "8000", patience=2)).startswith("no:")
    # Harbor's management network has the same addresses and ends at harbor.
    assert (await ask(lab, "harbor-controller-0", "192.168.204.12", "8000", patience=2)).startswith("no:")


async def test_hosts_of_a_site_reach_one_another_on_both_networks(lab: Lab) -> None:
    host = lab.plan.host("valley-worker-0")
    peer = lab.plan.host("valley-controller-1")
    await listen(lab, host.name)
    assert await ask(lab, peer.name, host.oam.ipv4, "8000") == f"heard ::ffff:{peer.oam.ipv4}"
    assert await ask(lab, peer.name, host.oam.ipv6, "8000") == f"heard {peer.oam.ipv6}"
    assert await ask(lab, peer.name, host.mgmt.ipv4, "8000") == f"heard ::ffff:{peer.mgmt.ipv4}"
    assert await ask(lab, peer.name, host.mgmt.ipv6, "8000") == f"heard {peer.mgmt.ipv6}"


async def test_a_cut_link_is_silent_and_a_mended_one_whole(lab: Lab) -> None:
    for direction in ("both", "up", "down"):
        await lab.cut("ridge", direction)
        assert [site.cut for site in lab.status().sites] == [None, direction, None]
        assert await ask(lab, "ridge-controller-0", CENTRE_4, patience=1) == "no: timed out"
        assert await ask(lab, "harbor-controller-0", CENTRE_4) == "centre to 198.18.0.1"
    await lab.mend("ridge")
    await lab.mend("ridge")
    assert await ask(lab, "ridge-controller-0", CENTRE_4) == "centre to 198.18.0.2"
    with pytest.raises(LabError, match="no site named nowhere; choose one of: harbor, ridge, valley"):
        await lab.cut("nowhere")


SPEAK = """
import socket, sys, time
began = time.monotonic()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as link:
    opened = time.monotonic()
    size = 0
    while data := link.recv(65536):
        size += len(data)
    print(opened - began, time.monotonic() - opened, size)
"""
POUR = """
import os, socket
server = socket.create_server(("::", 8001), family=socket.AF_INET6, dualstack_ipv6=True)
notice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notice.connect(os.environ["NOTIFY_SOCKET"])
notice.send(b"READY=1")
while True:
    link, who = server.accept()
    link.sendall(bytes(120_000))
    link.close()
"""


ECHO = """
import os, socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 8002))
notice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notice.connect(os.environ["NOTIFY_SOCKET"])
notice.send(b"READY=1")
while True:
    server.sendto(*server.recvfrom(100))
"""
COUNT = """
import socket, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect((sys.argv[1], 8002))
for n in range(200):
    link.send(b"%d" % n)
    time.sleep(0.005)
link.settimeout(1)
heard = set()
try:
    while len(heard) < 200:
        heard.add(link.recv(100))
except TimeoutError:
    pass
print(len(heard))
"""


async def echoed(lab: Lab) -> int:
    """How many of 200 packets from harbor come back from the centre."""
    done = await lab.run(
        "harbor-controller-0", [sys.executable, "-I", "-S", "-c", COUNT, CENTRE_4], within=LONG
    )
    assert done.code == 0, done.output
    return int(done.output)


async def pour(lab: Lab, address: str) -> tuple[float, float]:
    """Seconds that harbor takes to open a connection to the centre, and then to be told 120 kB."""
    argv = [sys.executable, "-I", "-S", "-c", SPEAK, address, "8001"]
    done = await lab.run("harbor-controller-0", argv, within=LONG * 2)
    assert done.code == 0, done.output
    opening, telling, size = done.output.split()
    assert size == "120000"
    return float(opening), float(telling)


async def test_a_slow_link_delays_loses_and_narrows_and_a_mended_one_does_not(lab: Lab) -> None:
    for name, program in (("pourer", POUR), ("echo", ECHO)):
        lab.add(Process(name=name, argv=(sys.executable, "-I", "-S", "-c", program), host=CENTRE))
    await lab.supervisor.ready(within=LONG)
    for address in (CENTRE_4, CENTRE_6):
        await lab.slow("harbor", Impairment(delay=150))
        opening, _ = await pour(lab, address)
        assert opening >= 0.3, "there and back"
        assert await ask(lab, "harbor-controller-0", address) != "", "the router still hides its site"
        await lab.slow("harbor", Impairment(rate=400_000))
        opening, telling = await pour(lab, address)
        assert telling >= 1.8, f"120 kB take 2.4 s at 400 kbit/s, less a burst: {telling}"
        if opening < 0.3:
            break  # the delay is gone: else the machine was busy, and the other family shows it
    await lab.slow("harbor", Impairment(delay=20, loss=20, rate=10_000_000))
    assert [site.slow for site in lab.status().sites] == [
        Impairment(delay=20, loss=20, rate=10_000_000),
        None,
        None,
    ]
    # 36 of 100 are lost there or back: 128 of 200 return, give or take 7.
    assert 60 <= await echoed(lab) <= 195
    await lab.cut("harbor", "up")
    assert await ask(lab, "harbor-controller-0", CENTRE_4, patience=1) == "no: timed out"
    await lab.mend("harbor")
    assert [site.slow for site in lab.status().sites] == [None, None, None]
    assert await echoed(lab) >= 196
    assert await ask(lab, "harbor-controller-0", CENTRE_4) == "centre to 198.18.0.1"
    with pytest.raises(LabError, match="nothing that would slow the link"):
        await lab.slow("harbor", Impairment())


async def test_a_cut_with_resets_answers_at_once(lab: Lab) -> None:
    await lab.cut("ridge", "both", "reset")
    assert await ask(lab, "ridge-controller-0", CENTRE_4) == "no: [Errno 111] Connection refused"
    assert await ask(lab, "ridge-controller-0", CENTRE_6) == "no: [Errno 111] Connection refused"
    await lab.mend("ridge")
    assert await ask(lab, "ridge-controller-0", CENTRE_4) == "centre to 198.18.0.2"


async def test_a_host_sees_only_its_own_ports_and_name(lab: Lab) -> None:
    async def run(*argv: str) -> str:
        done: Finished = await lab.run("valley-controller-0", argv)
        assert done.code == 0, done.output
        return done.output.strip()

    assert (await run("ls", "/sys/class/net")).split() == ["lo", "mgmt0", "oam0"]
    assert await run("cat", "/sys/class/net/oam0/address") == lab.plan.host("valley-controller-0").oam.mac
    assert await run("uname", "-n") == "valley-controller-0"
    # The forwarding of the routers is theirs alone.
    assert await run("cat", "/proc/sys/net/ipv4/ip_forward") == "0"
    assert (await lab.run("valley-router", ["cat", "/proc/sys/net/ipv4/ip_forward"])).output == "1\n"


async def test_an_inherited_listener_answers_in_the_namespace_it_was_made_in(
    lab: Lab, tmp_path: Path
) -> None:
    with open_listener(17443) as listener, open_listener(17443) as other:
        port, next_port = (each.getsockname()[1] for each in (listener, other))
        assert next_port > port
        lab.add(
            Process(
                name="api",
                argv=(sys.executable, lab_stand_in.__file__, "centre"),
                host="harbor-router",
                pass_fds={"api": listener.fileno()},
            )
        )
        await lab.supervisor.ready("api", within=LONG)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"centre to 127.0.0.1"
        writer.close()
        # Who comes while the process is away waits and is served by the next one.
        lab.supervisor.kill("api")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(LONG):
            assert await reader.read() == b"centre to 127.0.0.1"
        writer.close()


async def test_commands_have_limits(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"did not end within 0\.5 s"):
        await lab.run("harbor-controller-0", ["sleep", "100"], within=0.5)
    flood = await lab.run("harbor-controller-0", ["head", "-c", "3000000", "/dev/zero"], within=LONG)
    assert flood.truncated
    assert len(flood.output) == 1_048_576
    with pytest.raises(LabError, match="no host or router named elsewhere"):
        await lab.run("elsewhere", ["true"])
    assert (await lab.run("harbor-controller-0", ["no-such-program"])).code == 127
    with pytest.raises(LabError, match="no host or router named elsewhere"):
        lab.add(Process(name="lost", argv=("true",), host="elsewhere"))
