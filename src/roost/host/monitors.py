"""Turn samples into readings: the level of each monitored thing, with hysteresis. Pure.

Per sample: `history = remember(history, readings, sample)`, then
`readings = decide_readings(readings, sample, thresholds, now, history=history, carrying=...)`.

- A level is entered at or above its threshold and left only below threshold minus hysteresis, so use that
  hovers around a threshold makes no noise.
- `raise_after` and `clear_after` have a level wait for so many samples in a row, counted rather than timed:
  no clock matters. A sample that could not be read is none; a restart of the agent counts anew.
- Processor use is the median of the last samples: a spike shorter than half of them raises nothing.
- What could not be read is at level `unknown`, with `value` and `since` as they were: that neither clears
  nor raises. The level from before is in the history, and hysteresis goes on from it afterwards.
- A port is watched when it carries a platform network, or, unless made by software, once it had a link.
  A watched port without a link is at level major; one that merely had a link and was then shut down or
  removed by its operator is not watched any more.
- Every change of a reading is stored and sent. So a reading stays the very object it was until its level
  changes, its value has moved by five points, or its message differs for another reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import floor
from statistics import median
from typing import Literal

import msgspec

from roost.host.sampling import PortState, Sample, Unread
from roost.model.host import Level, Reading, Threshold, Thresholds

Monitor = Literal["processor", "memory", "filesystem", "port"]
Key = tuple[Monitor, str]

MAXIMUM_READINGS = 1024
WINDOW = 5
"""Samples over which the processor's use is taken."""
MOST_SAMPLES = 60
"""Samples that a level can be made to wait for."""
_WINDOW_BEFORE_JUDGING = 3
_STEP = 5.0
_MESSAGE_LENGTH = 512
_LOST_LINK = "the port has lost its link"
_RANKS: dict[Level, int] = {"unknown": 0, "normal": 0, "minor": 1, "major": 2, "critical": 3}


class History(msgspec.Struct, frozen=True):
    """What the next decision needs of the past beside the readings themselves. Lost at a restart, it
    refills by itself."""

    processor: tuple[float, ...] = ()
    """Last values of processor use, oldest first."""
    held: dict[Key, Level] = {}
    """Last level of each reading that was not `unknown`."""
    recent: dict[Key, tuple[float, ...]] = {}
    """Last uses of each thing that could be read, oldest first; of the processors, medians."""


def remember(history: History, previous: Iterable[Reading], sample: Sample) -> History:
    """The history as of this sample."""
    values = history.processor
    if isinstance(sample.processor, float | int):
        values = (*values, float(sample.processor))[-WINDOW:]
    held: dict[Key, Level] = {}
    for reading in previous:
        key = _key(reading)
        level = history.held.get(key) if reading.level == "unknown" else reading.level
        if level is not None:
            held[key] = level
    recent = {key: history.recent.get(key, ()) for key in held}
    for key, use in _uses(values, sample):
        recent[key] = (*history.recent.get(key, ()), use)[-MOST_SAMPLES:]
    return History(values, held, recent)


def _uses(processor: tuple[float, ...], sample: Sample) -> Iterable[tuple[Key, float]]:
    """Every use that this sample tells."""
    if isinstance(sample.processor, float | int) and len(processor) >= _WINDOW_BEFORE_JUDGING:
        yield ("processor", ""), median(processor)
    if not isinstance(sample.memory, Unread):
        yield ("memory", ""), sample.memory
    if not isinstance(sample.filesystems, Unread):
        for mount, use in sample.filesystems.items():
            if not isinstance(use, Unread):
                yield ("filesystem", mount), use


def decide_readings(
    previous: Sequence[Reading],
    sample: Sample,
    thresholds: Thresholds,
    now: str,
    *,
    history: History,
    carrying: Collection[str] = (),
) -> list[Reading]:
    """Readings that follow from this sample. `carrying` are the ports that carry platform networks."""
    before = {_key(reading): reading for reading in previous}
    past = _Past(before, history, now)
    return _bounded(
        [
            *_processor(past, sample, thresholds),
            _use(past, ("memory", ""), sample.memory, thresholds.memory, thresholds),
            *_filesystems(past, sample, thresholds),
            *_ports(past, sample, frozenset(carrying)),
        ]
    )


def level_of(value: float, threshold: Threshold, held: Level, hysteresis: int) -> Level:
    """Level of a use in percent, coming from level `held`."""
    levels: list[tuple[Level, int]] = [
        ("critical", threshold.critical),
        ("major", threshold.major),
        ("minor", threshold.minor),
    ]
    for level, limit in levels:
        # 0 leaves a level out. A hysteresis as wide as the threshold would never let go of it.
        leave = limit - hysteresis if limit > hysteresis else limit / 2
        entered = value >= limit
        kept = _RANKS[held] >= _RANKS[level] and value >= leave
        if limit and (entered or kept):
            return level
    return "normal"


