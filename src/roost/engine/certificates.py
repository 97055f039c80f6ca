"""Alarms for certificates near their end or past it, and when to look again. Pure.

Shared by the rooms that hold links: a cloud for its hosts and itself, a central cloud for its subclouds.
"""

from __future__ import annotations

from datetime import datetime

from roost.model import time
from roost.model.alarms import Fault

WARN_SECONDS = 14 * 86400.0
LONGEST_LOOK = 3600.0


def certificate_faults(
    entity: str, expires_at: str, now: datetime, *, warn_seconds: float = WARN_SECONDS
) -> list[Fault]:
    """Alarm for a certificate near its end; none where the end is not known."""
    left = _left(expires_at, now)
    if left is None or left >= warn_seconds:
        return []
    alarm_id, severity, ends = (
        ("500.200", "major", "expires") if left > 0 else ("500.210", "critical", "expired")
    )
    return [
        Fault(
            alarm_id=alarm_id,
            severity=severity,  # type: ignore[arg-type]
            entity=f"system.certificate.mode=link.uuid={entity}",
            reason=f"The certificate of {entity} {ends} at {expires_at}.",
            instance=entity,
        )
    ]


def certificate_due(expires_at: str, now: datetime, *, warn_seconds: float = WARN_SECONDS) -> float | None:
    """Seconds until the certificate's alarm is to be looked at anew: within an hour, for clocks are set."""
    left = _left(expires_at, now)
    if left is None:
        return None
    moments = [m + 0.01 for m in (left - warn_seconds, left) if m > 0]
    return min([*moments, LONGEST_LOOK])


def _left(expires_at: str, now: datetime) -> float | None:
    """Seconds until the end; None when it is not known, or not told in a way we understand."""
    try:
        return (time.parse(expires_at) - now).total_seconds()
    except ValueError:
        return None
