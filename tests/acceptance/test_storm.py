"""Operators work for ten minutes while each process is killed at random moments; then some stand still.

    ROOST_STORM_SECONDS   how long the storm lasts; default 600
    ROOST_STORM_SEED      what the operators do and when something is killed; default: drawn, and printed

The laws are those of the simulation, on real processes, kernels and packets: see docs/simulation.md.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import pytest

from tests.acceptance import bounds, checker
from tests.acceptance.checker import SITES, Key, Raw
from tests.acceptance.doors import PATHS, Door, path
from tests.acceptance.killer import Killer
from tests.acceptance.operator import Operator, make_shared, unlock_all
from tests.acceptance.probing import Prober
from tests.acceptance.running import Demo
from tests.acceptance.typist import Typist
from tests.acceptance.waiting import report, until
from tests.acceptance.watcher import Watcher, judge_stream, state
from tests.acceptance.writes import Asked, Writes, counts, judge

SECONDS = float(os.environ.get("ROOST_STORM_SECONDS", "600"))
SEED = os.environ.get("ROOST_STORM_SEED") or str(secrets.randbelow(10**6))
STOPPED_SECONDS = 60.0
CLOUDS = ("central", *SITES)
SETTLED_WITHIN = 420.0
SHARED_KINDS = ("ConfigMap", "FirewallPolicy", "Host", "LogEntry")
WATCHED = {
    "central": (*SHARED_KINDS, "Subcloud", "Operation"),
    **dict.fromkeys(SITES, (*SHARED_KINDS, "PlatformNetwork", "Operation")),
}


class Worker(Protocol):
    """A thread that works until it is asked to stop."""

    def start(self) -> None: ...
    def ask_to_stop(self) -> None: ...
    def join(self) -> None: ...


@pytest.fixture(scope="module")
def writes(demo: Demo) -> Writes:
    """All writes of this module; a demo that is well, with what is shared between operators."""
    report(f"seed {SEED}; again with ROOST_STORM_SEED={SEED}")
    checker.converge(demo)
    made = Writes()
    make_shared(demo, made, CLOUDS)
    checker.converge(demo)
    return made


@pytest.fixture(scope="module")
def watchers(demo: Demo, writes: Writes) -> Iterator[list[Watcher]]:
    """Watches that live from before the storm to the end of all tests."""
    made = [Watcher(demo, cloud, kind, SEED) for cloud in CLOUDS for kind in WATCHED[cloud]]
    made.append(Watcher(demo, "valley", "FirewallPolicy", SEED, through=True))
    made.append(Watcher(demo, "ridge", "Host", SEED, through=True))
    for one in made:
        one.start()
    until("every watch has begun", lambda: _begun(made), 60)
    yield made
    for one in made:
        one.ask_to_stop()
    for one in made:
        one.join()


def _begun(watchers: Sequence[Watcher]) -> None:
    late = [w.stream.name for w in watchers if not w.stream.requests]
    assert not late, late


def operators(demo: Demo, writes: Writes, phase: str, begun: Callable[[str, str], None]) -> list[Operator]:
    """Two at the centre, one at ridge and one who works there from afar, and one for each other site."""
    seed = f"{SEED}/{phase}"
    return [
        Operator(demo, writes, "central", seed),
        Operator(demo, writes, "central", seed, name="central-too"),
        Operator(demo, writes, "ridge", seed, begun=begun),
        Operator(demo, writes, "ridge", seed, through=True, begun=begun),
        Operator(demo, writes, "valley", seed, begun=begun),
        Operator(demo, writes, "harbor", seed, through=True, begun=begun),
    ]


def at_rest(demo: Demo, writes: Writes, watchers: Sequence[Watcher], within: float = SETTLED_WITHIN) -> None:
    """Everything converges; every write is where it must be; every watcher was told all, in order."""
    checker.converge(demo, within)
    until("every watch has told everything", lambda: _told(demo, watchers), 90)
    found = list(writes.problems)
    for cloud in CLOUDS:
        found += judge(writes.all, cloud, _listed(demo, cloud, PATHS))
    for one in watchers:
        found += judge_stream(one.stream, writes.all)
    assert not found, f"seed {SEED}: {len(found)} laws broken:\n" + "\n".join(found[:40])


def _listed(demo: Demo, cloud: str, kinds: Sequence[str] | dict[str, tuple[str, str]]) -> dict[Key, Raw]:
    """Every object of these kinds at a cloud, by its own API."""
    found: dict[Key, Raw] = {}
    failed: list[str] = []

    def look() -> None:
        door = Door(demo, cloud)
        for kind in kinds:
            reply = door.read(path(kind))
            if reply.said != "accepted":
                failed.append(f"{kind} of {cloud} can't be listed: {reply.why}")
            for item in reply.body.get("items", []):
                meta = item["metadata"]
                found[kind, meta.get("namespace", ""), meta["name"]] = {**item, "kind": kind}
        door.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(120)
    assert not failed and found, failed
    return found


def _told(demo: Demo, watchers: Sequence[Watcher]) -> None:
    """What each watcher knows is what there is, to the revision."""
    behind = []
    for cloud in CLOUDS:
        mine = [w.stream for w in watchers if w.stream.cloud == cloud]
        listed = _listed(demo, cloud, sorted({s.kind for s in mine}))
        for stream in mine:
            there = {
                k: int(v["metadata"]["resourceVersion"]) for k, v in listed.items() if k[0] == stream.kind
            }
            known = state(stream)
            # Observations move on all the time: what it knows may be newer than the list, never older.
            missing = {k for k, r in there.items() if known.get(k, 0) < r}
            if missing or known.keys() - there.keys():
                behind.append((stream.name, sorted(missing)[:3], sorted(known.keys() - there.keys())[:3]))
    assert not behind, behind


# The storm


@pytest.mark.timeout(SECONDS + 1200)
def test_ten_minutes_of_work_while_every_process_is_killed_again_and_again(
    demo: Demo, writes: Writes, watchers: list[Watcher]
) -> None:
    before = bounds.held(demo)
    killer = Killer(demo, SEED)
    prober, typist = Prober(demo, lambda: killer.now), Typist(demo, writes, SEED)
    people = operators(demo, writes, "storm", killer.begun)
    everybody: list[Worker] = [prober, typist, killer, *people]
    for one in everybody:
        one.start()
    _wait(SECONDS)
    for one in everybody:
        one.ask_to_stop()
    for one in everybody:
        one.join()
    stilled = time.monotonic()
    unlock_all(demo, writes)
    try:
        at_rest(demo, writes, watchers)
        report(f"all was well {time.monotonic() - stilled:.0f} s after the storm")
    finally:
        _account(writes, watchers, killer, prober, typist, people)
    after = bounds.held(demo)
    for line in bounds.table(before, after):
        report(line)
    found = killer.judge(_reboots_asked(writes.all)) + prober.problems + bounds.excess(before, after)
    assert not found, f"seed {SEED}:\n" + "\n".join(found[:40])
    least = max(1, int(SECONDS / 120))
    spared = [name for name in killer.names if killer.kills[name] < least]
    assert not spared, f"killed less than {least} times: {spared}"
    assert prober.while_dead.total() > 0, "no host was probed while its process was dead"


def _wait(seconds: float) -> None:
    """The storm itself lasts; nothing is proven by it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))


