"""The simulated network behaves as TCP does under cuts, resets, crashes and slow lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.link import messages
from roost.link.errors import ConnectionLost
from roost.link.messages import Hello
from roost.link.node import subcloud
from roost.link.wire import Connection
from roost.sim.deterministic.loop import Process, SimulatedLoop
from roost.sim.deterministic.network import DIAL_WITHIN, WINDOW, Conditions, Link, Network, Skew, Station


class Wire:
    """A lower and an upper station with a link between them, on a loop of its own."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.lower, self.upper = Station("lower"), Station("upper")
        self.network = Network(self.loop, Random(seed))
        self.link: Link = self.network.join("lower", subcloud("lower"), self.lower, self.upper)
        self.accepted: asyncio.Queue[Connection] = asyncio.Queue()
        self.lower.process = Process("lower")
        self.listen()

    def listen(self) -> None:
        """A process at the upper station takes connections."""
        self.upper.process = Process("upper")
        self.upper.accept = lambda _, connection: self.accepted.put_nowait(connection)

    async def connected(self) -> tuple[Connection, Connection]:
        """Both ends of a new connection."""
        lower = await self.link.dial()
        return lower, await self.accepted.get()

    def die(self, station: Station, *, silent: bool) -> None:
        """The process at a station dies."""
        process = station.process
        assert process is not None
        process.kill()
        self.network.died(station, process, silent=silent)
        station.process = station.accept = None

    @property
    def now(self) -> float:
        return self.loop.time()


def wired(work: Callable[[Wire], Awaitable[None]], seed: int = 1) -> None:
    """Run something on a wire."""
    loop = SimulatedLoop()

    async def all_of_it() -> None:
        await work(Wire(seed))

    try:
        loop.run_until_complete(all_of_it())
        assert loop.problems == []
    finally:
        loop.dispose()


async def all_of(connection: Connection) -> tuple[list[bytes], str]:
    """What still comes, and how it ends."""
    frames = []
    while True:
        try:
            frames.append(await connection.receive())
        except ConnectionLost as error:
            return frames, str(error)


def test_frames_come_in_order_and_late() -> None:
    async def work(wire: Wire) -> None:
        wire.link.conditions["up"] = Conditions(delay=0.3, jitter=1.0, loss=0.3)
        lower, upper = await wire.connected()
        sent = [b"%d" % n for n in range(50)]
        began = wire.now
        for frame in sent:
            await lower.send(frame)
        assert [await upper.receive() for _ in sent] == sent
        assert wire.now - began > 0.3
        assert upper.peer.node == subcloud("lower")

    wired(work)


def test_large_frames_take_the_time_that_the_line_has_for_them() -> None:
    async def work(wire: Wire) -> None:
        wire.link.conditions["up"] = Conditions(rate=1000.0, jitter=0.0, loss=0.0)
        lower, upper = await wire.connected()
        began = wire.now
        await lower.send(bytes(5000))
        await upper.receive()
        assert 5.0 < wire.now - began < 5.2

    wired(work)


def test_a_cut_holds_frames_and_a_mend_brings_them_with_a_retransmission() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        wire.link.cut("up")
        await lower.send(b"late")
        await upper.send(b"the other way is open")
        assert await lower.receive() == b"the other way is open"
        task = asyncio.create_task(upper.receive())
        await asyncio.sleep(20)
        assert not task.done()
        mended = wire.now
        wire.link.mend()
        assert await task == b"late"
        assert wire.now - mended < 21
        assert wire.link.whole

    wired(work)


def test_without_acknowledgements_a_sender_fills_its_window_and_waits() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        wire.link.cut("down")

        async def send() -> int:
            for number in range(WINDOW + 5):
                await lower.send(b"%d" % number)
            return WINDOW + 5

        async def take() -> None:
            for _ in range(WINDOW + 5):
                await upper.receive()

        sending, taking = asyncio.create_task(send()), asyncio.create_task(take())
        await asyncio.sleep(30)
        assert not sending.done() and not taking.done()
        wire.link.mend()
        await taking
        assert await sending == WINDOW + 5

    wired(work)


