"""When a costly look is due again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from roost.engine.pacing import LONGEST, Pace
from tests.support.clock import START


@pytest.mark.parametrize(
    ("things", "later", "wait"),
    [
        (3, 0.0, 0.0),
        (1000, 0.0, 0.5),
        (1000, 0.3, 0.2),
        (1000, 0.5, 0.0),
        (1_000_000, 0.0, LONGEST),
        (1000, -3600.0, 0.0),
    ],
)
def test_the_next_look_comes_later_the_more_there_is_to_look_at(
    things: int, later: float, wait: float
) -> None:
    pace = Pace()
    assert pace.wait("policies", START) == 0.0
    pace.looked("policies", START, things)
    assert pace.wait("policies", START + timedelta(seconds=later)) == pytest.approx(wait)
    assert pace.wait("hosts", START) == 0.0


def test_what_is_forgotten_is_due() -> None:
    pace = Pace()
    pace.looked("policies", START, 1000)
    pace.forget("policies")
    assert pace.wait("policies", START) == 0.0
