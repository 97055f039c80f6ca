"""One simulated site on its link: it dials, says hello, tells, takes in what comes, and dials again.

It is what a real site is to its centre, in the words of the link, and nothing else. Its way can be cut, with
a reset or by silence.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from roost.link import messages
from roost.link.errors import LinkError, Refused
from roost.link.greeting import own_hello, their_hello
from roost.link.lower import Backoff
from roost.link.messages import (
    Acknowledge,
    Again,
    AnyMessage,
    CallEnd,
    CallStart,
    Entries,
    Entry,
    Goodbye,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Message,
    Part,
    Refusal,
)
from roost.link.node import subcloud
from roost.link.parts import PART, Collected, lane, parts
from roost.sim.crowd import things
from roost.sim.crowd.stream import Stream

BACKOFF = Backoff()
HELLO_WITHIN = 60.0
FAILURES = (OSError, EOFError, TimeoutError, WebSocketException, LinkError, msgspec.MsgspecError)
FEATURES = ["again", "calls", "parts", "rhythm"]
"""It keeps nothing that could be compared by a digest."""


class Dial(Protocol):
    """How a site gets a connection."""

    def __call__(self, name: str) -> Awaitable[ClientConnection]:
        """A connection with the site's certificate. Raises one of FAILURES."""


class Phase(enum.Enum):
    """Where a site stands."""

    RESTING = "resting"
    DIALLING = "dialling"
    LINKED = "linked"


class Heard:
    """What all sites of a process have heard and done, counted."""

    def __init__(self) -> None:
        self.dialled = self.failed = self.refused = 0
        self.batches = self.entries = self.acknowledged = self.intent = 0
        self.last_failure = ""
        self.on_intent: Callable[[Entry], None] = lambda _: None


