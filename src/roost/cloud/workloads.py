"""Who has to leave a host before it is locked: asked by the lock, told by what runs there.

A lock asks every `Workloads` that this cloud has and waits while one says that it stays, with its reason
and up to the host's `spec.drainSeconds`. A forced lock asks nobody. What runs beside Roost on a host is
asked through executables in its `drain.d` (`HookedWorkloads`); a later version adds what Kubernetes runs.

The wish stands in the host's configuration, under the name of the lock that has it, for as long as that
lock runs: `withdrawn` takes back what nobody wants any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from roost.cloud.configuration import write_configuration
from roost.model import time
from roost.model.configuration import HostConfiguration, HostConfigurationSpec
from roost.model.health import CheckRequest
from roost.model.host import Host
from roost.model.operation import Operation
from roost.store.transaction import Transaction


class Left(msgspec.Struct, frozen=True):
    """Nothing is left on the host."""

    message: str


class Staying(msgspec.Struct, frozen=True):
    """Something is still there: what, and what it waits for."""

    reason: str


class Workloads(Protocol):
    """Something that runs on hosts and can leave them."""

    def leave(self, tx: Transaction, operation: Operation, host: Host) -> Left | Staying:
        """Begin to leave, or say how far it is. Called again and again, until the answer is Left."""
        ...


class HookedWorkloads:
    """What the executables in the host's `drain.d` look after."""

    def leave(self, tx: Transaction, operation: Operation, host: Host) -> Left | Staying:
        report = host.status.drain
        if report is None:
            return Left("The agent of the host knows no drain hooks.")
        configuration = tx.seek(HostConfiguration, host.metadata.namespace, host.metadata.name)
        if configuration is None:
            return Left("The host has no configuration yet, and runs nothing for it.")
        name = drain_name(operation)
        asked = configuration.spec.drain
        if asked is None or asked.id != name:
            request = CheckRequest(
                id=name, deadline_seconds=host.spec.check_seconds, requested_at=time.stamp(tx.now)
            )
            spec = msgspec.structs.replace(configuration.spec, drain=request)
            write_configuration(tx, host.metadata.namespace, host.metadata.name, spec)
            return Staying("The host is asked to let its workloads leave")
        if (report.request, report.boot_id) != (name, host.status.agent.boot_id):
            return Staying("Waiting for the host to begin to let its workloads leave")
        if report.state == "passed":
            count = len(report.checks)
            return Left(
                f"{count} drain hooks say that all has left." if count else "Nothing has to leave it."
            )
        staying = [c for c in report.checks if c.state in ("failed", "timed-out")]
        if staying:
            said = "; ".join(f"{c.name}: {c.message or 'it did not say why'}" for c in staying)
            return Staying(f"Workloads stay. {said[:1500]}")
        return Staying("Waiting for the drain hooks of the host")


def drain_name(operation: Operation) -> str:
    """Names the wish of one lock."""
    return f"{operation.metadata.name[:200]}.{operation.metadata.uid}"


def withdrawn(spec: HostConfigurationSpec, operations: Iterable[Operation]) -> HostConfigurationSpec:
    """The configuration without a wish to drain that no lock at work has."""
    if spec.drain is None or spec.drain.id in {drain_name(o) for o in operations if not o.status.finished_at}:
        return spec
    return msgspec.structs.replace(spec, drain=None)
