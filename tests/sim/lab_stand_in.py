"""Small processes in the place of Roost's own, to test the laboratory: a centre, agents, and the starter.

lab_stand_in.py lab DIRECTORY PORT      the whole: network, a centre, an agent on every host
lab_stand_in.py centre                  answers "centre to ADDRESS" on port 9000 and on what it inherits
lab_stand_in.py agent                   asks the centre once, then says ready and waits
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

CENTRE_ADDRESS = "198.18.0.100"
CENTRE_PORT = 9000


def notify(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        sender.send(text.encode())


async def centre() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"centre to {writer.get_extra_info('peername')[0]}".encode())
        writer.close()

    await asyncio.start_server(answer, None, CENTRE_PORT)
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        assert os.environ["LISTEN_FDNAMES"] == "api"
        await asyncio.start_server(answer, sock=socket.socket(fileno=3))
    notify("READY=1\nSTATUS=answers")
    await asyncio.Event().wait()


def agent() -> None:
    with socket.create_connection((CENTRE_ADDRESS, CENTRE_PORT), timeout=10) as link:
        told = link.recv(100).decode()
    if "--child" in sys.argv:
        subprocess.Popen(["sleep", "1000"])
    print("asked the centre:", told, flush=True)
    notify(f"STATUS={told}\nREADY=1")
    signal.pause()


def lab(directory: Path, port: int) -> None:
    from roost.sim.lab.errors import LabError
    from roost.sim.lab.ground import prepare
    from roost.sim.lab.lab import Lab, open_listener
    from roost.sim.lab.supervisor import Process
    from roost.sim.lab.topology import CENTRE, DEMO

    me = (sys.executable, __file__)

    async def run() -> None:
        async with Lab(ground, DEMO, report=print) as running:
            listener = open_listener(port)
            running.add(
                Process(
                    name="central", argv=(*me, "centre"), host=CENTRE, pass_fds={"api": listener.fileno()}
                )
            )
            for host in running.plan.hosts:
                running.add(
                    Process(
                        name=host.name, argv=(*me, "agent", "--child"), host=host.name, after=("central",)
                    )
                )
            await running.supervisor.ready(within=60)
            print("ready", listener.getsockname()[1], flush=True)
            await running.until_stopped()

    try:
        ground = prepare(directory)
        asyncio.run(run())
    except LabError as error:
        sys.exit(f"refused: {error}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lab", directory, port]:
            lab(Path(directory), int(port))
        case ["centre"]:
            asyncio.run(centre())
        case ["agent", *_]:
            agent()
