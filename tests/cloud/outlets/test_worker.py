"""An outlet at work: refusals, floods, history that is gone, neighbours that hang, secrets that change."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop

from roost.cloud.outlets import admission, outlets, worker
from roost.cloud.outlets.trying import attempt
from roost.engine.admission import Refused, Request
from roost.engine.faults import settle
from roost.model.alarms import Fault
from roost.model.cloud import Subcloud
from roost.model.fault import LogEntry
from roost.model.meta import Metadata, condition_is
from roost.model.outlet import ALARM_OUTLET, AlarmOutlet, AlarmOutletSpec, AlarmOutletStatus
from roost.store.store import Store
from tests.cloud.outlets.receivers import CLOUD, Receiver, Site, receiver, site, until
from tests.support.stores import raw

QUICK: dict[str, Any] = {"limits": {"longestPauseSeconds": 1, "timeoutSeconds": 2}}


async def ready(there: Receiver, here: Site, name: str = "noc", **options: Any) -> None:
    """An outlet that has told its first snapshot."""
    await here.declare("webhook", f"http://127.0.0.1:{there.port}/", name, **(QUICK | options))
    await until(lambda: any(m["what"] == "snapshot-end" for m in there.messages))


def names(there: Receiver, what: str = "set") -> list[str]:
    return [m["alarm"]["name"] for m in there.messages if m["what"] == what]


async def status_with(here: Site, state: str) -> AlarmOutletStatus:
    async def found() -> AlarmOutletStatus | None:
        status = await here.status()
        return status if status.state == state else None

    answer: AlarmOutletStatus = await until(found)
    return answer


async def test_a_bad_message_is_passed_over_and_told_and_its_neighbours_arrive(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here)
        # All three at once, then each alone: the second is the bad one.
        there.answers = [(422, {}), (204, {}), (422, {}), (204, {})]
        faults = [
            Fault(alarm_id="100.101", severity="major", entity=f"host=h{n}", reason="x", instance=f"{n}")
            for n in range(3)
        ]
        await here.store.transact(lambda tx: settle(tx, CLOUD, "host.h", faults))
        await until(lambda: len(names(there)) == 2)

        async def refused() -> bool:
            return (await here.status()).refused == 1

        await until(refused)
        entries = await here.store.every(LogEntry)
        assert any(e.status.event == "outlet-refused" and "422" in e.status.text for e in entries)


async def test_a_refusal_of_everything_halts_and_a_new_secret_goes_on_at_once(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.secret(token="old-token-value")
        await ready(there, here, secret="noc", limits={"longestPauseSeconds": 3600})
        there.always = (401, {})
        await here.faults("h1", "100.101")
        status = await status_with(here, "halted")
        assert "401" in status.last_error and "Secret" in status.last_error and status.next_attempt_at
        condition = next(c for c in status.conditions if c.type == "Delivering")
        assert (condition.status, condition.reason) == ("False", "Refused")
        there.always = (204, {})
        await here.secret(token="new-token-value")
        await until(lambda: names(there) == ["host.h1.100.101"])
        assert there.posts[-1][0]["authorization"].endswith("new-token-value")
        text = json.dumps([str(await here.status()), str(await here.store.every(LogEntry))])
        assert "token-value" not in text


async def test_the_receiver_says_when_to_come_again(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here)
        there.answers = [(503, {"Retry-After": "3600"})]
        await here.faults("h1", "100.101")
        status = await status_with(here, "retrying")
        left = datetime.fromisoformat(status.next_attempt_at) - datetime.now(UTC)
        assert 3000 < left.total_seconds() <= 3600


async def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    async with receiver() as slow, receiver() as quick, site(tmp_path) as here:
        await ready(slow, here, "slow")
        await ready(quick, here, "quick")
        slow.silent = True
        for n in range(30):
            await here.faults(f"h{n}", "100.101")
        await until(lambda: len(names(quick)) == 30)
        assert len(set(names(slow))) < 30


async def test_what_history_no_longer_has_is_counted_and_the_picture_is_right_again(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path, history=60) as here:
        await here.faults("stays", "100.101")
        await ready(there, here)
        await here.faults("goes", "100.101")
        await until(lambda: names(there) == ["host.goes.100.101"])
        await there.stop()
        await here.faults("goes")
        for n in range(60):
            await here.faults(f"h{n}", "100.101")
            await here.faults(f"h{n}")
        await here.faults("new", "100.103", severity="critical")
        await there.start()
        await until(lambda: sum(m["what"] == "snapshot-end" for m in there.messages) == 2)
        whats = [m["what"] for m in there.messages]
        told = there.messages[whats.index("missed")]["missed"]
        assert told["number"] > 50 and told["since"] <= told["until"] and told["cleared"] > 20
        assert told["major"] + told["critical"] + told["cleared"] == told["number"]
        begun = len(whats) - 1 - whats[::-1].index("snapshot-begin")
        believed = {m["alarm"]["name"] for m in there.messages[begun:] if m["what"] in ("present", "set")}
        cleared = {m["alarm"]["name"] for m in there.messages[begun:] if m["what"] == "clear"}
        assert {"host.stays.100.101", "host.new.100.103"} <= believed - cleared
        assert "host.goes.100.101" not in believed

        async def shed() -> bool:
            status = await here.status()
            return status.shed == told["number"] and status.missed is not None

        await until(shed)
        entries = await here.store.every(LogEntry)
        assert any(e.status.event == "outlet-missed" for e in entries)


async def test_a_flood_of_one_cause_is_told_together_and_a_snapshot_follows(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here, limits={"perSecond": 5, "burst": 10, "longestPauseSeconds": 1})

        def lose(tx: Any) -> None:
            for n in range(2000):
                fault = Fault(alarm_id="280.001", severity="critical", entity=f"subcloud=s{n}", reason="gone")
                settle(tx, CLOUD, f"subcloud.s{n}", [fault])

        await here.store.transact(lose)
        await until(lambda: sum(m["what"] == "snapshot-end" for m in there.messages) == 2)
        summaries = [m["summary"] for m in there.messages if m["what"] == "summary"]
        assert len(names(there)) < 60 and len(summaries) < 20
        assert len(names(there)) + sum(s["count"] for s in summaries) == 2000
        assert summaries[0]["alarmId"] == "280.001" and summaries[0]["of"] == "set"
        assert len(set(names(there, "present"))) == 2000
        status = await here.status()
        assert status.merged == sum(s["count"] for s in summaries)


async def test_a_centre_tells_of_the_subclouds_that_are_selected(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        for name, region in (("north", "n"), ("south", "s")):
            await here.store.save(Subcloud(metadata=Metadata(name=name, labels={"region": region})))

        async def mirrored(cloud: str, name: str) -> None:
            status = {"alarmId": "100.101", "severity": "major", "entity": f"host={name}", "reason": "x"}
            alarm = raw("Alarm", name, cloud, metadata={"uid": f"{cloud}-{name}"}, spec={}, status=status)
            await here.store.transact(lambda tx: tx.copy(alarm, f"down:subcloud/{cloud}"))

        await mirrored("north", "a1")
        await mirrored("south", "a2")
        await here.faults("own", "100.101")
        await ready(there, here, filter={"subcloudSelector": "region=n"})
        await mirrored("south", "a3")
        await mirrored("north", "a4")
        await until(lambda: names(there) == ["a4"])
        assert names(there, "present") == ["a1"]
        assert {m["cloud"] for m in there.messages if "alarm" in m} == {"north"}


async def test_suspended_it_sends_nothing_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here)
        await here.declare("webhook", f"http://127.0.0.1:{there.port}/", suspended=True, **QUICK)
        await status_with(here, "suspended")
        await here.faults("h1", "100.101")
        await here.rest()
        here.work()
        await here.faults("h2", "100.101")
        assert names(there) == []
        await here.declare("webhook", f"http://127.0.0.1:{there.port}/", **QUICK)
        await until(lambda: names(there) == ["host.h1.100.101", "host.h2.100.101"])


async def test_what_an_outlet_remembers_goes_with_it(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here)
        uid = (await here.store.load(AlarmOutlet, CLOUD, "noc")).metadata.uid
        await here.store.transact(lambda tx: tx.remove(ALARM_OUTLET.kind, CLOUD, "noc"))

        async def forgotten() -> bool:
            return (await here.store.read(lambda tx: tx.cursor(f"outlet:{uid}"))) == ("", 0)

        await until(forgotten)


async def test_a_missing_secret_is_said_and_waited_for(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.declare("webhook", f"http://127.0.0.1:{there.port}/", secret="later", **QUICK)
        status = await status_with(here, "halted")
        assert "there is no Secret later" in status.last_error
        assert not condition_is(status.conditions, "Delivering")
        await here.secret("later", hmac_key="x")
        await until(lambda: any(m["what"] == "snapshot-end" for m in there.messages))


async def test_a_secret_for_something_else_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.secret("database", type="Opaque", token="x")
        await here.secret("half", tls__crt="x")
        for name, word in (("database", "type Opaque"), ("half", "tls.key")):
            spec = AlarmOutletSpec(type="webhook", endpoint="https://noc.example/", secret=name)
            new = AlarmOutlet(metadata=Metadata(name="noc", namespace=CLOUD), spec=spec)
            request = Request(operation="create", info=ALARM_OUTLET, user="ada", new=new)
            (rule,) = admission.rules(CLOUD)[ALARM_OUTLET.kind]
            with pytest.raises(Refused, match=word) as refusal:
                await here.store.read(lambda tx: rule(tx, request))  # noqa: B023
            assert refusal.value.field == "spec.secret" and refusal.value.remedy


async def test_a_test_tells_each_step(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.rest()
        outlet = await here.declare("webhook", f"http://127.0.0.1:{there.port}/")
        clock = lambda: datetime.now(UTC)  # noqa: E731
        steps = await attempt(here.store, outlet, here.vault, clock)
        assert [(s.name, s.ok) for s in steps] == [
            ("credentials", True),
            ("resolve", True),
            ("connect", True),
            ("answer", True),
        ]
        assert there.messages[-1]["what"] == "test"
        there.always = (403, {})
        steps = await attempt(here.store, outlet, here.vault, clock)
        assert not steps[-1].ok and "403" in steps[-1].message and "Secret" in steps[-1].remedy
        await there.stop()
        steps = await attempt(here.store, outlet, here.vault, clock)
        assert (steps[-1].name, steps[-1].ok) == ("connect", False)


def test_it_holds_on_the_loop_of_a_cloud(tmp_path: Path) -> None:
    uvloop.run(test_a_test_tells_each_step(tmp_path))


async def test_what_nobody_foresaw_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "AGAIN", 0.1)
    failing = {"left": 2}
    original = worker.Worker._attempt

    async def attempt_once(self: Any, messages: Any) -> None:
        if failing["left"]:
            failing["left"] -= 1
            raise ZeroDivisionError("secret-of-theirs")
        await original(self, messages)

    monkeypatch.setattr(worker.Worker, "_attempt", attempt_once)
    async with receiver() as there, site(tmp_path) as here:
        await ready(there, here)
        await here.faults("h1", "100.101")
        await until(lambda: names(there) == ["host.h1.100.101"])
    assert isinstance(here.store, Store)
    await asyncio.sleep(0)
