"""The observer on real sockets: who is heard, what is refused, and that its own absence is nobody's fault."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog

from roost.cloud.heartbeat_observer import AWAITED, Observer
from roost.engine.heartbeat import Beat, Registration, new_id, new_secret, seal
from roost.model.heartbeat import Heartbeat

WITHIN = 20.0


class Clock:
    """The machine's clock, and what is added to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.added


class Heard:
    """An observer that looks when told to, and a host's way to it."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.clock = Clock()
        self.changed: list[str] = []
        self.suspected: list[str] = []
        self.link: float | None = None
        self.observer = Observer(
            self.port,
            changed=self.changed.append,
            suspected=self.suspected.append,
            link_heard=lambda _: self.link,
            monotonic=self.clock,
        )
        self.secret = new_secret()
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.out.connect(("127.0.0.1", self.port))

    def register(self, *networks: str, name: str = "h", period: int = 100) -> bytes:
        registration = Registration(
            secret=self.secret, period_milliseconds=period, networks=list(networks) or ["mgmt0"]
        )
        made = self.observer.register(name, registration).id
        self.observer.look()
        return made

    def send(self, id_: bytes, sequence: int, network: str = "mgmt0", secret: bytes = b"") -> bytes:
        datagram = seal(Beat(id_, sequence, 0, network), secret or self.secret)
        self.out.send(datagram)
        return datagram

    def pass_time(self, seconds: float) -> None:
        """Let time pass as if the observer had looked all along."""
        end = self.clock() + seconds
        while self.clock() < end:
            self.clock.added += min(0.1, end - self.clock())
            self.observer.look()

    def states(self, name: str = "h") -> dict[str, str]:
        return {n.network: n.state for n in self.observer(name).networks}

    def close(self) -> None:
        self.observer.stop()
        self.out.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    try:
        yield made
    finally:
        made.close()


def test_beats_make_a_host_alive_and_silence_fails_it(heard: Heard) -> None:
    id_ = heard.register()
    for n in range(1, 20):
        heard.send(id_, n)
        heard.pass_time(0.1)
    assert heard.states() == {"mgmt0": "well"} and heard.observer("h").verdict == "alive"
    heard.pass_time(0.65)
    assert heard.observer("h").verdict == "suspect" and heard.suspected == ["h"]
    heard.pass_time(0.5)
    assert heard.states() == {"mgmt0": "failed"} and heard.observer("h").verdict == "failed"
    assert heard.changed[-1] == "h" and heard.suspected == ["h"]
    assert heard.observer.counters.taken == 19


def test_a_link_that_answers_saves_a_host_whose_datagrams_are_lost(heard: Heard) -> None:
    heard.register()
    heard.pass_time(1.5)
    assert heard.observer("h").verdict == "failed"
    heard.link = heard.clock()
    heard.observer.look()
    assert heard.observer("h").verdict == "alive" and heard.states() == {"mgmt0": "failed"}


def test_a_pause_of_its_own_begins_anew(heard: Heard) -> None:
    id_ = heard.register()
    for n in range(1, 20):
        heard.send(id_, n)
        heard.pass_time(0.1)
    with structlog.testing.capture_logs() as logs:
        heard.clock.added += 30
        heard.observer.look()
        heard.observer.look()
    (said,) = [log for log in logs if log["event"] == "heartbeat.not-judged"]
    assert said["what"] == "it did not look for a while" and said["pauses"] == 1
    assert heard.states() == {"mgmt0": "unknown"} and heard.observer("h").verdict == "unknown"
    assert heard.observer.counters.pauses == 1
    heard.pass_time(0.8)
    assert heard.states() == {"mgmt0": "unknown"}
    heard.send(id_, 500)
    heard.pass_time(0.1)
    assert heard.observer("h").verdict == "alive"
    heard.pass_time(1.2)
    assert heard.observer("h").verdict == "failed", "one that does not return is failed all the same"


def test_what_comes_during_a_pause_is_not_taken_for_now(heard: Heard) -> None:
    id_ = heard.register()
    heard.send(id_, 1)
    heard.clock.added += 30
    heard.observer.look()
    assert heard.observer("h").verdict == "unknown"


def test_what_is_refused_is_counted_and_changes_nothing(heard: Heard) -> None:
    id_ = heard.register()
    taken = heard.send(id_, 5)
    heard.out.send(taken)
    heard.send(id_, 4)
    heard.send(new_id(), 6)
    heard.send(id_, 7, secret=new_secret())
    heard.send(id_, 8, network="unheard-of")
    heard.out.send(b"RHB1" + bytes(500))
    heard.out.send(b"")
    heard.observer.look()
    counters = heard.observer.counters
    assert (counters.taken, counters.repeated, counters.unknown, counters.forged, counters.malformed) == (
        1,
        2,
        2,
        1,
        2,
    )


def test_a_new_registration_makes_the_old_key_worthless(heard: Heard) -> None:
    old = heard.register()
    old_secret, heard.secret = heard.secret, new_secret()
    new = heard.register()
    heard.send(old, 1, secret=old_secret)
    heard.send(new, 1, secret=old_secret)
    heard.observer.look()
    assert heard.observer.counters.taken == 0
    heard.send(new, 1)
    heard.observer.look()
    assert heard.observer.counters.taken == 1


def test_a_host_is_awaited_from_its_link_until_it_registers_or_does_not(heard: Heard) -> None:
    assert not heard.observer("h").awaited
    heard.observer.expect("h")
    assert heard.observer("h").awaited
    heard.clock.added += AWAITED + 1
    assert not heard.observer("h").awaited
    heard.observer.expect("h")
    heard.register()
    assert heard.states() == {"mgmt0": "unknown"}
    heard.observer.withdraw("h")
    assert heard.observer("h").verdict == "none" and not heard.observer("h").awaited


def test_datagrams_that_the_kernel_dropped_are_not_held_against_anybody(heard: Heard) -> None:
    id_ = heard.register()
    for n in range(1, 20):
        heard.send(id_, n)
        heard.pass_time(0.1)
    heard.pass_time(0.8)
    for family in heard.observer._sockets.values():
        family.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    for n in range(100, 400):
        heard.send(new_id(), n)
    heard.observer.look()
    heard.send(id_, 500)
    heard.observer.look()
    assert heard.observer.counters.dropped > 0
    heard.pass_time(0.5)
    assert heard.states() == {"mgmt0": "unknown"}


def test_thresholds_can_change_while_it_runs(heard: Heard) -> None:
    id_ = heard.register()
    heard.send(id_, 1)
    heard.observer.look()
    heard.observer.configure(Heartbeat(minor_after=30, degraded_after=40, failed_after=50))
    heard.pass_time(3.0)
    assert heard.observer("h").verdict == "alive"
    heard.observer.configure(Heartbeat())
    heard.observer.look()
    assert heard.observer("h").verdict == "failed"


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_its_thread_hears_and_ends(heard: Heard) -> None:
    heard.observer.start()
    id_ = heard.observer.register(
        "h", Registration(secret=heard.secret, period_milliseconds=1000, networks=["mgmt0"])
    ).id
    until(lambda: heard.observer._sockets)
    heard.send(id_, 1)
    until(lambda: heard.observer("h").verdict == "alive")
    heard.observer.withdraw("h")
    until(lambda: not heard.observer._sockets)
    heard.observer.stop()
    assert "heartbeats" not in [t.name for t in threading.enumerate() if t is heard.observer._thread]


def test_a_family_that_can_not_be_had_excuses_nobody_of_the_other(heard: Heard) -> None:
    """As on a kernel without IPv6: the port is tried again and again, and the other judged meanwhile."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", heard.port))
        with structlog.testing.capture_logs() as logs:
            heard.register()
            heard.pass_time(1.5)
            assert heard.observer("h").verdict == "failed"
            changed = len(heard.changed)
            heard.pass_time(20)
        assert heard.observer("h").verdict == "failed"
        assert len(heard.changed) == changed, "it came and went with each try to open the port"
        assert len([log for log in logs if log["event"] == "heartbeat.not-listening"]) == 1
    heard.pass_time(6)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sixth, pytest.raises(OSError, match="in use"):
        sixth.bind(("::1", heard.port))
