"""The controllers that make clouds one fleet, in one list for all who assemble a central cloud."""

from __future__ import annotations

from collections.abc import Callable

from roost.engine.controller import Controller
from roost.engine.presence import Presences
from roost.fleet.counts import FleetCountsController
from roost.fleet.departure import SubcloudDepartureController
from roost.fleet.groups import GroupController
from roost.fleet.incidents import IncidentController
from roost.fleet.management import ManagementController
from roost.fleet.operations.controller import SubcloudOperationController
from roost.fleet.rehoming import MovedAwayController
from roost.fleet.reviews import ReviewController
from roost.fleet.sharing import SharingController
from roost.fleet.subclouds import SubcloudController


def controllers(cloud: str, presence: Presences, disconnect: Callable[[str], None]) -> dict[str, Controller]:
    """Controllers by name. `disconnect` ends the link of a subcloud that is gone."""
    made: tuple[Controller, ...] = (
        SubcloudController(cloud, presence),
        FleetCountsController(cloud),
        GroupController(),
        IncidentController(cloud),
        SharingController(cloud),
        ManagementController(cloud),
        ReviewController(cloud),
        SubcloudOperationController(cloud),
        SubcloudDepartureController(cloud, disconnect),
        MovedAwayController(),
    )
    return {c.name: c for c in made}
