"""What one end of a link tells its log of the other: drift that was repaired, a peer with another store."""

from __future__ import annotations

from collections import Counter

from roost.engine.faults import write_log
from roost.link.intake import DRIFT_SHOWN, Drifted, Step
from roost.link.node import Node
from roost.link.permission import EVENT_KIND
from roost.store.transaction import Transaction


class Telling:
    """Writes the entries of one end. `cloud` has the log; `host` is set where a host is the one who tells."""

    def __init__(self, node: Node, peer: str, cloud: str, host: str) -> None:
        self._node, self._peer, self._cloud, self._host = node, peer, cloud, host

    def drift(self, tx: Transaction, drifted: Drifted) -> None:
        """Something had changed here behind its owner's back; in the transaction that repairs."""
        shown = ", ".join(f"{k} {ns}/{n} {how}" for how, (k, ns, n) in drifted[:DRIFT_SHOWN])
        more = f" and {len(drifted) - DRIFT_SHOWN} more" if len(drifted) > DRIFT_SHOWN else ""
        text = f"What came from {self._peer} had changed here behind its back and is repaired: {shown}{more}."
        self._write(tx, "link-drift", text)

    def other_store(self, tx: Transaction, differs: list[Step]) -> None:
        """The peer's word is another than it was."""
        peer = self._peer[0].upper() + self._peer[1:] if self._peer.startswith("the ") else self._peer
        text = (
            f"{peer} goes on as another store: it was restored from a snapshot, or set up anew. What it says "
            f"now holds here: {differences(differs)}."
        )
        self._write(tx, "link-other-store", text)

    def _write(self, tx: Transaction, event: str, text: str) -> None:
        entity = f"{self._node.kind}={self._node.name}"
        write_log(tx, self._cloud, event=event, severity="warning", entity=entity, text=text, host=self._host)


def differences(found: list[Step]) -> str:
    """How many resources of each kind changed, came and went, and which; log entries and alarms by number."""
    words = {"DELETED": "gone", "MODIFIED": "changed", "ADDED": "new"}
    said = []
    for how, word in words.items():
        kinds = Counter(key[0] for h, key in found if h == how)
        if kinds:
            said.append(f"{word}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    named = [(w, key) for how, w in words.items() for h, key in found if h == how]
    named = [(w, key) for w, key in named if key[0] not in (EVENT_KIND, "Alarm")]
    shown = ", ".join(f"{k} {ns}/{n} {word}" for word, (k, ns, n) in named[:DRIFT_SHOWN])
    more = f" and {len(named) - DRIFT_SHOWN} more" if len(named) > DRIFT_SHOWN else ""
    return "; ".join(said) + (f" ({shown}{more})" if shown else "")
