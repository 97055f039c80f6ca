"""`roost outlet`: receivers outside that are told of alarms."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import listing, output
from roost.cli.client import path
from roost.cli.kinds import KNOWN
from roost.cli.problems import FAILED, OK
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened

ALARM_OUTLET = KNOWN["AlarmOutlet"]
outlet = App(name="outlet", help="Receivers outside that are told of alarms: look, test, suspend.")
Name = Annotated[str, Parameter(name="NAME", help="Name of the outlet.")]


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """One step of a test, as the cloud answers."""

    name: str
    ok: bool
    message: str
    remedy: str = ""
    seconds: float = 0.0


class Tested(msgspec.Struct, frozen=True):
    """How a test went."""

    ok: bool
    steps: list[Step]


class Answer(msgspec.Struct, frozen=True):
    """What the cloud answers."""

    status: Tested


@outlet.command(name="list")
def list_outlets(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List outlets, what they do, and how much waits.

    For example:
        roost outlet list
        roost outlet list -o wide
    """
    with opened(connect) as session:
        empty = "No outlets; `roost apply -f FILE` makes one: see roost explain alarmoutlet.spec."
        return listing.show_list(session, ALARM_OUTLET, pick, show, empty=empty)


@outlet.command(name="test")
def test_outlet(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Send a test message from the cloud and tell each step: credentials, name, connection, TLS, answer.

    For example:
        roost outlet test noc
    """
    with opened(connect) as session:
        answer = session.client.request(
            "POST",
            f"{path(ALARM_OUTLET, session.namespace, name)}/test",
            json={},
            doing=f"test outlet {name}",
        )
        tested = msgspec.json.decode(answer, type=Answer).status
        if show.output in ("json", "yaml"):
            output.print_data(tested, show.output)
        else:
            output.print_lines(lines(tested))
    return OK if tested.ok else FAILED


def lines(tested: Tested) -> list[Text]:
    """A test on a screen."""
    shown: list[Text] = []
    for step in tested.steps:
        word, style = ("ok", "green") if step.ok else ("failed", "red")
        line = Text.assemble((f"{word:<7}", style), f"{step.name:<12}", step.message)
        line.append(f"  ({step.seconds:.3f} s)", "dim")
        shown.append(line)
        if step.remedy:
            shown.append(Text(f"{'':<19}{step.remedy}", "yellow"))
    return shown


@outlet.command(name="suspend")
def suspend(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Send nothing for a while; what happens meanwhile is sent afterwards, as far as history reaches.

    For example:
        roost outlet suspend noc
    """
    return _set(name, {"suspended": True}, "is suspended", connect)


@outlet.command(name="resume")
def resume(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Go on with a suspended outlet where it stopped.

    For example:
        roost outlet resume noc
    """
    return _set(name, {"suspended": False}, "goes on", connect)


def _set(name: str, spec: dict[str, bool], done: str, connect: Connect) -> int:
    with opened(connect) as session:
        session.client.patch(ALARM_OUTLET, session.namespace, name, {"spec": spec})
        output.say(f"Outlet {name} {done}.")
    return OK
