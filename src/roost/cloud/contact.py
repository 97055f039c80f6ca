"""Contact of a host: whether the cloud hears it, from its link and from its heartbeats.

By the link alone: `present` while it is up, or down for less than LATE seconds; `late` from then on; `lost`
from LOST seconds on. A short cut or an agent's restart changes nothing. After a restart of the controller a
host that was not met yet keeps the contact it had, and is lost after RETURN seconds.

Heartbeats say more, sooner: a host whose heartbeats have failed on all networks is `lost` at once; one that
beats is never lost, and has RETURN seconds to bring its link back before it is late. A host that is `held`
(see avoidance.py) and was in service is late at worst.
"""

from __future__ import annotations

from typing import Literal

from roost.cloud.heartbeat import NOT_WATCHED, HostHeartbeat
from roost.engine.presence import Presence
from roost.model.host import HostStatus

LATE = 3.0
LOST = 10.0
RETURN = 30.0

Contact = Literal["present", "late", "lost"]


def contact(connected: bool, seconds: float) -> Contact:  # noqa: FBT001 - a fact, not a switch
    """Contact of a host whose link has been up or down for so long, by its link alone."""
    if connected or seconds < LATE:
        return "present"
    return "late" if seconds < LOST else "lost"


def contact_of(presence: Presence, status: HostStatus, heartbeat: HostHeartbeat = NOT_WATCHED) -> Contact:
    """Contact of a host from its link and heartbeats, and from its last status while it was not met yet."""
    if heartbeat.verdict == "failed":
        return "lost"
    if heartbeat.verdict == "alive" and presence.met:
        return "present" if presence.connected or presence.silent < RETURN else "late"
    if presence.connected or presence.met:
        return contact(presence.connected, presence.silent)
    return contact_before(status) if presence.silent < RETURN else "lost"


def contact_held(contact: Contact, status: HostStatus) -> Contact:
    """Contact of a host that is not to be failed now. One that has failed before stays what it is."""
    return "late" if contact == "lost" and status.operational == "enabled" else contact


def contact_before(status: HostStatus) -> Contact:
    """The contact that a status was written with; of a host that was never there: lost."""
    if status.connected:
        return "present"
    return "late" if status.operational == "enabled" else "lost"


def contact_due(presence: Presence, contact: Contact, heartbeat: HostHeartbeat = NOT_WATCHED) -> float | None:
    """Seconds until the contact gets worse by the link's silence alone; None when it can't."""
    if presence.connected or contact == "lost":
        return None
    if heartbeat.verdict == "alive" and presence.met:
        return max(0.05, RETURN - presence.silent + 0.01) if contact == "present" else None
    if not presence.met:
        return max(0.05, RETURN - presence.silent + 0.01)
    return max(0.05, (LATE if contact == "present" else LOST) - presence.silent + 0.01)
