"""Syslog over TLS: messages of RFC 5424, framed as RFC 5425 says, alarms as RFC 5674 writes them.

Syslog has no answer that says a message arrived. The next best: a send counts when the receiver's kernel has
acknowledged all of it and the connection still stands SETTLE seconds later. What went within TAIL seconds
before a connection broke is sent again on the next one, marked `again`, for a receiver that died may have had
it unread.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import re
import socket
import ssl
import termios
from collections.abc import Sequence

from roost.cloud.outlets.memory import ENTERPRISE
from roost.cloud.outlets.messages import Message
from roost.cloud.outlets.pausing import Failed
from roost.cloud.outlets.sink import Settings
from roost.cloud.outlets.tls import context_of, tls_failure
from roost.model.outlet import address_of

SETTLE = 0.05
TAIL = 5.0
MOST_TAIL = 1000
LOOK = 0.01
LONGEST_TEXT = 4096
_BOM = b"\xef\xbb\xbf"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)

SEVERITIES = {"critical": 1, "major": 2, "minor": 3, "warning": 4}
"""Perceived severity to syslog severity (RFC 5674, table 1); a clear is a notice, all else informational."""
NOTICE, INFORMATIONAL = 5, 6
TYPES = {
    "communication": "communicationsAlarm",
    "qos": "qualityOfServiceAlarm",
    "processing-error": "processingErrorAlarm",
    "equipment": "equipmentAlarm",
    "environmental": "environmentalAlarm",
    "operational-violation": "operationalViolation",
}
"""Alarm types as IANAItuEventType calls them."""


def encode(message: Message, facility: int, app: str = "roost") -> bytes:
    """One syslog message (RFC 5424, 6), without frame."""
    alarm, log = message.alarm, message.log
    severity = INFORMATIONAL
    if message.what == "clear" or message.snapshot is not None:
        severity = NOTICE
    else:
        severity = SEVERITIES.get(message.severity, INFORMATIONAL)
    own = {"id": message.id, "what": message.what, "cloud": message.cloud}
    if message.again:
        own["again"] = "true"
    elements = ""
    if alarm is not None:
        own |= {
            "alarm": alarm.name,
            "alarmId": alarm.alarm_id,
            "entity": alarm.entity,
            "severity": alarm.severity,
            "raisedAt": alarm.raised_at,
            "repair": alarm.repair,
        }
        perceived = "cleared" if message.what == "clear" else alarm.severity
        elements = _element(
            "alarm",
            {
                "resource": alarm.entity,
                "probableCause": _camel(alarm.cause) or "unknown",
                "perceivedSeverity": perceived,
                "eventType": TYPES.get(alarm.type, "other"),
            },
        )
    elif log is not None:
        own |= {"source": log.source, "sequence": str(log.sequence), "event": log.event, "entity": log.entity}
    elif message.summary is not None:
        told = message.summary
        own |= {"of": told.of, "alarmId": told.alarm_id, "event": told.event, "count": str(told.count)}
        own["clouds"] = " ".join(f"{cloud}:{number}" for cloud, number in told.clouds.items())
    elif message.missed is not None:
        lost = message.missed
        own |= {"number": str(lost.number), "since": lost.since, "until": lost.until}
    elif message.snapshot is not None:
        own |= {"snapshot": message.snapshot.id, "count": str(message.snapshot.count)}
    elements += _element(f"roost@{ENTERPRISE}", own)
    head = (
        f"<{facility * 8 + severity}>1 {_time(message.time)} {_name(message.cloud, 255)} {_name(app, 48)} - "
    )
    said = _clean(message.text)
    text = said.encode()
    mark = b"" if said.isascii() else _BOM
    return f"{head}{_name(message.what, 32)} {elements} ".encode() + mark + text


def frame(encoded: bytes) -> bytes:
    """A message as it goes over TLS: its length in octets first (RFC 5425, 4.3)."""
    return str(len(encoded)).encode() + b" " + encoded


def _element(id: str, values: dict[str, str]) -> str:
    told = "".join(f' {name}="{_escaped(value)}"' for name, value in values.items() if value)
    return f"[{id}{told}]"


def _escaped(value: str) -> str:
    # RFC 5424, 6.3.3 escapes these three.
    return re.sub(r'(["\\\]])', r"\\\1", _clean(value))


def _clean(text: str) -> str:
    """Control characters have no place in a line: a receiver that writes lines would write forged ones."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_TEXT])


