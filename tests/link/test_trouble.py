"""A store that can't be written ends no link: its node says so above, and goes on by itself when it can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from roost.engine.presence import Presence
from roost.engine.troubles import trouble_faults, untold
from roost.link import beating, intake
from roost.link.lower import LowerLink
from roost.model.fault import AlarmStatus
from roost.store import store as stores
from roost.store.errors import Unavailable
from roost.store.store import Store
from tests.link.test_tls import HARBOR, Site, arrives, until
from tests.link.world import find, put, resource

FULL = "database or disk is full (make room)"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(beating, "TROUBLE_FOR", 0.05)
    monkeypatch.setattr(stores, "WELL_AFTER", 0.1)
    monkeypatch.setattr(intake, "TRY_AGAIN", 0.02)
    made = Site(tmp_path)
    yield made
    await made.close()


class Disk:
    """Of one store, which can be full."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        commit = store._writer.commit

        def committed(batch: Any) -> Any:
            if self.full:
                raise Unavailable(FULL)
            return commit(batch)

        monkeypatch.setattr(store._writer, "commit", committed)


def watched(link: LowerLink) -> list[str]:
    """Why the link was lost, each time."""
    lost: list[str] = []
    link.listen(lambda state: None if state.connected else lost.append(state.error))
    return lost


async def test_a_node_whose_disk_is_full_stays_linked_and_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.start()
    link = await site.joined()
    disk, lost = Disk(link._store, monkeypatch), watched(link)
    disk.full = True
    for number in range(12):
        await put(site.store, resource("FirewallPolicy", "harbor", f"p{number}", spec={"networks": ["oam"]}))
    await until(lambda: site.upper.presence(HARBOR).trouble == FULL)
    assert site.upper.presence(HARBOR).connected and not lost
    disk.full = False
    for number in range(12):
        await arrives(link._store, "FirewallPolicy", "harbor", f"p{number}")
    monkeypatch.setattr(stores, "WELL_AFTER", 0.0)
    await link._store.prove()
    await until(lambda: site.upper.presence(HARBOR).trouble == "")
    assert lost == []


async def test_an_upper_cloud_whose_disk_is_full_keeps_its_nodes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.start()
    link = await site.joined()
    disk, lost = Disk(site.store, monkeypatch), watched(link)
    disk.full = True
    await put(link._store, resource("Host", "harbor", "controller-0", spec={}))
    await until(lambda: link._session and link._session.beating.trouble == FULL)
    assert await find(site.store, "Host", "harbor", "controller-0") is None
    disk.full = False
    await arrives(site.store, "Host", "harbor", "controller-0")
    assert lost == []


async def test_a_store_is_well_once_nothing_failed_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'one.db'}")
    try:
        disk = Disk(store, monkeypatch)
        disk.full = True
        with pytest.raises(Unavailable):
            await put(store, resource("Host", "harbor", "controller-0", spec={}))
        assert store.trouble == FULL
        disk.full = False
        await put(store, resource("Host", "harbor", "controller-1", spec={}))
        assert store.trouble == FULL, "a small write may find room in a full file"
        monkeypatch.setattr(stores, "WELL_AFTER", 0.0)
        await store.prove()
        assert store.trouble == ""
    finally:
        await store.close()


def test_the_alarm_follows_what_was_said_last_on_a_link_that_is_up() -> None:
    well, ill = Presence(connected=True), Presence(connected=True, trouble=FULL)
    gone = Presence(connected=False, trouble=FULL)
    assert trouble_faults("host=a", well) == [] == trouble_faults("host=a", gone)
    [fault] = trouble_faults("host=a", ill)
    assert (fault.alarm_id, fault.severity, fault.entity) == ("280.202", "critical", "host=a")
    assert FULL in fault.reason
    mine, other = AlarmStatus(alarm_id="280.202"), AlarmStatus(alarm_id="280.001")
    assert untold(gone)(mine) and not untold(gone)(other) and not untold(ill)(mine)
