"""Alarms for certificates near their end or past it, and when to look again. Pure.

Shared by the rooms that hold links: a cloud for its hosts and itself, a central cloud for its subclouds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from roost.model import time
from roost.model.alarms import Fault

WARN_SECONDS = 14 * 86400.0
AUTHORITY_WARN_SECONDS = 365 * 86400.0
"""A CA's end concerns all that it has issued, and people have to do something about it."""
RENEWAL_GRACE = 365 * 86400.0
"""Seconds after its end for which a node's certificate is renewed when the node comes back."""
LONGEST_LOOK = 3600.0


def certificate_faults(
    entity: str, expires_at: str, now: datetime, *, warn_seconds: float = WARN_SECONDS, grace: float = 0.0
) -> list[Fault]:
    """Alarm for a certificate near its end; none where the end is not known.

    `grace`: seconds after the end for which its holder is given a new one when he comes.
    """
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
            reason=f"The certificate of {entity} {ends} at {expires_at}.{_way_back(expires_at, left, grace)}",
            instance=entity,
        )
    ]


def _way_back(expires_at: str, left: float, grace: float) -> str:
    """What becomes of the holder of a certificate that is over, who is not there to have it renewed."""
    if left > 0 or not grace:
        return ""
    until = time.seconds(time.parse(expires_at) + timedelta(seconds=grace))
    if left > -grace:
        return f" It is renewed by itself when its holder comes back, until {until}."
    return f" It could be renewed until {until}: its holder has to be enrolled anew with a token."


def certificate_due(expires_at: str, now: datetime, *, warn_seconds: float = WARN_SECONDS) -> float | None:
    """Seconds until the certificate's alarm is to be looked at anew: within an hour, for clocks are set."""
    left = _left(expires_at, now)
    if left is None:
        return None
    # At `warn_seconds` to the very moment there is no alarm yet; at its end it has ended.
    moments = [left - warn_seconds + 0.01] if left >= warn_seconds else []
    moments += [left + 0.01] if left > 0 else []
    return min([*moments, LONGEST_LOOK])


def _left(expires_at: str, now: datetime) -> float | None:
    """Seconds until the end; None when it is not known, or not told in a way we understand."""
    try:
        return (time.parse(expires_at) - now).total_seconds()
    except ValueError:
        return None
