"""What is known of a lower node's link: a fact from outside the store, handed to controllers.

How long a link is down is counted on a monotonic clock, so that setting the machine's time neither
loses a node nor hides that it is lost. A node that has not connected since this process started is
not `met`: nothing is known of it yet, and until it has had its time to come back it is taken for what
the store says it was. So a restart here neither raises nor clears anything. Nor does the end of another
process that had the node's link (`lost_sight`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Presence(msgspec.Struct, frozen=True):
    """Whether a node's link is up, and for how long it has been down (0 while it is up).

    For a node that is not met, `silent` counts from the start of this process, or from when sight of it was
    lost.
    """

    connected: bool
    silent: float = 0.0
    met: bool = True
    version: str = ""
    certificate_expires_at: str = ""
    trouble: str = ""
    """Why it can't write its store, as it last said."""


Presences = Callable[[str], Presence]
"""Presence by name: of a host in its cloud, of a subcloud at its central cloud."""


class PresenceBook:
    """Writes down when links come and go; called with a name, it is the `Presences` of its nodes.

    `monotonic` is the event loop's `time`, which tests and simulations can drive.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._nodes: dict[str, tuple[Presence, float]] = {}

    def up(
        self, name: str, *, version: str = "", certificate_expires_at: str = "", trouble: str = ""
    ) -> None:
        """The link is up."""
        presence = Presence(
            connected=True, version=version, certificate_expires_at=certificate_expires_at, trouble=trouble
        )
        self._nodes[name] = (presence, 0.0)

    def down(self, name: str) -> None:
        """The link is down from now on."""
        presence, _ = self._nodes.get(name, (Presence(connected=False), 0.0))
        if name in self._nodes and not presence.connected and presence.met:
            return
        gone = msgspec.structs.replace(presence, connected=False, met=True)
        self._nodes[name] = (gone, self._monotonic())

    def lost_sight(self, name: str) -> None:
        """Who had the link is gone: nothing is known of the node from now on."""
        self._nodes[name] = (Presence(connected=False, met=False), self._monotonic())

    def forget(self, name: str) -> None:
        """The node is declared no more."""
        self._nodes.pop(name, None)

    def __call__(self, name: str) -> Presence:
        found = self._nodes.get(name)
        now = self._monotonic()
        if found is None:
            return Presence(connected=False, silent=now - self._started, met=False)
        presence, since = found
        if presence.connected:
            return presence
        return msgspec.structs.replace(presence, silent=now - since)
