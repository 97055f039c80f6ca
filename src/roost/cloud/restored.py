"""What a cloud does at its first start after a restore, before anybody is heard.

The store went back; hosts, sites and people did not. Once for each restore, in one transaction:

- The log says so: from when the snapshot is, and that what was changed since is gone.
- Commands that were under way in the snapshot (a restart, a power command) are ended. Whether they were
  carried out since is not known, and they would not bear being given twice. What brings a host to a state
  (lock, unlock) goes on: done already, it finds nothing to do.
- Configurations of hosts go on from generations beyond those that may have been given out since, as the
  store's revisions do. So what a host says of a generation of the lost future is never taken for its word
  on another one of the same number, and each host has to say anew that it has what it should.
"""

from __future__ import annotations

import msgspec

from roost.cloud.configuration import write_changed_at
from roost.engine.faults import write_log
from roost.engine.procedures import abort_steps, read_steps, summarise
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration
from roost.model.operation import OPERATION, Operation
from roost.store import history
from roost.store.history import Restored
from roost.store.transaction import HERE, Transaction

EVENT = "store-restored"
COMMANDS = frozenset({"reboot", "power-on", "power-off", "reset"})
"""Actions that do something again when they are carried out again."""

GENERATIONS = 10_000
"""More than a configuration is given between a snapshot and its restore."""

TOLD = "restore-told"
"""Property: the revision from which the last restore that was told of went on."""


def after_restore(tx: Transaction, cloud: str) -> bool:
    """Do what a restore asks for, if the last one was not reckoned with yet; whether there was one."""
    restores = history.restores(tx)
    if not restores or tx.property(TOLD) == str(restores[-1].base):
        return False
    ended = _end_commands(tx)
    _renumber(tx)
    tell = _text(cloud, restores[-1], ended)
    write_log(tx, cloud, event=EVENT, severity="major", entity=f"cloud={cloud}", text=tell)
    tx.set_property(TOLD, str(restores[-1].base))
    return True


def _text(cloud: str, restored: Restored, ended: list[str]) -> str:
    taken = f" of {restored.taken_at}" if restored.taken_at else ""
    text = (
        f"The store of {cloud} was restored at {restored.time} from a snapshot{taken}, revision "
        f"{restored.at}. What was changed here since is gone: look at users, tokens and intent. What hosts "
        "and subclouds report comes back with their links."
    )
    if ended:
        text += f" Ended, for nobody knows whether they were carried out: {', '.join(ended[:20])}."
    return text


def _end_commands(tx: Transaction) -> list[str]:
    """End the commands under way; their names."""
    ended = []
    for stored in tx.select(OPERATION.kind, origin=HERE):
        operation = stored.typed(Operation)
        if operation.spec.action not in COMMANDS or operation.status.finished_at:
            continue
        abort_steps(tx, stored.uid)
        message = (
            "The store was restored while it was under way, so nobody knows whether it was carried out. "
            f"Look at {operation.spec.host}, and ask again if it is still wanted."
        )
        status = summarise(operation, read_steps(tx, stored.uid), tx.now, message)
        tx.report(msgspec.structs.replace(operation, status=status))
        ended.append(stored.name)
    return ended


def _renumber(tx: Transaction) -> None:
    for stored in tx.select(HOST_CONFIGURATION.kind, origin=HERE):
        configuration = write_changed_at(tx, stored.typed(HostConfiguration))
        meta = configuration.metadata
        tx.renumber(stored.kind, stored.namespace, stored.name, meta.generation + GENERATIONS)
