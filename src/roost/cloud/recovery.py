"""How far a host is recovered by itself: tries with growing pauses, a bound for each cause, and then no more.

A try asks the host to check itself anew, which changes nothing on it. When all tries are used up and the
operator allows restarts (`spec.recovery.restarts`, 0 unless told), the machine is restarted so often and no
more; only a host that does not serve is ever restarted. After that it stays failed, and says so, until
people look: raising `spec.recoveryRound` begins anew, at once.

The counters stand in the host's status, and are written in the transaction that writes the intent they
count. So neither a restart of the controllers nor a lost answer gives another try, and there is no loop of
restarts: a command names the start of the machine that it ends. Counters go back to none after
STEADY_SECONDS in service without a break.

A host that serves and whose checks fail is never given up: it is looked at again with the longest pause.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from roost.model import time
from roost.model.health import RecoveryCause, RecoveryCount, RecoveryPolicy, RecoveryStatus

FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 30.0, 4.0, 1800.0
STEADY_SECONDS = 900.0
RESTART_SECONDS = 900.0
"""How long a restart may take before it is known to have come to nothing."""


class Trouble(msgspec.Struct, frozen=True):
    """What keeps a host from being well; `serves`: it is in service all the same."""

    cause: RecoveryCause
    serves: bool
    boot_id: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known. `waits`: it is being looked at, or not heard, so that nothing can be said."""

    round: int
    enabled: bool
    waits: bool
    trouble: Trouble | None = None


class Recovery(msgspec.Struct, frozen=True):
    """What follows: the counters, a try or a restart to begin now, and when to look again."""

    status: RecoveryStatus
    attempt: str = ""
    """Name for the request that begins a try; empty: none begins."""
    restart: bool = False
    again_in: float | None = None


def recover(policy: RecoveryPolicy, status: RecoveryStatus, facts: Facts, now: datetime) -> Recovery:
    """What to do about a host in service."""
    if facts.trouble is not None and not facts.waits:
        if status.round != facts.round:
            # People have just asked for it.
            first = RecoveryCount(cause=facts.trouble.cause, next_at=time.stamp(now))
            status = RecoveryStatus(round=facts.round, counts=[first])
        return _try(policy, msgspec.structs.replace(status, well_since=""), facts.trouble, now)
    if status.round != facts.round:
        status = RecoveryStatus(round=facts.round)
    if facts.waits or not facts.enabled:
        return Recovery(msgspec.structs.replace(status, well_since=""))
    return _steady(status, now)


def fell_silent(policy: RecoveryPolicy, status: RecoveryStatus, now: datetime) -> RecoveryStatus:
    """Counted once for each silence in which a host was lost: it returns by itself, without a bound."""
    count = _count(status, "heartbeat", policy)
    made = msgspec.structs.replace(
        count,
        tries=count.tries + 1,
        limit=0,
        tried_at=time.stamp(now),
        message="It returns to service by itself once it answers; nothing on it is restarted.",
    )
    return _with(msgspec.structs.replace(status, well_since=""), made)


def outlook(status: RecoveryStatus, cause: RecoveryCause, host: str) -> str:
    """What happens next, for people."""
    count = next((c for c in status.counts if c.cause == cause), None)
    if count is None:
        return "It is tried again by itself."
    if not count.off:
        return count.message
    return (
        f"{count.message} Mend what the check names, then begin anew with `roost host recover {host}`; or "
        "lock the host to work on it."
    )


def _steady(status: RecoveryStatus, now: datetime) -> Recovery:
    if not status.counts:
        return Recovery(msgspec.structs.replace(status, well_since=""))
    since = time.parse(status.well_since) if status.well_since else now
    served = (now - since).total_seconds() if since <= now else 0.0
    if served >= STEADY_SECONDS:
        return Recovery(RecoveryStatus(round=status.round))
    began = time.stamp(since if since <= now else now)
    counts = [msgspec.structs.replace(c, next_at="", off=False) for c in status.counts]
    kept = msgspec.structs.replace(status, well_since=began, counts=counts)
    return Recovery(kept, again_in=STEADY_SECONDS - served + 0.01)


