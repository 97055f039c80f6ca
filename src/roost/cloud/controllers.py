"""The controllers that make hosts one cloud, in one list for all who assemble a cloud."""

from __future__ import annotations

from roost.cloud.configuration import ConfigurationController, PlatformPorts
from roost.cloud.hosts import HostController
from roost.cloud.overview import OverviewController
from roost.cloud.procedures import procedures
from roost.engine.controller import Controller
from roost.engine.presence import Presences
from roost.engine.procedures import OperationController


def controllers(
    cloud: str, version: str, presence: Presences, platform: PlatformPorts, holder: str
) -> dict[str, Controller]:
    """Controllers by name. `holder` tells this process from others in leases of steps."""
    made: tuple[Controller, ...] = (
        HostController(cloud, presence),
        ConfigurationController(cloud, platform),
        OperationController(procedures(presence), holder),
        OverviewController(cloud, version),
    )
    return {c.name: c for c in made}
