"""The words of the link, and their bytes.

Messages are msgpack maps with a type; a reader ignores fields and types it does not know, so that
neighbours up to two releases apart talk. A frame is one byte for its packing, then the message:
frames over COMPRESS_FROM bytes are compressed with zstandard. What a frame unpacks to is bounded by
FRAME_LIMIT before it is unpacked. Large frames travel in parts (see `parts`).

Order of a session: each side sends `Hello` (the lower first), then `Entries`, `Acknowledge`, `Again`,
heartbeats and calls in any order; `Refusal` or `Goodbye` is the last word before closing.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec

from roost.link.errors import BadMessage

PROTOCOL = 1
PROTOCOL_MIN = 1
FEATURES = ("again", "calls", "digest", "parts", "rhythm")
FRAME_LIMIT = 8 * 1024 * 1024
COMPRESS_FROM = 1024

EntryType = Literal["intent", "object", "status", "deleted"]
Key = tuple[str, str, str]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of all messages."""


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Who speaks, what it knows, and how far it took the other's stream in."""

    protocol_min: int
    protocol_max: int
    version: str
    node: str
    store_id: str
    taken_store_id: str
    taken_revision: int
    features: list[str] = []
    kinds: list[str] = []
    """Kinds that the speaker knows and that travel; none from who does not say."""
    owned: dict[str, list[str]] = {}
    """By kind, the fields of status that a host of the speaker's version owns."""
    epoch: int = 0
    """Under which a subcloud is owned, as the speaker knows (`rehoming`); 0 of who knows none."""
    moved_to: str = ""
    """Of a subcloud that says this as its last word: the name of its owner now."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One resource, or part of it, as JSON in `data`; empty when it was deleted."""

    type: EntryType
    kind: str
    namespace: str
    name: str
    data: bytes = b""

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)


class Entries(Message, frozen=True, kw_only=True, tag="entries"):
    """A batch of the sender's stream. `number` rises by one per session; after it the stream is at `upto`.

    With `snapshot`, the batches from begin to end together are all there is; only the end moves the
    cursor. A snapshot of one batch is just an end.
    """

    number: int
    entries: list[Entry]
    upto: int
    snapshot: Literal["none", "begin", "middle", "end"] = "none"


class RefusedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that was not taken in, and why."""

    kind: str
    namespace: str
    name: str
    reason: str

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)


class Acknowledge(Message, frozen=True, kw_only=True, tag="acknowledge"):
    """All batches up to `number` are on disk here, but for what was refused of batch `number`."""

    number: int
    upto: int
    refused: list[RefusedEntry] = []


class Again(Message, frozen=True, kw_only=True, tag="again"):
    """What stood against these resources is gone: send them again as they are now."""

    keys: list[Key]


class DigestAsk(Message, frozen=True, kw_only=True, tag="digest-ask"):
    """The receiver of a stream asks its sender for the digest of all that travels, but for `excluded`.

    With `buckets`, for the hashes of the keys in these besides.
    """

    buckets: list[int] = []
    excluded: list[Key] = []


class Digest(Message, frozen=True, kw_only=True, tag="digest"):
    """The sender's answer, true once the receiver has taken in batch `number`. `link.digest` tells of what.

    Not `ready`: the sender is busy telling, or asked too often; it may be asked again later.
    """

    number: int
    ready: bool = True
    sums: list[bytes] = []
    keys: list[tuple[str, str, str, bytes]] = []
    asked: list[int] = []


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent by the lower end. `trouble`: why the sender can't write its store now; empty when it can."""

    sequence: int
    trouble: str = ""


class HeartbeatEcho(Message, frozen=True, kw_only=True, tag="echo"):
    """The upper end's answer to one heartbeat. `trouble` as there.

    `every`: after how many seconds the upper end wants the next one, where both ends know the feature
    `rhythm`; 0 leaves that to the lower end.
    """

    sequence: int
    trouble: str = ""
    every: float = 0.0


class Part(Message, frozen=True, kw_only=True, tag="part"):
    """A piece of a frame that is too large to hold others up; `first` drops what its lane still had."""

    lane: Literal["stream", "calls"]
    data: bytes
    first: bool = False
    last: bool = False


class CallStart(Message, frozen=True, kw_only=True, tag="call"):
    """A request begins; its body of `size` bytes follows in CallBody messages."""

    call: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    caller: str
    groups: list[str]
    size: int
    uid: str = ""
    extra: dict[str, list[str]] = {}
    by: str = ""