def _reboots_asked(asked: Sequence[Asked]) -> Counter[str]:
    """How often each process may have restarted because somebody ordered it."""
    found: Counter[str] = Counter()
    for one in asked:
        if one.key[0] == "Operation" and counts(one) and one.key[2].startswith("restart-"):
            found[f"{one.cloud}-{one.key[2].removeprefix('restart-').rpartition('-')[0]}"] += 1
    return found


def _account(
    writes: Writes,
    watchers: Sequence[Watcher],
    killer: Killer,
    prober: Prober,
    typist: Typist,
    people: Sequence[Operator],
) -> None:
    """What happened, for information."""
    streams = [w.stream for w in watchers]
    lines = [
        *writes.table(),
        *killer.table(),
        f"two killed at once: {killer.at_once}",
        f"watches: {len(streams)}, {sum(len(s.events) for s in streams)} events, "
        f"{sum(s.requests for s in streams)} requests, {sum(s.broken for s in streams)} of them broken, "
        f"{sum(s.bookmarks for s in streams)} bookmarks, {sum(len(s.relists) for s in streams)} lists anew",
        f"probes: {prober.probes}, {prober.while_dead.total()} while the host's process was not ready, "
        f"{len(prober.problems)} against the rules",
        f"commands typed: {typist.acts}, {typist.failed} failed, the longest took {typist.longest:.1f} s",
        "longest without an answer: " + ", ".join(f"{p.name} {p.longest_silence:.1f} s" for p in people),
    ]
    for line in lines:
        report(line)


# Standing still

OF_SILENCE = ("200.004", "200.005", "200.009", "200.202", "200.203")


def _incarnations(demo: Demo) -> dict[str, str]:
    hosts = demo.kubectl("get", "hosts", "-A", "-o", "json").json()["items"]
    return {
        f"{h['metadata']['namespace']}/{h['metadata']['name']}": h["status"]["agent"]["incarnation"]
        for h in hosts
    }


def _log(demo: Demo, cloud: str) -> dict[int, Raw]:
    """A cloud's own log, by the numbers of its entries."""
    answer = demo.local(cloud, "get", "log", "-o", "json") if cloud in SITES else None
    answer = answer or demo.kubectl("-n", cloud, "get", "log", "-o", "json")
    return {e["status"]["sequence"]: e["status"] for e in answer.json()["items"]}


