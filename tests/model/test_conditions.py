"""Fields by the names that people give them, and conditions on them: tables, and laws by hypothesis."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.model.conditions import (
    MOST,
    Condition,
    ConditionError,
    number,
    parse,
    parse_all,
    version_of,
)
from roost.model.fields import FieldError, fields_of, names, resolve, short
from roost.model.kind import KindInfo
from roost.model.registry import BY_KIND as KIND
from roost.model.registry import KINDS
from roost.model.values import Unreadable, reader
from roost.sim.crowd import things

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOST, ALARM, SUBCLOUD = KIND["Host"], KIND["Alarm"], KIND["Subcloud"]
SAMPLE: dict[str, Any] = msgspec.json.decode(things.host("site", 0).data)


@pytest.mark.parametrize(
    ("info", "name", "path"),
    [
        (HOST, "availability", "status.availability"),
        (HOST, "Availability", "status.availability"),
        (HOST, "status.availability", "status.availability"),
        (HOST, "cpu.model", "status.inventory.processors.model"),
        (HOST, "memory", "status.inventory.memory.total"),
        (HOST, "memory.total", "status.inventory.memory.total"),
        (HOST, "threads", "status.inventory.processors.threads"),
        (HOST, "kernel", "status.inventory.operatingSystem.kernel"),
        (HOST, "version", "status.agent.version"),
        (HOST, "name", "metadata.name"),
        (HOST, "cloud", "metadata.namespace"),
        (HOST, "subcloud", "metadata.namespace"),
        (HOST, "ports.driver", "status.inventory.ports.driver"),
        (HOST, "labels.a.b/c", "metadata.labels.*"),
        (HOST, "labels[a.b/c]", "metadata.labels.*"),
        (HOST, "conditions[Ready]", "status.conditions.status"),
        (HOST, "conditions[Ready].reason", "status.conditions.reason"),
        (HOST, "ports[eth0]", "status.inventory.ports.name"),
        (ALARM, "id", "status.alarmId"),
        (ALARM, "severity", "status.severity"),
        (SUBCLOUD, "sync", "status.sync"),
        (SUBCLOUD, "group", "spec.group"),
        (SUBCLOUD, "critical", "status.alarms.critical"),
    ],
)
def test_a_field_has_usual_names(info: KindInfo, name: str, path: str) -> None:
    assert resolve(info, name).path == path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("avalability", "hosts have no field 'avalability'; nearest are availability"),
        ("cpu.modle", "nearest are inventory.processors.model"),
        ("model", "may be several fields of hosts: inventory.processors.model, inventory.disks.model"),
        ("labels", "is a map: say which key, as labels.KEY"),
        ("availability[x]", "is no list or map"),
        ("flags[aes]", "have no keys to pick one by"),
        ("qqqqqqqq", "hosts have no field 'qqqqqqqq'"),
        ("x" * 600, "longer than"),
    ],
)
def test_a_field_that_is_not_there_is_told_with_what_is_near(name: str, words: str) -> None:
    with pytest.raises(FieldError, match=re.escape(words)):
        resolve(HOST, name)


@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.kind)
def test_each_field_of_each_kind_is_called_by_its_usual_name(info: KindInfo) -> None:
    for field in fields_of(info).values():
        name = short(info, field)
        if not field.path.endswith(".*"):
            assert resolve(info, name).path == field.path
            assert resolve(info, field.path) == field
    assert len(names(info)) == len(fields_of(info))


def test_no_secret_is_a_field() -> None:
    assert not [f for f in fields_of(KIND["Secret"]) if f.startswith(("data", "stringData"))]
    assert "metadata.managedFields.manager" not in fields_of(HOST)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("availability=available", True),
        ("availability==available", True),
        ("availability = available", True),
        ("availability!=available", False),
        ("availability=failed,available", True),
        ("availability!=failed,available", False),
        ("memory>=32Gi", True),
        ("memory>32Gi", False),
        ("memory<33000", True),
        ("memory=32768", True),
        ("memory=32GiB", True),
        ("cpu.model~EXAMPLE", True),
        ("cpu.model!~example", False),
        ("ports[eth0].speed>=10G", True),
        ("ports[eth9].speed>=0", False),
        ("ports[eth9].speed!=5", True),
        ("ports.name=eth1", True),
        ("ports.name!=eth1", False),
        ("connected", True),
        ("!connected", False),
        ("connected=yes", True),
        ("connected=false", False),
        ("location", False),
        ("!location", True),
        ("location=", True),
        ("location!=", False),
        ("personalities=worker", True),
        ("personalities=storage", False),
        ("recovery.tries<4", True),
        ("thresholds.memory.major=80", True),
        ("power.state=on", False),
        ("power.state!=on", True),
        ("!power.state", True),
        ("creationTimestamp<-30d", True),
        ("creationTimestamp>2026-01-02T00:00:00Z", False),
        ("labels.region=north", False),
        ("!labels.region", True),
        ("conditions[Ready]=True", False),
        ("kernel>=6", True),
        ("kernel<5.10", False),
    ],
)
def test_a_condition_holds_as_the_kind_says(text: str, holds: bool) -> None:  # noqa: FBT001 - a table
    condition = parse(HOST, text, NOW)
    values = reader(HOST, [condition.field])(msgspec.json.encode(SAMPLE).decode())[0]
    assert condition.holds(values) is holds, values


@pytest.mark.parametrize(
    ("info", "text", "words"),
    [
        (HOST, "", "is no condition"),
        (HOST, "= 5", "is no condition"),
        (HOST, "!memory=5", "is no condition"),
        (HOST, "memory>", "takes one value"),
        (HOST, "memory>1,2", "takes one value"),
        (HOST, "memory>much", "is no number"),
        (HOST, "memory>5X", "'X' is no unit of it; it is in MiB"),
        (HOST, "threads>5Gi", "it has no unit"),
        (HOST, "availability=availble", "did you mean available?"),
        (HOST, "availability>available", "has no order"),
        (HOST, "connected>true", "has no order"),
        (HOST, "connected=maybe", "neither true nor false"),
        (HOST, "creationTimestamp=-2h", "ask for a time with"),
        (HOST, "creationTimestamp>yesterday", "is no time"),
        (HOST, "creationTimestamp>-999999w999999w", "is before all times"),
        (HOST, "cpu.model~", "takes the text"),
        (HOST, "memory>" + "1" * 3000, "longer than"),
        (ALARM, "severity>bad", "is no value of it"),
    ],
)
def test_what_can_not_be_read_is_told_with_the_reason(info: KindInfo, text: str, words: str) -> None:
    with pytest.raises(ConditionError, match=re.escape(words)):
        parse(info, text, NOW)


def test_conditions_are_bounded() -> None:
    with pytest.raises(ConditionError, match="more than"):
        parse_all(HOST, ["connected"] * (MOST + 1), NOW)


def test_severities_are_ordered_by_how_bad_they_are() -> None:
    least = parse(ALARM, "severity>=major", NOW)
    assert [s for s in ("warning", "minor", "major", "critical") if least.holds((s,))] == [
        "major",
        "critical",
    ]


@pytest.mark.parametrize(
    "versions",
    [
        ["0.2rc1", "0.2", "0.2.1", "0.9", "0.10"],
        ["1.0.0-alpha", "1.0.0-beta", "1.0.0", "1.0.1"],
        ["5.10.0-28", "6.1.0-9", "6.1.0-28", "6.12"],
    ],
)
def test_versions_are_in_order(versions: list[str]) -> None:
    assert sorted([*versions[1:], versions[0]], key=version_of) == versions
    assert version_of("1.2") == version_of("1.2.0") == version_of("1.2+build")


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("64Gi", "MiB", 65536),
        ("1.5Gi", "MiB", 1536),
        ("1G", "MiB", 10**9 / 2**20),
        ("2048", "MiB", 2048),
        ("2Mi", "KiB", 2048),
        ("9k", "bytes", 9000),
        ("10G", "Mbit/s", 10_000),
        ("10Gbit/s", "Mbit/s", 10_000),
        ("3.5GHz", "MHz", 3500),
        ("5m", "seconds", 300),
        ("80%", "percent", 80),
        ("-1", "", -1),
    ],
)
def test_a_number_is_taken_in_its_units(text: str, unit: str, expected: float) -> None:
    assert number(text, unit) == expected


@given(st.text(max_size=80))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse(HOST, text, NOW)
    except (ConditionError, FieldError):
        return
    assert isinstance(condition, Condition)
    condition.holds(())
    condition.holds(("available", 5, True))


@given(
    st.from_regex(
        r"(availability|memory|connected|name|location)(=|!=|<|>=|~)[a-z0-9.,-]{0,12}", fullmatch=True
    )
)
def test_a_negation_is_the_opposite(text: str) -> None:
    try:
        condition = parse(HOST, text, NOW)
    except (ConditionError, FieldError):
        return
    opposites = {"=": "!=", "!=": "=", "~": "!~", "!~": "~"}
    if condition.operator not in opposites:
        return
    other = msgspec.structs.replace(condition, operator=opposites[condition.operator])
    for values in ((), ("available",), (True,), (32768,), ("a", "b")):
        assert condition.holds(values) is not other.holds(values)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_STATES = st.sampled_from(["available", "degraded", "offline"])


@given(location=_TEXT, asked=_TEXT, label=_TEXT, state=_STATES, memory=st.integers(0, 10**6))
def test_text_that_is_looked_for_is_in_every_object_that_fits(
    location: str, asked: str, label: str, state: str, memory: int
) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(SAMPLE))
    raw["spec"]["location"], raw["status"]["availability"] = location, state
    raw["metadata"]["labels"] = {"region": label}
    raw["status"]["inventory"]["memory"]["total"] = memory
    data = msgspec.json.encode(raw).decode()
    commas = asked.replace(",", "\\,")
    texts = [f"location={commas}", f"labels.region={commas}", f"availability={state}", f"memory={memory}"]
    texts += [f"location={location}".replace(",", "\\,"), f"labels.region={label}".replace(",", "\\,")]
    for text in texts:
        try:
            condition = parse(HOST, text, NOW)
        except ConditionError:
            continue
        if condition.holds(reader(HOST, [condition.field])(data)[0]):
            assert condition.literal in data


def test_values_are_read_as_the_structs_say() -> None:
    fields = [
        resolve(HOST, name) for name in ("flags", "ports.speed", "ports[eth1].name", "power.state", "task")
    ]
    raw = msgspec.json.encode(SAMPLE).decode()
    flags, speeds, name, power, task = reader(HOST, fields)(raw)
    assert "aes" in flags and speeds == (10_000, 10_000) and name == ("eth1",)
    assert power == () and task == ("",)


@pytest.mark.parametrize("data", ['{"status": []}', '{"status": {"inventory": 5}}', "[]"])
def test_an_object_unlike_its_kind_is_unreadable(data: str) -> None:
    with pytest.raises(Unreadable):
        reader(HOST, [resolve(HOST, "memory")])(data)


def test_a_value_of_an_odd_type_is_left_out() -> None:
    read = reader(HOST, [resolve(HOST, "memory"), resolve(HOST, "flags")])
    assert read('{"status":{"inventory":{"memory":{"total":[1]},"processors":{"flags":{"a":1}}}}}') == [
        (),
        (),
    ]