class CallAnswer(Message, frozen=True, kw_only=True, tag="answer"):
    """The response begins."""

    call: int
    status: int
    headers: list[tuple[str, str]]


class CallBody(Message, frozen=True, kw_only=True, tag="body"):
    """A piece of the request's or the response's body."""

    call: int
    data: bytes


class CallEnd(Message, frozen=True, kw_only=True, tag="end"):
    """The response is complete, or failed when `error` says so."""

    call: int
    error: str = ""


class CallCancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Whoever asked wants no more of it."""

    call: int


class CallCredit(Message, frozen=True, kw_only=True, tag="credit"):
    """Whoever asked has read so many bytes more of the response."""

    call: int
    size: int


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """The last word before closing: why, and what to do about it."""

    code: str
    reason: str
    remedy: str
    retry_after: float = 0.0
    """Seconds after which it may be worth to come again; 0 leaves that to who was refused."""


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    """An orderly end. `returning`: the lower end dials again at once."""

    reason: str
    returning: bool = False


class EnrolHello(Message, frozen=True, kw_only=True, tag="enrol-hello"):
    """The upper end to whoever wants to enrol: its CA certificate (PEM) and its name."""

    ca: str
    upper: str


class EnrolRequest(Message, frozen=True, kw_only=True, tag="enrol"):
    """The one-time secret and a certificate signing request (PEM)."""

    secret: str
    request: str
    facts: dict[str, str] = {}
    epoch: int = 0
    """The highest under which the node was ever owned."""


class Enrolled(Message, frozen=True, kw_only=True, tag="enrolled"):
    """The node's name and certificate (PEM)."""

    node: str
    certificate: str
    epoch: int = 0
    """Under which the node is owned from now on; 0 where that is not told."""


class RenewalRequest(Message, frozen=True, kw_only=True, tag="renew"):
    """A certificate signing request (PEM) of a node whose certificate is over. Its answer: `Renewed`."""

    request: str


class Renewed(Message, frozen=True, kw_only=True, tag="renewed"):
    """The node's new certificate, and the CA's as it is now (PEM)."""

    certificate: str
    authority: str = ""


Call = CallStart | CallAnswer | CallBody | CallEnd | CallCancel | CallCredit
AnyMessage = (
    Hello
    | Entries
    | Acknowledge
    | Again
    | DigestAsk
    | Digest
    | Heartbeat
    | HeartbeatEcho
    | Part
    | Call
    | Refusal
    | Goodbye
    | EnrolHello
    | EnrolRequest
    | Enrolled
    | RenewalRequest
    | Renewed
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_KNOWN = {kind.__struct_config__.tag for kind in AnyMessage.__args__}


@cache
def _codecs() -> tuple[Any, Any]:
    import zstandard

    return zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()


def pack(message: Message) -> bytes:
    """The frame of a message."""
    plain = _encoder.encode(message)
    if len(plain) < COMPRESS_FROM:
        return b"\0" + plain
    return b"\1" + bytes(_codecs()[0].compress(plain))


def pack_plain(message: Message) -> bytes:
    """The same, of what is packed already."""
    return b"\0" + _encoder.encode(message)


def unpack(frame: bytes) -> AnyMessage | None:
    """The message of a frame; None for a type that only newer versions know. Raises BadMessage."""
    body = _plain(frame)
    try:
        return _known(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadMessage(str(error)) from None


def _known(body: bytes) -> AnyMessage | None:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        raw = msgspec.msgpack.decode(body)
        kind = raw.get("type") if isinstance(raw, dict) else None
        if isinstance(kind, str) and kind not in _KNOWN:
            return None
        raise


def _plain(frame: bytes) -> bytes:
    if len(frame) > FRAME_LIMIT:
        raise BadMessage(f"a frame of {len(frame)} bytes, the limit is {FRAME_LIMIT}")
    packing = frame[:1]
    if packing == b"\0":
        return frame[1:]
    if packing != b"\1":
        raise BadMessage(f"unknown packing {packing.hex() or 'of an empty frame'}")
    return _decompressed(frame[1:])


def _decompressed(data: bytes) -> bytes:
    import zstandard

    try:
        size = zstandard.frame_content_size(data)
        # The size must stand in the header: else memory would be spent before it is known.
        if not 0 <= size <= FRAME_LIMIT:
            raise BadMessage(f"a frame that unpacks to {size} bytes, the limit is {FRAME_LIMIT}")
        return bytes(_codecs()[1].decompress(data))
    except zstandard.ZstdError as error:
        raise BadMessage(f"a frame that does not unpack: {error}") from None
