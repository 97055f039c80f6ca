"""What people do to suppressions is told, and what may not be suppressed is refused in words."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from roost.cloud.suppressing import rules
from roost.engine.admission import Refused, Request
from roost.model import time
from roost.model.fault import LogEntry
from roost.model.meta import Metadata
from roost.model.suppression import ALARM_SUPPRESSION, AlarmSuppression, AlarmSuppressionSpec
from tests.cloud.site import Site, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD


def suppression(s: Site, name: str, seconds: float, alarm: str = "100.103") -> AlarmSuppression:
    until = time.stamp(s.clock() + timedelta(seconds=seconds))
    spec = AlarmSuppressionSpec(alarm_ids=[alarm], reason="works", until=until, by="eve")
    return AlarmSuppression(metadata=Metadata(name=name, namespace=CLOUD), spec=spec)


async def admit(s: Site, request: Request) -> None:
    found = rules(CLOUD)[ALARM_SUPPRESSION.kind]
    await s.store.transact(lambda tx: [rule(tx, request) for rule in found])


@on_fake_time
async def test_who_removes_a_suppression_before_its_end_is_in_the_log() -> None:
    async with site() as s:
        held = suppression(s, "a", 100)
        below = msgspec.structs.replace(held, metadata=Metadata(name="b", namespace="valley"))
        for old in (held, below, suppression(s, "over", -1)):
            request = Request(operation="delete", info=ALARM_SUPPRESSION, user="eve", old=old)
            await admit(s, request)
        texts = [e.status.text for e in await s.store.every(LogEntry)]
        assert len(texts) == 2 and "a is removed by eve" in texts[0] and "of valley counts" in texts[1], texts


@on_fake_time
async def test_what_may_not_be_suppressed_says_what_it_means() -> None:
    async with site() as s:
        new = suppression(s, "a", 100, "200.001")
        with pytest.raises(Refused) as refused:
            await admit(s, Request(operation="create", info=ALARM_SUPPRESSION, user="eve", new=new))
        assert not refused.value.reason.endswith(".") and "as it means" in refused.value.reason
