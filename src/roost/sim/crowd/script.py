"""What befalls simulated sites, as a file says it: steps in the order of their times. Pure.

Sites are meant by number: all, a share of them, or some from one on. A share is the same for the same step,
and spread over all. See `Step` for what there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

Action = Literal[
    "cut", "silence", "mend", "change", "alarms", "clear", "log", "flood", "nonsense", "claim", "old"
]
MOST_STEPS = 10_000
_PRIME = 2_654_435_761


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One step. Times are seconds from the moment when all sites have dialled.

    - `cut`: ways are cut with a reset; `silence`: nothing passes, and nobody is told; `mend`: dial again;
    - `change`: hosts change, `rate` a second over all these sites, for `seconds`;
    - `alarms`: each raises `count` alarms; `clear`: they are over; `log`: each writes `count` log entries;
    - `flood`: each sends as fast as it may, for `seconds`; `nonsense`: bytes that mean nothing;
      `claim`: it tells of another site's hosts; `old`: dials again as an older version, which knows less.
    """

    at: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    action: Action
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    first: Annotated[int, msgspec.Meta(ge=0)] = 0
    sites: Annotated[int, msgspec.Meta(ge=1)] | None = None
    rate: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] = 1.0
    seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class BadScript(ValueError):
    """The text is no script; says where and why."""


def parse(text: bytes) -> list[Step]:
    """The steps of a script (YAML or JSON: a list), in the order of their times. Raises BadScript."""
    import yaml

    try:
        raw = yaml.safe_load(text)
        steps = msgspec.convert(raw, Annotated[list[Step], msgspec.Meta(max_length=MOST_STEPS)])
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise BadScript(f"it is no YAML: {' '.join(str(error).split())[:300]}") from error
    except msgspec.ValidationError as error:
        raise BadScript(str(error)) from error
    return sorted(steps, key=lambda step: step.at)


def chosen(step: Step, numbers: Sequence[int]) -> Iterator[int]:
    """Which of these sites a step is about."""
    last = None if step.sites is None else step.first + step.sites
    for number in numbers:
        if number < step.first or (last is not None and number >= last):
            continue
        # Spread evenly, and the same in every process (Knuth's multiplicative hash).
        if step.share >= 1 or (number * _PRIME) % 2**32 < step.share * 2**32:
            yield number
