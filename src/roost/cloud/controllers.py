"""The controllers that make hosts one cloud, in one list for all who assemble a cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from roost.cloud.alarms import AlarmController
from roost.cloud.configuration import ConfigurationController, PlatformPorts
from roost.cloud.departure import HostDepartureController
from roost.cloud.hosts import HostController
from roost.cloud.overrides import OverrideController
from roost.cloud.overview import OverviewController
from roost.cloud.power.control import PowerController
from roost.cloud.power.procedures import procedures as power_procedures
from roost.cloud.procedures import procedures
from roost.cloud.silence import SilenceController
from roost.cloud.watching import Watch
from roost.engine.admission import Rule
from roost.engine.controller import Controller
from roost.engine.events import EventController
from roost.engine.garbage import GarbageController
from roost.engine.presence import Presences
from roost.engine.procedures import OperationController


def controllers(
    cloud: str,
    version: str,
    presence: Presences,
    platform: PlatformPorts,
    holder: str,
    rules: Mapping[str, Sequence[Rule]],
    disconnect: Callable[[str], None] = lambda _: None,
    watch: Watch | None = None,
    power: PowerController | None = None,
) -> dict[str, Controller]:
    """Controllers by name.

    `holder` tells this process from others in leases of steps; `disconnect` ends the link of a host
    that is gone; `rules` are the admission rules by kind; `watch` looks at hosts, without one given by
    their links alone; `power` looks at board controllers, without one given nobody does.
    """
    watch = watch or Watch(cloud, presence)
    steps = {**procedures(presence), **(power_procedures(power) if power else {})}
    made: tuple[Controller, ...] = (
        HostController(cloud, watch),
        SilenceController(cloud, watch),
        ConfigurationController(cloud, platform),
        OverrideController(cloud),
        OperationController(steps, holder),
        OverviewController(cloud, version),
        AlarmController(cloud),
        HostDepartureController(cloud, disconnect),
        EventController(),
        GarbageController(cloud, rules),
    )
    return {c.name: c for c in (*made, *((power,) if power else ()))}
