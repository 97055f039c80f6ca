"""Lease: who holds a role, since when and for how long (coordination.k8s.io/v1).

Programs that must run once elect their leader with it: the holder renews `renewTime`, and who finds it
older than the duration takes over. All of that is between the programs; Roost keeps the Lease and, by the
resourceVersion of each write, lets only one of two win.
"""

from __future__ import annotations

from typing import Annotated

from roost.model import time
from roost.model.kind import Column, KindInfo, Problem
from roost.model.meta import DNS_NAME, Part, Resource, doc

COORDINATION = "coordination.k8s.io"


class LeaseSpec(Part, frozen=True, kw_only=True):
    """Who holds it, and how long that is believed."""

    holder_identity: Annotated[str | None, doc("Who holds it; empty when nobody does.")] = None
    lease_duration_seconds: Annotated[
        int | None, doc("How long after the last renewal others wait.", unit="seconds")
    ] = None
    acquire_time: Annotated[str | None, doc("When its holder took it.", format="date-time")] = None
    renew_time: Annotated[str | None, doc("When its holder last renewed it.", format="date-time")] = None
    lease_transitions: Annotated[int | None, doc("How often it changed hands.")] = None
    strategy: Annotated[str | None, doc("How its holder is chosen, when that is coordinated.")] = None
    preferred_holder: Annotated[str | None, doc("Who should hold it instead.")] = None


class Lease(Resource, frozen=True, kw_only=True):
    """Who holds a role."""

    spec: Annotated[LeaseSpec, doc("Who holds it, and how long that is believed.")] = LeaseSpec()


def time_problems(**moments: str | None) -> list[Problem]:
    """What is wrong with points in time, by the path of their field with `_` for the dots."""
    found = []
    for path, text in moments.items():
        try:
            time.parse(text or "1970-01-01T00:00:00Z")
        except ValueError:
            reason = f"{text!r} is not a point in time"
            found.append(Problem(path.replace("_", "."), reason, "write 2026-01-31T12:00:00.000000Z"))
    return found


def _invariants(lease: Lease) -> list[Problem]:
    spec = lease.spec
    found = time_problems(spec_acquireTime=spec.acquire_time, spec_renewTime=spec.renew_time)
    if spec.lease_duration_seconds is not None and spec.lease_duration_seconds < 1:
        found.append(Problem("spec.leaseDurationSeconds", "must be greater than 0", "write seconds, as 15"))
    if spec.lease_transitions is not None and spec.lease_transitions < 0:
        found.append(Problem("spec.leaseTransitions", "must not be negative", "leave it out to begin"))
    return found


LEASE = KindInfo(
    kind="Lease",
    group=COORDINATION,
    plural="leases",
    singular="lease",
    type=Lease,
    description="Who holds a role, as programs that elect a leader agree on it.",
    name_pattern=DNS_NAME,
    invariants=_invariants,
    columns=(
        Column("Holder", "spec.holderIdentity", "Who holds it."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
