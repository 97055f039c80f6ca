"""Get and list.

A single resource is the stored text with its revision in it. A list is read in slices as of one revision
(`snapshots`), each in a short transaction of its own, and written as it is read: an answer of any length
takes the memory of two slices, and a client that reads slowly keeps no transaction open. What fits into one
slice is sent whole, with its length. LONG_ANSWERS are on their way at once; who asks for one more is told to
come back. A list with a limit is one answer of at most LARGEST_PAGE bytes; it may give fewer than asked for
and a token to go on with, and who goes on finds the page after read `ahead`.

Should history be compacted away while a long answer is on its way, or the database fail, the connection is
broken off: half a list must not look like a whole one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import compression, encoders, forms, options, snapshots
from roost.api.ahead import LARGEST, Ahead, Page
from roost.api.compression import Gzip
from roost.api.context import ApiContext
from roost.api.forms import JSON as JSON
from roost.api.forms import Form, View
from roost.api.gates import client_of
from roost.api.items import Item, Matcher
from roost.api.options import ListOptions
from roost.api.options import selector_of as selector_of
from roost.api.snapshots import UNCOUNTED, Continue, Key, Scope, Slice, key_of
from roost.api.status import ApiError, not_found
from roost.api.streaming import Streamed
from roost.api.target import Target, number, truth
from roost.api.waiting import reach
from roost.model.codec import Raw
from roost.store.errors import Compacted, FutureRevision
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction

FIRST_ROWS = 250
MOST_ROWS = 2000
SLICE = 1024 * 1024
LARGEST_PAGE = 8 * 1024 * 1024
LONG_ANSWERS = 32


async def get(context: ApiContext, request: Request, target: Target, view: View) -> Response:
    """One resource."""
    query = request.query_params
    form = forms.negotiate(request.headers.get("accept", ""), query)
    await reach(context.store, number(query, "resourceVersion", 0))
    stored = await _find(context.store, view, target)
    if stored is None:
        raise not_found(view.info, target.name)
    body = _presented(encoders.one(view, Item(stored, view), form, context.clock()), form, query)
    if len(body) > compression.THRESHOLD and _takes_gzip(request):
        zipped = await asyncio.to_thread(compression.whole, body)
        return Response(zipped, headers=_ZIPPED, media_type=form.media)
    return Response(body, media_type=form.media)


async def _find(store: Store, view: View, target: Target) -> Stored | None:
    # Of two of one name the one that is shown beside: no client covers an entry of the platform's log.
    for kind in reversed(view.sources):
        found = await store.find(kind, target.namespace, target.name)
        if found is not None:
            return found
    return None


async def list_(context: ApiContext, request: Request, target: Target, view: View, ahead: Ahead) -> Response:
    """Resources of a kind, of one namespace or all, filtered, page by page."""
    query = request.query_params
    form = forms.negotiate(request.headers.get("accept", ""), query)
    matcher = Matcher(selector_of(view.info, query))
    asked = options.for_list(query)
    await reach(context.store, asked.revision)
    pinned = matcher.name if target.namespace or not view.info.namespaced else ""
    scope, zipped = Scope(view.sources, target.namespace, pinned), _takes_gzip(request)

    async def begun(asked: ListOptions) -> tuple[Listing, Page]:
        listing = Listing(view, scope, matcher, asked)
        try:
            first = await context.store.read(
                lambda tx: listing.first(tx, form, context.clock(), zipped=zipped)
            )
        except (Compacted, FutureRevision) as error:
            raise snapshots.Expired(error, asked.start) from error
        return listing, Page(first, listing.zipped, listing.then)

    async def begun_at(start: Continue) -> Page:
        return (await begun(msgspec.structs.replace(asked, start=start)))[1]

    if asked.start is not None and asked.limit:
        page = await _paged(ahead, request, asked.start, begun_at)
        return _whole(page, request, form)
    listing, page = await begun(asked)
    if listing.over:
        return _whole(page, request, form)
    headers = _headers(page, request)
    if request.method == "HEAD":
        return Streamed(_nothing(), headers=headers, media_type=form.media)
    client = client_of(request.scope)
    if _long.on_their_way >= LONG_ANSWERS or _long.of[client] >= max(1, LONG_ANSWERS // 2):
        message = f"{LONG_ANSWERS} long lists are on their way; try again later, or list page by page"
        raise ApiError(429, message, details={"retryAfterSeconds": 2}, headers={"Retry-After": "2"})
    pieces = _pieces(context.store, listing, page.body, client)
    return Streamed(pieces, headers=headers, media_type=form.media)


async def _paged(
    ahead: Ahead, request: Request, start: Continue, read: Callable[[Continue], Coroutine[Any, Any, Page]]
) -> Page:
    """A page that goes on from `start`; the one after it is on its way then."""

    def place(start: Continue) -> Hashable:
        # All that an answer follows from.
        asked = [item for item in request.query_params.multi_items() if item[0] != "continue"]
        heard = tuple(request.headers.get(name, "") for name in ("accept", "accept-encoding"))
        return (request.url.path, *sorted(asked), heard, start)

    page = await ahead.take(place(start)) or await read(start)
    then = page.then
    # The next is likely as large as this one; one that is not kept would be read twice.
    if then is not None and len(page.body) <= LARGEST:
        ahead.begin(place(then), lambda: read(then))
        # Or it would begin when this one is sent, which keeps the loop busy.
        await asyncio.sleep(0)
    return page


def _whole(page: Page, request: Request, form: Form) -> Response:
    body = page.body if page.zipped else _presented(page.body, form, request.query_params)
    return Response(body, headers=_headers(page, request), media_type=form.media)


def _headers(page: Page, request: Request) -> dict[str, str]:
    return _ZIPPED if page.zipped else {"Vary": "Accept-Encoding"} if _takes_gzip(request) else {}


_ZIPPED = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}


def _presented(body: bytes, form: Form, query: Mapping[str, str]) -> bytes:
    """With line ends and indents, for people, when `pretty` asks for it."""
    if form.media == JSON and truth(query, "pretty"):
        return msgspec.json.format(body, indent=2) + b"\n"
    return body


def _takes_gzip(request: Request) -> bool:
    return compression.accepted(request.headers.get("accept-encoding", ""))


async def _nothing() -> AsyncGenerator[bytes, None]:
    yield b""


class _Long:
    """Counts the long answers of this process."""

    on_their_way = 0
    of = Counter[str]()
    """By client: one that reads slowly leaves half to the others."""


_long = _Long()


async def _pieces(store: Store, listing: Listing, first: bytes, client: str) -> AsyncGenerator[bytes, None]:
    """A long answer: while one piece is on its way to the client, the next is read."""
    piece = first
    _long.on_their_way += 1
    _long.of[client] += 1
    try:
        while not listing.over:
            coming = asyncio.ensure_future(store.read(listing.more))
            try:
                if piece:
                    yield piece
                piece = await coming
            finally:
                coming.cancel()
        yield piece
    finally:
        _long.on_their_way -= 1
        _long.of[client] -= 1
        if not _long.of[client]:
            del _long.of[client]


class Listing:
    """One list on its way out. `first`, then `more` until it is `over`; they run in reader threads."""

    def __init__(self, view: View, scope: Scope, matcher: Matcher, asked: ListOptions) -> None:
        self._view, self._scope, self._matcher, self._asked = view, scope, matcher, asked
        self._after: Key | None = None
        self._rows = FIRST_ROWS
        self._revision = 0
        self._gzip: Gzip | None = None
        self._encoder: encoders.ListEncoder
        self.over = False
        self.then: Continue | None = None
        """Where the next page goes on; None when there is none."""

    @property
    def zipped(self) -> bool:
        """Whether the answer is compressed; known after the first piece."""
        return self._gzip is not None

    def first(self, tx: Transaction, form: Form, now: datetime, *, zipped: bool) -> bytes:
        """The first piece, which is the whole answer when it is `over`. Raises Compacted, FutureRevision."""
        asked, start = self._asked, self._asked.start
        self._encoder = encoders.list_encoder(self._view, form, now)
        self._revision = asked.revision if asked.exact else tx.revision
        if start is not None:
            self._after = (start.namespace, start.name)
            self._revision = tx.revision if start.revision < 0 else start.revision
        metadata: Raw = {"resourceVersion": str(self._revision)}
        if asked.limit:
            parts, upto, given = self._page(tx)
            if upto is not None:
                left = self._left(tx, upto, given) if self._matcher.everything else UNCOUNTED
                self.then = Continue(self._revision, *upto, left)
                metadata["continue"] = self.then.token()
                if left != UNCOUNTED:
                    metadata["remainingItemCount"] = left
            self.over = True
        else:
            parts = self._slice(tx)
        whole = b"".join([self._encoder.head(metadata), *parts, self._encoder.tail() if self.over else b""])
        if zipped and (not self.over or len(whole) > compression.THRESHOLD):
            self._gzip = Gzip()
        return self._sent(whole)

    def more(self, tx: Transaction) -> bytes:
        """The next piece. Raises Compacted."""
        parts = self._slice(tx)
        if self.over:
            parts.append(self._encoder.tail())
        return self._sent(b"".join(parts))

    def _sent(self, piece: bytes) -> bytes:
        if self._gzip is None:
            return piece
        return self._gzip.add(piece) + (self._gzip.finish() if self.over else b"")

    def _slice(self, tx: Transaction) -> list[bytes]:
        """Parts of about SLICE bytes, or of one larger resource; `over` when there are no more."""
        parts, size = list[bytes](), 0
        while 2 * size < SLICE and not self.over:
            found = self._read(tx, self._rows)
            self.over = found.upto is None
            if self._matcher.everything:
                more = self._encoder.resources(found.items)
            else:
                looked = (Item(stored, self._view) for stored in found.items)
                more = self._encoder.items([item for item in looked if self._matcher.matches(item)])
            parts += more
            size += sum(map(len, more))
            read = sum([len(stored.data) for stored in found.items])
            self._rows = max(1, min(MOST_ROWS, SLICE * max(1, len(found.items)) // max(1, read)))
        return parts

    def _left(self, tx: Transaction, upto: Key, given: int) -> int:
        """How many there are beyond this page: as many fewer than beyond the one before as it gives."""
        start = self._asked.start
        if start is not None and start.revision == self._revision and start.left > given:
            return start.left - given
        return snapshots.remaining(tx, self._scope, upto)

    def _page(self, tx: Transaction) -> tuple[list[bytes], Key | None, int]:
        """Parts of up to `limit` items, the key to go on after (None at the end), and how many items."""
        if self._matcher.everything:
            return self._plain_page(tx)
        parts, size, given = list[bytes](), 0, 0
        while True:
            found = self._read(tx, self._rows)
            for place, stored in enumerate(found.items):
                item = Item(stored, self._view)
                if self._matcher.matches(item):
                    more = self._encoder.items([item])
                    parts += more
                    size, given = size + sum(map(len, more)), given + 1
                last = place + 1 == len(found.items)
                if (given < self._asked.limit and size < LARGEST_PAGE) or (
                    not last and key_of(found.items[place + 1]) == key_of(stored)
                ):
                    continue
                if last and found.upto is None:
                    return parts, None, given
                return parts, key_of(stored), given
            if found.upto is None:
                return parts, None, given

    def _plain_page(self, tx: Transaction) -> tuple[list[bytes], Key | None, int]:
        """A page of which nothing is left out: as few reads as its size allows, each encoded as one."""
        parts, size, given = list[bytes](), 0, 0
        while True:
            wanted = self._asked.limit - given
            found = self._read(tx, min(MOST_ROWS, wanted + 1), min(LARGEST_PAGE - size, 2 * SLICE))
            items = found.items
            while wanted < len(items) and key_of(items[wanted]) == key_of(items[wanted - 1]):
                wanted += 1
            more = self._encoder.resources(items[:wanted])
            parts += more
            size, given = size + sum(map(len, more)), given + len(items[:wanted])
            if wanted < len(items):
                return parts, key_of(items[wanted - 1]), given
            if found.upto is None:
                return parts, None, given
            if wanted == len(items) or size >= LARGEST_PAGE:
                return parts, found.upto, given

    def _read(self, tx: Transaction, rows: int, size: int = SLICE) -> Slice:
        found = snapshots.read(tx, self._scope, self._revision, self._after, rows, size)
        self._after = found.upto or self._after
        return found
