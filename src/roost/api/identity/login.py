"""POST /login: a name and a password for a bearer token that soon ends. POST /logout: the end of it.

Whoever is refused learns nothing but that: for a user that is not there, is disabled or has no password
the same is computed, answered and counted as for a wrong password. POST users/NAME/password (for who may
create users/password) sets one; its sessions end then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta

from starlette.requests import Request

from roost.api import bodies
from roost.api.addresses import origin
from roost.api.context import ApiContext
from roost.api.identity import passwords, throttle
from roost.api.identity.bearer import bearer
from roost.api.identity.directory import Directory
from roost.api.status import ApiError, bad_request, not_found
from roost.engine import credentials
from roost.engine.admission import Refused
from roost.link.exchange import Caller
from roost.model import time
from roost.model.access import CREDENTIAL, USER, User
from roost.model.account import PASSWORD, Password, PasswordSpec
from roost.model.codec import Raw
from roost.model.meta import Metadata
from roost.store.transaction import Transaction

LIFETIME = timedelta(hours=8)
LONGEST_NAME = 253
WRONG = "Unauthorized: the name or the password is wrong"


class Login:
    """The door for people with passwords, of one API."""

    def __init__(
        self,
        context: ApiContext,
        directory: Directory,
        monotonic: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        self._context, self._directory, self._monotonic = context, directory, monotonic
        self._hasher = passwords.Hasher()
        self._throttle = throttle.Throttle()

    def close(self) -> None:
        """End the threads that hash."""
        self._hasher.close()

    async def login(self, request: Request, known: Callable[[Caller], None]) -> Raw:
        """A token for a name and a password; `known` is told who has proved to be it.

        Raises ApiError 400, 401, 429.
        """
        body = await bodies.json_object(request)
        name, password = body.get("name"), body.get("password")
        if not isinstance(name, str) or not isinstance(password, str) or not name or not password:
            raise bad_request('the body must be {"name": NAME, "password": PASSWORD}')
        if len(name) > LONGEST_NAME or len(password) > passwords.LONGEST:
            raise _wrong()
        came_from = origin(request.client.host) if request.client else ""
        try:
            self._throttle.begin(name, came_from, self._monotonic())
            right = await self._hasher.matches(await self._hash(name), password)
        except throttle.Throttled as error:
            raise _later(math.ceil(error.wait)) from error
        except passwords.Busy as error:
            raise _later(1) from error
        if not right:
            self._throttle.failed(name, came_from, self._monotonic())
            raise _wrong()
        self._throttle.succeeded(name, came_from, self._monotonic())
        known(Caller(name, []))
        return await self._context.store.transact(lambda tx: self._begin(tx, name))

    async def _hash(self, name: str) -> str:
        """The hash to compare with; empty when this name can't log in."""
        await self._directory.current()
        user = self._directory.user(name)
        # Read for everybody, so that the time tells nothing.
        found = await self._context.store.read(lambda tx: tx.seek(Password, "", name))
        usable = found is not None and user is not None and not user.spec.disabled
        return found.spec.hash if found is not None and usable else ""

    def _begin(self, tx: Transaction, name: str) -> Raw:
        user = tx.seek(User, "", name)
        if user is None or user.spec.disabled:
            raise _wrong()
        token = credentials.issue(tx, "session", name, LIFETIME)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name},
            "spec": {"expirationSeconds": int(LIFETIME.total_seconds())},
            "status": {"token": token, "expirationTimestamp": time.seconds(tx.now + LIFETIME)},
        }

    async def logout(self, request: Request) -> Raw:
        """End the session whose token a request carries; raises ApiError 400."""
        token = bearer(request.scope["headers"])
        name = token.partition(".")[0]
        found = self._directory.credential(name)
        try:
            credentials.check(found, token, self._context.clock(), "session")
        except credentials.BadCredential as error:
            raise bad_request("only a session that began with /login ends with /logout") from error

        def work(tx: Transaction) -> None:
            if tx.find(CREDENTIAL.kind, "", name) is not None:
                tx.remove(CREDENTIAL.kind, "", name)

        await self._context.store.transact(work)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    async def set_password(
        self, context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        """POST users/NAME/password with `{"spec": {"password": ...}}`."""
        spec = body.get("spec")
        password = spec.get("password") if isinstance(spec, dict) else None
        reason = passwords.problem(password)
        if reason or not isinstance(password, str):
            raise Refused(f"the password does not do: {reason}", "choose another", field="spec.password")
        if self._directory.user(name) is None:
            raise not_found(USER, name)
        try:
            hash = await self._hasher.hash(password)
        except passwords.Busy as error:
            raise _later(1) from error

        def work(tx: Transaction) -> None:
            if tx.seek(User, "", name) is None:
                raise not_found(USER, name)
            if tx.find(PASSWORD.kind, "", name) is not None:
                tx.remove(PASSWORD.kind, "", name)
            made = PasswordSpec(hash=hash, set_at=time.seconds(tx.now))
            tx.save(Password(metadata=Metadata(name=name), spec=made))
            credentials.revoke(tx, name, "session")

        await self._context.store.transact(work)
        self._throttle.renewed(name)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {"name": name}, "status": "Success"}


def _wrong() -> ApiError:
    return ApiError(401, WRONG, headers={"WWW-Authenticate": 'Bearer realm="roost"'})


def _later(seconds: int) -> ApiError:
    return ApiError(
        429,
        "too many logins were tried; wait and try again",
        details={"retryAfterSeconds": seconds},
        headers={"Retry-After": str(seconds)},
    )
