"""The steps of lock, force-lock, unlock and reboot.

Each attempt is one transaction that looks at what is and answers; acting means writing intent, never
calling a host. So an attempt can be repeated, by any process, at any time. What would not bear it, the
command to restart, is written together with the operation it was given for.

A lock or unlock that the operator no longer wants fails before it does anything more.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from roost.cloud.configuration import write_configuration
from roost.engine.faults import write_log
from roost.engine.presence import Presences
from roost.engine.procedures import Attempt, Done, Failed, Outcome, Step, Wait
from roost.model.configuration import HostConfiguration
from roost.model.host import AdministrativeState, Host
from roost.model.operation import Operation
from roost.store.store import Store
from roost.store.transaction import Transaction

Look = Callable[[Transaction, Operation, Host], Outcome]

RESTART_BY = "roost.edge/restart-by"
"""Annotation of a HostConfiguration: the operation for which `reboot_from` was written."""

_INTENT: dict[str, AdministrativeState] = {"lock": "locked", "force-lock": "locked", "unlock": "unlocked"}


def procedures(presence: Presences) -> dict[str, tuple[Step, ...]]:
    """Steps by action. `presence` tells whether a host's link is up."""

    def answers(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        if presence(host.metadata.name).connected and host.status.inventory is not None:
            return Done("The host answers and has told its inventory.")
        return Wait(f"{host.metadata.name} does not answer; check that its agent runs and has enrolled.")

    check = Step("check", 300.0, _step(answers))
    lock = (Step("disable", 60.0, _step(_disable)), Step("lock", 60.0, _step(_administrative("locked"))))
    return {
        "unlock": (
            check,
            Step("configure", 180.0, _step(_configured)),
            Step("test", 180.0, _step(_tested)),
            Step("enable", 60.0, _step(_administrative("unlocked"))),
        ),
        "lock": lock,
        "force-lock": lock,
        "reboot": (
            check,
            Step("command", 60.0, _step(_command_reboot)),
            Step("restart", 900.0, _step(_restarted(presence))),
        ),
    }


def _step(look: Look) -> Attempt:
    """An attempt that is one transaction; a host that is gone ends the operation."""

    async def attempt(store: Store, operation: Operation) -> Outcome:
        def work(tx: Transaction) -> Outcome:
            host = tx.seek(Host, operation.metadata.namespace, operation.spec.host)
            if host is None:
                return Failed(f"host {operation.spec.host} is no longer there")
            wanted = _INTENT.get(operation.spec.action, host.spec.administrative_state)
            if host.spec.administrative_state != wanted:
                return Failed(
                    f"the operator now wants {operation.spec.host} {host.spec.administrative_state}"
                )
            return look(tx, operation, host)

        return await store.transact(work)

    return attempt


def _configured(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
    if configuration is None:
        return Wait("The host's configuration is being compiled.")
    generation = configuration.metadata.generation
    if configuration.status.applied_generation >= generation:
        return Done(f"Configuration {generation} is in force.")
    for aspect in configuration.status.aspects:
        if aspect.state in ("failed", "rolled-back") and aspect.generation >= generation:
            return Failed(f"The host could not put its {aspect.aspect} in force: {aspect.message}")
    return Wait(f"Waiting for the host to put configuration {generation} in force.")


def _tested(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    if not host.status.readings:
        return Wait("Waiting for the host's monitors.")
    # Busy processors are an alarm, but no reason to keep a host out of service.
    readings = [r for r in host.status.readings if r.monitor != "processor"]
    bad = [r for r in readings if r.level == "critical"]
    if bad:
        worst = "; ".join(r.message or f"{r.monitor} {r.instance} is critical" for r in bad)
        return Wait(f"Waiting for the host to be healthy: {worst}")
    return Done("The host's monitors find nothing critical.")


def _disable(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    if operation.spec.action == "force-lock":
        return Done("Locked by force: nothing on the host was asked first.")
    return Done("No service of the platform has to leave the host.")


def _administrative(wanted: AdministrativeState) -> Look:
    def look(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        if host.status.administrative != wanted:
            status = msgspec.structs.replace(host.status, administrative=wanted)
            tx.report(msgspec.structs.replace(host, status=status))
            write_log(
                tx,
                host.metadata.namespace,
                event=f"host-{wanted}",
                entity=f"host={host.metadata.name}",
                text=f"{host.metadata.name} is {wanted}.",
            )
        return Done(f"The host is {wanted}.")

    return look


def _command_reboot(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    boot = host.status.agent.boot_id
    configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
    if not boot or configuration is None:
        return Wait("Waiting for the host to tell which start of the machine it is in.")
    # Told once per operation: repeated after the restart, the command would restart the host again.
    if configuration.metadata.annotations.get(RESTART_BY) != operation.metadata.uid:
        spec = msgspec.structs.replace(configuration.spec, reboot_from=boot)
        by = {RESTART_BY: operation.metadata.uid}
        write_configuration(tx, host.metadata.namespace, host.metadata.name, spec, by)
        write_log(
            tx,
            host.metadata.namespace,
            event="host-reboot",
            entity=f"host={host.metadata.name}",
            text=f"{host.metadata.name} is told to restart.",
        )
    return Done("The host is told to restart.")


def _restarted(presence: Presences) -> Look:
    def look(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
        told = configuration.spec.reboot_from if configuration else ""
        if not told or host.status.agent.boot_id == told:
            return Wait("Waiting for the host to go down and come back.")
        if not presence(host.metadata.name).connected:
            return Wait("The host has started; waiting for its link.")
        return Done("The host has restarted and answers.")

    return look
