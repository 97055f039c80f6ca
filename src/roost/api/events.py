"""Events as they are shown: those that clients wrote, and beside them the entries of the platform's log.

There is one log. An entry of it is shown as an Event about the host, cloud or subcloud that it speaks of, so
that `kubectl describe` and `kubectl events` find everything in one place; only the Events of clients are
written through here.
"""

from __future__ import annotations

from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.status import forbidden
from roost.api.target import Target
from roost.model.codec import Raw
from roost.model.event import EVENT, EVENT_V1, from_core, of_log_entry, to_core
from roost.model.fault import LOG_ENTRY


def _core(raw: Raw) -> Raw:
    return of_log_entry(raw) if raw["kind"] == LOG_ENTRY.kind else raw


def _renamed(raw: Raw) -> Raw:
    return from_core(_core(raw))


VIEWS = {
    (EVENT.group, EVENT.version): View(EVENT, EVENT.kind, _core, also=(LOG_ENTRY.kind,)),
    (EVENT_V1.group, EVENT_V1.version): View(EVENT_V1, EVENT.kind, _renamed, to_core, (LOG_ENTRY.kind,)),
}
"""By group and version."""


async def not_of_the_log(context: ApiContext, found: Target) -> None:
    """Raise 403 when a write is about an entry of the log."""
    if found.info.kind != EVENT.kind or found.verb not in ("update", "patch", "delete"):
        return
    where = (LOG_ENTRY.kind, found.namespace, found.name)
    if await context.store.read(lambda tx: tx.find(*where) is not None):
        raise forbidden(
            found.info,
            found.name,
            "it shows an entry of the platform's log, which is written once and never changed",
            f"see kubectl get {LOG_ENTRY.plural} {found.name}",
        )