def _time(stamp: str) -> str:
    """A time as RFC 5424, 6.2.3 writes it. A cloud below may have told anything for one."""
    return stamp if _TIME.fullmatch(stamp) else "-"


def _name(text: str, longest: int) -> str:
    return "".join(c for c in text if 33 <= ord(c) <= 126)[:longest] or "-"


def _camel(words: str) -> str:
    first, *rest = words.split("-")
    return first + "".join(word.capitalize() for word in rest)


class Syslog:
    """One connection to a receiver, made when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._facility = settings.spec.facility
        _, self._host, self._port = address_of(settings.spec.endpoint)
        self._context = context_of(settings.spec.ca_bundle, settings.credentials)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._timeout = settings.spec.limits.timeout_seconds
        self._tail: list[tuple[float, Message]] = []

    async def send(self, messages: Sequence[Message]) -> None:
        """Write, and wait until the receiver's kernel has it."""
        known = {message.id for message in messages}
        again = [] if self._alive() else [m for m in self._recent() if m.id not in known]
        try:
            if not self._alive():
                await self.close()
                await self._connect()
            writer = self._writer
            if writer is None:
                raise ConnectionResetError
            for message in (*again, *messages):
                writer.write(frame(encode(message, self._facility)))
            await writer.drain()
            await self._acknowledged(writer)
        except ssl.SSLError as error:
            await self.close()
            raise tls_failure(error, self._host) from error
        except OSError as error:
            connected = self._writer is not None
            await self.close()
            where = f"{self._host}:{self._port}"
            if connected:
                raise Failed(
                    f"the connection to {where} broke", "see its log", doubtful=True, code="ConnectionLost"
                ) from error
            raise Failed(
                f"{where} can't be reached: {error.strerror or type(error).__name__}",
                "check that it runs, its address and the way there",
            ) from error
        except BaseException:
            # Cut off in the middle of a message: the stream is of no more use.
            if self._writer is not None:
                self._writer.transport.abort()
            raise
        now = asyncio.get_running_loop().time()
        self._tail = [*self._tail, *((now, m) for m in messages)][-MOST_TAIL:]

    def _recent(self) -> list[Message]:
        """What went just before the connection broke, marked."""
        import msgspec

        since = asyncio.get_running_loop().time() - TAIL
        return [msgspec.structs.replace(m, again=True) for at, m in self._tail if at >= since]

    def _alive(self) -> bool:
        if self._writer is None or self._reader is None:
            return False
        return not (self._reader.at_eof() or self._writer.transport.is_closing())

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._context, limit=1024, ssl_shutdown_timeout=1.0
        )
        found: socket.socket | None = self._writer.get_extra_info("socket")
        if found is not None:
            # A receiver that is cut off without a word is noticed by what it does not acknowledge.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._timeout * 1000)

    async def _acknowledged(self, writer: asyncio.StreamWriter) -> None:
        """Wait until nothing is unacknowledged and the connection has stood a moment longer."""
        while unacknowledged(writer) and self._alive():  # noqa: ASYNC110 - no kernel tells of an empty queue
            await asyncio.sleep(LOOK)
        await asyncio.sleep(SETTLE)
        if not self._alive():
            raise ConnectionResetError

    async def close(self) -> None:
        """End the connection with a close_notify, as RFC 5425, 4.4 asks for."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is None:
            return
        writer.close()
        try:
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()


def unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Octets that are not acknowledged by the peer's kernel: in our buffers, and sent (SIOCOUTQ)."""
    found: socket.socket | None = writer.get_extra_info("socket")
    waiting = writer.transport.get_write_buffer_size()
    if found is None or found.fileno() < 0:
        return waiting
    sent = array.array("i", [0])
    fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, sent, True)
    return waiting + sent[0]
