"""Cursors: how far a peer's stream was taken in never goes back and never runs ahead of the peer.

A cursor names the peer's store and a revision of it. As long as both stores are the ones they were, it only
rises; it is dropped when the peer is declared no more, and begins anew with another store. In the end every
link has one, of the store that the peer has now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

Cursors = Mapping[str, tuple[str, int]]
"""Identity and revision by peer."""


def gone_back(name: str, before: Cursors, after: Cursors, dropped: Collection[str] = ()) -> list[str]:
    """What went back between two looks at the same store. `dropped` are peers that were declared no more."""
    found = []
    for peer, (identity, revision) in sorted(before.items()):
        now = after.get(peer)
        if peer in dropped:
            continue
        if now is None:
            found.append(f"{name}: the cursor of {peer} is gone")
        elif now[0] == identity and now[1] < revision:
            found.append(f"{name}: the cursor of {peer} went back from {revision} to {now[1]}")
    return found


def ahead(name: str, cursors: Cursors, peers: Mapping[str, tuple[str, int]]) -> list[str]:
    """Cursors beyond what the peer's store has; `peers` has its identity and revision."""
    found = []
    for peer, (identity, revision) in sorted(cursors.items()):
        has = peers.get(peer)
        if has is not None and has[0] == identity and revision > has[1]:
            found.append(f"{name}: the cursor of {peer} is at {revision}, and {peer} has only {has[1]}")
    return found


def stale(name: str, cursors: Cursors, peers: Mapping[str, tuple[str, int]]) -> list[str]:
    """Links that are up, settled, and have no cursor of the store that the peer has."""
    found = []
    for peer, (identity, _) in sorted(peers.items()):
        now = cursors.get(peer)
        if now is None:
            found.append(f"{name}: nothing says how far the stream of {peer} was taken in")
        elif now[0] != identity:
            found.append(f"{name}: the cursor of {peer} speaks of a store that it no longer has")
    return found
