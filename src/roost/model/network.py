"""PlatformNetwork: a network the platform itself uses at a site."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import Condition, Part, Resource, doc

NetworkType = Literal["oam", "mgmt", "admin", "cluster-host", "storage", "pxeboot"]


class PlatformNetworkSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    type: Annotated[NetworkType, doc("What the network is for.")]
    subnets: Annotated[
        list[str],
        doc("Its subnets, IPv4 and IPv6, in CIDR notation.", list_type="set", min_length=1, max_length=16),
    ]
    gateway: Annotated[
        list[str], doc("Gateways, at most one per address family.", list_type="set", max_length=2)
    ] = []
    mtu: Annotated[int, doc("Largest packet.", unit="bytes", ge=576, le=9216)] = 1500


class PlatformNetworkStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    hosts: Annotated[int, doc("Hosts with a port on this network.")] = 0
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class PlatformNetwork(Resource, frozen=True, kw_only=True):
    """A network the platform itself uses."""

    spec: Annotated[PlatformNetworkSpec, doc("What the operator wants.")]
    status: Annotated[PlatformNetworkStatus, doc("What is.")] = PlatformNetworkStatus()


def _invariants(network: PlatformNetwork) -> list[Problem]:
    problems: list[Problem] = []
    subnets: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for n, text in enumerate(network.spec.subnets):
        try:
            subnets.append(ipaddress.ip_network(text))
        except ValueError as error:
            problems.append(
                Problem(f"spec.subnets[{n}]", str(error), "write a network address, as 192.0.2.0/24")
            )
    families: set[int] = set()
    for n, text in enumerate(network.spec.gateway):
        try:
            gateway = ipaddress.ip_address(text)
        except ValueError as error:
            problems.append(Problem(f"spec.gateway[{n}]", str(error), "write an address, as 192.0.2.1"))
            continue
        if gateway.version in families:
            problems.append(
                Problem(f"spec.gateway[{n}]", f"a second gateway for IPv{gateway.version}", "leave one out")
            )
        families.add(gateway.version)
        if not any(gateway in s for s in subnets):
            problems.append(
                Problem(f"spec.gateway[{n}]", f"{text} is in none of the subnets", "choose one inside them")
            )
    return problems


PLATFORM_NETWORK = KindInfo(
    kind="PlatformNetwork",
    plural="platformnetworks",
    singular="platformnetwork",
    short_names=("pn",),
    categories=("roost",),
    type=PlatformNetwork,
    description="A network the platform itself uses at a site: oam, mgmt, admin, cluster-host, storage.",
    flow=Flow.BOTH,
    invariants=_invariants,
    selectable=("spec.type",),
    columns=(
        Column("Type", "spec.type", "What it is for."),
        Column("Subnets", "spec.subnets[*]", "Its subnets."),
        Column("Hosts", "status.hosts", "Hosts with a port on it.", "integer"),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
