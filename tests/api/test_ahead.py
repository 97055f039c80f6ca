"""Pages read before they are asked for: the same as others, few, and for nobody who may not have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from looptime import LoopTimeProxy

from roost.api import ahead
from roost.api.ahead import Ahead, Page
from roost.api.reading import Listing
from roost.api.snapshots import Continue
from roost.store.store import Store
from tests.api.client import HOSTS, Client, host

THEN = Continue(7, "central", "h001")


def reads(page: Page) -> Callable[[], Coroutine[Any, Any, Page]]:
    async def read() -> Page:
        return page

    return read


def page(text: str) -> Page:
    return Page(text.encode(), zipped=False, then=None)


# -- what is held


async def test_a_page_is_given_once() -> None:
    held = Ahead()
    held.begin("a", reads(page("one")))
    assert await held.take("a") == page("one")
    assert await held.take("a") is None
    held.begin("a", reads(page("one")))
    held.begin("a", reads(page("another")))
    assert await held.take("a") == page("another")


async def test_one_that_is_under_way_is_waited_for() -> None:
    held, go = Ahead(), asyncio.Event()

    async def read() -> Page:
        await go.wait()
        return page("late")

    held.begin("a", read)
    taken = asyncio.ensure_future(held.take("a"))
    await asyncio.sleep(0)
    assert not taken.done()
    go.set()
    assert await taken == page("late")


async def test_one_that_failed_is_read_when_it_is_asked_for() -> None:
    held = Ahead()

    async def read() -> Page:
        raise OSError("the database is away")

    held.begin("a", read)
    assert await held.take("a") is None
    held.begin("a", read)
    await asyncio.sleep(0.01)
    assert await held.take("a") is None


async def test_few_are_held_and_the_oldest_goes_first() -> None:
    held = Ahead()
    for n in range(ahead.MOST + 3):
        held.begin(n, reads(page(str(n))))
    found = [await held.take(n) for n in range(ahead.MOST + 3)]
    assert found == [None] * 3 + [page(str(n)) for n in range(3, ahead.MOST + 3)]


async def test_a_very_large_one_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LARGEST", 3)
    held = Ahead()
    held.begin("fits", reads(page("abc")))
    held.begin("large", reads(page("abcd")))
    await asyncio.sleep(0.01)
    assert await held.take("large") is None
    assert await held.take("fits") == page("abc")


@pytest.mark.looptime
async def test_it_does_not_wait_for_long(looptime: LoopTimeProxy) -> None:
    held = Ahead()
    held.begin("a", reads(page("one")))
    await asyncio.sleep(ahead.KEPT_SECONDS - 0.1)
    held.begin("b", reads(page("two")))
    await asyncio.sleep(0.2)
    assert await held.take("a") is None
    assert await held.take("b") == page("two")
    held.begin("c", reads(page("three")))
    held.close()
    assert await held.take("c") is None


# -- through the API


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Continue | None]:
    """Where each list that was read began."""
    real, found = Listing.first, list[Continue | None]()

    def first(self: Listing, *given: Any, **named: Any) -> bytes:
        found.append(self._asked.start)
        return real(self, *given, **named)

    monkeypatch.setattr(Listing, "first", first)
    return found


async def filled(client: Client) -> None:
    for n in range(9):
        (await client.post(HOSTS, host(f"h{n:03}"))).ok(201)


async def token(client: Client, query: str = "limit=2", start: str = "") -> str:
    body = (await client.get(f"{HOSTS}?{query}&continue={start}")).ok()
    return str(body["metadata"]["continue"])


async def settled() -> None:
    await asyncio.sleep(0.02)


async def test_who_goes_on_finds_the_next_page_read(client: Client, started: list[Continue | None]) -> None:
    await filled(client)
    second = await token(client)
    await settled()
    assert len(started) == 1, "who looks at one page costs no other"
    third = await token(client, start=second)
    await settled()
    assert [start and start.token() for start in started] == [None, second, third]
    fourth = await token(client, start=third)
    await settled()
    assert [start and start.token() for start in started] == [None, second, third, fourth]
    # Again: the page was given, and is read anew, the same to the byte.
    before = (await client.get(f"{HOSTS}?limit=2&continue={fourth}")).body
    assert (await client.get(f"{HOSTS}?limit=2&continue={fourth}")).body == before


async def test_what_is_written_meanwhile_is_in_no_page(client: Client) -> None:
    await filled(client)
    names, at = list[str](), ""
    while True:
        body = (await client.get(f"{HOSTS}?limit=2&continue={at}")).ok()
        await settled()
        names += [i["metadata"]["name"] for i in body["items"]]
        at = body["metadata"].get("continue", "")
        if not at:
            break
        (await client.delete(f"{HOSTS}/h{9 - len(names):03}")).ok()
        (await client.post(HOSTS, host(f"z{len(names):03}"))).ok(201)
    assert names == [f"h{n:03}" for n in range(9)]


async def test_another_question_is_another_page(client: Client) -> None:
    await filled(client)
    third = await token(client, start=await token(client))
    await settled()
    of_three = (await client.get(f"{HOSTS}?limit=3&continue={third}")).ok()
    assert [i["metadata"]["name"] for i in of_three["items"]] == ["h004", "h005", "h006"]
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    shown = (await client.get(f"{HOSTS}?limit=2&continue={third}", accept=table)).ok()
    assert shown["kind"] == "Table" and [r["cells"][0] for r in shown["rows"]] == ["h004", "h005"]
    pretty = await client.get(f"{HOSTS}?limit=2&pretty=true&continue={third}")
    assert pretty.body.startswith(b"{\n") and pretty.ok()["items"]
    for query in ("labelSelector=a%3Db", "fieldSelector=metadata.name%3Dh007"):
        found = (await client.get(f"{HOSTS}?limit=2&{query}&continue={third}")).ok()["items"]
        assert [i["metadata"]["name"] for i in found] == (["h007"] if "h007" in query else [])


async def test_a_page_that_was_read_ahead_is_for_who_may_list(client: Client) -> None:
    await filled(client)
    third = await token(client, start=await token(client))
    await settled()
    stranger = Client(client.app, "mallory", ())
    (await stranger.get(f"{HOSTS}?limit=2&continue={third}")).refused(403)
    assert (await client.reader().get(f"{HOSTS}?limit=2&continue={third}")).ok()["items"]


async def test_a_failure_ahead_is_told_to_who_asks(client: Client, store: Store) -> None:
    await filled(client)
    third = await token(client, start=await token(client))
    await settled()
    await token(client, start=third)
    forged = Continue(store.revision + 100, "central", "h001").token()
    (await client.get(f"{HOSTS}?limit=2&continue={forged}")).refused(410)
