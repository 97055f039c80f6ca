"""What a lower node can't do by itself any more, as it says with each heartbeat: writing to its own store.

A full or broken disk keeps a node from telling anything through its store, its own alarms included. So that
alarm is raised above: a function of the node's last word on a link that is up. Nobody knows of a node whose
link is down. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from roost.engine.presence import Presence
from roost.model.alarms import Fault
from roost.model.fault import AlarmStatus

ALARM_ID = "280.202"


def trouble_faults(entity: str, presence: Presence) -> list[Fault]:
    """The alarm of a node whose store can't be written."""
    if not presence.connected or not presence.trouble:
        return []
    reason = f"{entity} can't write its store, and takes no changes: {presence.trouble}"
    return [Fault(alarm_id=ALARM_ID, severity="critical", entity=entity, reason=reason)]


def untold(presence: Presence) -> Callable[[AlarmStatus], bool]:
    """Whether the state behind an alarm can't be heard of now."""
    return lambda alarm: alarm.alarm_id == ALARM_ID and not presence.connected
