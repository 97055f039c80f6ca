"""Create, update, patch, delete: read, decide and write in one transaction of the store.

A write in full: the caller's role (done before), the home of the resource, the body in its envelope,
the patch, unknown fields (fieldValidation), types and invariants, metadata, the rules of the kind's
domain, the store's own preconditions. Status in a body is left as stored: it is observation. Fields
of the stored resource that this version does not know stay. With dryRun=All everything is done and
then undone, by leaving the transaction with an exception.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import admitting, bodies, forms, patching, tokens
from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.reading import JSON, selector_of
from roost.api.status import ApiError, bad_request, forbidden, invalid, not_found, refused, warning
from roost.api.target import Target
from roost.engine import admission
from roost.link.exchange import Caller
from roost.model import codec
from roost.model.codec import Raw
from roost.model.kind import Problem
from roost.model.meta import Resource
from roost.store.errors import AlreadyExists
from roost.store.transaction import Stored, Transaction

T = TypeVar("T")
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
TOGETHER = 200


class Undo(Exception):
    """Leaves the transaction of a dry run with its result."""

    def __init__(self, result: Any) -> None:
        super().__init__("dry run")
        self.result = result


class Options(msgspec.Struct, frozen=True):
    """Parameters that every write has."""

    dry_run: bool
    validation: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Options:
        """From the query; raises ApiError 400."""
        dry = query.get("dryRun", "")
        if dry not in ("", "All"):
            raise bad_request(f"dryRun: {dry[:32]!r} is not All")
        validation = query.get("fieldValidation", "") or "Warn"
        if validation not in ("Strict", "Warn", "Ignore"):
            raise bad_request(f"fieldValidation: {validation[:32]!r} is none of Strict, Warn, Ignore")
        return cls(dry == "All", validation)


class Writer:
    """One caller's write on one target."""

    def __init__(self, context: ApiContext, caller: Caller, target: Target, options: Options) -> None:
        self._context, self._caller, self._target = context, caller, target
        self._info, self._options = target.info, options
        self.warnings: list[str] = []

    async def create(self, body: Raw) -> Raw:
        """Add the resource in `body`."""
        info, namespace = self._info, self._target.namespace
        body = bodies.without_nulls(body)
        admitting.envelope(info, body, namespace, "")
        meta = dict(body.get("metadata") or {})
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not meta.get("name") and isinstance(meta.get("generateName"), str) and meta["generateName"]:
            meta["name"] = meta["generateName"] + "".join(secrets.choice(ALPHABET) for _ in range(5))
        name = str(meta.get("name", ""))
        if not name:
            raise invalid(info, "", [Problem("metadata.name", "name or generateName is required")])
        admitting.writable(info, "create", name)
        admitting.own_namespace(self._context, info, namespace, name)
        meta["namespace"] = namespace
        for given_by_server in ("uid", "generation", "creationTimestamp", "deletionTimestamp"):
            meta.pop(given_by_server, None)
        body = {**body, "metadata": meta}
        body.pop("status", None)
        self._check_unknown(admitting.unknown(info, body, None))
        new = admitting.decode(info, body, name)

        def work(tx: Transaction) -> Raw:
            if tx.find(info.kind, namespace, name) is not None:
                raise AlreadyExists(info.kind, namespace, name)
            self._admit(tx, admission.Request(operation="create", info=info, user=self._caller.name, new=new))
            raw = tx.create(codec.encode(new)).raw
            if self._options.dry_run:
                raw["metadata"].pop("resourceVersion")
            return raw

        return await self._transact(work)

    async def change(self, make: Callable[[Raw], Raw], verb: str) -> Raw:
        """Replace the resource by what `make` gives for the stored one."""
        info, target = self._info, self._target
        admitting.writable(info, verb, target.name)

        def work(tx: Transaction) -> Raw:
            current = tx.find(info.kind, target.namespace, target.name)
            if current is None:
                admitting.own_namespace(self._context, info, target.namespace, target.name)
                raise not_found(info, target.name)
            admitting.own_home(info, current)
            admitting.own_namespace(self._context, info, target.namespace, target.name)
            try:
                changed = make(current.raw)
            except patching.Unfit as unfit:
                raise invalid(info, target.name, [unfit.problem]) from unfit
            new, expected = self._changed(current, changed)
            old = current.typed(info.type)
            request = admission.Request(
                operation="update", info=info, user=self._caller.name, old=old, new=new, origin=current.origin
            )
            self._admit(tx, request)
            raw = tx.replace(codec.overlay(current.raw, new), expected=expected).raw
            if self._options.dry_run:
                raw["metadata"]["resourceVersion"] = str(current.revision)
            return raw

        return await self._transact(work)

    async def delete(self, preconditions: Raw) -> tuple[Stored, bool]:
        """Delete the resource: what it was, and whether it is gone (else finalizers hold it)."""
        target = self._target
        admitting.writable(self._info, "delete", target.name)
        uid, revision = preconditions.get("uid") or "", preconditions.get("resourceVersion") or ""
        return await self._transact(
            lambda tx: self._remove(tx, target.namespace, target.name, str(uid), str(revision))
        )

    async def delete_several(self, names: list[tuple[str, str]]) -> list[Stored]:
        """Delete resources in batches; those that others deleted meanwhile are passed over."""
        admitting.writable(self._info, "deletecollection", "")
        gone: list[Stored] = []
        for at in range(0, len(names), TOGETHER):
            part = names[at : at + TOGETHER]

            def work(tx: Transaction, part: list[tuple[str, str]] = part) -> list[Stored]:
                found = [(ns, n) for ns, n in part if tx.find(self._info.kind, ns, n)]
                return [self._remove(tx, ns, n, "", "")[0] for ns, n in found]

            gone += await self._transact(work)
        return gone

    # -- inside

    def _changed(self, current: Stored, body: Raw) -> tuple[Resource, str]:
        """The struct a changed body stands for, and the revision it was made from, if it says so."""
        info, name = self._info, self._target.name
        body = bodies.without_nulls(body)
        admitting.envelope(info, body, self._target.namespace, name)
        given = body.get("metadata") or {}
        if given.get("name") and given["name"] != name:
            raise bad_request(f"metadata.name can't change; it is {name}")
        stored = current.raw
        fixed = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "generateName")
        meta = {**given, "name": name, "namespace": self._target.namespace}
        if given.get("uid") not in (None, "", current.uid):
            raise ApiError(
                409,
                f'Operation cannot be fulfilled on {info.resource} "{name}": uid {given["uid"]!s} '
                f"was asked for, the resource has {current.uid}: it was deleted and made anew",
            )
        for key in fixed:
            meta.pop(key, None)
            if key in stored["metadata"]:
                meta[key] = stored["metadata"][key]
        body = {**body, "metadata": meta}
        body.pop("status", None)
        self._check_unknown(admitting.unknown(info, body, stored))
        if "status" in stored:
            body["status"] = stored["status"]
        return admitting.decode(info, body, name), str(given.get("resourceVersion") or "")

    def _remove(
        self, tx: Transaction, namespace: str, name: str, uid: str, revision: str
    ) -> tuple[Stored, bool]:
        info = self._info
        current = tx.find(info.kind, namespace, name)
        if current is None:
            raise not_found(info, name)
        admitting.own_home(info, current)
        admitting.own_namespace(self._context, info, namespace, name)
        old = current.typed(info.type)
        request = admission.Request(
            operation="delete", info=info, user=self._caller.name, old=old, origin=current.origin
        )
        self._admit(tx, request)
        removed = tx.remove(info.kind, namespace, name, expected_uid=uid, expected=revision)
        return removed, tx.find(info.kind, namespace, name) is None

    def _check_unknown(self, paths: list[str]) -> None:
        """Refuse unknown fields, or note them as warnings."""
        if not paths or self._options.validation == "Ignore":
            return
        named = [f'unknown field "{p[:200]}"' for p in paths[:20]]
        if self._options.validation == "Strict":
            causes: list[Raw] = [
                {"reason": "FieldValueInvalid", "message": m, "field": p}
                for p, m in zip(paths, named, strict=False)
            ]
            raise bad_request(
                f"{self._info.kind} in version v1 cannot be handled: strict decoding error: "
                f"{', '.join(named)}; see kubectl explain {self._info.plural}",
                causes,
            )
        self.warnings = named

    def _admit(self, tx: Transaction, request: admission.Request) -> None:
        subject = request.new or request.old
        name = subject.metadata.name if subject else ""
        try:
            for rule in (
                *tokens.RULES.get(self._info.kind, ()),
                *self._context.rules.get(self._info.kind, ()),
            ):
                rule(tx, request)
        except admission.Refused as refusal:
            raise refused(self._info, name, refusal) from refusal

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        if not self._options.dry_run:
            return await self._context.store.transact(work)

        def undone(tx: Transaction) -> T:
            raise Undo(work(tx))

        try:
            return await self._context.store.transact(undone)
        except Undo as undo:
            result: T = undo.result
            return result


