"""How large things are within a live process of a tree: the only law that looks into objects, for it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roost.sim.deterministic.laws.bounds import largest

if TYPE_CHECKING:
    from roost.sim.deterministic.tree import Node


def sizes_of(node: Node) -> dict[str, int]:
    """The largest queue of each sort in a process."""
    found: list[tuple[str, int]] = [("writes that wait", len(node.store._waiting))]
    is_host = "/" in node.name
    if is_host:
        found += _lower(getattr(node.host, "link", None))
        return largest(found)
    cloud = node.cloud
    for runner in getattr(cloud, "_runners", {}).values():
        queue = runner._queue
        found.append(("keys that wait", len(queue)))
        found.append(("delays that nobody waits for", len(queue._later) - 2 * len(queue._due)))
    upper = getattr(cloud, "upper", None)
    if upper is not None:
        found += _feed(upper._feed)
        for slot in upper._slots.values():
            found += _session(slot.session)
    found += _lower(cloud.uplink)
    return largest(found)


def _lower(link: Any) -> list[tuple[str, int]]:
    if link is None:
        return []
    feed = [("sessions of a lower end" if w == "sessions of a feed" else w, n) for w, n in _feed(link._feed)]
    return [*feed, *_session(link._session)]


def _feed(feed: Any) -> list[tuple[str, int]]:
    if feed is None:
        return []
    subscriptions = [s for group in feed._subscriptions.values() for s in group]
    sizes = [("changes queued for a session", len(s._queue)) for s in subscriptions]
    return [*sizes, ("sessions of a feed", len(subscriptions))]


def _session(session: Any) -> list[tuple[str, int]]:
    if session is None:
        return []
    return [
        ("batches not acknowledged", len(session.outgoing._unacknowledged)),
        ("batches not taken in", session.taking.waiting),
        ("resources asked for again", len(session.outgoing._again)),
        ("resources refused", len(session.intake.refused)),
        ("heartbeats not echoed", session.beating.unanswered),
        ("calls under way", session.calls.open),
    ]
