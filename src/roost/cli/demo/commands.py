"""`roost demo` and its verbs: run, status, cut, slow, mend, kill, pause, resume, exec, stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter

from roost.cli import problems
from roost.cli.demo import tour
from roost.sim.lab.errors import LabError

DIRECTORY = ".demo"
PORT = 7443

demo = App(name="demo", help="A central cloud and three subclouds on this machine; try everything on it.")
Directory = Annotated[Path, Parameter(help="Folder that holds the demo's state.")]
Port = Annotated[
    int,
    Parameter(help="Where the central cloud is reached on this machine; the next free one if it is taken."),
]
Site = Annotated[str, Parameter(name="SITE", help="A site, as `roost demo status` lists them.")]
Process = Annotated[str, Parameter(name="PROCESS", help="A process, as `roost demo status` lists them.")]
_HERE = Path(DIRECTORY)


def register(app: App) -> None:
    """Add these verbs to the application."""
    app.command(demo)


@demo.default
@demo.command
def run(*, directory: Directory = _HERE, port: Port = PORT) -> int:
    """Start the demo and keep it up until Ctrl-C, which leaves nothing behind.

    For example:
        roost demo
        roost demo run --port 8443
    """
    from roost.cli.demo import story
    from roost.sim.lab.ground import prepare

    try:
        ground = prepare(directory)
        story.clear(ground.directory)
        elsewhere = "" if directory == _HERE else str(directory)
        return asyncio.run(_run(ground, port, elsewhere))
    except LabError as error:
        raise problems.Failed(error.reason, error.remedy) from error


async def _run(ground: Any, port: int, elsewhere: str) -> int:
    from roost.cli.demo.story import Story
    from roost.sim.lab.lab import Lab, open_listener
    from roost.sim.lab.topology import DEMO

    started = time.monotonic()

    def report(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    listener = open_listener(port)
    api: tuple[str, int] = listener.getsockname()
    if api[1] != port:
        report(f"port {port} is taken; using {api[1]}")
    async with Lab(ground, DEMO, report=report) as lab:
        report(f"{len(lab.plan.namespaces)} network namespaces stand ({ground.rights})")
        told = Story(lab, api, report)
        stopping = asyncio.create_task(lab.until_stopped())
        bringing = asyncio.create_task(told.bring_up(listener.fileno()))
        await asyncio.wait({stopping, bringing}, return_when=asyncio.FIRST_COMPLETED)
        if not bringing.done():
            bringing.cancel()
            report("stopping before everything was up")
            return problems.INTERRUPTED
        bringing.result()
        report("ready")
        typed = tour.lines(tour.roost_command(_program(), Path.cwd()), elsewhere)
        has_kubectl = shutil.which("kubectl") is not None
        print("\n" + tour.text(told.kubeconfig, typed, kubectl=has_kubectl) + "\n", flush=True)
        await stopping
        report("ending every process and namespace")
    report("nothing is left")
    return problems.OK


def _program() -> Path:
    """The command `roost` of this installation, beside its interpreter."""
    return Path(sys.executable).parent / "roost"


@demo.command
def status(*, directory: Directory = _HERE) -> int:
    """Show the processes, hosts and links of the running demo."""
    from roost.sim.lab import control

    found = _ask(control.status(directory))
    for site in found.sites:
        link = [f"cut ({site.cut})"] if site.cut else []
        link += [f"suffers {site.slow}"] if site.slow else []
        print(f"{site.name:10} {site.mode:9} link {', '.join(link) or 'whole'}")
    print()
    for process in found.processes:
        restarts = f"{process.restarts} restarts" if process.restarts else ""
        print(f"{process.name:22} {process.state:9} pid {process.pid:<8} {restarts}")
    return problems.OK


@demo.command
def cut(
    site: Site,
    /,
    *,
    direction: Annotated[
        Literal["both", "up", "down"], Parameter(help="Which way is lost; up: what the site sends.")
    ] = "both",
    manner: Annotated[
        Literal["silent", "reset"],
        Parameter(help="Whether nothing answers, or each connection is reset, as by a firewall."),
    ] = "silent",
    directory: Directory = _HERE,
) -> int:
    """Cut a site's link to the centre, silently, as a dead radio link would.

    The centre can't reach the site then; `roost demo exec` runs commands at the site itself.

    For example:
        roost demo cut ridge
        roost demo exec ridge-controller-0 -- roost status
    """
    from roost.sim.lab import control

    done = _do(directory, control.Cut(site=site, direction=direction, manner=manner))
    known = _ask(control.status(directory)).nodes
    homes = [n.name for n in known if n.site == site and (directory / n.name / "kubeconfig").is_file()]
    if homes:
        elsewhere = "" if directory == _HERE else f"--directory {directory} "
        print(f"work at the site meanwhile: roost demo exec {elsewhere}{homes[0]} -- roost status")
    return done


@demo.command
def slow(
    site: Site,
    /,
    *,
    delay: Annotated[int, Parameter(help="Milliseconds each way.")] = 0,
    loss: Annotated[float, Parameter(help="Percent of packets lost, each way.")] = 0.0,
    rate: Annotated[str, Parameter(help="Bits a second each way, as 1mbit or 512kbit.")] = "",
    directory: Directory = _HERE,
) -> int:
    """Make a site's link slow and lossy, as over a satellite; `roost demo mend` makes it good again.

    For example:
        roost demo slow ridge --delay 300 --loss 5 --rate 1mbit
    """
    from roost.sim.lab import control, uplink

    try:
        bits = uplink.rate(rate) if rate else 0
        suffered = uplink.checked(uplink.Impairment(delay=delay, loss=loss, rate=bits))
    except LabError as error:
        raise problems.Failed(error.reason, error.remedy) from error
    return _do(directory, control.Slow(site=site, impairment=suffered))


@demo.command
def mend(
    site: Site,
    /,
    *,
    only: Annotated[
        Literal["all", "cut", "slow"], Parameter(help="What to end: the cut, what slows it, or both.")
    ] = "all",
    directory: Directory = _HERE,
) -> int:
    """Mend a site's link, cut or slow.

    For example:
        roost demo mend ridge
    """
    from roost.sim.lab import control

    return _do(directory, control.Mend(site=site, only=only))


@demo.command
def kill(process: Process, /, *, directory: Directory = _HERE) -> int:
    """Kill a process (SIGKILL); the demo starts it again.

    For example:
        roost demo kill valley-worker-0
        roost demo kill centre
    """
    from roost.sim.lab import control

    return _do(directory, control.Kill(process=process))


@demo.command
def halt(process: Process, /, *, directory: Directory = _HERE) -> int:
    """Kill a process (SIGKILL) and leave it dead, until `roost demo resume`.

    For example:
        roost demo halt centre
        roost store restore monday.roost --replace --home .demo/centre
        roost demo resume centre
    """
    from roost.sim.lab import control

    return _do(directory, control.Halt(process=process))


@demo.command
def pause(process: Process, /, *, directory: Directory = _HERE) -> int:
    """Stop a process where it stands (SIGSTOP), until `roost demo resume`."""
    from roost.sim.lab import control

    return _do(directory, control.Pause(process=process))


@demo.command
def resume(process: Process, /, *, directory: Directory = _HERE) -> int:
    """Let a paused process go on, or start one that was halted or given up."""
    from roost.sim.lab import control

    return _do(directory, control.Resume(process=process))


@demo.command(name="exec")
def execute(
    host: Annotated[
        str, Parameter(name="HOST", help="A host, as ridge-controller-0, a site's router, or centre.")
    ],
    /,
    *command: Annotated[
        str, Parameter(name="COMMAND", allow_leading_hyphen=True, help="What to run; default: bash.")
    ],
    directory: Directory = _HERE,
) -> NoReturn:
    """Run a command inside a host of the demo, with its network and its own cloud's credentials.

    So `roost` and kubectl work at a site that is cut off. `centre` is where the central cloud runs.

    For example:
        roost demo exec harbor-controller-0 -- ip addr
        roost demo exec ridge-controller-0 -- roost status
        roost demo exec valley-worker-0 -- bash
    """
    from roost.sim.lab import control

    told = at_home(directory.absolute() / host, _program().parent, os.environ.get("PATH", os.defpath))
    argv = _ask(control.attach_command(directory, host, [*told, *(command or ("bash",))]))
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606


def at_home(home: Path, programs: Path, path: str) -> list[str]:
    """How a command is begun so that it speaks to the cloud of the host whose home that is; pure.

    What the caller has exported leads to the centre, which no host reaches at that address.
    """
    own = home / "kubeconfig"
    known = [f"ROOST_HOME={home}", f"ROOST_KUBECONFIG={own}", f"KUBECONFIG={own}"]
    return ["env", f"PATH={programs}:{path}", *known]


@demo.command
def stop(*, directory: Directory = _HERE) -> int:
    """End the running demo, as Ctrl-C does."""
    from roost.sim.lab import control

    return _do(directory, control.Stop())


def _do(directory: Path, request: Any) -> int:
    from roost.sim.lab import control

    reply = _ask(control.call(directory, request))
    if isinstance(reply, control.Refused):
        raise problems.Failed(reply.reason, reply.remedy)
    if isinstance(reply, control.Done):
        print(reply.text)
    return problems.OK


def _ask(question: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(question)
    except LabError as error:
        raise problems.Failed(error.reason, error.remedy) from error
