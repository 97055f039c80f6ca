"""The dictionary of alarms agrees with the field; names of alarms tell them apart."""

# ruff: noqa: E501 - rows of tables

from __future__ import annotations

import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from roost.model import alarms
from roost.model.alarms import ALARMS, PORT_ALARM, Fault, alarm_name, degrades, reaches, read_dictionary
from roost.model.meta import DNS_NAME, Condition, set_condition

FIELD = """\
100.101|host=<hostname>|critical, major|operational-violation|threshold-crossed|False|True|critical|major
100.103|host=<hostname>|critical, major|operational-violation|threshold-crossed|False|True|critical|none
100.104|host=<hostname>.filesystem=<mount-dir>|critical, major|operational-violation|threshold-crossed|False|True|critical|critical
100.106|host=<hostname>.port=<port-name>|major|operational-violation|unknown|True|True|major|warning
100.108|host=<hostname>.port=<port-name>|major|operational-violation|unknown|True|True|major|warning
100.110|host=<hostname>.port=<port-name>|major|operational-violation|unknown|True|True|major|warning
200.001|host=<hostname>|warning|operational-violation|out-of-service|True|False|none|warning
200.004|host=<hostname>|critical|operational-violation|application-subsystem-failure|True|True|none|warning
200.005|host=<hostname>|critical, major|communication|unknown|True|True|none|warning
200.010|host=<hostname>|warning|operational-violation|communication-subsystem-failure|False|True|none|none
200.011|host=<hostname>|critical|operational-violation|configuration-or-customization-error|True|True|none|warning
200.201|host=<hostname>.check=<check>|major|operational-violation|application-subsystem-failure|True|True|major|major
200.009|host=<hostname>|critical, major|communication|unknown|True|True|none|warning
200.202|host=<hostname>.network=<network>|critical, major|communication|unknown|True|True|major|major
200.203|cloud=<cloud>|critical|communication|unknown|True|False|none|warning
250.001|host=<hostname>|major|operational-violation|unspecified-reason|True|False|none|warning
280.001|subcloud=<subcloud>|critical|communication|loss-of-signal|False|False|none|none
280.002|subcloud=<subcloud>.resource=<resource>|major, warning|other|application-subsystem-failure|False|False|none|none
280.201|host=<hostname> or subcloud=<subcloud>|major|operational-violation|protocol-error|False|False|none|none
280.202|host=<hostname> or subcloud=<subcloud>|critical|operational-violation|storage-capacity-problem|False|False|none|none
500.200|system.certificate.mode=<mode>.uuid=<uuid>|major|operational-violation|certificate-expiration|False|False|none|none
500.210|system.certificate.mode=<mode>.uuid=<uuid>|critical|operational-violation|certificate-expiration|False|False|none|none
"""
"""Id, entity, severities, type, cause, service affecting, suppressible, degrades the host from, blocks updates from."""

ROWS = [line.split("|") for line in FIELD.splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r[0])
def test_an_alarm_is_what_the_field_knows_by_its_id(row: list[str]) -> None:
    definition = ALARMS[row[0]]
    assert [
        definition.alarm_id,
        definition.entity,
        ", ".join(definition.severities),
        definition.type,
        definition.cause,
        str(definition.service_affecting),
        str(definition.suppressible),
        definition.degrades_from or "none",
        definition.blocks_updates_from or "none",
    ] == row


def test_every_alarm_is_compared_and_says_what_to_do() -> None:
    assert sorted(ALARMS) == sorted(row[0] for row in ROWS)
    assert set(PORT_ALARM.values()) <= set(ALARMS)
    for definition in ALARMS.values():
        assert definition.title
        for text in (definition.meaning, definition.effect, definition.repair):
            assert text.endswith(".") and len(text) <= 200
        for limit in (definition.degrades_from, definition.blocks_updates_from):
            assert limit is None or any(reaches(s, limit) for s in definition.severities), "never reached"


def test_every_id_that_code_raises_stands_in_the_dictionary_and_the_reverse() -> None:
    raised: set[str] = set()
    for file in Path(alarms.__file__).parents[1].rglob("*.py"):
        if not {"sim", "cli"} & set(file.parts):
            raised |= set(re.findall(r'"(\d{3}\.\d{3})"', file.read_text()))
    assert raised == set(ALARMS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("colour = 'red'", "colour"), ("severities = ['dire']", "dire"), ("type = 3", "type")],
)
def test_a_word_that_is_none_is_refused_with_its_id(wrong: str, told: str) -> None:
    right = {"title": "'t'", "entity": "'e'", "severities": "['major']", "type": "'t'", "cause": "'c'"}
    right["repair"] = "'r'"
    rows = [f"{k} = {v}" for k, v in right.items() if not wrong.startswith(k)]
    with pytest.raises(ValueError, match=rf"alarm 999\.001: .*{told}"):
        read_dictionary("['999.001']\n" + "\n".join([*rows, wrong]))


@pytest.mark.parametrize(
    ("alarm_id", "severity", "expected"),
    [
        ("100.101", "critical", True),
        ("100.101", "major", False),
        ("100.106", "major", True),
        ("200.001", "warning", False),
        ("200.005", "critical", False),
    ],
)
def test_severity_decides_whether_the_host_is_degraded(alarm_id: str, severity: str, expected: bool) -> None:  # noqa: FBT001
    assert degrades(alarm_id, severity) is expected  # type: ignore[arg-type]


def fault(instance: str) -> Fault:
    return Fault(alarm_id="100.104", severity="major", entity="e", reason="r", instance=instance)


@given(instances=st.lists(st.text(max_size=80), unique=True, max_size=20))
def test_instances_never_share_a_name(instances: list[str]) -> None:
    names = [alarm_name("host.h", fault(i)) for i in instances]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(DNS_NAME, name)
        assert name.startswith("host.h.100.104")


def test_names_that_read_alike_differ() -> None:
    alike = ["/var", "/VAR", "var", "/var/", "-var-", "/数", "/据", "/" + "x" * 60, "/" + "x" * 61]
    assert len({alarm_name("host.h", fault(i)) for i in alike}) == len(alike)
    assert len({alarm_name("host.h", fault(f"/{chr(0x4E00 + n)}")) for n in range(20_000)}) == 20_000


def condition(status: str, message: str = "") -> Condition:
    return Condition(type="Ready", status=status, reason="R", message=message)  # type: ignore[arg-type]


def test_a_conditions_time_moves_only_with_its_status() -> None:
    other = Condition(type="Other", status="True", reason="R", last_transition_time="t0")
    first = set_condition([other], condition("True"), "t1")
    same = set_condition(first, condition("True", "still"), "t2")
    turned = set_condition(same, condition("False"), "t3")
    assert [c.type for c in turned] == ["Other", "Ready"]
    assert [(c[1].last_transition_time, c[1].message) for c in (first, same, turned)] == [
        ("t1", ""),
        ("t1", "still"),
        ("t3", ""),
    ]
    assert all(c[0] == other for c in (first, same, turned))
