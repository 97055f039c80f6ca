"""`roost host power` and `roost host board`: machines turned on and off by their board controllers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.text import Text

from roost.cli import listing, output, tables
from roost.cli.hostwork import each, object_of
from roost.cli.kinds import HOST, OPERATION
from roost.cli.problems import OK, Misused
from roost.cli.progress import Goal
from roost.cli.session import CONNECT, SHOW, Connect, Session, Show, opened

ACTIONS = {"on": "power-on", "off": "power-off", "reset": "reset"}
Boot = Literal["none", "network", "disk", "cd", "usb", "setup"]


def power_hosts(
    what: Annotated[
        Literal["show", "on", "off", "reset"], Parameter(name="WHAT", help="show, on, off or reset.")
    ],
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of hosts.")],
    /,
    *,
    boot: Annotated[Boot, Parameter(help="Start from this once, with on and reset.")] = "none",
    wait: Annotated[bool, Parameter(negative="--no-wait", help="Follow until it is over.")] = True,
    timeout: Annotated[float, Parameter(help="Seconds to follow; the work goes on after that.")] = 900.0,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Turn the machines of locked hosts on or off or reset them, or show whether they have power.

    It is done by the board controller (BMC) of each, which `roost host board` makes known.

    For example:
        roost host power show worker-0
        roost host power off worker-0 worker-1
        roost host power reset worker-0 --boot network
    """
    if not names:
        raise Misused("no host is named", "roost host power WHAT NAME ...")
    with opened(connect) as session:
        if what == "show":
            return _show(session, names, show)

        def ask(name: str) -> Goal:
            meta = {"generateName": f"{ACTIONS[what]}-{name}-", "namespace": session.namespace}
            spec = {"action": ACTIONS[what], "host": name, "boot": boot}
            body = object_of("Operation", meta, spec)
            made = session.client.create(OPERATION, session.namespace, body)
            return Goal(host=name, actions=(ACTIONS[what],), operation=made["metadata"]["name"])

        return each(session, names, ask, f"power {what}", wait=wait, timeout=timeout, show=show)


def set_board(
    name: Annotated[str, Parameter(name="NAME", help="Name of the host.")],
    address: Annotated[str, Parameter(name="ADDRESS", help="https://ADDRESS of it; none to forget it.")],
    /,
    *,
    secret: Annotated[
        str, Parameter(help="A Secret of type roost.edge/board-controller: username, password.")
    ] = "",
    ca_file: Annotated[Path | None, Parameter(help="Certificates, PEM, that vouch for its own.")] = None,
    unverified: Annotated[bool, Parameter(help="Take any certificate from it.", negative=())] = False,
    system: Annotated[str, Parameter(help="Path of the machine, where it has several.")] = "",
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Tell how the board controller (BMC) of a host is reached.

    For example:
        kubectl create secret generic worker-0-board --type roost.edge/board-controller \\
          --from-literal username=admin --from-file password=/dev/stdin
        roost host board worker-0 https://192.0.2.7 --secret worker-0-board --ca-file bmc.pem
        roost host board worker-0 none
    """
    board: dict[str, Any] | None = None
    if address != "none":
        board = {"address": address, "secret": secret, "unverified": unverified, "system": system}
        if ca_file is not None:
            try:
                board["caBundle"] = ca_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise Misused(f"{ca_file} can't be read: {error}", "name a file of certificates") from error
        board = {"caBundle": None, **board}
    with opened(connect) as session:
        session.client.patch(HOST, session.namespace, name, {"spec": {"boardController": board}})
        if show.output != "table":
            return listing.show_one(session, HOST, name, show)
        done = f"is reached at {address}" if board else "is no longer asked"
        output.say(f"The board controller of {name} {done}; see: roost host power show {name}")
    return OK


def _show(session: Session, names: tuple[str, ...], show: Show) -> int:
    found = []
    for name in dict.fromkeys(names):
        raw = session.client.get(HOST, session.namespace, name, dict[str, Any])
        found.append((name, (raw.get("status") or {}).get("power")))
    if show.output in ("json", "yaml"):
        output.print_data([{"host": name, "power": power} for name, power in found], show.output)
        return OK
    lines: list[Text] = []
    for name, power in found:
        lines += _lines(name, power)
    output.print_lines(lines)
    return OK


def _lines(name: str, power: dict[str, Any] | None) -> list[Text]:
    if power is None:
        return [Text(f"{name}: no board controller is known, or it was not asked yet")]
    since = tables.age(power.get("since", ""), output.now())
    line = f"{name}: {power.get('state')} for {since}"
    if power.get("model"):
        line += f", {power['model']}"
    if power.get("reachable") != "no":
        return [Text(line)]
    away = tables.age(power.get("reachableSince", ""), output.now())
    return [Text(line), Text(f"  it can't be asked for {away}: {power.get('message')}")]
