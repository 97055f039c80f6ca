"""The board controller of a host (BMC): how it is reached, and what it says of the machine's power.

It lives beside the machine and answers while that is off. What can't be asked is `unknown`, with the reason:
a board controller that fails says nothing about its host.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from roost.model.kind import Problem
from roost.model.meta import Part, doc

PowerState = Literal["on", "off", "turning-on", "turning-off", "unknown"]
BootDevice = Literal["none", "network", "disk", "cd", "usb", "setup"]
Reachable = Literal["yes", "no", "unknown"]

BOARD_SECRET_TYPE = "roost.edge/board-controller"  # noqa: S105 - a type, not a secret
BOARD_SECRET_KEYS = ("username", "password")


class BoardController(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How the machine's own controller is reached, by Redfish (DMTF DSP0266)."""

    address: Annotated[
        str, doc("Where it answers, as https://192.0.2.7.", min_length=8, max_length=255, format="uri")
    ]
    secret: Annotated[
        str, doc("Name of a Secret of type roost.edge/board-controller with username and password.")
    ] = ""
    ca_bundle: Annotated[
        str, doc("Certificates, PEM, that vouch for its own; empty: those of the system.", max_length=65536)
    ] = ""
    unverified: Annotated[
        bool, doc("Take any certificate. Only on a network that nobody else can reach.")
    ] = False
    system: Annotated[
        str,
        doc("Path of the machine where it has several, as /redfish/v1/Systems/1.", max_length=255),
    ] = ""


class PowerStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the board controller said last."""

    state: Annotated[PowerState, doc("Whether the machine has power; unknown when it can't be asked.")]
    since: Annotated[str, doc("When this state was first seen.", format="date-time")] = ""
    reachable: Annotated[Reachable, doc("Whether it answers.")] = "unknown"
    reachable_since: Annotated[str, doc("When that last changed.", format="date-time")] = ""
    message: Annotated[str, doc("Why it can't be asked, and what to do.", max_length=1024)] = ""
    model: Annotated[str, doc("What it says the machine is.", max_length=255)] = ""


def board_problems(board: BoardController, field: str) -> list[Problem]:
    """What is wrong with how a board controller is to be reached."""
    problems = []
    try:
        parts = urlsplit(board.address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "https" or not parts.hostname or port == 0:
        step = "write https://ADDRESS, with :PORT where it is not 443"
        problems.append(Problem(f"{field}.address", "it is no https address", step))
    elif parts.username or parts.password or parts.query or parts.fragment:
        step = "put name and password into a Secret and name that"
        problems.append(Problem(f"{field}.address", "it says more than where to go", step))
    elif parts.path not in ("", "/"):
        problems.append(Problem(f"{field}.address", "it has a path", f"put the path into {field}.system"))
    if board.system and not board.system.startswith("/redfish/v1/"):
        problems.append(Problem(f"{field}.system", "it is no path of Redfish", "begin with /redfish/v1/"))
    if board.unverified and board.ca_bundle:
        problems.append(
            Problem(
                f"{field}.unverified", "certificates are given and not to be used", "leave one of both out"
            )
        )
    return problems
