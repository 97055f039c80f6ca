"""Contact of a host from its link alone: silence, and the time to return after the controller's restart."""

from __future__ import annotations

import pytest

from roost.cloud.contact import LATE, LOST, RETURN, contact, contact_before, contact_due, contact_of
from roost.engine.presence import Presence
from roost.model.host import HostStatus


@pytest.mark.parametrize(
    ("connected", "seconds", "expected"),
    [
        (True, 0.0, "present"),
        (True, 1e9, "present"),
        (False, 0.0, "present"),
        (False, LATE - 0.001, "present"),
        (False, LATE, "late"),
        (False, LOST - 0.001, "late"),
        (False, LOST, "lost"),
    ],
)
def test_contact_follows_from_silence(connected: bool, seconds: float, expected: str) -> None:  # noqa: FBT001
    assert contact(connected, seconds) == expected


BEFORE = {
    "present": HostStatus(
        administrative="unlocked", operational="enabled", availability="available", connected=True
    ),
    "late": HostStatus(administrative="unlocked", operational="enabled", availability="degraded"),
    "lost": HostStatus(administrative="unlocked", operational="disabled", availability="failed"),
}


@pytest.mark.parametrize("before", BEFORE)
def test_until_it_had_its_time_to_return_a_host_is_what_it_was(before: str) -> None:
    status = BEFORE[before]
    assert contact_before(status) == before
    assert contact_before(HostStatus()) == "lost", "a host that was never there"
    for silent in (0.0, LATE, LOST, RETURN - 0.1):
        presence = Presence(connected=False, silent=silent, met=False)
        assert contact_of(presence, status) == before
        due = contact_due(presence, contact_of(presence, status))
        assert due is None if before == "lost" else due is not None and 0 < due <= RETURN + 0.1
    assert contact_of(Presence(connected=False, silent=RETURN, met=False), status) == "lost"
    assert contact_of(Presence(connected=True), status) == "present"


def test_when_contact_is_looked_at_again_it_is_worse() -> None:
    presence = Presence(connected=False, silent=0.5)
    for expected in ("late", "lost"):
        due = contact_due(presence, contact(presence.connected, presence.silent))
        assert due is not None
        presence = Presence(connected=False, silent=presence.silent + due)
        assert contact(presence.connected, presence.silent) == expected
    assert contact_due(presence, "lost") is None
    assert contact_due(Presence(connected=True), "present") is None
