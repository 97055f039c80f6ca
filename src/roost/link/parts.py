"""Large messages in parts, so that small ones pass between them: on a narrow link a heartbeat must not wait
behind a megabyte, or the link would be taken for dead by its own load.

A frame over PART bytes goes as several `Part` messages, where the peer's hello names the feature. There are
two lanes, each with one large message under way at a time: what a call carries does not wait for the stream
of resources either. A sender that gave one up in the middle begins the next with `first`, which drops the
rest.

Bounded: a lane collects at most FRAME_LIMIT bytes, and every part brings some.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from roost.link.errors import BadMessage
from roost.link.messages import FRAME_LIMIT, CallBody, CallStart, Message, Part

PART = 8 * 1024
Lane = Literal["stream", "calls"]


def lane(message: Message) -> Lane:
    """Which lane a message takes when it is large."""
    return "calls" if isinstance(message, CallStart | CallBody) else "stream"


def parts(frame: bytes, of: Lane) -> Iterator[Part]:
    """The parts of a frame, in order."""
    for begin in range(0, len(frame), PART):
        end = begin + PART
        yield Part(lane=of, data=frame[begin:end], first=begin == 0, last=end >= len(frame))


class Collected:
    """What came of large messages so far."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, bytearray] = {}

    def take(self, part: Part) -> bytes | None:
        """One more part; the frame when it was the last, else None. Raises BadMessage."""
        if part.first:
            self._lanes[part.lane] = bytearray()
        held = self._lanes.get(part.lane)
        if held is None:
            raise BadMessage("a part of a message whose beginning never came")
        if not part.data or len(held) + len(part.data) > FRAME_LIMIT:
            raise BadMessage(
                f"a part of {len(part.data)} bytes after {len(held)}, the limit is {FRAME_LIMIT}"
            )
        held += part.data
        if not part.last:
            return None
        del self._lanes[part.lane]
        return bytes(held)
