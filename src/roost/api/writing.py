"""Create, update, patch, apply: read, decide and write in one transaction of the store.

A write in full: the caller's role (done before), the home of the resource, the body in its envelope, the
patch or the applied configuration, unknown and doubled fields (fieldValidation), types and invariants,
metadata, the rules of the kind's domain, who owns which field, the store's own preconditions. Status in a
body is left as stored: it is observation. Fields of the stored resource that this version does not know
stay. With dryRun=All everything is done and then undone, by leaving the transaction with an exception.

A kind may be served in another version than it is stored in. Bodies, patches and ownership are of the
version that was asked for; admission and the store see the stored one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import admitting, bodies, encoders, forms, patching, sealing, strict, write_options
from roost.api.apply import comparing, fields, managers, merging, migration
from roost.api.apply.managers import Writing
from roost.api.apply.shapes import Shape, shape_of
from roost.api.context import ApiContext
from roost.api.forms import Form, View
from roost.api.status import ApiError, bad_request, invalid, not_found, warning
from roost.api.strict import Document
from roost.api.target import Target
from roost.api.transacting import Write
from roost.engine import admission
from roost.engine.vault import Vault
from roost.link.exchange import Caller
from roost.model import chance, codec, time
from roost.model.codec import Raw
from roost.model.kind import Problem
from roost.model.meta import Resource
from roost.model.registry import SERVED
from roost.store.errors import AlreadyExists
from roost.store.transaction import Stored, Transaction

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
GENERATED = 5
LONGEST_GENERATED = 63
TRIES = 8
FIXED = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "generateName")


class Writer(Write):
    """One caller's create, update, patch or apply on one target."""

    @property
    def _shape(self) -> Shape:
        return shape_of(self.info.type)

    @property
    def _comparing(self) -> Vault | None:
        return self.context.vault if self.context.compares else None

    def _writing(self, tx: Transaction) -> Writing:
        return Writing(self.options.manager, self.info.api_version, time.seconds(tx.now))

    # -- create

    async def create(self, document: Document) -> Raw:
        """Add the resource in `document`."""
        info, namespace = self.info, self.target.namespace
        body = info.prepare(codec.without_nulls(document.raw))
        admitting.envelope(info, body, namespace, "")
        meta = dict(body.get("metadata") or {})
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        prefix = ""
        if not meta.get("name") and isinstance(meta.get("generateName"), str):
            prefix = meta["generateName"]
            meta["name"] = generated(prefix) if prefix else ""
        if not meta.get("name"):
            raise invalid(info, "", [Problem("metadata.name", "name or generateName is required")])
        sent = managers.given(meta.pop("managedFields", None)) or []
        self._check_written(document.duplicates, admitting.unknown(info, body, None))
        new = self._created({**body, "metadata": meta}, "create")
        return await self.transact(lambda tx: self._insert(tx, new, prefix, sent))

    def _created(self, body: Raw, verb: str) -> Resource:
        """The struct of a body that is to be created, as it is served."""
        info, namespace = self.info, self.target.namespace
        meta = {**body["metadata"], "namespace": namespace}
        name = str(meta["name"])
        admitting.writable(info, verb, name)
        admitting.own_namespace(self.context, info, namespace, name)
        for given_by_server in ("uid", "generation", "creationTimestamp", "deletionTimestamp"):
            meta.pop(given_by_server, None)
        body = {**body, "metadata": meta}
        body.pop("status", None)
        return admitting.decode(info, body, name)

    def _insert(
        self, tx: Transaction, served: Resource, prefix: str, sent: list[Raw], config: Raw | None = None
    ) -> Raw:
        """Write a new resource; `config` is the applied configuration that it comes from."""
        kind, meta = self.stored.kind, served.metadata
        name = meta.name
        for _ in range(TRIES if prefix else 1):
            if tx.find(kind, meta.namespace, name) is None:
                break
            name = generated(prefix) if prefix else name
        else:
            raise AlreadyExists(kind, meta.namespace, name)
        if name != meta.name:
            served = msgspec.structs.replace(served, metadata=msgspec.structs.replace(meta, name=name))
        shown = codec.encode(served)
        new, raw = served, shown
        if self.info is not self.stored:
            raw = self.view.take(shown)
            new = admitting.decode(self.stored, raw, name)
            raw = codec.encode(new)
        request = admission.Request(operation="create", info=self.stored, user=self.caller.name, new=new)
        self.admit(tx, request)
        writing = self._writing(tx)
        if config is None:
            entries = managers.updated({}, shown, self._shape, sent, writing)
        else:
            entries = managers.first_applied(config, self._shape, writing)
        if entries:
            raw["metadata"]["managedFields"] = entries
        made = tx.create(sealing.sealed(self.context.vault, self.stored, raw, {})).raw
        if self.options.dry_run:
            made["metadata"].pop("resourceVersion")
        return made

    # -- update and patch

    async def change(self, make: Callable[[Raw], Raw], verb: str, duplicates: Sequence[str] = ()) -> Raw:
        """Replace the resource by what `make` gives for the stored one."""
        info, target = self.info, self.target
        admitting.writable(info, verb, target.name)

        def work(tx: Transaction) -> Raw:
            current = self._current(tx)
            if current is None:
                raise not_found(info, target.name)
            live = self.view.shape(current.raw)
            try:
                body = info.prepare(codec.without_nulls(make(live)))
            except patching.Unfit as unfit:
                raise invalid(info, target.name, [unfit.problem]) from unfit
            body = sealing.compared(self._comparing, info, body, current.raw)
            if verb == "update":
                # A whole object that names its uid replaces that one alone.
                current.require(uid=_given(body, "uid"))
            self._check_written(duplicates, admitting.unknown(info, body, live))
            entries = self._sent_entries(body, current)
            new = self._changed(current, live, body)
            raw = codec.overlay(current.raw, new)
            shown = raw if self.info is self.stored else self.view.shape(raw)
            writing = self._writing(tx)
            other = self._elsewhere(current.raw, raw)
            entries = managers.updated(live, shown, self._shape, entries, writing, other)
            return self._replace(tx, current, new, raw, entries)

        return await self.transact(work)

    def _current(self, tx: Transaction) -> Stored | None:
        """The stored resource, when it may be written here; raises ApiError 403."""
        target = self.target
        current = tx.find(self.stored.kind, target.namespace, target.name)
        if current is not None:
            admitting.own_home(self.info, current)
        admitting.own_namespace(self.context, self.info, target.namespace, target.name)
        return current

    def _sent_entries(self, body: Raw, current: Stored) -> list[Raw]:
        """Who owns which field by the body, if it says so, else as stored."""
        stored: list[Raw] = current.raw["metadata"].get("managedFields", [])
        meta = body.get("metadata")
        sent = meta.get("managedFields") if isinstance(meta, dict) else None
        if sent is None or sent == stored:
            return stored
        given = managers.given(sent)
        return stored if given is None else given

    def _changed(self, current: Stored, live: Raw, body: Raw) -> Resource:
        """The stored struct that a changed body stands for; raises ApiError 400 and 422, and Conflict when
        the body was made from another revision, which comes before what else is wrong with it."""
        info, name = self.info, self.target.name
        admitting.envelope(info, body, self.target.namespace, name)
        current.require(revision=_given(body, "resourceVersion"))
        given, stored = body.get("metadata") or {}, live["metadata"]
        problems = admitting.update_problems(stored, given)
        if problems:
            raise invalid(info, name, problems)
        meta = {**given, "name": name, "namespace": self.target.namespace}
        meta.pop("managedFields", None)
        for key in FIXED:
            meta.pop(key, None)
            if key in stored:
                meta[key] = stored[key]
        body = {**body, "metadata": meta}
        body.pop("status", None)
        if "status" in live:
            body["status"] = live["status"]
        served = admitting.decode(info, body, name)
        if info is self.stored:
            return served
        return admitting.decode(self.stored, self.view.take(codec.encode(served)), name)

    def _replace(self, tx: Transaction, current: Stored, new: Resource, raw: Raw, entries: list[Raw]) -> Raw:
        request = admission.Request(
            operation="update",
            info=self.stored,
            user=self.caller.name,
            old=current.typed(self.stored.type),
            new=new,
            origin=current.origin,
        )
        self.admit(tx, request)
        if entries:
            raw["metadata"]["managedFields"] = entries
        raw = sealing.sealed(self.context.vault, self.stored, raw, current.raw)
        problems = self.stored.transition(current.raw, raw)
        if problems:
            raise invalid(self.info, self.target.name, problems)
        written = tx.replace(raw).raw
        if self.options.dry_run:
            written["metadata"]["resourceVersion"] = str(current.revision)
        return written

    def _elsewhere(self, live: Raw, new: Raw) -> managers.Elsewhere:
        """What changes between two stored objects, as another version of the kind has it."""

        def compare(api_version: str) -> comparing.Difference | None:
            for info in SERVED:
                if info.kind == self.stored.kind and info.api_version == api_version:
                    shape = View.of(info).shape
                    return comparing.compare(shape(live), shape(new), shape_of(info.type))
            return None

        return compare

    # -- apply

    async def apply(self, document: Document) -> tuple[Raw, bool]:
        """Apply a configuration: the resource, and whether it is new; raises ApiError 409 on conflicts."""
        info, target = self.info, self.target
        admitting.writable(info, "patch", target.name)
        body = info.prepare(codec.without_nulls(document.raw))
        for key in ("apiVersion", "kind"):
            if not isinstance(body.get(key), str):
                raise bad_request(f"{key} must be set in an applied configuration")
        admitting.envelope(info, body, target.namespace, target.name)
        meta = dict(body.get("metadata") or {})
        if "managedFields" in (document.raw.get("metadata") or {}):
            raise bad_request("metadata.managedFields must be nil")
        config = {**body, "metadata": {**meta, "name": target.name}}

        def work(tx: Transaction) -> tuple[Raw, bool]:
            current = self._current(tx)
            live = self.view.shape(current.raw) if current else None
            self._check_written(document.duplicates, admitting.unknown(info, config, live))
            known = merging.known(config, self._shape)
            if current is not None:
                known = sealing.compared(self._comparing, info, known, current.raw)
            if current is None or live is None:
                return self._apply_anew(tx, known), True
            return self._apply_to(tx, current, live, known), False

        return await self.transact(work)

    def _apply_anew(self, tx: Transaction, config: Raw) -> Raw:
        meta, name = config["metadata"], self.target.name
        for key in ("uid", "resourceVersion"):
            if meta.get(key):
                raise ApiError(
                    409,
                    f'Operation cannot be fulfilled on {self.info.resource} "{name}": {key} mismatch: '
                    f"the provided object specified {key} {str(meta[key])[:100]}, "
                    "and no existing object was found",
                )
        return self._insert(tx, self._created(config, "create"), "", [], config)

    def _apply_to(self, tx: Transaction, current: Stored, live: Raw, config: Raw) -> Raw:
        shape, writing = self._shape, self._writing(tx)
        entries: list[Raw] = current.raw["metadata"].get("managedFields", [])

        def attempt(*, force: bool) -> managers.Applied:
            return managers.apply(
                live, config, shape, entries, writing, force=force, elsewhere=self._would_be(current)
            )

        try:
            body, after = attempt(force=self.options.force)
        except managers.Conflicts as conflicts:
            theirs = fields.difference(conflicts.fields, self._of_client_side(live))
            if theirs:
                raise ApiError(409, conflicts.message, causes=conflicts.causes()) from conflicts
            body, after = attempt(force=True)
        if writing.manager == migration.MANAGER:
            body = migration.followed(body, config)
        given = config["metadata"]
        body["metadata"] = {
            **body["metadata"],
            **{key: given[key] for key in ("uid", "resourceVersion") if given.get(key)},
        }
        if not given.get("resourceVersion"):
            body["metadata"].pop("resourceVersion", None)
        new = self._changed(current, live, body)
        return self._replace(tx, current, new, codec.overlay(current.raw, new), after)

    def _of_client_side(self, live: Raw) -> fields.Fields:
        """What kubectl may take over from its own client-side apply."""
        if self.options.manager != migration.MANAGER:
            return fields.NONE
        return migration.own(live, self._shape)

    def _would_be(self, current: Stored) -> Callable[[Raw], managers.Elsewhere]:
        def elsewhere(body: Raw) -> managers.Elsewhere:
            if self.info is not self.stored:
                # Only what is an object of its version can be converted.
                meta = {k: v for k, v in body["metadata"].items() if k != "managedFields"}
                admitting.decode(self.info, {**body, "metadata": meta}, self.target.name)
            return self._elsewhere(current.raw, self.view.take(body))

        return elsewhere

    # -- both

    def _check_written(self, duplicates: Sequence[str], paths: list[str]) -> None:
        """Refuse what was written twice and unknown fields, or note them as warnings."""
        if not (paths or duplicates) or self.options.validation == "Ignore":
            return
        named = [*duplicates, *(f'unknown field "{p[:200]}"' for p in paths[:20])]
        if self.options.validation == "Strict":
            causes: list[Raw] = [
                {"reason": "FieldValueInvalid", "message": f'unknown field "{p[:200]}"', "field": p}
                for p in paths[:20]
            ]
            raise bad_request(
                f"{self.info.kind} in version {self.info.version!r} cannot be handled as a "
                f"{self.info.kind}: strict decoding error: {', '.join(named)}; "
                f"see kubectl explain {self.info.plural}",
                causes,
            )
        self.warnings = named


