"""What is refused of board controllers and of power, with reason and remedy."""

from __future__ import annotations

import ssl
from typing import cast

from roost.cloud.power.procedures import WANTED
from roost.engine.admission import Refused, Request
from roost.engine.authorities import trusting
from roost.model.host import Host
from roost.model.operation import Operation
from roost.model.power import BOARD_SECRET_KEYS, BOARD_SECRET_TYPE
from roost.model.secret import Secret
from roost.store.transaction import Transaction


def rule(tx: Transaction, request: Request) -> None:
    """How a board controller is reached: a Secret that is there must fit; one to come is waited for."""
    if request.operation == "delete":
        return
    host = cast(Host, request.new)
    board = host.spec.board_controller
    if board is None:
        return
    if board.ca_bundle:
        try:
            trusting(board.ca_bundle)
        except ssl.SSLError as error:
            field = "spec.boardController.caBundle"
            raise Refused("the certificates can't be read", "write them as PEM", field=field) from error
    found = tx.seek(Secret, host.metadata.namespace, board.secret) if board.secret else None
    if found is None:
        return
    field = "spec.boardController.secret"
    if found.type != BOARD_SECRET_TYPE:
        raise Refused(
            f"Secret {board.secret} is of type {found.type}, and its values are sent nowhere",
            f"name one of type {BOARD_SECRET_TYPE}",
            field=field,
        )
    for key in BOARD_SECRET_KEYS:
        if key not in found.data:
            raise Refused(f"Secret {board.secret} lacks {key}", "add this key to it first", field=field)


def check(operation: Operation, host: Host) -> None:
    """Refuse power without a board controller, and a device to start from where nothing starts."""
    spec, name = operation.spec, host.metadata.name
    if spec.action in WANTED and host.spec.board_controller is None:
        raise Refused(
            f"{name} has no board controller",
            f"tell how it is reached: roost host board {name} https://ADDRESS --secret NAME",
            field="spec.action",
        )
    if spec.boot != "none" and spec.action not in ("power-on", "reset"):
        raise Refused(f"{spec.action} starts nothing", "leave spec.boot out", field="spec.boot")
