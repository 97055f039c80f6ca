"""Thresholds in force: host over profiles over defaults, field by field."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from roost.model.codec import check
from roost.model.firewall import HostSelector
from roost.model.host import Host, HostSpec, Threshold, Thresholds
from roost.model.meta import Metadata
from roost.model.monitoring import (
    MONITORING_PROFILE,
    LevelSettings,
    MonitoringProfile,
    MonitoringProfileSpec,
    ThresholdSettings,
    in_force,
    selected,
)


def profile(name: str, order: int = 100, **spec: Any) -> MonitoringProfile:
    return MonitoringProfile(
        metadata=Metadata(name=name, generation=1), spec=MonitoringProfileSpec(order=order, **spec)
    )


def settings(**parts: Any) -> ThresholdSettings:
    return ThresholdSettings(**parts)


MEMORY_70 = profile("a", thresholds=settings(memory=LevelSettings(major=70), hysteresis=5))
MEMORY_60 = profile("b", thresholds=settings(memory=LevelSettings(major=60, critical=75)))


@pytest.mark.parametrize(
    ("own", "profiles", "expected"),
    [
        (Thresholds(), [], Thresholds()),
        (Thresholds(), [MEMORY_70], Thresholds(memory=Threshold(major=70, critical=90), hysteresis=5)),
        (Thresholds(), [MEMORY_70, MEMORY_60],
         Thresholds(memory=Threshold(major=60, critical=75), hysteresis=5)),
        (Thresholds(), [MEMORY_60, MEMORY_70],
         Thresholds(memory=Threshold(major=70, critical=75), hysteresis=5)),
        (
            Thresholds(memory=Threshold(major=50, critical=90), hysteresis=9),
            [MEMORY_60, MEMORY_70],
            Thresholds(memory=Threshold(major=50, critical=75), hysteresis=9),
        ),
        (Thresholds(), [profile("off", thresholds=settings(processor=LevelSettings(major=0, critical=0)))],
         Thresholds(processor=Threshold(major=0, critical=0))),
        (Thresholds(), [profile("slow", thresholds=settings(raise_after=12, clear_after=6))],
         Thresholds(raise_after=12, clear_after=6)),
    ],
)  # fmt: skip
def test_fields_are_laid_over_each_other(
    own: Thresholds, profiles: list[MonitoringProfile], expected: Thresholds
) -> None:
    assert in_force(own, profiles) == expected


@given(levels=st.tuples(*[st.none() | st.integers(0, 100)] * 3), wait=st.none() | st.integers(1, 60))
def test_what_a_profile_leaves_out_stays(
    levels: tuple[int | None, int | None, int | None], wait: int | None
) -> None:
    minor, major, critical = levels
    given_levels = LevelSettings(minor=minor, major=major, critical=critical)
    made = in_force(Thresholds(), [profile("p", thresholds=settings(memory=given_levels, raise_after=wait))])
    base = Thresholds().memory
    for field, value in (("minor", minor), ("major", major), ("critical", critical)):
        assert getattr(made.memory, field) == (getattr(base, field) if value is None else value)
    assert made.raise_after == (wait or 1)
    assert (made.processor, made.filesystem) == (Thresholds().processor, Thresholds().filesystem)


def test_profiles_are_chosen_by_name_personality_and_label_in_their_order() -> None:
    subject = Host(
        metadata=Metadata(name="w-1", labels={"rack": "r1"}), spec=HostSpec(personalities=["worker"])
    )
    profiles = [
        profile("z"),
        profile("a"),
        profile("last", 200, hosts=["w-1", "w-2"]),
        profile("first", 1, selector=HostSelector(personalities=["worker"])),
        profile("label", selector=HostSelector(labels={"rack": "r1"})),
        profile("no-1", hosts=["w-2"]),
        profile("no-2", selector=HostSelector(labels={"rack": "r2"})),
        profile("no-3", selector=HostSelector(personalities=["storage"])),
        profile("no-4", hosts=["w-1"], selector=HostSelector(personalities=["storage"])),
    ]
    assert [p.metadata.name for p in selected(profiles, subject)] == ["first", "a", "label", "z", "last"]


def test_levels_of_a_profile_must_rise() -> None:
    spec = {"thresholds": {"memory": {"major": 90, "critical": 80}, "processor": {"critical": 101}}}
    _, problems = check(MONITORING_PROFILE, {"metadata": {"name": "p"}, "spec": spec})
    assert any("critical" in p.field for p in problems)
    spec = {"thresholds": {"memory": {"major": 90, "critical": 80}}}
    _, problems = check(MONITORING_PROFILE, {"metadata": {"name": "p"}, "spec": spec})
    assert [p.field for p in problems] == ["spec.thresholds.memory"]
