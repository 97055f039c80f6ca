"""The steps of power-on, power-off and reset.

A command is given once: that it is about to be given is written first, so that a process which dies between
cannot reset a machine twice. What is then not seen to happen fails at its deadline, and says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from roost.cloud.power.control import PowerController, Way
from roost.cloud.power.redfish import BoardFailed
from roost.engine.faults import write_log
from roost.engine.procedures import Done, Failed, Outcome, Step, Wait
from roost.model.host import Host
from roost.model.operation import PLANNED, Operation
from roost.store.store import Store
from roost.store.transaction import Transaction

COMMANDED = "roost.edge/power-commanded"
"""Annotation of an operation whose command was, or may have been, given."""

WANTED = {"power-on": "on", "power-off": "off", "reset": "reset"}
LOOK_AGAIN = 3.0

Do = Callable[[Store, Operation, Host], Awaitable[Outcome]]


def procedures(control: PowerController) -> dict[str, tuple[Step, ...]]:
    """Steps by action."""
    steps: dict[str, Do] = {
        "boot": lambda store, operation, host: _boot(control, store, operation, host),
        "command": lambda store, operation, host: _command(control, store, operation, host),
        "power": lambda store, operation, host: _seen(control, store, operation, host),
    }
    return {
        action: tuple(Step(s.name, s.seconds, _with_host(steps[s.name])) for s in PLANNED[action])
        for action in WANTED
    }


def _with_host(do: Do) -> Callable[[Store, Operation], Awaitable[Outcome]]:
    async def attempt(store: Store, operation: Operation) -> Outcome:
        namespace, name = operation.metadata.namespace, operation.spec.host
        host = await store.read(lambda tx: tx.seek(Host, namespace, name))
        if host is None:
            return Failed(f"host {name} is no longer there")
        try:
            return await do(store, operation, host)
        except BoardFailed as error:
            return Wait(f"The board controller fails: {error}", 10.0)

    return attempt


async def _boot(control: PowerController, store: Store, operation: Operation, host: Host) -> Outcome:
    device = operation.spec.boot
    if device == "none":
        return Done("It starts from what it is set to.")
    way = await control.way(store, host)
    await control.boards.boot_once(way.board, way.ca_bundle, device)
    return Done(f"It starts from {device} once.")


async def _command(control: PowerController, store: Store, operation: Operation, host: Host) -> Outcome:
    wanted = WANTED[operation.spec.action]
    way = await control.way(store, host)
    # Whether it answers at all is found out before the one command is spent.
    before = await control.boards.look(way.board, way.ca_bundle)
    if before.state == wanted:
        return Done(f"The machine is {wanted} already.")
    if not await store.transact(lambda tx: _mark(tx, operation)):
        return Done("It was told before; whether it followed is seen next.")
    return await _give(control, way, host, wanted)


async def _give(control: PowerController, way: Way, host: Host, wanted: str) -> Outcome:
    try:
        await control.boards.command(way.board, way.ca_bundle, wanted)
    except BoardFailed as error:
        return Failed(f"The board controller did not take the command, or did not say so: {error}")
    finally:
        control.soon(host.metadata.name)
    return Done("The board controller has taken the command.")


def _mark(tx: Transaction, operation: Operation) -> bool:
    """Write down that the command is about to be given; False when that was written before."""
    current = tx.seek(Operation, operation.metadata.namespace, operation.metadata.name)
    if current is None or COMMANDED in current.metadata.annotations:
        return False
    annotations = {**current.metadata.annotations, COMMANDED: "true"}
    meta = msgspec.structs.replace(current.metadata, annotations=annotations)
    tx.save(msgspec.structs.replace(current, metadata=meta))
    write_log(
        tx,
        operation.metadata.namespace,
        event=f"host-{operation.spec.action}",
        entity=f"host={operation.spec.host}",
        text=f"The board controller of {operation.spec.host} is told: {operation.spec.action}.",
    )
    return True


async def _seen(control: PowerController, store: Store, operation: Operation, host: Host) -> Outcome:
    wanted = "off" if operation.spec.action == "power-off" else "on"
    seen = await control.look(store, host)
    if seen.state == wanted:
        return Done(f"The machine is {wanted}.")
    return Wait(f"The machine is {seen.state}; waiting until it is {wanted}.", LOOK_AGAIN)
