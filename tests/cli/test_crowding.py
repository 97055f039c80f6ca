"""`roost sim fleet`: what makes no sense is told before any cloud is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roost.cli.crowding import fleet
from roost.cli.problems import Misused, NotFound


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"subclouds": 0}, "--subclouds 0 makes no sense"),
        ({"subclouds": 100_001}, "give 1 to 100000"),
        ({"hosts_per_subcloud": -1}, "--hosts-per-subcloud"),
        ({"heartbeat": 0}, "--heartbeat"),
        ({"processes": 65}, "--processes"),
        ({"seconds": -1}, "--seconds"),
    ],
)
def test_numbers_out_of_bounds_are_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Misused) as refused:
        fleet(**{"subclouds": 1, **given})
    assert words in f"{refused.value}; {refused.value.remedy}"


def test_a_script_that_is_none_is_told(tmp_path: Path) -> None:
    script = tmp_path / "bad.yaml"
    script.write_text("- {action: explode}\n")
    with pytest.raises(Misused, match="explode"):
        fleet(subclouds=1, faults=script)
    with pytest.raises(NotFound, match="none"):
        fleet(subclouds=1, faults=tmp_path / "none.yaml")
