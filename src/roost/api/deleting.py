"""Delete one resource, or all that selectors choose.

What becomes of dependents is said by a finalizer, put there in the transaction that marks the resource:
`foregroundDeletion` keeps it until they are gone, `orphan` until they no longer name it. The garbage
collector acts on them and takes them away (engine.garbage). A resource that already waits can be told
otherwise by deleting it again. There is nothing to end gracefully: gracePeriodSeconds is taken, and means
nothing.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import admitting, forms, write_options
from roost.api.context import ApiContext
from roost.api.forms import JSON, View
from roost.api.options import selector_of
from roost.api.status import bad_request, forbidden, not_found
from roost.api.target import Target, number
from roost.api.transacting import Write
from roost.api.write_options import DeleteOptions
from roost.engine import admission
from roost.engine.ownership import FOREGROUND, ORPHAN
from roost.link.exchange import Caller
from roost.model.codec import Raw
from roost.store.transaction import Stored, Transaction

TOGETHER = 200


def finalizers(present: list[str], options: DeleteOptions) -> list[str]:
    """The finalizers of a resource that is deleted so: what the policy asks for instead of what another did.

    Without a policy the resource's own finalizers decide (Kubernetes: deletion propagation).
    """
    if options.policy:
        wanted = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(options.policy, [])
    elif options.orphan is not None:
        wanted = [ORPHAN] if options.orphan else []
    else:
        return present
    others = [f for f in present if f not in (FOREGROUND, ORPHAN)]
    kept = [f for f in present if f in wanted]
    return present if kept == wanted and len(others) + len(kept) == len(present) else others + wanted


class Deletion(Write):
    """One caller's deletion."""

    async def one(self, options: DeleteOptions) -> tuple[Stored, bool]:
        """Delete the resource: what it was, and whether it is gone (else finalizers hold it)."""
        target = self.target
        admitting.writable(self.info, "delete", target.name)
        return await self.transact(lambda tx: self._remove(tx, target.namespace, target.name, options))

    async def several(self, names: list[tuple[str, str]], options: DeleteOptions) -> list[Stored]:
        """Delete resources in batches: each as it was before. Those that others deleted meanwhile are passed
        over."""
        admitting.writable(self.info, "deletecollection", "")
        gone: list[Stored] = []
        for at in range(0, len(names), TOGETHER):
            part = names[at : at + TOGETHER]

            def work(tx: Transaction, part: list[tuple[str, str]] = part) -> list[Stored]:
                found = [s for ns, n in part if (s := tx.find(self.stored.kind, ns, n))]
                for stored in found:
                    self._remove(tx, stored.namespace, stored.name, options)
                return found

            gone += await self.transact(work)
        return gone

    def _remove(
        self, tx: Transaction, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[Stored, bool]:
        info, kind = self.info, self.stored.kind
        current = tx.find(kind, namespace, name)
        if current is None:
            raise not_found(info, name)
        admitting.own_home(info, current)
        admitting.own_namespace(self.context, info, namespace, name)
        old = current.typed(self.stored.type)
        request = admission.Request(
            operation="delete", info=self.stored, user=self.caller.name, old=old, origin=current.origin
        )
        self.admit(tx, request)
        removed = tx.remove(
            kind,
            namespace,
            name,
            expected_uid=options.uid,
            expected=options.resource_version,
            finalizers=finalizers(current.raw["metadata"].get("finalizers", []), options),
        )
        return removed, tx.find(kind, namespace, name) is None


async def delete(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """DELETE of one resource."""
    form = forms.negotiate(request.headers.get("accept", ""), request.query_params)
    common, options = await write_options.of_delete(request)
    deletion = Deletion(context, caller, target, view, common)
    stored, gone = await deletion.one(options)
    if not gone:
        shown = forms.one(view, view.shape(stored.raw), form, context.clock())
        return Response(msgspec.json.encode(shown), media_type=JSON)
    details = {"name": target.name, "group": target.info.group, "kind": target.info.plural, "uid": stored.uid}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Response(msgspec.json.encode(status), media_type=JSON)


async def delete_collection(
    context: ApiContext, request: Request, caller: Caller, target: Target, view: View
) -> Response:
    """DELETE on a list: everything the selectors choose, at most `limit`."""
    common, options = await write_options.of_delete(request)
    selector = selector_of(target.info, request.query_params)
    limit = number(request.query_params, "limit", 0)
    if request.query_params.get("continue"):
        raise bad_request("continue goes with lists; delete several again until none is left")
    if target.info.namespaced and not target.namespace:
        raise forbidden(target.info, "", "a namespace must be given to delete several", "use -n")
    deletion = Deletion(context, caller, target, view, common)

    def chosen(tx: Transaction) -> tuple[list[tuple[str, str]], int]:
        everything = tx.select(view.source, target.namespace or None, origin="")
        found = [(s.namespace, s.name) for s in everything if selector.matches(view.shape(s.raw))]
        return found[:limit] if limit else found, tx.revision

    names, revision = await context.store.read(chosen)
    gone = await deletion.several(names, options)
    metadata: Raw = {"resourceVersion": str(revision)}
    body = forms.several(view, [view.shape(s.raw) for s in gone], forms.Form(), context.clock(), metadata)
    return Response(msgspec.json.encode(body), media_type=JSON)
