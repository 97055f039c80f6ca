"""How a cloud watches its hosts: the heartbeat's settings, and what of them a host is told.

Silence on one platform network is counted in missed beats: at `minorAfter` it is noted, at `degradedAfter` it
is a major alarm of that network, at `failedAfter` a critical one. A host that is silent on all of its
networks for that long, and on its link, has failed; unless so many are silent that it is the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from roost.model.kind import Problem
from roost.model.meta import Part, doc


class FailureAvoidance(Part, frozen=True, kw_only=True):
    """Several hosts silent at once are taken for a fault of the network: none of them is failed."""

    hosts: Annotated[
        int, doc("From how many hosts on, silent at once, none is failed; 0: never.", ge=0, le=10_000)
    ] = 2
    window_seconds: Annotated[
        int, doc("Silences that begin within this time are one event.", unit="seconds", ge=1, le=300)
    ] = 5
    timeout_seconds: Annotated[
        int,
        doc("Hosts still silent after this time are judged one by one.", unit="seconds", ge=10, le=86_400),
    ] = 120
    dead_office_seconds: Annotated[
        int,
        doc(
            "After the start of the controller's machine as many hosts have this long to come, for a whole "
            "site may have lost its power; 0: no longer than after a restart of its controllers.",
            unit="seconds",
            ge=0,
            le=7_200,
        ),
    ] = 1_000


class Heartbeat(Part, frozen=True, kw_only=True):
    """How hosts are watched on each platform network that they share with their controller."""

    period_milliseconds: Annotated[
        int, doc("Time between two beats on each network.", unit="milliseconds", ge=100, le=1_000)
    ] = 100
    minor_after: Annotated[int, doc("Missed beats in a row that are noted.", ge=2, le=100)] = 4
    degraded_after: Annotated[
        int, doc("Missed beats in a row that are a major alarm of the network.", ge=2, le=100)
    ] = 6
    failed_after: Annotated[
        int,
        doc("Missed beats in a row that are critical, and on all networks a failed host.", ge=4, le=100),
    ] = 9
    avoidance: Annotated[FailureAvoidance, doc("When no host is failed.")] = FailureAvoidance()


class HeartbeatNetwork(Part, frozen=True, kw_only=True):
    """Where a host sends its beats on one platform network."""

    network: Annotated[str, doc("Name of the platform network.", max_length=63)]
    ports: Annotated[
        list[str], doc("Ports of the host on that network.", list_type="set", min_length=1, max_length=64)
    ]
    targets: Annotated[
        list[str],
        doc("Addresses of the controller there, one per address family.", list_type="set", max_length=2),
    ]


class HeartbeatConfiguration(Part, frozen=True, kw_only=True):
    """What a host is told of its heartbeat."""

    period_milliseconds: Annotated[int, doc("Time between two beats.", unit="milliseconds")]
    port: Annotated[int, doc("UDP port at the controller.", ge=1, le=65_535)]
    networks: Annotated[
        list[HeartbeatNetwork],
        doc("By platform network.", list_type="map", list_keys=("network",), max_length=16),
    ] = []


def heartbeat_problems(heartbeat: Heartbeat, field: str = "spec.heartbeat") -> Sequence[Problem]:
    """What is wrong with thresholds that are right one by one."""
    problems = []
    if heartbeat.minor_after > heartbeat.degraded_after:
        problems.append(
            Problem(
                f"{field}.minorAfter",
                f"it is above degradedAfter ({heartbeat.degraded_after})",
                "note missed beats no later than they degrade",
            )
        )
    if heartbeat.failed_after < heartbeat.degraded_after + 2:
        problems.append(
            Problem(
                f"{field}.failedAfter",
                f"it is less than 2 above degradedAfter ({heartbeat.degraded_after})",
                "leave two beats between, in which it shows whether other hosts are silent too",
            )
        )
    return problems
