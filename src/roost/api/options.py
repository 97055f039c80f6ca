"""What a list or a watch asks for: revision, match, limit, selectors, and which of them go together.

The rules are those of Kubernetes (API concepts, "Resource versions"; its ListOptions validation):

| asked for                           | a list is                                                    |
| ----------------------------------- | ------------------------------------------------------------ |
| nothing, or resourceVersion=0       | of the present                                               |
| resourceVersion=N                   | of the present, at least N; with limit it is of exactly N    |
| ... and Match=NotOlderThan          | of the present, at least N                                   |
| ... and Match=Exact                 | of exactly N                                                 |
| continue                            | of the revision of its first page                            |
| a limit below 0                     | as without a limit                                           |

Wrong combinations are answered with 422, what can't be read with 400.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from roost.api.snapshots import Continue
from roost.api.status import ApiError, bad_request
from roost.api.target import number, truth
from roost.model.kind import KindInfo
from roost.model.selector import Selector, SelectorError, parse_fields, parse_labels

_BELOW_ZERO = re.compile(r"-[0-9]+\Z")
EXACT = "Exact"
NOT_OLDER = "NotOlderThan"


class ListOptions(msgspec.Struct, frozen=True):
    """What a list asks for. `exact` says that it is to be of `revision`, not of one at least that."""

    revision: int
    exact: bool
    limit: int
    start: Continue | None


class WatchOptions(msgspec.Struct, frozen=True):
    """What a watch asks for. `initial` says that the state comes first, `marked` that its end is told."""

    revision: int
    initial: bool
    marked: bool
    bookmarks: bool
    seconds: int


def for_list(query: Mapping[str, str]) -> ListOptions:
    """The options of a list; raises ApiError 400 and 422."""
    text, match, token = (query.get(n, "") for n in ("resourceVersion", "resourceVersionMatch", "continue"))
    wrong = []
    if match:
        if not text:
            wrong.append(_forbidden("resourceVersionMatch", "give a resourceVersion with it"))
        if token:
            wrong.append(_forbidden("resourceVersionMatch", "continue already fixes the revision"))
        if match not in (EXACT, NOT_OLDER):
            wrong.append(_unsupported("resourceVersionMatch", match, EXACT, NOT_OLDER))
        if match == EXACT and text == "0":
            wrong.append(_forbidden("resourceVersionMatch", "Exact needs a resourceVersion other than 0"))
    if query.get("sendInitialEvents"):
        wrong.append(_forbidden("sendInitialEvents", "it is for watches only"))
    _raise(wrong)
    revision = number(query, "resourceVersion", 0)
    below = _BELOW_ZERO.match(query.get("limit", ""))
    limit = 0 if below else number(query, "limit", 0)
    start = Continue.parse(token) if token else None
    if start is not None and revision:
        raise bad_request("resourceVersion can't be given together with continue")
    exact = revision > 0 and (match == EXACT or (not match and limit > 0))
    return ListOptions(revision, exact, limit, start)


def for_watch(query: Mapping[str, str]) -> WatchOptions:
    """The options of a watch; raises ApiError 400 and 422."""
    send, match = query.get("sendInitialEvents", ""), query.get("resourceVersionMatch", "")
    wrong = []
    if send and match != NOT_OLDER:
        wrong.append(_forbidden("resourceVersionMatch", f"sendInitialEvents needs it to be {NOT_OLDER}"))
    if match and not send:
        wrong.append(_forbidden("resourceVersionMatch", "a watch takes it with sendInitialEvents only"))
    elif match and match != NOT_OLDER:
        wrong.append(_unsupported("resourceVersionMatch", match, NOT_OLDER))
    if match and query.get("continue"):
        wrong.append(_forbidden("resourceVersionMatch", "it does not go together with continue"))
    _raise(wrong)
    revision, bookmarks = number(query, "resourceVersion", 0), truth(query, "allowWatchBookmarks")
    initial = truth(query, "sendInitialEvents") if send else revision == 0
    return WatchOptions(
        revision=revision,
        initial=initial,
        marked=bool(send) and initial and bookmarks,
        bookmarks=bookmarks,
        seconds=number(query, "timeoutSeconds", 0),
    )


def selector_of(info: KindInfo, query: Mapping[str, str]) -> Selector:
    """The selectors of a request; raises ApiError 400."""
    known = ("metadata.name", "metadata.namespace", *info.selectable)
    try:
        labels = parse_labels(query.get("labelSelector", ""))
        return Selector(labels, parse_fields(query.get("fieldSelector", ""), known))
    except SelectorError as error:
        raise bad_request(str(error)) from error


def _forbidden(field: str, reason: str) -> dict[str, str]:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {reason}", "field": field}


def _unsupported(field: str, value: str, *supported: str) -> dict[str, str]:
    known = ", ".join(f'"{s}"' for s in supported)
    message = f'Unsupported value: "{value[:32]}": supported values: {known}'
    return {"reason": "FieldValueNotSupported", "message": message, "field": field}


def _raise(wrong: list[dict[str, str]]) -> None:
    if not wrong:
        return
    lines = [f"{cause['field']}: {cause['message']}" for cause in wrong]
    listed = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    raise ApiError(
        422,
        f'ListOptions.meta.k8s.io "" is invalid: {listed}',
        details={"group": "meta.k8s.io", "kind": "ListOptions"},
        causes=wrong,
    )
