"""One end of a link was restored from a snapshot: the two stores agree again, without anybody's help."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from roost.store import checking, database, restore, snapshot
from roost.store.transaction import Stored
from tests.link.test_convergence import HARBOR, everything, happened, policy
from tests.link.world import Link, put, put_all, run, with_link


def quiet(*_: object) -> None:
    pass


def take(url: str, file: Path) -> None:
    engine = database.open_engine(url)
    snapshot.write(engine, file, datetime.now(UTC), quiet)
    engine.dispose()


def go_back(url: str, file: Path) -> None:
    engine = database.open_engine(url)
    found = restore.present(engine)
    engine.dispose()
    restore.restore(url, file, found, datetime.now(UTC), quiet)
    engine = database.open_engine(url)
    assert checking.check(engine, "full", quiet).sound
    engine.dispose()


def told(found: dict[tuple[str, str], Stored]) -> dict[tuple[str, str], tuple[object, ...]]:
    """What both ends should say of each resource."""
    return {k: (s.uid, s.raw.get("spec"), s.raw.get("status") or {}) for k, s in found.items()}


def spec(order: int) -> dict[str, object]:
    return {"networks": ["oam"], "order": order}


@pytest.mark.parametrize("end", ["upper", "lower"])
@pytest.mark.parametrize("writes", [1, 40])
def test_both_ends_agree_after_one_was_restored(tmp_path: Path, end: str, writes: int) -> None:
    """`writes`: the restored end soon has as many changes as the lost future had, or fewer."""
    url, file = database.sqlite_url(tmp_path / f"{end}.db"), tmp_path / "a.roost"

    async def before(link: Link) -> None:
        await put(link.upper, policy("web", spec=spec(1)))
        await put_all(link.lower, [happened(n) for n in range(5)])
        await link.settle()
        # A status that was empty would not be told again: what its controllers write is.
        await put(link.lower, policy("web", status={"hosts": 3}))
        await link.settle()

    async def lost(link: Link) -> None:
        await put(link.upper, policy("web", spec=spec(2)))
        await put(link.upper, policy("later", spec=spec(3)))
        await put(link.lower, policy("web", status={"hosts": 7}))
        await put_all(link.lower, [happened(n) for n in range(5, 20)])
        await link.settle()

    async def after(link: Link) -> None:
        await put_all(link.upper, [policy(f"new-{n}", spec=spec(n)) for n in range(writes)])
        await put_all(link.lower, [happened(n) for n in range(100, 100 + writes)])
        await link.settle()
        there, below = await everything(link.upper), await everything(link.lower)
        tells = there if end == "lower" else below
        said = tells["LogEntry", "log.0000000001"].raw["status"]
        assert said["event"] == "link-other-store" and said["severity"] == "warning"
        expected = "gone: 15 LogEntry" if end == "lower" else "FirewallPolicy harbor/later gone"
        assert expected in said["text"], said["text"]
        if end == "lower":
            del there["LogEntry", "log.0000000001"]
        assert told(there) == told(below)
        assert there["FirewallPolicy", "web"].raw["spec"]["order"] == (1 if end == "upper" else 2)
        assert (("FirewallPolicy", "later") in there) == (end == "lower")
        assert ("FirewallPolicy", f"new-{writes - 1}") in below
        assert ("LogEntry", f"harbor-{100 + writes - 1:05}") in there
        assert (("LogEntry", "harbor-00019") in there) == (end == "upper")

    run(lambda: with_link(tmp_path, HARBOR, before))
    take(url, file)
    run(lambda: with_link(tmp_path, HARBOR, lost))
    go_back(url, file)
    run(lambda: with_link(tmp_path, HARBOR, after))


def test_an_entry_that_takes_the_number_of_a_lost_one_is_told_as_new(tmp_path: Path) -> None:
    """A restored source counts on from the snapshot: what follows the log must hear of the new entry."""
    url, file = database.sqlite_url(tmp_path / "lower.db"), tmp_path / "a.roost"

    async def before(link: Link) -> None:
        await put_all(link.lower, [happened(1)])
        await link.settle()

    async def lost(link: Link) -> None:
        await put_all(link.lower, [happened(2)])
        await link.settle()

    async def after(link: Link) -> None:
        at = link.upper.revision
        await put_all(link.lower, [happened(2)])
        await link.settle()
        steps = (await link.upper.changes(at)).changes
        assert [c.type for c in steps if c.name == "harbor-00002"][-2:] == ["DELETED", "ADDED"]

    run(lambda: with_link(tmp_path, HARBOR, before))
    take(url, file)
    run(lambda: with_link(tmp_path, HARBOR, lost))
    go_back(url, file)
    run(lambda: with_link(tmp_path, HARBOR, after))