@pytest.mark.parametrize("way", ["up", "down"])
def test_dialling_needs_both_directions_and_gives_up(way: str) -> None:
    async def work(wire: Wire) -> None:
        wire.link.cut(way)  # type: ignore[arg-type]
        began = wire.now
        with pytest.raises(ConnectionLost, match="did not answer within"):
            await wire.link.dial()
        assert wire.now - began == DIAL_WITHIN
        wire.link.mend()
        lower, upper = await wire.connected()
        await lower.send(b"x")
        assert await upper.receive() == b"x"

    wired(work)


def test_dialling_is_refused_where_nobody_listens_and_ignored_where_nothing_is() -> None:
    async def work(wire: Wire) -> None:
        wire.die(wire.upper, silent=False)
        began = wire.now
        with pytest.raises(ConnectionLost, match="refused"):
            await wire.link.dial()
        assert wire.now - began < 1
        wire.upper.powered = False
        with pytest.raises(ConnectionLost, match="did not answer"):
            await wire.link.dial()

    wired(work)


def test_a_probe_shows_that_the_way_is_open_and_disturbs_nobody() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        await wire.link.probe()
        await lower.send(b"x")
        assert await upper.receive() == b"x"
        assert wire.accepted.empty()
        wire.link.cut("down")
        with pytest.raises(ConnectionLost, match="did not answer"):
            await wire.link.probe()

    wired(work)


def test_when_the_last_answer_is_lost_the_upper_end_has_a_connection_that_nobody_knows_of() -> None:
    async def work(wire: Wire) -> None:
        accepted: list[Connection] = []

        def accept(_: object, connection: Connection) -> None:
            wire.link.cut("down")
            accepted.append(connection)

        wire.link.conditions["down"] = Conditions(delay=0.2)
        wire.upper.accept = accept
        with pytest.raises(ConnectionLost, match="did not answer"):
            await wire.link.dial()
        assert len(accepted) == 1
        wire.link.mend()
        await accepted[0].send(b"are you there")
        frames, why = await all_of(accepted[0])
        assert (frames, why) == ([], "the connection was given up")

    wired(work)


def test_a_good_end_lets_everything_arrive_first() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        for number in range(5):
            await lower.send(b"%d" % number)
        await lower.close()
        frames, why = await all_of(upper)
        assert frames == [b"0", b"1", b"2", b"3", b"4"]
        assert why == "the peer closed the connection"
        with pytest.raises(ConnectionLost):
            await upper.send(b"x")
        with pytest.raises(ConnectionLost):
            await lower.receive()

    wired(work)


def test_closing_towards_a_cut_waits_a_little_and_no_longer() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        wire.link.cut("up", "down")
        began = wire.now
        await lower.close()
        assert 1 < wire.now - began < 5
        await upper.send(b"x")
        wire.link.mend()
        frames, _ = await all_of(upper)
        assert frames == []

    wired(work)


def test_a_reset_on_the_way_ends_both_and_loses_what_is_under_way() -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        await lower.send(b"lost")
        wire.link.break_all()
        await lower.send(b"lost as well")
        assert await all_of(upper) == ([], "the connection was reset on its way")
        assert (await all_of(lower))[0] == []

    wired(work)


@pytest.mark.parametrize("seed", range(8))
def test_the_peer_of_a_process_that_died_is_told_soon(seed: int) -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        await upper.send(b"before")
        wire.die(wire.upper, silent=False)
        began = wire.now
        frames, _ = await all_of(lower)
        assert frames in ([], [b"before"])
        assert wire.now - began < 2

    wired(work, seed)