def settled_level(uses: Sequence[float], threshold: Threshold, held: Level, all_: Thresholds) -> Level:
    """Level after these uses, oldest first, coming from level `held`.

    A level is entered when each of the last `raise_after` uses would enter it or a graver one, and left when
    each of the last `clear_after` would leave it. With one sample for both this is `level_of` of the last.
    """
    rising, falling = uses[-all_.raise_after :], uses[-all_.clear_after :]
    entered = min((level_of(u, threshold, "normal", all_.hysteresis) for u in rising), key=_rank)
    if len(rising) == all_.raise_after and _RANKS[entered] > _RANKS[held]:
        return entered
    if len(falling) < all_.clear_after:
        return held
    left = max((level_of(u, threshold, held, all_.hysteresis) for u in falling), key=_rank)
    return left if _RANKS[left] < _RANKS[held] else held


def _rank(level: Level) -> int:
    return _RANKS[level]


class _Past(msgspec.Struct, frozen=True):
    """What was before, and the time of the decision."""

    readings: dict[Key, Reading]
    history: History
    now: str

    def instances(self, monitor: Monitor) -> set[str]:
        return {key[1] for key in self.readings if key[0] == monitor}

    def reading(self, key: Key, level: Level, value: float, message: str) -> Reading:
        """The old reading where nothing changed. `since` moves only when a known level is entered anew:
        not when a level becomes unknown, and not when it turns out afterwards to be what it was."""
        old = self.readings.get(key)
        since = self.now
        if old is not None:
            came_back = old.level == "unknown" and level == self.history.held.get(key)
            since = old.since if level in (old.level, "unknown") or came_back else self.now
        new = Reading(
            monitor=key[0],
            instance=key[1],
            level=level,
            value=value,
            message=message[:_MESSAGE_LENGTH],
            since=since,
        )
        return old if old is not None and old == new else new

    def unread(self, key: Key, unread: Unread) -> Reading:
        old = self.readings.get(key)
        return self.reading(key, "unknown", old.value if old is not None else 0.0, unread.reason)


def _processor(past: _Past, sample: Sample, thresholds: Thresholds) -> list[Reading]:
    key: Key = ("processor", "")
    if isinstance(sample.processor, Unread):
        return [past.unread(key, sample.processor)]
    if len(past.history.processor) < _WINDOW_BEFORE_JUDGING:
        # Too early to judge: what was said before, if anything, stands.
        return [past.readings[key]] if key in past.readings else []
    use = median(past.history.processor)
    return [_use(past, key, use, thresholds.processor, thresholds)]


def _filesystems(past: _Past, sample: Sample, thresholds: Thresholds) -> list[Reading]:
    seen = sample.filesystems
    if isinstance(seen, Unread):
        return [past.unread(("filesystem", mount), seen) for mount in sorted(past.instances("filesystem"))]
    return [
        _use(past, ("filesystem", mount), seen[mount], thresholds.filesystem, thresholds)
        for mount in sorted(seen)
    ]


def _ports(past: _Past, sample: Sample, carrying: frozenset[str]) -> list[Reading]:
    watched = past.instances("port") | carrying
    seen = sample.ports
    if isinstance(seen, Unread):
        return [past.unread(("port", name), seen) for name in sorted(watched)]
    readings = []
    for name in sorted(watched | seen.keys()):
        key: Key = ("port", name)
        old = past.readings.get(key)
        had_link = old is not None and (old.level != "major" or old.message == _LOST_LINK)
        fault = _port_fault(seen.get(name), carries=name in carrying, had_link=had_link)
        if fault is not None:
            readings.append(past.reading(key, "major" if fault else "normal", 0.0, fault))
    return readings


def _port_fault(state: PortState | None, *, carries: bool, had_link: bool) -> str | None:
    """What is wrong with a port, "" when nothing is; None when it is not watched."""
    if state is None:
        return "the port carries a platform network and is not present" if carries else None
    if not state.up:
        return "the port carries a platform network and is shut down" if carries else None
    if state.virtual and not carries:
        return None
    if state.carrier:
        return ""
    if had_link:
        return _LOST_LINK
    return "the port carries a platform network and has no link" if carries else None


def _use(past: _Past, key: Key, seen: float | Unread, threshold: Threshold, all_: Thresholds) -> Reading:
    if isinstance(seen, Unread):
        return past.unread(key, seen)
    uses = (*past.history.recent.get(key, ())[:-1], seen)
    level = settled_level(uses, threshold, past.history.held.get(key, "normal"), all_)
    # Rounded down, so that a use just below a threshold is never shown as if it had reached it.
    value = float(floor(seen))
    old = past.readings.get(key)
    if old is not None and old.level == level and abs(seen - old.value) < _STEP:
        value = old.value
    if level in ("normal", "unknown"):
        return past.reading(key, level, value, "")
    limit = getattr(threshold, level)
    # An alarm shows this alone: it says what is used.
    what = " ".join(filter(None, key))
    return past.reading(key, level, value, f"{what} use is {value:.0f} percent, threshold {limit} percent")


def _key(reading: Reading) -> Key:
    return (reading.monitor, reading.instance)


def _bounded(readings: list[Reading]) -> list[Reading]:
    """All readings, or the most severe of too many, in the order given."""
    if len(readings) <= MAXIMUM_READINGS:
        return readings
    by_severity = sorted(range(len(readings)), key=lambda n: (-_severity(readings[n]), n))
    return [readings[n] for n in sorted(by_severity[:MAXIMUM_READINGS])]


def _severity(reading: Reading) -> float:
    # Something that cannot be read is worth more than something known to be well.
    return 0.5 if reading.level == "unknown" else _RANKS[reading.level]
