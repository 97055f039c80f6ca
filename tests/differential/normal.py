"""Answers made comparable: what must differ between two servers is replaced by what it means.

resourceVersions become their order among all that a sequence showed, uids and generated names the order
in which they came, times the word `time`. The rest of what is evened out here stands in `differences` with
a reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from roost.model.codec import Raw
from roost.model.registry import BY_KIND
from tests.differential.definitions import structural, with_defaults
from tests.differential.servers import Answer

_TIMES = ("creationTimestamp", "deletionTimestamp")
_GENERATED = re.compile(r"^(.*-made-)[a-z0-9]{5,10}$")


class Normal:
    """Normalises the answers of one server to one sequence."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        seen: set[int] = set()
        self._uids: dict[str, str] = {}
        self._names: dict[str, str] = {}
        for answer in answers:
            for one in _objects(answer):
                meta = one.get("metadata", {})
                if str(meta.get("resourceVersion", "")).isdigit():
                    seen.add(int(meta["resourceVersion"]))
                if meta.get("uid"):
                    self._uids.setdefault(meta["uid"], f"uid {len(self._uids)}")
                if _GENERATED.match(str(meta.get("name", ""))):
                    self._names.setdefault(meta["name"], f"generated {len(self._names)}")
        self._order = {str(revision): f"revision {n}" for n, revision in enumerate(sorted(seen))}

    def answer(self, answer: Answer) -> Raw:
        """Code, and what the body says."""
        if answer.events:
            events = [{"type": e["type"], "object": self._body(e["object"])} for e in answer.events]
            return {"code": answer.code, "events": events}
        return {"code": answer.code, "body": self._body(answer.body)}

    def _body(self, body: Any) -> Any:
        if not isinstance(body, dict):
            return type(body).__name__
        if body.get("kind") == "Status":
            return self._status(body)
        if body.get("kind") == "Table":
            return self._table(body)
        if isinstance(body.get("items"), list):
            metadata = {k: bool(body["metadata"].get(k)) for k in ("resourceVersion", "continue")}
            named = {k: body.get(k) for k in ("apiVersion", "kind")}
            items = [self._object(item) for item in body["items"]]
            if self._names:
                # Names that servers made at random are in no order that could be compared.
                items.sort(key=lambda item: str(item["metadata"].get("resourceVersion")))
            return {**named, "metadata": metadata, "items": items}
        return self._object(body)

    def _status(self, body: Raw) -> Raw:
        fields = ("kind", "status", "reason", "code")
        kept: Raw = {field: body[field] for field in fields if field in body}
        details = body.get("details") or {}
        kept["details"] = {k: details[k] for k in ("name", "group", "kind", "uid") if k in details}
        if "uid" in kept["details"]:
            kept["details"]["uid"] = self._uids.get(kept["details"]["uid"], "uid")
        name = kept["details"].get("name")
        if name in self._names:
            kept["details"]["name"] = self._names[name]
        return kept

    def _table(self, body: Raw) -> Raw:
        """Columns by name and type, and rows by the objects in them: the cells are compared by name."""
        columns = [c["name"] for c in body.get("columnDefinitions") or []]
        rows = []
        for row in body.get("rows") or []:
            found = row.get("object")
            rows.append({"name": row["cells"][0], "object": self._object(found) if found else None})
        return {"kind": "Table", "apiVersion": body.get("apiVersion"), "first": columns[:1], "rows": rows}

    def _object(self, raw: Raw) -> Raw:
        kind = raw.get("kind", "")
        if kind in BY_KIND:
            info = BY_KIND[kind]
            filled: Raw = with_defaults(structural(info), {"spec": {}, **raw})
            filled.pop("status", None)
        else:
            filled = dict(raw)
        meta = dict(raw.get("metadata") or {})
        for field in ("managedFields", "deletionGracePeriodSeconds"):
            meta.pop(field, None)
        for field in _TIMES:
            if meta.get(field):
                meta[field] = "time"
        if meta.get("resourceVersion"):
            meta["resourceVersion"] = self._order.get(meta["resourceVersion"], "revision")
        if meta.get("uid"):
            meta["uid"] = self._uids[meta["uid"]]
        if meta.get("name") in self._names:
            meta["name"] = self._names[meta["name"]]
        filled["metadata"] = {k: v for k, v in meta.items() if v not in (None, {}, [])}
        return filled


def _objects(answer: Answer) -> list[Raw]:
    """All objects that an answer shows."""
    bodies = [answer.body, *(event["object"] for event in answer.events)]
    found: list[Raw] = []
    for body in bodies:
        if not isinstance(body, dict) or body.get("kind") == "Status":
            continue
        if isinstance(body.get("items"), list):
            found += body["items"]
        elif body.get("kind") == "Table":
            found += [row["object"] for row in body.get("rows") or [] if row.get("object")]
        else:
            found.append(body)
    return found
