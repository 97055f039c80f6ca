"""The steps of lock, force-lock, unlock and reboot.

Each attempt is one transaction that looks at what is and answers; acting means writing intent, never
calling a host. So an attempt can be repeated, by any process, at any time. What would not bear it, the
command to restart, is written together with the operation it was given for.

A lock or unlock that the operator no longer wants fails before it does anything more; so does a lock that
waits when the operator wants it by force. Names and timeouts of steps stand in `model.operation.PLANNED`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from roost.cloud.configuration import write_configuration
from roost.cloud.examination import request_of, told
from roost.cloud.workloads import HookedWorkloads, Left, Staying, Workloads
from roost.engine.faults import write_log
from roost.engine.presence import Presences
from roost.engine.procedures import Attempt, Done, Failed, Outcome, Step, Wait
from roost.model.configuration import HostConfiguration, is_in_force
from roost.model.host import AdministrativeState, Host
from roost.model.operation import PLANNED, Operation
from roost.store.store import Store
from roost.store.transaction import Transaction

Look = Callable[[Transaction, Operation, Host], Outcome]

RESTART_BY = "roost.edge/restart-by"
"""Annotation of a HostConfiguration: the operation for which `reboot_from` was written."""

_INTENT: dict[str, AdministrativeState] = {"lock": "locked", "force-lock": "locked", "unlock": "unlocked"}


def procedures(
    presence: Presences, workloads: Sequence[Workloads] = (HookedWorkloads(),)
) -> dict[str, tuple[Step, ...]]:
    """Steps by action. `presence` tells whether a host's link is up, `workloads` who has to leave it."""

    def answers(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        if presence(host.metadata.name).connected and host.status.inventory is not None:
            return Done("The host answers and has told its inventory.")
        return Wait(f"{host.metadata.name} does not answer; check that its agent runs and has enrolled.")

    looks: dict[tuple[str, str], Look] = {
        ("unlock", "check"): answers,
        ("unlock", "configure"): _configured,
        ("unlock", "test"): _tested,
        ("unlock", "enable"): _administrative("unlocked"),
        ("lock", "disable"): _disable(workloads),
        ("lock", "lock"): _administrative("locked"),
        ("force-lock", "disable"): _disable(()),
        ("force-lock", "lock"): _administrative("locked"),
        ("reboot", "check"): answers,
        ("reboot", "command"): _command_reboot,
        ("reboot", "restart"): _restarted(presence),
    }
    return {
        action: tuple(Step(s.name, s.seconds, _step(looks[action, s.name])) for s in planned)
        for action, planned in PLANNED.items()
        if (action, planned[0].name) in looks
    }


def _step(look: Look) -> Attempt:
    """An attempt that is one transaction; a host that is gone ends the operation."""

    async def attempt(store: Store, operation: Operation) -> Outcome:
        def work(tx: Transaction) -> Outcome:
            host = tx.seek(Host, operation.metadata.namespace, operation.spec.host)
            if host is None:
                return Failed(f"host {operation.spec.host} is no longer there")
            if not operation.spec.meant_for(host.metadata.uid):
                return Failed(f"host {operation.spec.host} was deleted; another of its name is there now")
            wanted = _INTENT.get(operation.spec.action, host.spec.administrative_state)
            if host.spec.administrative_state != wanted:
                return Failed(
                    f"the operator now wants {operation.spec.host} {host.spec.administrative_state}"
                )
            if operation.spec.action == "lock" and host.spec.force_lock:
                return Failed("the operator now wants it locked by force")
            return look(tx, operation, host)

        return await store.transact(work)

    return attempt


def _configured(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
    if configuration is None:
        return Wait("The host's configuration is being compiled.")
    generation = configuration.metadata.generation
    if is_in_force(configuration):
        return Done(f"Configuration {generation} is in force.")
    for aspect in configuration.status.aspects:
        if aspect.state in ("failed", "rolled-back") and aspect.generation == generation:
            return Failed(f"The host could not put its {aspect.aspect} in force: {aspect.message}")
    return Wait(f"Waiting for the host to put configuration {generation} in force.")


def _tested(tx: Transaction, operation: Operation, host: Host) -> Outcome:
    """The host's own checks; of an agent that knows none, its monitors."""
    report = host.status.health
    if report is None:
        return _monitored(host)
    configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
    if configuration is None:
        return Wait("The host's configuration is being compiled.")
    name = operation.metadata.name
    asked = configuration.spec.health
    # Named by the operation too, of which there may be another of this name later.
    wanted = f"{name[:200]}.{operation.metadata.uid}"
    if asked is None or asked.id != wanted:
        spec = msgspec.structs.replace(configuration.spec, health=request_of(host, wanted, tx.now))
        write_configuration(tx, host.metadata.namespace, host.metadata.name, spec)
        return Wait("The host is asked to check itself.")
    if (report.request, report.boot_id) != (wanted, host.status.agent.boot_id):
        return Wait("Waiting for the host to begin its checks.")
    done = sum(c.state == "passed" for c in report.checks)
    if report.state == "passed":
        return Done(f"All {done} checks have passed.")
    if report.state == "failed":
        bad = [c for c in report.checks if c.state in ("failed", "timed-out")]
        return Failed(f"The host is not fit to serve: {told(bad)}")
    at = next((c for c in report.checks if c.state == "running"), None)
    why = f"; {at.name} runs{f': {at.message}' if at.message else ''}" if at is not None else ""
    return Wait(f"Waiting for the host's checks: {done} of {len(report.checks)} have passed{why}")


def _monitored(host: Host) -> Outcome:
    if not host.status.readings:
        return Wait("Waiting for the host's monitors.")
    # Busy processors are an alarm, but no reason to keep a host out of service.
    readings = [r for r in host.status.readings if r.monitor != "processor"]
    bad = [r for r in readings if r.level == "critical"]
    if bad:
        worst = "; ".join(r.message or f"{r.monitor} {r.instance} is critical" for r in bad)
        return Wait(f"Waiting for the host to be healthy: {worst}", within=180.0)
    return Done("The host's monitors find nothing critical.")


def _disable(workloads: Sequence[Workloads]) -> Look:
    def look(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        if operation.spec.action == "force-lock":
            return Done("Locked by force: nothing on the host was asked first.")
        if host.status.operational == "disabled":
            return Done("It does not serve: nothing has to leave it.")
        answers = [w.leave(tx, operation, host) for w in workloads]
        staying = [a.reason for a in answers if isinstance(a, Staying)]
        if not staying:
            return Done(
                "; ".join(a.message for a in answers if isinstance(a, Left)) or "Nothing has to leave."
            )
        why = f"{'; '.join(staying)}. To lock without waiting: roost host lock --force {host.metadata.name}"
        return Wait(why, within=float(host.spec.drain_seconds))

    return look


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


def _was_lost(configuration: HostConfiguration) -> bool:
    """Whether an order to restart that was written went with the configuration of a host that was deleted."""
    return RESTART_BY not in configuration.metadata.annotations


def _restarted(presence: Presences) -> Look:
    def look(tx: Transaction, operation: Operation, host: Host) -> Outcome:
        configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
        if configuration is not None and _was_lost(configuration):
            return Failed(f"{host.metadata.name} was declared anew after it had been told to restart")
        start = configuration.spec.reboot_from if configuration else ""
        if not start or host.status.agent.boot_id == start:
            return Wait("Waiting for the host to go down and come back.")
        if not presence(host.metadata.name).connected:
            return Wait("The host has started; waiting for its link.")
        return Done("The host has restarted and answers.")

    return look
