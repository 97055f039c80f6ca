"""Lists say when they are of a time gone by, and when more is elsewhere."""

from __future__ import annotations

import pytest

from roost.cli import answers
from roost.cli.lastknown import own_lines
from roost.model.cloud import Subcloud, SubcloudStatus
from roost.model.meta import Metadata
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

COUNTS = answers.Severities(major=2, suppressed=9)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (answers.CloudStatus(), []),
        (answers.CloudStatus(upper="c", upper_connected=True), []),
        (answers.CloudStatus(upper="c"), ["The link to c is down"]),
        (answers.CloudStatus(fleet=answers.Fleet(alarms=COUNTS)), ["Subclouds have 2 alarms"]),
    ],
)
def test_what_a_clouds_own_alarms_do_not_tell(status: answers.CloudStatus, said: list[str]) -> None:
    lines = own_lines(answers.Cloud(status=status))
    assert [line.startswith(word) for line, word in zip(lines, said, strict=True)] == [True] * len(said)


def test_what_is_shown_of_an_offline_subcloud_is_called_last_known(server: ApiServer, roost: Roost) -> None:
    for name, state in (("harbor", "online"), ("ridge", "offline")):
        status = SubcloudStatus(availability=state, availability_changed_at="2026-11-23T04:00:00Z")  # type: ignore[arg-type]
        server.do(server.store.save(Subcloud(metadata=Metadata(name=name), status=status)))
    said = roost("host", "list", "-n", "ridge").err
    assert "ridge is offline for" in said and "as last known" in said, said
    assert "ridge is offline for" in roost("get", "fwp", "-A").err
    assert "last known" not in roost("host", "list", "-n", "harbor").err
    assert "last known" not in roost("host", "list").err
    assert "last known" in roost("alarm", "list", "-A").err
    assert roost("host", "list", "-n", "ridge", "-o", "json").err == ""
