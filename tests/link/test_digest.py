"""Silent drift between the two ends: found, named, repaired, whichever end was tampered with."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from roost.link import digest, node
from roost.link.comparing import Pace, Pacing
from roost.link.messages import DigestAsk, Entry
from roost.model.codec import Raw
from roost.store.store import Store
from roost.store.transaction import Stored
from tests.link import world
from tests.link.world import Link, find, put, put_all, resource, run, until, with_link

HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "controller-0")
QUICK = Pacing(first=2, after=5, quiet=20, again=2, unanswered=60, answer_every=0.1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "TIMING", msgspec.structs.replace(world.TIMING, comparing=QUICK))


def policy(name: str, **spec: Any) -> Raw:
    return resource("FirewallPolicy", "harbor", name, spec={"networks": ["oam"], **spec})


def entry(name: str, value: int) -> Raw:
    status = {"sequence": value, "text": f"line {value}"}
    return resource("LogEntry", "harbor", name, status=status)


def tampered(path: Path, statement: str, *values: str) -> None:
    """Change a row behind the product's back."""
    with sqlite3.connect(path, timeout=20) as database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


def counted(link: Link) -> tuple[int, int]:
    """How often each end found that the two agree."""
    assert link.sessions
    lower, upper = (s._comparison.compared if s._comparison else 0 for s in link.sessions)
    return lower, upper


async def told(store: Store) -> list[str]:
    found = await store.read(lambda tx: tx.select("LogEntry"))
    return [s.raw["status"]["text"] for s in found if s.raw["status"].get("event") == "link-drift"]


DIFFERENT = "UPDATE resources SET data = replace(data, ?, ?) WHERE kind = ? AND name = ?"
MISSING = "DELETE FROM resources WHERE kind = ? AND name = ?"
EXTRA = (
    "INSERT INTO resources SELECT kind, namespace, ?, uid, revision, origin, replace(data, ?, ?)"
    " FROM resources WHERE kind = ? AND name = ?"
)
ROWS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "intent differs below": (
        "lower",
        DIFFERENT,
        ("oam", "mgmt", "FirewallPolicy", "web"),
        "FirewallPolicy harbor/web different",
    ),
    "intent lacks below": ("lower", MISSING, ("FirewallPolicy", "web"), "FirewallPolicy harbor/web missing"),
    "intent too much below": (
        "lower",
        EXTRA,
        ("ghost", '"web"', '"ghost"', "FirewallPolicy", "web"),
        "FirewallPolicy harbor/ghost extra",
    ),
    "intent differs above": (
        "upper",
        DIFFERENT,
        ("oam", "mgmt", "FirewallPolicy", "web"),
        "FirewallPolicy harbor/web different",
    ),
    "intent lacks above": ("upper", MISSING, ("FirewallPolicy", "web"), "FirewallPolicy harbor/web extra"),
    "intent too much above": (
        "upper",
        EXTRA,
        ("ghost", '"web"', '"ghost"', "FirewallPolicy", "web"),
        "FirewallPolicy harbor/ghost missing",
    ),
    "observation differs above": (
        "upper",
        DIFFERENT,
        ("line 7", "line 8", "LogEntry", "e7"),
        "LogEntry harbor/e7 different",
    ),
    "observation lacks above": ("upper", MISSING, ("LogEntry", "e7"), "LogEntry harbor/e7 missing"),
    "observation too much above": (
        "upper",
        EXTRA,
        ("e99", '"e7"', '"e99"', "LogEntry", "e7"),
        "LogEntry harbor/e99 extra",
    ),
    "observation differs below": (
        "lower",
        DIFFERENT,
        ("line 7", "line 8", "LogEntry", "e7"),
        "LogEntry harbor/e7 different",
    ),
    "observation lacks below": ("lower", MISSING, ("LogEntry", "e7"), "LogEntry harbor/e7 extra"),
    "observation too much below": (
        "lower",
        EXTRA,
        ("e99", '"e7"', '"e99"', "LogEntry", "e7"),
        "LogEntry harbor/e99 missing",
    ),
    "a status differs above": (
        "upper",
        DIFFERENT,
        ('"hosts":3', '"hosts":4', "FirewallPolicy", "web"),
        "FirewallPolicy harbor/web different",
    ),
    "a status differs below": (
        "lower",
        DIFFERENT,
        ('"hosts":3', '"hosts":4', "FirewallPolicy", "web"),
        "FirewallPolicy harbor/web different",
    ),
}
REPAIRED_ABOVE = ("observation", "a status")
CASES = [
    pytest.param(*row, "upper" if name.startswith(REPAIRED_ABOVE) else "lower", id=name)
    for name, row in ROWS.items()
]


async def repaired(store: Store) -> str:
    """What is told of a repair, once it is."""
    for _ in range(1200):
        if found := await told(store):
            return found[0]
        await asyncio.sleep(0.1)
    raise AssertionError("it was not found")