class Standstill:
    """Processes that stand where they are for a minute, while people work elsewhere."""

    def __init__(
        self, demo: Demo, writes: Writes, stopped: Sequence[str], people: Sequence[Operator]
    ) -> None:
        self._demo, self._writes, self._stopped = demo, writes, stopped
        self.prober = Prober(demo, demo.processes)
        self._workers: list[Worker] = [self.prober, *people]
        self._pids = {name: one["pid"] for name, one in demo.processes().items()}
        self._incarnations = _incarnations(demo)
        self._accepted = self._count()
        self._asked = len(writes.all)

    def _count(self) -> int:
        return sum(a.said == "accepted" for a in self._writes.all)

    def __enter__(self) -> Standstill:
        for name in self._stopped:
            self._demo.verb("pause", name)
        self._begun = time.monotonic()
        for one in self._workers:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        """What has to be seen meanwhile is done inside; the rest of the minute passes here."""
        _wait(STOPPED_SECONDS - (time.monotonic() - self._begun))
        lasted = time.monotonic() - self._begun
        for name in self._stopped:
            self._demo.verb("resume", name)
        for one in self._workers:
            one.ask_to_stop()
        for one in self._workers:
            one.join()
        accepted = self._count() - self._accepted
        report(
            f"{' and '.join(self._stopped)} stood still for {lasted:.1f} s; {accepted} writes were accepted"
        )

    def judge(self) -> list[str]:
        """Nobody was restarted by it, unless an operator ordered it meanwhile, and the rules held."""
        ordered = _reboots_asked(self._writes.all[self._asked :])
        pids = {name: one["pid"] for name, one in self._demo.processes().items()}
        others = [name for name, pid in pids.items() if pid != self._pids[name]]
        found = [f"{name} is another process" for name in others if name not in ordered]
        again = _incarnations(self._demo)
        agents = [host for host, i in again.items() if i != self._incarnations[host]]
        found += [
            f"the agent of {host} is another" for host in agents if host.replace("/", "-") not in ordered
        ]
        assert self._count() > self._accepted, "nobody could work meanwhile"
        return found + self.prober.problems


@pytest.mark.timeout(900)
def test_a_controller_and_an_agent_stand_still_for_a_minute(
    demo: Demo, writes: Writes, watchers: list[Watcher]
) -> None:
    """Who is stopped is missed; when it goes on, it does not take its own pause for that of others."""
    before, names = _log(demo, "ridge"), {"valley": ("controller-1",)}
    people = [
        Operator(demo, writes, "central", f"{SEED}/stop", lockable={}),
        Operator(demo, writes, "valley", f"{SEED}/stop", lockable=names),
        Operator(demo, writes, "harbor", f"{SEED}/stop", through=True, lockable={}),
    ]
    with Standstill(demo, writes, ("ridge-controller-0", "valley-worker-0"), people) as still:
        until("the site misses its host, and the centre knows", lambda: _missed(demo), 50)
        until("the centre misses the site", lambda: _availability(demo, "ridge", "offline"), 50)
    at_rest(demo, writes, watchers)
    assert not (found := still.judge()), found
    since = [entry for n, entry in _log(demo, "ridge").items() if n not in before]
    false = [e["text"] for e in since if e["event"] == "alarm-set" and e["alarmId"] in OF_SILENCE]
    assert not false, f"ridge's controller stood still itself, and said: {false}"


def _missed(demo: Demo) -> None:
    for where, answer in (
        ("the site", demo.local("valley", "get", "alarms", "-o", "json")),
        ("the centre", demo.kubectl("-n", "valley", "get", "alarms", "-o", "json")),
    ):
        raised = [(a["status"]["alarmId"], a["status"]["entity"]) for a in answer.json()["items"]]
        for alarm in ("200.004", "200.005"):
            assert (alarm, "host=worker-0") in raised, f"{where} shows {raised}"
    host = demo.kubectl("-n", "valley", "get", "host", "worker-0", "-o", "json").json()["status"]
    assert (host["operational"], host["availability"]) == ("disabled", "failed"), host


def _availability(demo: Demo, site: str, wanted: str) -> None:
    status = demo.kubectl("get", "subcloud", site, "-o", "json").json()["status"]
    assert status["availability"] == wanted, status


@pytest.mark.timeout(900)
def test_the_centre_stands_still_for_a_minute(demo: Demo, writes: Writes, watchers: list[Watcher]) -> None:
    """Sites go on and know that they are alone; the centre, awake again, blames no site for its own pause."""
    before = _log(demo, "central")
    people = [Operator(demo, writes, site, f"{SEED}/stop-centre", lockable={}) for site in SITES]
    with Standstill(demo, writes, ("centre",), people) as still:
        for site in SITES:
            until(f"{site} knows that it is alone", partial(_alone, demo, site), 50)
    at_rest(demo, writes, watchers)
    assert not (found := still.judge()), found
    since = [entry for n, entry in _log(demo, "central").items() if n not in before]
    false = [e["text"] for e in since if e["event"] == "alarm-set" or "is offline" in e["text"]]
    assert not false, f"the centre stood still itself, and said: {false}"


def _alone(demo: Demo, site: str) -> None:
    status = demo.local(site, "get", "cloud", site, "-o", "json").json()["status"]
    assert status["upperConnected"] is False, status