def _given(body: Raw, key: str) -> str:
    """A word of the body's metadata; empty when it has none."""
    meta = body.get("metadata")
    return str(meta.get(key) or "") if isinstance(meta, dict) else ""


def generated(prefix: str) -> str:
    """A name that begins with `prefix`, as far as there is room, and is likely new."""
    ending = "".join(chance.pick(ALPHABET) for _ in range(GENERATED))
    return prefix[: LONGEST_GENERATED - GENERATED] + ending


async def create(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """POST on a list."""
    form = _form(request)
    writer = Writer(context, caller, target, view, write_options.of_create(request))
    raw = await writer.create(await strict.document(request))
    return _answer(form, writer, raw, 201)


async def update(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """PUT of one resource."""
    form = _form(request)
    writer = Writer(context, caller, target, view, write_options.of_update(request))
    body, duplicates = await strict.document(request)
    raw = await writer.change(lambda _: body, "update", duplicates)
    return _answer(form, writer, raw, 200)


async def patch(
    context: ApiContext,
    request: Request,
    caller: Caller,
    target: Target,
    view: View,
) -> Response:
    """PATCH of one resource."""
    kind = bodies.media_type(request)
    patching.check_type(kind, target.info)
    form = _form(request)
    writer = Writer(context, caller, target, view, write_options.of_patch(request, kind))
    content = await bodies.read(request)
    if kind == write_options.APPLY_PATCH:
        raw, created = await writer.apply(strict.from_yaml(content))
        return _answer(form, writer, raw, 201 if created else 200)
    steps, duplicates = strict.parsed(content)
    raw = await writer.change(lambda current: patching.apply(kind, current, steps), "patch", duplicates)
    return _answer(form, writer, raw, 200)


def _form(request: Request) -> Form:
    """The form of the answer; raises ApiError 400 and 406: before the write, for after it nobody may hear
    that it was refused."""
    return forms.negotiate(request.headers.get("accept", ""), request.query_params)


def _answer(form: Form, writer: Writer, raw: Raw, code: int) -> Response:
    view, now = writer.view, writer.context.clock()
    body = forms.one(view, view.shape(raw), form, now)
    if form.media == forms.YAML:
        response = Response(encoders.in_yaml(body), code, media_type=form.media)
    else:
        response = Response(msgspec.json.encode(body), code, media_type=form.media)
    for text in writer.warnings:
        response.headers.append("Warning", warning(text))
    return response
