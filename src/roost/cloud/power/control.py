"""What board controllers say, kept in the status of their hosts; and the alarm when one can't be asked.

Each is looked at every LOOK seconds, sooner after a command and when its host's spec or its Secret changes;
after failures with growing pauses. What it says is written when it changes. A board controller that fails
raises 200.010, after ALARM_AFTER failures in a row so that one lost answer is no alarm; it says nothing about
its host, whose states don't depend on it. A failure to look leaves the power `unknown`, which is neither on
nor off.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable

import msgspec

from roost.cloud.power.boards import Boards
from roost.cloud.power.redfish import Board, BoardFailed, Seen
from roost.engine.controller import Key
from roost.engine.faults import settle
from roost.engine.vault import Place, Vault, VaultError
from roost.model import chance, time
from roost.model.alarms import Fault
from roost.model.host import HOST, Host
from roost.model.power import BOARD_SECRET_KEYS, BOARD_SECRET_TYPE, BoardController, PowerStatus
from roost.model.secret import SECRET, Secret
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

LOOK = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
ALARM_AFTER = 3
ALARM = "200.010"


class Way(msgspec.Struct, frozen=True):
    """A board controller, and how it is reached."""

    board: Board
    ca_bundle: str


class _Look(msgspec.Struct, frozen=True):
    """The last look at one: for which way, by which Secret, when on the loop's clock it is due again, how
    often it failed in a row."""

    way: Way | None
    secret: str
    due: float
    failures: int


def scope(host: str) -> str:
    """Scope of the alarms of a host's board controller."""
    return f"power.{host}"


class PowerController:
    """Looks at the board controllers of this cloud's hosts."""

    name = "power"

    def __init__(self, cloud: str, boards: Boards, vault: Vault) -> None:
        self._cloud, self._boards, self._vault = cloud, boards, vault
        self._looks: dict[str, _Look] = {}

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace != self._cloud:
            return
        if change.kind == HOST.kind and change.origin == HERE:
            yield (self._cloud, change.name)
        elif change.kind == SECRET.kind:
            yield from [(self._cloud, n) for n, look in self._looks.items() if look.secret == change.name]

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(self._cloud, s.name) for s in tx.select(HOST.kind, self._cloud, origin=HERE)]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        """Look when it is time to; seconds until the next look, None without a board controller."""
        host = await store.read(lambda tx: tx.seek(Host, *key))
        if host is None or host.spec.board_controller is None:
            self._looks.pop(key[1], None)
            if host is None or host.status.power is not None:
                await store.transact(lambda tx: _forget(tx, key))
            return None
        now, last = asyncio.get_running_loop().time(), self._looks.get(key[1])
        if last is not None and now < last.due:
            way = await self._way(store, host)
            if way == last.way:
                return last.due - now
        await self.look(store, host)
        return self._looks[key[1]].due - asyncio.get_running_loop().time()

    async def look(self, store: Store, host: Host) -> Seen:
        """Look now, and write what is seen. A failure is written too, and is power that is unknown."""
        name = host.metadata.name
        last = self._looks.get(name) or _Look(None, "", 0.0, 0)
        secret = host.spec.board_controller.secret if host.spec.board_controller else ""
        seen, failure, way = Seen("unknown"), None, None
        try:
            way = await self.way(store, host)
            seen = await self._boards.look(way.board, way.ca_bundle)
        except BoardFailed as error:
            failure = error
        failures = last.failures + 1 if failure else 0
        pause = pause_after(failures) * chance.between(0.8, 1.2)
        self._looks[name] = _Look(way, secret, asyncio.get_running_loop().time() + pause, failures)
        key = (host.metadata.namespace, name)
        await store.transact(lambda tx: _tell(tx, key, seen, failure, failures))
        return seen

    def soon(self, host: str) -> None:
        """Have the next look taken at once: something was commanded."""
        self._looks.pop(host, None)

    async def way(self, store: Store, host: Host) -> Way:
        """How a host's board controller is reached; raises BoardFailed."""
        spec = host.spec.board_controller
        if spec is None:
            raise BoardFailed(f"{host.metadata.name} has no board controller", "set spec.boardController")
        found = await store.read(lambda tx: tx.seek(Secret, host.metadata.namespace, spec.secret))
        return _way(spec, host.metadata.namespace, found, self._vault)

    async def _way(self, store: Store, host: Host) -> Way | None:
        try:
            return await self.way(store, host)
        except BoardFailed:
            return None

    @property
    def boards(self) -> Boards:
        """The way to all of them."""
        return self._boards


def pause_after(failures: int) -> float:
    """Seconds until the next look, after so many failures in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1)) if failures else LOOK


def told(before: PowerStatus | None, seen: Seen, failure: BoardFailed | None, now: str) -> PowerStatus:
    """The status after a look: stamps move only when what they date changes."""
    before = before or PowerStatus(state="unknown")
    reachable = "no" if failure else "yes"
    return PowerStatus(
        state=seen.state,
        since=before.since if before.state == seen.state and before.since else now,
        reachable=reachable,  # type: ignore[arg-type]
        reachable_since=before.reachable_since if before.reachable == reachable else now,
        message=str(failure)[:1024] if failure else "",
        model=seen.model or before.model,
    )


def _tell(tx: Transaction, key: Key, seen: Seen, failure: BoardFailed | None, failures: int) -> None:
    host = tx.seek(Host, *key)
    if host is None or host.spec.board_controller is None:
        return _forget(tx, key)
    status = told(host.status.power, seen, failure, time.stamp(tx.now))
    if status != host.status.power:
        tx.report(msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, power=status)))
    faults = []
    if failure is not None and failures >= ALARM_AFTER:
        reason = f"The board controller of {key[1]} can't be asked: {failure.reason}."
        faults = [Fault(alarm_id=ALARM, severity="warning", entity=f"host={key[1]}", reason=reason[:1000])]
    # Fewer failures than that are not "no alarm": one that stands stays until an answer comes.
    settle(tx, key[0], scope(key[1]), faults, lambda _: failure is not None)
    return None


def _forget(tx: Transaction, key: Key) -> None:
    """Nothing is known of a host without a board controller."""
    host = tx.seek(Host, *key)
    if host is not None and host.status.power is not None:
        tx.report(msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, power=None)))
    settle(tx, key[0], scope(key[1]), [])


def _way(spec: BoardController, namespace: str, secret: Secret | None, vault: Vault) -> Way:
    values: dict[str, str] = {}
    if spec.secret:
        if secret is None or secret.type != BOARD_SECRET_TYPE:
            why = "is not there" if secret is None else f"is of type {secret.type}, which is not for this"
            raise BoardFailed(f"Secret {spec.secret} {why}", f"create it with type {BOARD_SECRET_TYPE}")
        for key in BOARD_SECRET_KEYS:
            if key not in secret.data:
                raise BoardFailed(f"Secret {spec.secret} lacks {key}", "add this key to it")
            place = Place(SECRET.kind, namespace, spec.secret, f"data.{key}")
            try:
                values[key] = base64.b64decode(vault.unseal(place, secret.data[key])).decode()
            except VaultError as error:
                raise BoardFailed(f"{place} does not open: {error.reason}", error.remedy) from error
            except ValueError as error:
                raise BoardFailed(f"{place} is no text", "write it anew") from error
    board = Board(address=spec.address, system=spec.system, verify=not spec.unverified, **values)
    return Way(board, spec.ca_bundle)