async def create(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """POST on a list."""
    writer = Writer(context, caller, target, Options.of(request.query_params))
    raw = await writer.create(await bodies.json_object(request))
    return _answer(context, request, view, raw, writer, 201)


async def update(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """PUT of one resource."""
    writer = Writer(context, caller, target, Options.of(request.query_params))
    body = await bodies.json_object(request)
    raw = await writer.change(lambda _: body, "update")
    return _answer(context, request, view, raw, writer, 200)


async def patch(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """PATCH of one resource."""
    kind = bodies.media_type(request)
    patching.check_type(kind)
    writer = Writer(context, caller, target, Options.of(request.query_params))
    steps = bodies.parse(await bodies.read(request))
    raw = await writer.change(lambda current: patching.apply(kind, current, steps), "patch")
    return _answer(context, request, view, raw, writer, 200)


async def delete(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """DELETE of one resource."""
    options, given = await _delete_options(request)
    writer = Writer(context, caller, target, options)
    preconditions = given.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions must be an object")
    for field in ("uid", "resourceVersion"):
        if not isinstance(preconditions.get(field, ""), str | None):
            raise bad_request(f"preconditions.{field} must be text")
    stored, gone = await writer.delete(preconditions)
    if not gone:
        return _answer(context, request, view, stored.raw, writer, 200)
    details = {"name": target.name, "group": target.info.group, "kind": target.info.plural, "uid": stored.uid}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Response(msgspec.json.encode(status), media_type=JSON)


async def delete_collection(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """DELETE on a list: everything the selectors choose."""
    options, _ = await _delete_options(request)
    selector = selector_of(target.info, request.query_params)
    if target.info.namespaced and not target.namespace:
        raise forbidden(target.info, "", "a namespace must be given to delete several", "use -n")
    writer = Writer(context, caller, target, options)

    def chosen(tx: Transaction) -> list[tuple[str, str]]:
        everything = tx.select(target.info.kind, target.namespace or None, origin="")
        return [(s.namespace, s.name) for s in everything if selector.matches(s.raw)]

    gone = await writer.delete_several(await context.store.read(chosen))
    metadata = {"resourceVersion": str(max((s.revision for s in gone), default=context.store.revision))}
    body = forms.several(view, [s.raw for s in gone], forms.Form(), context.clock(), metadata)
    return Response(msgspec.json.encode(body), media_type=JSON)


async def _delete_options(request: Request) -> tuple[Options, Raw]:
    given = await bodies.json_object(request, required=False)
    dry = given.get("dryRun") or []
    if dry not in ([], ["All"]):
        raise bad_request('dryRun in DeleteOptions must be ["All"]')
    options = Options.of(request.query_params)
    return Options(options.dry_run or bool(dry), options.validation), given


def _answer(
    context: ApiContext, request: Request, view: View, raw: Raw, writer: Writer, code: int
) -> Response:
    form = forms.negotiate(request.headers.get("accept", ""), request.query_params)
    body = msgspec.json.encode(forms.one(view, view.shape(raw), form, context.clock()))
    response = Response(body, code, media_type=JSON)
    for text in writer.warnings:
        response.headers.append("Warning", warning(text))
    return response
