"""Alertmanager (API v2): what stands is posted again and again, and ends by itself when it is not.

`endsAt` of what stands is FORGOTTEN resends ahead, so a lost sender leaves no alert for ever; what is cleared
is posted with `endsAt` now. Labels tell an alert from others, so one whose severity changes is another: the
former is ended in the same request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from roost.cloud.outlets.http import Poster
from roost.cloud.outlets.messages import AlarmFacts, Message
from roost.cloud.outlets.sink import Settings
from roost.model import time

FORGOTTEN = 4
PATH = "/api/v2/alerts"


def alerts_of(message: Message, now: datetime, resend: int) -> list[dict[str, Any]]:
    """The alerts that a message is posted as; none for what Alertmanager has no word for."""
    stands, over = time.stamp(now + timedelta(seconds=resend * FORGOTTEN)), time.stamp(now)
    alarm = message.alarm
    if alarm is None:
        if message.what != "test":
            return []
        labels = {"alertname": "RoostTest", "severity": "info", "cloud": message.cloud, "id": message.id}
        notes = {"summary": message.text}
        return [{"labels": labels, "annotations": notes, "startsAt": message.time, "endsAt": over}]
    found = [_alert(message, alarm, alarm.severity, over if message.what == "clear" else stands)]
    if message.what == "changed" and alarm.former_severity not in ("", alarm.severity):
        found.insert(0, _alert(message, alarm, alarm.former_severity, over))
    return found


def _alert(message: Message, alarm: AlarmFacts, severity: str, ends: str) -> dict[str, Any]:
    return {
        "labels": {
            "alertname": f"Roost{alarm.alarm_id}",
            "alarm_id": alarm.alarm_id,
            "alarm": alarm.name,
            "entity": alarm.entity,
            "severity": severity,
            "cloud": message.cloud,
        },
        "annotations": {
            "summary": alarm.reason,
            "repair": alarm.repair,
            "acknowledged_by": alarm.acknowledged_by,
            "service_affecting": str(alarm.service_affecting).lower(),
        },
        "startsAt": alarm.raised_at or message.time,
        "endsAt": ends,
    }


class Alertmanager:
    """One Alertmanager."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._clock, self._resend = clock, settings.spec.resend_seconds
        self._url = settings.spec.endpoint.rstrip("/") + PATH
        self._poster = Poster(settings, clock)

    async def send(self, messages: Sequence[Message]) -> None:
        """POST; 2xx acknowledges. Of one alert the last state counts."""
        now = self._clock()
        latest: dict[bytes, dict[str, Any]] = {}
        for message in messages:
            for alert in alerts_of(message, now, self._resend):
                latest[msgspec.json.encode(alert["labels"])] = alert
        if latest:
            await self._poster.post(self._url, msgspec.json.encode(list(latest.values())), {})

    async def close(self) -> None:
        await self._poster.close()
