"""Users, credentials, service accounts, signing keys and grants in memory, as current as the store.

`current` brings them up to the store's revision before each decision: the changes since are mostly in
memory, so a request costs no read of the database. Own writes move the store's revision before they are
answered, so they are seen at once; those of other processes when the store is told of them. When the
changes can't be read, neither are decisions made: the store's error goes to the caller.

`follow` does the same without a request and tells of changes, so that open watches end. What can't be
decoded counts for nothing, and an unreadable User is disabled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec
import structlog

from roost.api.identity import shipped
from roost.api.identity.grants import Grants
from roost.api.waiting import follow
from roost.engine import credentials
from roost.model.access import Credential, User, UserSpec
from roost.model.account import ServiceAccount, SigningKey
from roost.model.meta import Metadata, Resource
from roost.model.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from roost.model.registry import BY_TYPE
from roost.store.errors import Compacted, StoreError
from roost.store.store import Store
from roost.store.transaction import Change, Stored, Transaction

FAR = 2_000
"""Changes behind from which reading everything anew costs less."""
AGAIN = 1.0
TYPES: tuple[type[Resource], ...] = (
    User,
    Credential,
    ServiceAccount,
    SigningKey,
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
)
KINDS = {BY_TYPE[t].kind: t for t in TYPES}
_GRANTING = frozenset({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})
PRESENTED: tuple[credentials.Purpose, ...] = ("bearer", "session")
"""Purposes of the credentials that open the API; those for enrolment are not kept here."""

_log = structlog.get_logger("roost.api.identity")


class Directory:
    """What is known of identities on one store. Used on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = -1
        self._generation = 0
        self._looked_at = -AGAIN
        self._changing = asyncio.Lock()
        self._kept: dict[str, dict[tuple[str, str], Resource]] = {kind: {} for kind in KINDS}
        self._grants: Grants | None = None

    @property
    def generation(self) -> int:
        """Rises with each change of what is kept here."""
        return self._generation

    @property
    def grants(self) -> Grants:
        """Roles and bindings, with the shipped ones where the store has none of that name."""
        if self._grants is None:
            self._grants = Grants(
                roles=self._all(Role),
                cluster_roles={**shipped.CLUSTER_ROLES, **_by_name(self._all(ClusterRole))}.values(),
                bindings=self._all(RoleBinding),
                cluster_bindings={
                    **shipped.CLUSTER_BINDINGS,
                    **_by_name(self._all(ClusterRoleBinding)),
                }.values(),
            )
        return self._grants

    def user(self, name: str) -> User | None:
        """The User of this name."""
        return cast("User | None", self._kept["User"].get(("", name)))

    def credential(self, name: str) -> Credential | None:
        """The bearer token of this id."""
        return cast("Credential | None", self._kept["Credential"].get(("", name)))

    def account(self, namespace: str, name: str) -> ServiceAccount | None:
        """The service account of this name."""
        return cast("ServiceAccount | None", self._kept["ServiceAccount"].get((namespace, name)))

    def signing_keys(self) -> list[SigningKey]:
        """Keys that sign tokens of service accounts, the newest first."""
        return sorted(self._all(SigningKey), key=lambda k: (k.spec.made_at, k.metadata.name), reverse=True)

    def key_names(self) -> set[str]:
        """Ids of the keys that sign."""
        return {name for _, name in self._kept["SigningKey"]}

    async def look_again(self) -> None:
        """Read everything anew, at most once in AGAIN seconds: somebody shows a key that another process
        may have made a moment ago. Raises StoreError."""
        now = asyncio.get_running_loop().time()
        if now < self._looked_at + AGAIN:
            return
        self._looked_at = now
        async with self._changing:
            await self._load()

    async def current(self) -> None:
        """Return when everything the store has told of is known here; raises StoreError."""
        self._store.require_hearing()
        if self._revision == self._store.revision:
            return
        async with self._changing:
            await self._catch_up()

    async def follow(self, changed: Callable[[], None]) -> None:
        """Keep up without requests, and call `changed` after each change. Runs until cancelled."""
        told = self._generation
        while True:
            try:
                await self.current()
                if told != self._generation:
                    told = self._generation
                    changed()
                async with aclosing(follow(self._store, self._store.revision, lambda _: False)) as batches:
                    async for _ in batches:
                        await self.current()
                        if told != self._generation:
                            told = self._generation
                            changed()
                return
            except StoreError as error:
                _log.warning("identities can't be followed now, trying again", reason=str(error))
                await asyncio.sleep(AGAIN)

    # -- inside

    async def _catch_up(self) -> None:
        while self._revision < self._store.revision:
            if self._revision < 0 or self._store.revision - self._revision > FAR:
                return await self._load()
            try:
                batch = await self._store.changes(self._revision)
            except Compacted:
                return await self._load()
            for change in batch.changes:
                self._take(change)
            self._revision = batch.upto
        return None

    async def _load(self) -> None:
        def everything(tx: Transaction) -> tuple[int, list[Stored]]:
            return tx.revision, [stored for kind in KINDS for stored in tx.select(kind)]

        revision, found = await self._store.read(everything)
        self._kept = {kind: {} for kind in KINDS}
        for stored in found:
            self._put(stored)
        self._revision = revision
        self._generation += 1
        self._grants = None

    def _take(self, change: Change) -> None:
        if change.kind not in KINDS:
            return
        if change.type == "DELETED":
            gone = self._kept[change.kind].pop((change.namespace, change.name), None)
            if gone is None:
                return
        elif not self._put(change.stored()):
            return
        self._generation += 1
        if change.kind in _GRANTING:
            self._grants = None

    def _put(self, stored: Stored) -> bool:
        """Keep a resource; False for those that are not kept here."""
        key, kept = (stored.namespace, stored.name), self._kept[stored.kind]
        try:
            resource: Resource = stored.typed(KINDS[stored.kind])
        except msgspec.ValidationError as error:
            _log.error(
                "unreadable, counts for nothing", kind=stored.kind, name=stored.name, reason=str(error)
            )
            kept.pop(key, None)
            if stored.kind == "User":
                kept[key] = User(metadata=Metadata(name=stored.name), spec=UserSpec(disabled=True))
            return True
        if isinstance(resource, Credential) and resource.spec.purpose not in PRESENTED:
            return False
        kept[key] = resource
        return True

    def _all(self, kind: type[Any]) -> list[Any]:
        return list(self._kept[BY_TYPE[kind].kind].values())


def _by_name(resources: list[Any]) -> Mapping[str, Any]:
    return {resource.metadata.name: resource for resource in resources}
