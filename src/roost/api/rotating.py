"""/keys: the keys of the vault, for who may use that path; `roost secrets` is the command for it.

- GET /keys: the keys, and how many values each has sealed;
- POST /keys: make a new key the active one;
- POST /keys/reseal: seal the next values anew by the active key, at most TOGETHER objects in one transaction;
- DELETE /keys/ID: forget a former key, when nothing that is stored is sealed by it any more.

Resealing is led by what is stored: each value that is not sealed by the active key is done, in the order of
kind, namespace and name. The one who asks says after which object to go on, so nothing is kept between two
steps: whoever was killed, it is begun again and finds what is left. Values that do not open are told, and
left.

History keeps what was sealed by former keys until it is compacted; nothing reads secret values from it. A
backup needs the keys of its time: that is why former keys stay until somebody drops them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import bodies
from roost.api.context import ApiContext
from roost.api.forms import as_json
from roost.api.sealing import place_of
from roost.api.status import ApiError, bad_request, no_such_path, not_allowed
from roost.engine.vault import BadKeys, Unopened, Vault, key_of
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.registry import KINDS
from roost.model.secrecy import Path, has_secrets, values, with_values
from roost.store.transaction import HERE, Stored, Transaction

TOGETHER = 100
CHUNK = 500
MOST_TOLD = 100


async def respond(context: ApiContext, request: Request, rest: list[str]) -> Response:
    """Answer a request below /keys. Raises ApiError."""
    if context.vault is None:
        raise ApiError(
            503, f"{context.cloud} has no keys for secret values; its operator sets a file of keys"
        )
    try:
        match (request.method, rest):
            case ("GET", []):
                return as_json(await _keys(context, context.vault))
            case ("POST", []):
                return as_json({"active": context.vault.rotate(context.clock())}, 201)
            case ("POST", ["reseal"]):
                after = (await bodies.json_object(request, required=False)).get("after")
                return as_json(await _reseal(context, context.vault, _start(after)))
            case ("DELETE", [key]):
                return as_json(await _drop(context, context.vault, key))
            case (_, [] | [_]):
                raise not_allowed(request.method, request.url.path)
    except BadKeys as error:
        raise ApiError(409, str(error), reason="BadKeys") from error
    raise no_such_path()


def _secret_kinds() -> list[KindInfo]:
    return sorted((info for info in KINDS if has_secrets(info)), key=lambda info: info.kind)


# -- looking


async def _keys(context: ApiContext, vault: Vault) -> Raw:
    used = await _used(context)
    known = vault.every_key()
    listed = [{"id": k.id, "created": k.created, "retired": k.retired, "values": used[k.id]} for k in known]
    missing = {key: count for key, count in used.items() if key not in {k.id for k in known}}
    return {"active": vault.active, "keys": listed, "missing": missing}


async def _used(context: ApiContext) -> Counter[str]:
    """How many stored values each key has sealed, counted a chunk at a time."""
    used: Counter[str] = Counter()
    for info in _secret_kinds():
        after: tuple[str, str] | None = None
        while True:
            chunk = await context.store.read(_chunk(info, after, CHUNK))
            for stored in chunk:
                used.update(key_of(sealed) for sealed in values(stored.raw, info).values())
            if len(chunk) < CHUNK:
                break
            after = (chunk[-1].namespace, chunk[-1].name)
    return used


def _chunk(info: KindInfo, after: tuple[str, str] | None, limit: int) -> Any:
    return lambda tx: tx.select(info.kind, origin=HERE, after=after, limit=limit)


# -- resealing


class Start(msgspec.Struct, frozen=True):
    """The last object that was looked at."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class _Step:
    """What one transaction has done."""

    def __init__(self) -> None:
        self.looked = self.resealed = 0
        self.unopened: list[Raw] = []
        self.next: Start | None = None


def _start(given: object) -> Start:
    try:
        return msgspec.convert(given or {}, Start)
    except msgspec.ValidationError as error:
        raise bad_request(f"after: {error}; send what `next` was") from error


async def _reseal(context: ApiContext, vault: Vault, start: Start) -> Raw:
    step = await context.store.transact(lambda tx: _work(tx, vault, start))
    return {
        "active": vault.active,
        "looked": step.looked,
        "resealed": step.resealed,
        "unopened": step.unopened[:MOST_TOLD],
        "next": msgspec.to_builtins(step.next),
    }


def _work(tx: Transaction, vault: Vault, start: Start) -> _Step:
    step = _Step()
    for info in _secret_kinds():
        if info.kind < start.kind:
            continue
        after = (start.namespace, start.name) if info.kind == start.kind else None
        chunk = tx.select(info.kind, origin=HERE, after=after, limit=TOGETHER - step.looked)
        for stored in chunk:
            _reseal_one(tx, vault, info, stored, step)
        step.looked += len(chunk)
        if step.looked >= TOGETHER:
            step.next = Start(info.kind, chunk[-1].namespace, chunk[-1].name)
            return step
    return step


def _reseal_one(tx: Transaction, vault: Vault, info: KindInfo, stored: Stored, step: _Step) -> None:
    active = vault.active

    def anew(path: Path, sealed: str) -> str:
        if key_of(sealed) == active:
            return sealed
        place = place_of(info, stored.raw, path)
        try:
            value = vault.unseal(place, sealed)
        except Unopened as error:
            step.unopened.append({**msgspec.to_builtins(place), "key": error.key, "reason": error.reason})
            return sealed
        step.resealed += 1
        return vault.seal(place, value)

    raw = with_values(stored.raw, info, anew)
    if raw != stored.raw:
        tx.replace(raw)


# -- dropping


async def _drop(context: ApiContext, vault: Vault, key: str) -> Raw:
    used = (await _used(context))[key]
    if used and key != vault.active:
        raise BadKeys(f"{used} values are sealed by key {key}", "`roost secrets rotate` seals them anew")
    vault.drop(key)
    return {"active": vault.active, "dropped": key}