class Site:
    """`start` it; `say` changes something; `cut` and `mend` its way; `stop` in the end."""

    def __init__(
        self,
        name: str,
        hosts: int,
        dial: Dial,
        heard: Heard,
        *,
        version: str = "",
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.name, self.hosts = name, hosts
        self.stream = Stream(f"simulated-{name}", lambda: things.base(name, hosts))
        self.phase = Phase.RESTING
        self.cut_off = self._frozen = False
        self._dial, self._heard, self._version, self._backoff = dial, heard, version, backoff
        self._taken: tuple[str, int] = ("", 0)
        self._upper = ""
        self._task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._in_parts = False
        self._collected = Collected()
        self._sending: asyncio.Task[None] | None = None
        self._sequence = 0
        self._every = self._beats_from = 0.0

    # -- life

    def start(self) -> None:
        """Dial, and go on for ever."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End it, as a process that is killed ends."""
        task, self._task = self._task, None
        self._break()
        for one in (task, self._sending):
            if one is not None:
                one.cancel()
                await asyncio.gather(one, return_exceptions=True)
        self.phase = Phase.RESTING

    def cut(self) -> None:
        """Cut its way, with a reset, until `mend`."""
        self.cut_off = True
        self._break()

    def freeze(self) -> None:
        """Let it fall silent: it says and reads nothing more, and its connection stays as it is."""
        self.cut_off = True
        self._frozen = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self._socket is not None:
            self._socket.transport.pause_reading()

    def mend(self) -> None:
        """Mend its way, and dial."""
        self.cut_off = self._frozen = False
        if self._task is None:
            self._break()
        self.start()

    # -- acting

    def say(self, *entries: Entry) -> None:
        """Something has changed there; it is told as soon as may be."""
        for entry in entries:
            self.stream.say(entry)
        self._tell()

    async def beat(self, now: float) -> None:
        """A heartbeat, while it is linked, and takes what it is sent; no sooner than its centre wants one."""
        socket = self._socket
        if self.phase is not Phase.LINKED or socket is None or now < self._beats_from:
            return
        if not socket.transport.get_write_buffer_size():
            self._sequence += 1
            self._beats_from = now + self._every
            try:
                await self._send(Heartbeat(sequence=self._sequence))
            except FAILURES:
                self._break()

    async def utter(self, frame: bytes) -> None:
        """Send this very frame, while it is linked. Raises one of FAILURES."""
        if self.phase is Phase.LINKED and self._socket is not None:
            await self._socket.send(frame)

    # -- inside

    def _break(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abort()

    async def _run(self) -> None:
        failures = 0
        while True:
            if self.cut_off:
                # Whoever mends it starts it anew.
                self._task = None
                return
            wait = 0.0
            try:
                self.phase = Phase.DIALLING
                self._heard.dialled += 1
                self._socket = await self._dial(self.name)
                await self._greet(self._socket)
                failures = 0
                await self._listen(self._socket)
            except Refused as refusal:
                self._heard.refused += 1
                self._heard.last_failure, wait = str(refusal), refusal.retry_after
            except FAILURES as error:
                self._heard.failed += not self.cut_off
                self._heard.last_failure = f"{type(error).__name__}: {error}"[:300]
            finally:
                self.phase = Phase.RESTING
                if not self._frozen:
                    self._break()
            if not self.cut_off:
                failures += 1
                await asyncio.sleep(max(wait, self._backoff.pause(failures)))

    async def _greet(self, socket: ClientConnection) -> None:
        said = own_hello(str(subcloud(self.name)), self.stream.store_id, self._taken, of_host=False)
        said = msgspec.structs.replace(said, features=FEATURES, version=self._version or said.version)
        self._in_parts, self._collected = False, Collected()
        async with asyncio.timeout(HELLO_WITHIN):
            await self._send(said)
            hello: Hello = their_hello(_bytes(await socket.recv(decode=False)))
        self._upper, self._in_parts = hello.store_id, "parts" in hello.features
        self._every = self._beats_from = 0.0
        if self._taken[0] != self._upper:
            self._taken = (self._upper, 0)
        self.stream.begin(hello.taken_store_id, hello.taken_revision)
        self.phase = Phase.LINKED
        self._tell()

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            message = messages.unpack(_bytes(await socket.recv(decode=False)))
            if isinstance(message, Part):
                whole = self._collected.take(message)
                if whole is None:
                    continue
                message = messages.unpack(whole)
            if await self._took(message):
                return

    async def _took(self, message: AnyMessage | None) -> bool:
        """What comes of a message; whether it was the last word."""
        match message:
            case Entries():
                await self._take_in(message)
            case Acknowledge():
                self._heard.acknowledged += 1
                self.stream.acknowledge(message.number)
                self._tell()
            case Again():
                self.stream.again(message.keys)
                self._tell()
            case Heartbeat():
                await self._send(HeartbeatEcho(sequence=message.sequence))
            case HeartbeatEcho():
                self._beats_from += message.every - self._every
                self._every = message.every
            case CallStart():
                await self._send(CallEnd(call=message.call, error="a simulated site answers no calls"))
            case Refusal():
                raise Refused(message.code, message.reason, message.remedy, retry_after=message.retry_after)
            case Goodbye():
                return True
            case _:
                pass
        return False

    async def _take_in(self, batch: Entries) -> None:
        answers = []
        for entry in batch.entries:
            self._heard.intent += 1
            self._heard.on_intent(entry)
            if entry.kind == "FirewallPolicy" and entry.type == "intent":
                told = things.in_force(entry, self.hosts)
                if told is not None:
                    answers.append(told)
        if batch.snapshot in ("none", "end"):
            self._taken = (self._upper, batch.upto)
        await self._send(Acknowledge(number=batch.number, upto=batch.upto))
        if answers:
            self.say(*answers)

    def _tell(self) -> None:
        """Send what is due, unless that is being done."""
        if self.phase is Phase.LINKED and self._sending is None:
            batch = self.stream.due()
            if batch is not None:
                self._sending = asyncio.get_running_loop().create_task(self._send_batch(batch))

    async def _send_batch(self, batch: Entries) -> None:
        try:
            self._heard.batches += 1
            self._heard.entries += len(batch.entries)
            await self._send(batch)
        except FAILURES:
            self._break()
        finally:
            self._sending = None

    async def _send(self, message: Message) -> None:
        socket = self._socket
        if socket is None:
            raise ConnectionResetError("the link is down")
        frame = messages.pack(message)
        if len(frame) <= PART or not self._in_parts:
            await socket.send(frame)
            return
        for part in parts(frame, lane(message)):
            await socket.send(messages.pack_plain(part))


def _bytes(frame: bytes | str) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()
