"""HostConfiguration: the intent for one host, compiled by its cloud from hosts, networks and policies.

It has the host's name. `spec` is written by the cloud alone and flows down to the host; `status` is
written by the host alone: which generation is in force, aspect by aspect, and the plan that led there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.firewall import Action, FirewallRule
from roost.model.health import CheckRequest
from roost.model.heartbeat import HeartbeatConfiguration
from roost.model.host import Thresholds
from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import Owner, Part, Resource, doc

AspectState = Literal["pending", "trial", "applied", "failed", "rolled-back"]


class NetworkFirewall(Part, frozen=True, kw_only=True):
    """Rules for the ports that carry one platform network."""

    network: Annotated[str, doc("Name of the platform network.")]
    ports: Annotated[
        list[str],
        doc("Ports of the host on that network.", list_type="set", min_length=1, max_length=64),
    ]
    rules: Annotated[list[FirewallRule], doc("Rules in order; the first that matches decides.")] = []
    default_ingress: Annotated[Action, doc("For packets to the host that no rule matches.")] = "deny"
    default_egress: Annotated[Action, doc("For packets from the host that no rule matches.")] = "allow"


class FirewallConfiguration(Part, frozen=True, kw_only=True):
    """The platform firewall of one host. Ports that are not listed are not filtered."""

    networks: Annotated[
        list[NetworkFirewall],
        doc("By platform network.", list_type="map", list_keys=("network",), max_length=32),
    ] = []
    confirm_seconds: Annotated[
        int,
        doc(
            "The host goes back to its former rules when its own link is not up within this time.",
            unit="seconds",
            ge=1,
            le=600,
        ),
    ] = 20


class HostConfigurationSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What should be on the host."""

    firewall: Annotated[FirewallConfiguration | None, doc("Absent: no platform firewall.")] = None
    thresholds: Annotated[Thresholds, doc("When monitors speak up.")] = Thresholds()
    platform_ports: Annotated[
        list[str],
        doc("Ports that carry platform networks; their loss is a fault.", list_type="set", max_length=1024),
    ] = []
    reboot_from: Annotated[
        str, doc("The host restarts if its boot id is this one; after the restart it is another.")
    ] = ""
    health: Annotated[
        CheckRequest | None, doc("Run the health checks once for this request and start of the machine.")
    ] = None
    drain: Annotated[
        CheckRequest | None, doc("Ask the drain hooks for this request until each says that all has left.")
    ] = None
    heartbeat: Annotated[
        HeartbeatConfiguration | None, doc("Where it sends heartbeats; absent: nowhere.")
    ] = None
    sources: Annotated[dict[str, int], doc("Generation of each FirewallPolicy compiled in.")] = {}


class AspectStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far one aspect of the configuration is."""

    aspect: Annotated[str, doc("Name of the aspect.")]
    state: Annotated[AspectState, doc("Where it stands.")]
    generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    message: Annotated[str, doc("For people: what happened, and the next action.", max_length=4096)] = ""
    plan: Annotated[list[str], doc("What the last change did, line by line.", max_length=200)] = []
    changed_at: Annotated[str, doc("When state last changed.", format="date-time")] = ""
    tries: Annotated[int, doc("How often it was tried and taken back.", ge=0)] = 0
    next_try_at: Annotated[
        str, doc("When it is tried again at the earliest; empty: it is not.", format="date-time")
    ] = ""


class HostConfigurationStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is on the host."""

    observed_generation: Annotated[int, doc("Latest generation the host has seen.")] = 0
    applied_generation: Annotated[int, doc("Generation whose every aspect is in force.")] = 0
    aspects: Annotated[
        list[AspectStatus], doc("By aspect.", list_type="map", list_keys=("aspect",), max_length=32)
    ] = []


class HostConfiguration(Resource, frozen=True, kw_only=True):
    """The compiled intent for one host."""

    spec: Annotated[HostConfigurationSpec, doc("What should be.")] = HostConfigurationSpec()
    status: Annotated[HostConfigurationStatus, doc("What is.")] = HostConfigurationStatus()


def is_in_force(configuration: HostConfiguration) -> bool:
    """Whether the host has put this very generation in force.

    A greater one is another: the cloud that gave it out was restored since, and knows nothing of it.
    """
    return configuration.status.applied_generation == configuration.metadata.generation


HOST_CONFIGURATION = KindInfo(
    kind="HostConfiguration",
    plural="hostconfigurations",
    singular="hostconfiguration",
    short_names=("hc",),
    categories=("roost",),
    type=HostConfiguration,
    description="The intent for one host, compiled by its cloud; its status says what is in force.",
    flow=Flow.BOTH,
    spec_owner=Owner.CLOUD,
    status_owner=Owner.HOST,
    columns=(
        Column("Generation", "metadata.generation", "Compiled generation.", "integer"),
        Column("Applied", "status.appliedGeneration", "Generation in force.", "integer"),
        Column("Firewall", "status.aspects[*].state", "State of its aspects."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