def test_the_peer_of_a_machine_without_power_learns_it_when_that_is_up_and_it_speaks() -> None:
    async def work(wire: Wire) -> None:
        lower, _ = await wire.connected()
        wire.die(wire.upper, silent=True)
        await lower.send(b"is anybody there")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await lower.receive()
        wire.network.powered(wire.upper)
        wire.listen()
        began = wire.now
        assert (await all_of(lower))[0] == []
        assert wire.now - began < 5, "its word is sent again and again, and now answered by a reset"

    wired(work)


def test_who_says_nothing_to_a_machine_that_was_off_is_never_told() -> None:
    async def work(wire: Wire) -> None:
        lower, _ = await wire.connected()
        wire.die(wire.upper, silent=True)
        wire.network.powered(wire.upper)
        wire.listen()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await lower.receive()

    wired(work)


def test_an_old_connection_still_brings_frames_while_a_new_one_is_there() -> None:
    async def work(wire: Wire) -> None:
        old, old_upper = await wire.connected()
        wire.link.conditions["up"] = Conditions(delay=5.0, jitter=0.0, loss=0.0)
        await old.send(b"old")
        wire.link.conditions["up"] = Conditions()
        new, new_upper = await wire.connected()
        await new.send(b"new")
        assert await new_upper.receive() == b"new"
        assert await old_upper.receive() == b"old"

    wired(work)


def test_a_hello_may_say_less_than_is_there_and_nothing_else_is_changed() -> None:
    async def work(wire: Wire) -> None:
        hello = Hello(
            protocol_min=1,
            protocol_max=1,
            version="2.0",
            node="subcloud/lower",
            store_id="s",
            taken_store_id="",
            taken_revision=0,
            features=["again", "calls"],
        )
        wire.lower.skew = Skew(version="1.0", without=frozenset({"again"}))
        lower, upper = await wire.connected()
        await lower.send(messages.pack(hello))
        await lower.send(b"\0other")
        said = messages.unpack(await upper.receive())
        assert isinstance(said, Hello)
        assert (said.version, said.features, said.store_id) == ("1.0", ["calls"], "s")
        assert await upper.receive() == b"\0other"

    wired(work)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 20)),
        st.tuples(st.just("cut"), st.sampled_from(["up", "down"])),
        st.tuples(st.just("mend"), st.none()),
        st.tuples(st.just("wait"), st.floats(0.001, 30.0)),
        st.tuples(st.just("reset"), st.none()),
        st.tuples(st.just("die"), st.booleans()),
        st.tuples(st.just("power"), st.none()),
    ),
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_whatever_happens_what_arrives_is_the_beginning_of_what_was_sent(
    steps: list[tuple[str, object]], seed: int
) -> None:
    async def work(wire: Wire) -> None:
        lower, upper = await wire.connected()
        sent, arrived = list[bytes](), list[bytes]()

        async def take() -> None:
            while True:
                arrived.append(await upper.receive())

        async def send(number: int) -> None:
            for _ in range(number):
                frame = b"%d" % len(sent)
                sent.append(frame)
                async with asyncio.timeout(5):
                    await lower.send(frame)

        taking = asyncio.create_task(take())
        for step, argument in steps:
            match step, argument:
                case "send", int():
                    try:
                        await send(argument)
                    except (ConnectionLost, TimeoutError):
                        sent.pop()
                case "cut", str():
                    wire.link.cut(argument)  # type: ignore[arg-type]
                case "mend", _:
                    wire.link.mend()
                case "wait", float():
                    await asyncio.sleep(argument)
                case "reset", _:
                    wire.link.break_all()
                case "die", bool() if wire.lower.process is not None:
                    wire.die(wire.lower, silent=argument)
                case "power", _:
                    wire.network.powered(wire.lower)
            assert arrived == sent[: len(arrived)]
        wire.link.mend()
        await asyncio.sleep(100)
        assert arrived == sent[: len(arrived)]
        if not {s for s, _ in steps} & {"reset", "die"}:
            assert arrived == sent, "nothing is lost on a connection that lives"
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    wired(work, seed)
