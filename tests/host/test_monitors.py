"""Monitors: levels with hysteresis, smoothing, ports, and what is not known."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.host.monitors import (
    MAXIMUM_READINGS,
    WINDOW,
    History,
    decide_readings,
    level_of,
    remember,
    settled_level,
)
from roost.host.sampling import PortState, Sample, Unread
from roost.model.host import Level, Reading, Threshold, Thresholds

RANK: dict[Level, int] = {"normal": 0, "minor": 1, "major": 2, "critical": 3}
LEVELS = [level for level in get_args(Level) if level != "unknown"]
FAILED = Unread("disk gone")
UP = PortState(up=True, carrier=True)
NO_LINK = PortState(up=True, carrier=False)
DOWN = PortState(up=False, carrier=False)


def sample(**parts: object) -> Sample:
    return msgspec.structs.replace(Sample(memory=10.0, filesystems={}, ports={}), **parts)


class Monitors:
    """The two calls as an agent makes them, one sample after another; time is their number."""

    def __init__(self, thresholds: Thresholds | None = None, carrying: tuple[str, ...] = ()) -> None:
        self.thresholds = thresholds or Thresholds()
        self.carrying = carrying
        self.readings: list[Reading] = []
        self.history = History()
        self.count = 0

    def see(self, seen: Sample) -> list[Reading]:
        self.count += 1
        self.history = remember(self.history, self.readings, seen)
        self.readings = decide_readings(
            self.readings,
            seen,
            self.thresholds,
            f"t{self.count}",
            history=self.history,
            carrying=self.carrying,
        )
        return self.readings

    def get(self, monitor: str, instance: str = "") -> Reading | None:
        found = [r for r in self.readings if (r.monitor, r.instance) == (monitor, instance)]
        assert len(found) < 2
        return found[0] if found else None

    def level(self, monitor: str, instance: str = "") -> str | None:
        reading = self.get(monitor, instance)
        return reading.level if reading else None


def test_a_level_is_entered_at_its_threshold_and_left_below_the_band() -> None:
    monitors = Monitors()
    seen = []
    for memory in (79.9, 80.0, 77.0, 76.9, 80.0, 90.0, 87.0, 86.9, 76.0):
        monitors.see(sample(memory=memory))
        seen.append(monitors.level("memory"))
    assert seen == [
        "normal", "major", "major", "normal", "major", "critical", "critical", "major", "normal"
    ]  # fmt: skip


def test_a_raised_reading_tells_use_and_threshold() -> None:
    monitors = Monitors()
    monitors.see(sample(memory=84.7))
    reading = monitors.get("memory")
    assert reading is not None
    assert reading.message == "memory use is 84 percent, threshold 80 percent"
    monitors.see(sample(filesystems={"/": 95.0}))
    filesystem = monitors.get("filesystem", "/")
    assert filesystem is not None
    assert filesystem.message.startswith("filesystem / use is 95 percent")
    assert (reading.value, reading.since) == (84.0, "t1")


def test_small_moves_make_no_new_reading() -> None:
    monitors = Monitors()
    first = monitors.see(sample(memory=50.2, filesystems={"/": 40.0}, ports={"eth0": UP}))
    for memory in (52.0, 54.9, 46.0, 50.0):
        again = monitors.see(sample(memory=memory, filesystems={"/": 42.0}, ports={"eth0": UP}))
        assert all(a is b for a, b in zip(first, again, strict=True))
    moved = monitors.see(sample(memory=55.0, filesystems={"/": 40.0}, ports={"eth0": UP}))
    assert moved[0].value == 55.0
    assert moved[0].since == "t1"
    assert moved[1] is first[1]


def test_a_new_threshold_within_a_level_mends_the_message_and_keeps_since() -> None:
    monitors = Monitors()
    monitors.see(sample(memory=85.0))
    monitors.thresholds = Thresholds(memory=Threshold(major=70, critical=90))
    monitors.see(sample(memory=85.0))
    reading = monitors.get("memory")
    assert reading is not None
    assert (reading.message, reading.since) == ("memory use is 85 percent, threshold 70 percent", "t1")


def test_a_spike_of_the_processor_raises_nothing() -> None:
    monitors = Monitors()
    for use in (20.0, 20.0, 100.0, 20.0, 20.0, 20.0, 100.0, 100.0, 20.0, 20.0):
        monitors.see(sample(processor=use))
        assert monitors.level("processor") in (None, "normal")


def test_a_processor_that_stays_busy_raises_and_clears() -> None:
    monitors = Monitors()
    seen = []
    for use in (20.0,) * 5 + (97.0,) * 4 + (20.0,) * 4:
        monitors.see(sample(processor=use))
        seen.append(monitors.level("processor"))
    assert seen == [None, None] + ["normal"] * 5 + ["critical"] * 4 + ["normal"] * 2


def test_the_processor_is_not_judged_too_early_and_a_restart_forgets_nothing() -> None:
    monitors = Monitors()
    major = Reading(monitor="processor", level="major", value=92.0, message="use is ...", since="before")
    monitors.readings = [major]
    for use in (None, 20.0, 20.0):
        assert monitors.see(sample(processor=use))[0] is major
    monitors.see(sample(processor=20.0))
    assert monitors.level("processor") == "normal"


def test_unknown_keeps_value_and_since_and_hysteresis_goes_on_after_it() -> None:
    monitors = Monitors()
    monitors.see(sample(memory=81.0))
    monitors.see(sample(memory=FAILED))
    reading = monitors.get("memory")
    assert reading is not None
    assert (reading.level, reading.value, reading.since) == ("unknown", 81.0, "t1")
    assert reading.message == "disk gone"
    assert monitors.see(sample(memory=FAILED))[0] is reading
    monitors.see(sample(memory=78.0))  # inside the band: the level from before holds
    reading = monitors.get("memory")
    assert reading is not None
    assert (reading.level, reading.since) == ("major", "t1")


def test_a_different_level_after_unknown_is_entered_anew() -> None:
    monitors = Monitors()
    for memory in (10.0, FAILED, 85.0):
        monitors.see(sample(memory=memory))
    reading = monitors.get("memory")
    assert reading is not None
    assert (reading.level, reading.since) == ("major", "t3")


def test_never_read_is_unknown_from_the_start() -> None:
    monitors = Monitors(carrying=("eth0",))
    monitors.see(sample(processor=FAILED, memory=FAILED, filesystems={"/": FAILED}, ports=FAILED))
    assert {(r.monitor, r.instance, r.level, r.since) for r in monitors.readings} == {
        ("processor", "", "unknown", "t1"),
        ("memory", "", "unknown", "t1"),
        ("filesystem", "/", "unknown", "t1"),
        ("port", "eth0", "unknown", "t1"),
    }


def test_file_systems_come_and_go() -> None:
    monitors = Monitors()
    monitors.see(sample(filesystems={"/": 10.0, "/data": 95.0}))
    assert monitors.level("filesystem", "/data") == "critical"
    monitors.see(sample(filesystems=Unread("no mountinfo")))
    assert monitors.level("filesystem", "/data") == monitors.level("filesystem", "/") == "unknown"
    monitors.see(sample(filesystems={"/": 10.0}))
    assert monitors.level("filesystem", "/data") is None
    assert monitors.level("filesystem", "/") == "normal"


def port_levels(states: list[PortState | Unread | None], carrying: tuple[str, ...] = ()) -> list[str | None]:
    monitors, seen = Monitors(carrying=carrying), []
    for state in states:
        if isinstance(state, Unread):
            monitors.see(sample(ports=state))
        else:
            monitors.see(sample(ports={"eth0": state} if state else {}))
        seen.append(monitors.level("port", "eth0"))
    return seen


VIRTUAL = PortState(up=True, carrier=True, virtual=True)
VIRTUAL_NO_LINK = PortState(up=True, carrier=False, virtual=True)


@pytest.mark.parametrize(
    ("states", "carrying", "levels"),
    [
        # A port that had a link loses it.
        ([UP, NO_LINK, NO_LINK, UP], (), ["normal", "major", "major", "normal"]),
        # A spare port without a cable is no fault, nor is one that is shut down or taken out.
        ([NO_LINK, NO_LINK], (), [None, None]),
        ([UP, DOWN, NO_LINK], (), ["normal", None, None]),
        ([UP, NO_LINK, DOWN, NO_LINK], (), ["normal", "major", None, None]),
        ([UP, None], (), ["normal", None]),
        # A port that carries a platform network must have a link, be up and be there.
        ([NO_LINK, DOWN, None, UP], ("eth0",), ["major", "major", "major", "normal"]),
        ([VIRTUAL, VIRTUAL_NO_LINK], ("eth0",), ["normal", "major"]),
        # What workloads plug in and out is not watched.
        ([VIRTUAL, VIRTUAL_NO_LINK], (), [None, None]),
        # Not known is neither a fault nor the end of one.
        ([UP, FAILED, UP], (), ["normal", "unknown", "normal"]),
        ([UP, NO_LINK, FAILED, NO_LINK], (), ["normal", "major", "unknown", "major"]),
        ([FAILED], (), [None]),
        ([FAILED], ("eth0",), ["unknown"]),
    ],
)
def test_ports(
    states: list[PortState | Unread | None], carrying: tuple[str, ...], levels: list[str | None]
) -> None:
    assert port_levels(states, carrying) == levels


def test_a_port_that_never_had_a_link_is_let_go_with_its_network() -> None:
    monitors = Monitors(carrying=("eth0",))
    monitors.see(sample(ports={"eth0": NO_LINK}))
    assert monitors.level("port", "eth0") == "major"
    monitors.carrying = ()
    monitors.see(sample(ports={"eth0": NO_LINK}))
    assert monitors.level("port", "eth0") is None


def test_too_many_readings_shed_the_least_severe() -> None:
    monitors = Monitors()
    ports = {f"eth{n:04}": UP for n in range(1500)}
    monitors.see(sample(ports=ports))
    assert len(monitors.readings) == MAXIMUM_READINGS
    monitors.carrying = ("eth1499",)
    monitors.see(sample(ports={**ports, "eth1499": NO_LINK}))
    assert len(monitors.readings) == MAXIMUM_READINGS
    assert monitors.level("port", "eth1499") == "major"


percent = st.floats(0, 100, allow_nan=False)
level = st.sampled_from(LEVELS)


@st.composite
def threshold(draw: st.DrawFn) -> Threshold:
    rising = sorted(draw(st.lists(st.integers(1, 100), min_size=3, max_size=3, unique=True)))
    keep = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    minor, major, critical = (limit if kept else 0 for limit, kept in zip(rising, keep, strict=True))
    return Threshold(minor=minor, major=major, critical=critical)


hysteresis = st.integers(0, 50)
thresholds = st.builds(
    Thresholds, processor=threshold(), memory=threshold(), filesystem=threshold(), hysteresis=hysteresis
)
seen = st.one_of(percent, st.builds(Unread, st.text(max_size=600)))
port_state = st.builds(PortState, up=st.booleans(), carrier=st.booleans(), virtual=st.booleans())
samples = st.builds(
    Sample,
    processor=st.one_of(st.none(), seen),
    memory=seen,
    filesystems=st.one_of(
        st.dictionaries(st.sampled_from(["/", "/a", "/b"]), seen), st.builds(Unread, st.just("no"))
    ),
    ports=st.one_of(
        st.dictionaries(st.sampled_from(["eth0", "eth1"]), port_state), st.builds(Unread, st.just("no"))
    ),
)


@given(low=percent, high=percent, limits=threshold(), held=level, width=hysteresis)
def test_level_rises_with_use(low: float, high: float, limits: Threshold, held: Level, width: int) -> None:
    low, high = sorted((low, high))
    assert RANK[level_of(low, limits, held, width)] <= RANK[level_of(high, limits, held, width)]


@given(value=percent, limits=threshold(), held=level, width=hysteresis)
def test_level_is_settled_at_once(value: float, limits: Threshold, held: Level, width: int) -> None:
    once = level_of(value, limits, held, width)
    assert level_of(value, limits, once, width) == once


@given(limits=threshold(), width=hysteresis, held=level)
def test_nothing_used_is_always_normal_and_all_used_always_highest(
    limits: Threshold, width: int, held: Level
) -> None:
    assert level_of(0.0, limits, held, width) == "normal"
    highest = max(
        (name for name in LEVELS if name == "normal" or getattr(limits, name)), key=RANK.__getitem__
    )
    assert level_of(100.0, limits, held, width) == highest


@given(limit=st.integers(10, 100), width=st.integers(1, 9), data=st.data())
def test_no_flapping_inside_the_band(limit: int, width: int, data: st.DataObject) -> None:
    monitors = Monitors(Thresholds(memory=Threshold(major=limit, critical=0), hysteresis=width))
    inside = st.floats(limit - width, limit, exclude_max=True)
    for first in ("normal", "major"):
        monitors.see(sample(memory=0.0 if first == "normal" else 100.0))
        for value in data.draw(st.lists(inside, max_size=8)):
            monitors.see(sample(memory=value))
            assert monitors.level("memory") == first


@given(given_samples=st.lists(samples, max_size=8), limits=thresholds, carrying=st.sets(st.just("eth1")))
def test_unknown_neither_raises_nor_clears(
    given_samples: list[Sample], limits: Thresholds, carrying: set[str]
) -> None:
    """Samples of which nothing could be read, put in between, change nothing but to be told as unknown."""
    nothing = Sample(processor=FAILED, memory=FAILED, filesystems=FAILED, ports=FAILED)
    plain, disturbed = Monitors(limits, tuple(carrying)), Monitors(limits, tuple(carrying))
    for one in given_samples:
        expected = plain.see(one)
        for reading in disturbed.see(nothing):
            assert reading.level == "unknown"
        disturbed.see(one)
        # A processor not judged yet is told as unknown meanwhile.
        mine = {(r.monitor, r.instance): r.level for r in disturbed.readings if r.monitor != "processor"}
        assert mine == {(r.monitor, r.instance): r.level for r in expected if r.monitor != "processor"}


@given(given_samples=st.lists(samples, max_size=8), limits=thresholds, carrying=st.sets(st.just("eth1")))
def test_readings_follow_from_inputs_alone_and_keep_their_bounds(
    given_samples: list[Sample], limits: Thresholds, carrying: set[str]
) -> None:
    one, other = Monitors(limits, tuple(carrying)), Monitors(limits, tuple(carrying))
    for seen_now in given_samples:
        before = {(r.monitor, r.instance): r for r in one.readings}
        readings = one.see(seen_now)
        assert readings == other.see(seen_now)
        assert len({(r.monitor, r.instance) for r in readings}) == len(readings) <= MAXIMUM_READINGS
        assert len(one.history.processor) <= WINDOW
        for reading in readings:
            assert len(reading.message) <= 512
            assert reading.level == "normal" or reading.message or reading.level == "unknown"
            old = before.get((reading.monitor, reading.instance))
            # An equal reading is the same object, so that a comparison by identity finds all changes.
            assert old is None or reading is old or reading != old
        # Seeing the same again changes nothing, but that a window fills and a level from before is left.
        again = decide_readings(
            readings, seen_now, limits, "later", history=remember(one.history, readings, Sample(
                memory=FAILED, filesystems={}, ports={})), carrying=tuple(carrying)
        )  # fmt: skip
        assert all(a is b for a, b in zip(readings, again, strict=True))


USES = st.lists(st.floats(0, 100), min_size=1, max_size=30)
THRESHOLD = Threshold(minor=70, major=80, critical=90)


@pytest.mark.parametrize(
    ("uses", "raise_after", "clear_after", "held", "expected"),
    [
        ([95.0], 1, 1, "normal", "critical"),
        ([95.0], 2, 1, "normal", "normal"),
        ([95.0, 95.0], 2, 1, "normal", "critical"),
        ([85.0, 95.0], 2, 1, "normal", "major"),
        ([95.0, 10.0, 95.0], 2, 1, "normal", "normal"),
        ([10.0], 1, 3, "critical", "critical"),
        ([95.0, 10.0, 10.0], 1, 3, "critical", "critical"),
        ([10.0, 10.0, 10.0], 1, 3, "critical", "normal"),
        ([75.0, 10.0, 85.0], 1, 3, "critical", "major"),
        ([88.0, 88.0], 1, 2, "critical", "critical"),
    ],
)
def test_a_level_waits_for_so_many_samples_in_a_row(
    uses: list[float], raise_after: int, clear_after: int, held: Level, expected: Level
) -> None:
    all_ = Thresholds(raise_after=raise_after, clear_after=clear_after)
    assert settled_level(uses, THRESHOLD, held, all_) == expected


@given(uses=USES, held=st.sampled_from(LEVELS))
def test_with_one_sample_the_last_use_decides(uses: list[float], held: Level) -> None:
    assert settled_level(uses, THRESHOLD, held, Thresholds()) == level_of(uses[-1], THRESHOLD, held, 3)


@given(uses=USES, held=st.sampled_from(LEVELS), n=st.integers(1, 8))
def test_a_peak_shorter_than_asked_for_never_raises_and_a_dip_never_clears(
    uses: list[float], held: Level, n: int
) -> None:
    level = settled_level(uses, THRESHOLD, held, Thresholds(raise_after=n, clear_after=n))
    tail = [level_of(u, THRESHOLD, "normal", 3) for u in uses[-n:]]
    if RANK[level] > RANK[held]:
        assert len(tail) == n and all(RANK[t] >= RANK[level] for t in tail)
    if RANK[level] < RANK[held]:
        assert len(tail) == n and all(RANK[t] <= RANK[level] for t in tail)


def test_samples_that_could_not_be_read_are_not_counted_and_a_restart_counts_anew() -> None:
    monitors = Monitors(Thresholds(memory=THRESHOLD, raise_after=3, clear_after=2))

    def after(memory: float | Unread) -> str:
        monitors.see(sample(memory=memory))
        reading = monitors.get("memory")
        assert reading is not None
        return reading.level

    assert [after(95.0), after(95.0), after(FAILED), after(95.0)] == [
        "normal",
        "normal",
        "unknown",
        "critical",
    ]
    assert [after(10.0), after(FAILED), after(95.0), after(10.0)] == [
        "critical",
        "unknown",
        "critical",
        "critical",
    ]
    monitors.history = History()
    assert [after(10.0), after(10.0)] == ["critical", "normal"]
