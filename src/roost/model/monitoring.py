"""MonitoringProfile: thresholds for many hosts at once, and which are in force on one. Pure.

What is in force is laid together field by field: the defaults, over them the profiles that select the host in
the order of `order` and name, over these what the host itself has set. A value of a Host that is the default
counts as not set, for a stored Host has every default in it. So who wants a default on one host where a
profile says otherwise keeps that host out of the profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from roost.model.firewall import HostSelector, selects
from roost.model.host import Host, Threshold, Thresholds
from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import Part, Resource, doc

_Name = Annotated[str, doc("Name of a Host.", max_length=63)]
_Level = Annotated[int, msgspec.Meta(ge=0, le=100)]
_Samples = Annotated[int, msgspec.Meta(ge=1, le=60)]
_Percent = Annotated[int, msgspec.Meta(ge=0, le=50)]
MONITORS = ("processor", "memory", "filesystem")
SCALARS = ("hysteresis", "raise_after", "clear_after")


class LevelSettings(Part, frozen=True, kw_only=True):
    """Levels that a profile sets, in percent; what is left out is left as it is, 0 takes a level away."""

    minor: Annotated[_Level | None, doc("Raise minor at or above.", unit="percent")] = None
    major: Annotated[_Level | None, doc("Raise major at or above.", unit="percent")] = None
    critical: Annotated[_Level | None, doc("Raise critical at or above.", unit="percent")] = None


class ThresholdSettings(Part, frozen=True, kw_only=True):
    """Thresholds that a profile sets; what is left out is left as it is."""

    processor: Annotated[LevelSettings, doc("Use of the processors.")] = LevelSettings()
    memory: Annotated[LevelSettings, doc("Use of memory.")] = LevelSettings()
    filesystem: Annotated[LevelSettings, doc("Use of each file system.")] = LevelSettings()
    hysteresis: Annotated[
        _Percent | None, doc("How far below a level use must fall before it is left.", unit="percent")
    ] = None
    raise_after: Annotated[
        _Samples | None, doc("Samples in a row, 5 seconds apart, at a level before it is entered.")
    ] = None
    clear_after: Annotated[
        _Samples | None, doc("Samples in a row, 5 seconds apart, below a level before it is left.")
    ] = None


class MonitoringProfileSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Thresholds, and for which hosts."""

    selector: Annotated[HostSelector, doc("Hosts it is for.")] = HostSelector()
    hosts: Annotated[
        list[_Name], doc("Of these only the named; empty: all of them.", list_type="set", max_length=1024)
    ] = []
    order: Annotated[int, doc("Of two profiles the one with the higher order counts.", ge=0, le=10_000)] = 100
    thresholds: Annotated[ThresholdSettings, doc("What it sets.")] = ThresholdSettings()
    description: Annotated[str, doc("For people.", max_length=255)] = ""


class MonitoringProfile(Resource, frozen=True, kw_only=True):
    """Thresholds of monitors for many hosts."""

    spec: Annotated[MonitoringProfileSpec, doc("Thresholds, and for which hosts.")] = MonitoringProfileSpec()


def selected(profiles: Iterable[MonitoringProfile], host: Host) -> list[MonitoringProfile]:
    """The profiles that are for a host, in the order in which they are laid over each other."""

    def fits(profile: MonitoringProfile) -> bool:
        named = not profile.spec.hosts or host.metadata.name in profile.spec.hosts
        return named and selects(profile.spec.selector, host)

    return sorted(filter(fits, profiles), key=lambda p: (p.spec.order, p.metadata.name))


def in_force(own: Thresholds, profiles: Sequence[MonitoringProfile]) -> Thresholds:
    """The thresholds of a host: host over profiles over defaults. `profiles` in their order."""
    default, made = Thresholds(), Thresholds()
    for settings in (p.spec.thresholds for p in profiles):
        levels = {m: _over(getattr(made, m), getattr(settings, m)) for m in MONITORS}
        scalars = {s: getattr(settings, s) for s in SCALARS if getattr(settings, s) is not None}
        made = msgspec.structs.replace(made, **levels, **scalars)
    own_levels = {m: _own(getattr(made, m), getattr(own, m), getattr(default, m)) for m in MONITORS}
    own_scalars = {s: getattr(own, s) for s in SCALARS if getattr(own, s) != getattr(default, s)}
    return msgspec.structs.replace(made, **own_levels, **own_scalars)


def _over(made: Threshold, settings: LevelSettings) -> Threshold:
    given = {f: v for f in Threshold.__struct_fields__ if (v := getattr(settings, f)) is not None}
    return msgspec.structs.replace(made, **given)


def _own(made: Threshold, own: Threshold, default: Threshold) -> Threshold:
    given = {f: v for f in Threshold.__struct_fields__ if (v := getattr(own, f)) != getattr(default, f)}
    return msgspec.structs.replace(made, **given)


def _problems(profile: MonitoringProfile) -> list[Problem]:
    problems = []
    for monitor in MONITORS:
        levels: LevelSettings = getattr(profile.spec.thresholds, monitor)
        used = [v for v in (levels.minor, levels.major, levels.critical) if v]
        if used != sorted(set(used)):
            problems.append(
                Problem(
                    f"spec.thresholds.{monitor}",
                    "levels must rise from minor to critical",
                    "set minor < major < critical, or 0 to take one away",
                )
            )
    return problems


MONITORING_PROFILE = KindInfo(
    kind="MonitoringProfile",
    plural="monitoringprofiles",
    singular="monitoringprofile",
    short_names=("mprof",),
    categories=("roost",),
    type=MonitoringProfile,
    description="Thresholds of monitors for many hosts, chosen by name, personality or label.",
    flow=Flow.DOWN,
    invariants=_problems,
    columns=(
        Column("Order", "spec.order", "The higher counts.", "integer"),
        Column("Processor", "spec.thresholds.processor.critical", "Critical above.", "integer"),
        Column("Memory", "spec.thresholds.memory.critical", "Critical above.", "integer"),
        Column("File system", "spec.thresholds.filesystem.critical", "Critical above.", "integer"),
        Column("Description", "spec.description", "For people.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