@pytest.mark.parametrize("end, statement, values, named, repairer", CASES)
def test_a_row_changed_behind_the_back_is_found_named_and_repaired(
    tmp_path: Path, end: str, statement: str, values: tuple[str, ...], named: str, repairer: str
) -> None:
    async def work(link: Link) -> None:
        await put_all(link.upper, [policy(f"p{n}") for n in range(30)] + [policy("web")])
        await put_all(link.lower, [entry(f"e{n}", n) for n in range(30)])
        await link.settle()
        await put(link.lower, resource("FirewallPolicy", "harbor", "web", status={"hosts": 3}))
        await link.settle()
        await until(lambda: min(counted(link)) >= 1, what="both ends agree at first")
        before = link.sessions
        tampered(tmp_path / f"{end}.db", statement, *values)
        with structlog.testing.capture_logs() as logs:
            text = await repaired(link.upper if repairer == "upper" else link.lower)
        assert named in text
        assert [one["count"] for one in logs if one["event"] == "link.drift-repaired"] == [1]
        await link.settle()
        lower, upper = counted(link)
        await until(lambda: counted(link)[0] > lower and counted(link)[1] > upper, what="they agree again")
        assert link.sessions is before and not link.ends

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_host_and_its_cloud_agree_on_what_the_host_owns(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        status = {"administrative": "unlocked", "readings": []}
        await put(link.upper, resource("Host", "harbor", "controller-0", spec={}, status=status))
        await link.settle()
        told = {"inventory": {"hostname": "c0"}, "availability": "made up"}
        await put(link.lower, resource("Host", "harbor", "controller-0", status=told))
        await link.settle()
        await until(lambda: min(counted(link)) >= 1, what="they agree, though one has fields of its own")
        tampered(tmp_path / "upper.db", DIFFERENT, '"c0"', '"c9"', "Host", "controller-0")
        assert "Host harbor/controller-0 different" in await repaired(link.upper)
        above = await find(link.upper, "Host", "harbor", "controller-0")
        assert above and above.raw["status"]["inventory"]["hostname"] == "c0"
        assert above.raw["status"]["administrative"] == "unlocked"

    run(lambda: with_link(tmp_path, HOST, work))


def test_what_was_refused_is_no_drift(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.lower, policy("web"))
        await put(link.upper, policy("web"))
        await link.settle()
        await until(lambda: min(counted(link)) >= 1, what="they agree but for what each refused")
        assert not await told(link.upper) and not await told(link.lower)

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_what_can_not_be_made_alike_is_left_out_and_not_called_drift(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        assert link.sessions
        upper = link.sessions[1]
        honest = upper._takes.taken

        def otherwise(stored: Stored) -> Entry | None:
            """As another version might count."""
            found = honest(stored)
            return found and msgspec.structs.replace(found, data=b"{}")

        upper._takes.taken = otherwise  # type: ignore[method-assign]
        await put_all(link.lower, [entry(f"e{n}", n) for n in range(3)])
        await link.settle()
        await until(lambda: counted(link)[1] >= 1, what="they agree on the rest")
        assert not await told(link.upper)
        assert upper._comparison and len(upper._comparison._not_comparable) == 3

    async def when_up(link: Link) -> None:
        await until(lambda: link.sessions is not None and link.sessions[1].hello is not None)
        await work(link)

    run(lambda: with_link(tmp_path, HARBOR, when_up))


def test_nothing_is_counted_where_nothing_changed(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put_all(link.lower, [entry(f"e{n}", n) for n in range(3)])
        await link.settle()
        await until(lambda: min(counted(link)) >= 1)
        lower, upper = counted(link)
        await asyncio.sleep(QUICK.quiet / 2)
        assert counted(link) == (lower, upper)
        await until(lambda: counted(link) == (lower + 1, upper + 1), what="once in a long while all the same")
        await put(link.lower, entry("e3", 3))
        await until(lambda: counted(link)[1] == upper + 2, within=12, what="soon after a change")
        assert counted(link)[0] == lower + 1

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    honest = digest.read

    async def counting(*given: Any) -> int:
        nonlocal reads
        reads += 1
        return await honest(*given)

    monkeypatch.setattr(digest, "read", counting)

    async def work(link: Link) -> None:
        await link.settle()
        assert link.sessions
        for _ in range(500):
            await link.sessions[0]._send(DigestAsk())
        await asyncio.sleep(1)
        assert 1 <= reads <= 4 and not link.ends

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_counting_takes_its_share_of_a_processor_and_no_more() -> None:
    async def work() -> None:
        pace, loop = Pace(share=0.1), asyncio.get_running_loop()
        began = loop.time()

        async def one() -> None:
            async with pace.turn():
                pace.spent(0.5)

        await asyncio.gather(*(one() for _ in range(11)))
        assert loop.time() - began == pytest.approx(10 * 0.5 * 9, abs=0.1)

    run(work)


NAMES = st.lists(st.tuples(st.text(max_size=5), st.integers()), unique_by=lambda e: e[0], max_size=30)


def of(kept: list[tuple[str, int]], wanted: range = range(0)) -> digest.Content:
    content = digest.Content((), wanted)
    for name, value in kept:
        content.add(Entry(type="object", kind="LogEntry", namespace="a", name=name, data=b"[%d]" % value))
    return content


@given(NAMES, NAMES, st.randoms())
def test_two_ends_differ_by_the_keys_that_differ_in_whatever_order(
    mine: list[tuple[str, int]], theirs: list[tuple[str, int]], chance: random.Random
) -> None:
    shuffled = list(theirs)
    chance.shuffle(shuffled)
    assert of(shuffled).sums == of(theirs).sums
    buckets = digest.differing(of(mine).sums, of(theirs).sums)
    wanted = {name for name, _ in set(mine) ^ set(theirs)}
    assert set(buckets) == {digest.bucket_of(("LogEntry", "a", name)) for name in wanted}
    every = range(digest.BUCKETS)
    found = digest.suspects(of(mine, every).keys, of(theirs, every).hashed())
    assert {key[2] for key in found} == wanted


def test_the_order_of_fields_makes_no_difference() -> None:
    one = Entry(type="object", kind="Host", namespace="a", name="b", data=b'{"x":{"b":1,"a":[2]},"k":null}')
    two = msgspec.structs.replace(one, data=b'{"k":null, "x":{"a":[2],"b":1}}')
    assert digest.fingerprint(one) == digest.fingerprint(two)
    assert digest.fingerprint(one) != digest.fingerprint(msgspec.structs.replace(one, type="status"))