def _try(policy: RecoveryPolicy, status: RecoveryStatus, trouble: Trouble, now: datetime) -> Recovery:
    count = _count(status, trouble.cause, policy)
    restarts = sum(c.restarts for c in status.counts)
    tries_left = count.tries < policy.tries or trouble.serves
    if not tries_left and _restarting(count, trouble, now):
        left = RESTART_SECONDS - (now - time.parse(count.tried_at)).total_seconds()
        return Recovery(_with(status, count), again_in=left + 0.01)
    if not tries_left and restarts >= policy.restarts:
        return _give_up(status, count, restarts)
    pause = LONGEST_PAUSE if trouble.serves and count.tries >= policy.tries else _pause(count, restarts)
    due = time.parse(count.next_at) if count.next_at else now + timedelta(seconds=pause)
    wait = (due - now).total_seconds()
    doing = _doing(policy, count, restarts, tries_left=tries_left)
    # Further ahead than any that is written: from before the clock was set back.
    if 0 < wait <= pause:
        message = f"Automatic recovery goes on at {time.seconds(due)}: {doing}."
        waiting = msgspec.structs.replace(count, next_at=time.stamp(due), off=False, message=message)
        return Recovery(_with(status, waiting), again_in=wait + 0.01)
    begun = msgspec.structs.replace(
        count,
        tried_at=time.stamp(now),
        next_at="",
        off=False,
        message=f"Automatic recovery: {doing}, since now.",
    )
    if not tries_left:
        begun = msgspec.structs.replace(begun, restarts=count.restarts + 1, restarted_from=trouble.boot_id)
        return Recovery(_with(status, begun), restart=True, again_in=RESTART_SECONDS + 0.01)
    begun = msgspec.structs.replace(begun, tries=count.tries + 1)
    name = f"recovery-{trouble.cause}-{begun.tries}-{time.stamp(now)}"
    return Recovery(_with(status, begun), attempt=name)


def _give_up(status: RecoveryStatus, count: RecoveryCount, restarts: int) -> Recovery:
    done = f"{count.tries} tries" + (f" and {restarts} restarts" if restarts else "")
    message = f"Automatic recovery is off after {done}."
    return Recovery(_with(status, msgspec.structs.replace(count, off=True, next_at="", message=message)))


def _doing(policy: RecoveryPolicy, count: RecoveryCount, restarts: int, *, tries_left: bool) -> str:
    if not tries_left:
        return f"restart {restarts + 1} of {policy.restarts} of the machine"
    number = count.tries + 1
    return f"try {number} of {policy.tries}" if number <= policy.tries else f"look {number} at what serves"


def _pause(count: RecoveryCount, restarts: int) -> float:
    return min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH ** (count.tries + restarts))


def _restarting(count: RecoveryCount, trouble: Trouble, now: datetime) -> bool:
    """Whether a restart that was commanded may still be on its way."""
    if not count.restarted_from or count.restarted_from != trouble.boot_id or not count.tried_at:
        return False
    return 0 <= (now - time.parse(count.tried_at)).total_seconds() < RESTART_SECONDS


def _count(status: RecoveryStatus, cause: RecoveryCause, policy: RecoveryPolicy) -> RecoveryCount:
    found = next((c for c in status.counts if c.cause == cause), RecoveryCount(cause=cause))
    return msgspec.structs.replace(found, limit=policy.tries)


def _with(status: RecoveryStatus, count: RecoveryCount) -> RecoveryStatus:
    others = [c for c in status.counts if c.cause != count.cause]
    counts = sorted([*others, count], key=lambda c: c.cause)
    return msgspec.structs.replace(status, counts=counts)
