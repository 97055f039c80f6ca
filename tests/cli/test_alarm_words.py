"""`roost alarm`: the dictionary, suppressions and what is shown of them, through the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import yaml

from roost.cli import answers
from roost.cli.hostview import acknowledged
from roost.model.alarms import ALARMS
from roost.model.fault import Alarm, AlarmStatus, Suppressed
from roost.model.meta import Metadata
from roost.model.suppression import AlarmSuppression
from tests.cli.conftest import Roost
from tests.support.api import ApiServer


def test_the_dictionary_is_told_without_a_cloud(roost: Roost) -> None:
    told = roost("alarm", "explain", "100.104")
    assert told.code == 0
    for text in (ALARMS["100.104"].meaning, ALARMS["100.104"].effect, ALARMS["100.104"].repair):
        assert text in " ".join(told.out.split())
    as_data = yaml.safe_load(roost("alarm", "explain", "100.104", "-o", "yaml").out)
    assert (as_data["alarmId"], as_data["blocksUpdatesFrom"]) == ("100.104", "critical")
    assert roost("alarm", "explain", "999.999").code == 4
    listed = roost("alarm", "list", "--ids", "--no-headers").out.splitlines()
    assert [line.split()[0] for line in listed] == list(ALARMS)
    assert roost("alarm", "list", "--ids", "-o", "name").out.split() == list(ALARMS)
    whole = json.loads(roost("alarm", "list", "--ids", "-o", "json").out)
    assert [a["alarmId"] for a in whole] == list(ALARMS)


def test_alarms_are_suppressed_for_a_while_and_let_go(roost: Roost, server: ApiServer) -> None:
    made = roost(
        "alarm", "suppress", "100.104", "100.101", "--entity", "host=w-*",
        "--for", "2h", "--reason", "disks", "--name", "disks",
    )  # fmt: skip
    assert made.code == 0, made.err
    stored = server.do(server.store.load(AlarmSuppression, "central", "disks"))
    assert (stored.spec.alarm_ids, stored.spec.entity) == (["100.104", "100.101"], "host=w-*")
    assert (stored.spec.by, stored.spec.reason) == ("admin", "disks")
    left = datetime.fromisoformat(stored.spec.until) - datetime.now(UTC)
    assert timedelta(hours=1.9) < left <= timedelta(hours=2)
    assert "disks" in roost("alarm", "suppressions").out
    assert roost("alarm", "unsuppress", "disks").code == 0
    assert "No suppressions." in roost("alarm", "suppressions").err + roost("alarm", "suppressions").out
    unnamed = roost("alarm", "suppress", "100.104", "--reason", "r").out
    assert "suppress-100-104-" in unnamed


def test_what_makes_no_suppression_is_refused(roost: Roost, server: ApiServer) -> None:
    assert roost("alarm", "suppress", "--reason", "r").code == 2
    assert roost("alarm", "suppress", "100.104", "--reason", "r", "--for", "soon").code == 2
    assert roost("alarm", "suppress", "100.104", "--reason", "r", "--until", "2026").code == 2
    assert roost("alarm", "suppress", "none", "--reason", "r").code == 1
    words = ["alarm", "suppress", "100.104", "--reason", "r"]
    both = roost(*words, "--for", "1h", "--until", "2099-01-01T00:00:00Z")
    assert both.code == 2 and "exclude each other" in both.err
    assert "would end at once" in roost(*words, "--for", "0s").err


def test_a_suppression_is_named_as_it_was_printed(roost: Roost, server: ApiServer) -> None:
    assert roost("alarm", "suppress", "100.104", "--reason", "r", "--name", "disks").code == 0
    printed = roost("alarm", "suppressions", "-o", "name").out.split()
    assert "alarmsuppression/disks" in printed
    gone = roost("alarm", "unsuppress", "alarmsuppression/disks")
    assert gone.code == 0 and gone.out.startswith("disks suppresses nothing"), gone


def test_who_takes_an_alarm_over_does_not_inherit_what_another_said(roost: Roost, server: ApiServer) -> None:
    status = AlarmStatus(alarm_id="200.004", severity="critical", entity="host=w")
    server.do(server.store.save(Alarm(metadata=Metadata(name="a", namespace="central"), status=status)))
    assert "ACKNOWLEDGED" not in roost("alarm", "list").out
    assert "was acknowledged by nobody" in roost("alarm", "unacknowledge", "a").out
    assert roost("alarm", "acknowledge", "a", "--comment", "part ordered").code == 0
    assert roost("alarm", "acknowledge", "a").code == 0
    assert server.do(server.store.load(Alarm, "central", "a")).spec.comment == "part ordered"
    listed = roost("alarm", "list").out
    assert "ACKNOWLEDGED" in listed and "admin" in listed
    over = roost("alarm", "acknowledge", "a", "--by", "bob")
    assert over.code == 0 and "takes it over from admin" in over.out, over
    spec = server.do(server.store.load(Alarm, "central", "a")).spec
    assert (spec.acknowledged_by, spec.comment) == ("bob", "")


def test_ids_are_of_the_severity_asked_for(roost: Roost) -> None:
    told = roost("alarm", "list", "--ids", "--severity", "critical", "-o", "name").out.split()
    assert told and set(told) == {i for i, a in ALARMS.items() if "critical" in a.severities}


def test_suppressed_alarms_are_counted_and_shown_when_asked_for(roost: Roost, server: ApiServer) -> None:
    by = Suppressed(name="disks", by="ada", reason="exchanged", until="2026-11-23T18:00:00Z")
    status = AlarmStatus(
        alarm_id="100.104", severity="critical", entity="host=w", raised_at="2026-11-23T03:00:00Z"
    )
    hidden = msgspec.structs.replace(status, suppressed=True, suppression=by)
    blocking = msgspec.structs.replace(status, alarm_id="200.004", blocks_updates=True)
    for name, told in (
        ("a", hidden),
        ("b", blocking),
        ("c", msgspec.structs.replace(status, alarm_id="200.005")),
    ):
        server.do(server.store.save(Alarm(metadata=Metadata(name=name, namespace="central"), status=told)))

    def ids(*options: str) -> list[str]:
        lines = roost("alarm", "list", "--no-headers", *options).out.splitlines()
        return sorted(line.split()[1] for line in lines)

    assert ids() == ["200.004", "200.005"]
    assert "1 suppressed" in roost("alarm", "list").err
    assert ids("--suppressed") == ["100.104", "200.004", "200.005"]
    assert ids("--blocking") == ["200.004"]
    assert ids("--field-selector", "status.blocksUpdates=true") == ["200.004"]
    shown = " ".join(roost("alarm", "show", "a").out.split())
    assert "by ada, disks: exchanged" in shown and "at 2026-11-23T18:00:00Z" in shown


def test_an_acknowledgement_of_what_has_become_worse_says_so() -> None:
    said = answers.Acknowledgement(by="ada", severity="major")
    spec = answers.AlarmSpec(acknowledged_by="ada")
    held = answers.Alarm(spec=spec, status=answers.AlarmStatus(acknowledged=True, acknowledgement=said))
    worse = answers.Alarm(spec=spec, status=answers.AlarmStatus(acknowledgement=said))
    assert (acknowledged(held), acknowledged(worse)) == ("ada", "ada, when it was major")
