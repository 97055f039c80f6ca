"""Who owns a subcloud: ownership carries an epoch, a number that only rises.

A subcloud that enrols is given an epoch above every one that it and the cloud it enrols with have known.
The cloud keeps it in the status of the Subcloud, the subcloud in its identity, and each says it in its hello.
So of two clouds that both believe they own a subcloud, the subcloud knows the right one:

- the subcloud dials only its owner, and takes nothing from one that says a lower epoch than its own;
- to each former owner it leaves a last word, on a connection on which nothing else is said: where it is now,
  under which epoch. The former owner notes it and lets the subcloud in no more, unless it enrols there again.

0 stands for no epoch: of an earlier version, which says none, or of who has enrolled with one.
"""

from __future__ import annotations

import msgspec

from roost.link.errors import Refused
from roost.link.messages import Hello
from roost.link.node import Node
from roost.model.cloud import Subcloud
from roost.store.store import Store
from roost.store.transaction import Transaction

MOVED = "moved"
"""Code of the refusal that answers a last word, and of one who is let in no more since."""

MOVED_RETRY = 3600.0
LONGEST_NAME = 253
HIGHEST = 2**53
"""No epoch is as high: who says so lies, or would use the numbers up."""


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """What an upper cloud knows of a subcloud. `moved_to`: name of the owner that it left for; else empty."""

    epoch: int = 0
    moved_to: str = ""


def ownership(tx: Transaction, node: Node) -> Ownership:
    """What this cloud knows of who owns a node: it stands in the status of its Subcloud."""
    found = tx.seek(Subcloud, "", node.name)
    if found is None:
        return Ownership()
    return Ownership(epoch=found.status.epoch, moved_to=found.status.moved_to)


def grant(tx: Transaction, node: Node, told: int) -> int:
    """The epoch of a node that enrols here: above all that it tells of and that is known here."""
    epoch = max(ownership(tx, node).epoch, told if 0 <= told < HIGHEST else 0) + 1
    _note(tx, node, Ownership(epoch=epoch))
    return epoch


def _note(tx: Transaction, node: Node, known: Ownership) -> None:
    found = tx.seek(Subcloud, "", node.name)
    if found is not None:
        status = msgspec.structs.replace(found.status, epoch=known.epoch, moved_to=known.moved_to)
        tx.report(msgspec.structs.replace(found, status=status))


# -- decisions


def heard(known: Ownership, epoch: int, moved_to: str) -> Ownership:
    """What an upper cloud knows once a subcloud has said its epoch, and whether it has moved. Pure.

    Who dials without having moved says that this cloud is its owner. If its epoch is above ours, this cloud
    has granted it and forgotten that: its store was restored.
    """
    if not 0 <= epoch < HIGHEST or epoch <= known.epoch:
        return known
    return Ownership(epoch=epoch, moved_to=moved_to[:LONGEST_NAME])


def check_welcome(known: Ownership, node: Node, moved_to: str) -> None:
    """That a subcloud which has said what it had to may go on with a session. Pure. Raises Refused."""
    if known.moved_to:
        raise Refused(
            MOVED,
            f"{node} has moved to {known.moved_to} at epoch {known.epoch}",
            f"to have it back, give it a token of this cloud: roost subcloud token {node.name}",
            retry_after=MOVED_RETRY,
        )
    if moved_to:
        raise Refused(
            MOVED,
            f"{node} is owned here at epoch {known.epoch}, which is later than that word",
            "there is nothing to do",
            retry_after=MOVED_RETRY,
        )


def check_owner(upper: str, said: int, own: int) -> None:
    """That a subcloud may take intent from an upper cloud. Pure. Raises Refused.

    An upper cloud of an earlier version says no epoch; it was dialled as the owner, under its certificate.
    """
    if said == 0 or said >= own:
        return
    raise Refused(
        "epoch",
        f"{upper[:LONGEST_NAME]} owns this subcloud at epoch {said}, and it is owned at epoch {own}",
        "it has moved since; if it should be there, enrol it there with a new token: roost rehome --join",
        retry_after=MOVED_RETRY,
    )


# -- at the upper end


async def welcome(store: Store, node: Node, hello: Hello) -> int:
    """The epoch to say to a node that said this hello. What is learned is on disk on return.

    Raises Refused once the node is or has said to be elsewhere.
    """
    if node.kind != "subcloud":
        return 0
    known = await store.read(lambda tx: ownership(tx, node))
    if heard(known, hello.epoch, hello.moved_to) != known:

        def work(tx: Transaction) -> Ownership:
            found = ownership(tx, node)
            after = heard(found, hello.epoch, hello.moved_to)
            if after != found:
                _note(tx, node, after)
            return after

        known = await store.transact(work)
    check_welcome(known, node, hello.moved_to)
    return known.epoch
