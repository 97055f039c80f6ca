"""Tables at the widths of terminals, ages, and descriptions of objects."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.cells import cell_len

from roost.cli import answers
from roost.cli.describing import describe
from roost.cli.hostview import alarm_grid
from roost.cli.tables import Column, Grid, age, from_server, lay_out

NOW = datetime(2026, 11, 23, 4, 0, 0, tzinfo=UTC)

HOSTS = Grid(
    [
        Column("Name"),
        Column("Personalities"),
        Column("Administrative"),
        Column("Operational"),
        Column("Availability"),
        Column("Task"),
        Column("Age", "date"),
    ],
    [
        ["controller-0", "controller,worker", "unlocked", "enabled", "available", "", "2026-11-22T04:00:00Z"],
        ["worker-0", "worker", "locked", "disabled", "online", "unlock: configure", "2026-11-23T03:55:00Z"],
    ],
)


def text(grid: Grid, width: int | None) -> list[str]:
    return [line.plain for line in lay_out(grid, NOW, width=width)]


def test_at_120_columns_headings_are_whole() -> None:
    assert text(HOSTS, 120) == [
        "NAME          PERSONALITIES      ADMINISTRATIVE  OPERATIONAL  AVAILABILITY  TASK               AGE",
        "controller-0  controller,worker  unlocked        enabled      available     -                  24h",
        "worker-0      worker             locked          disabled     online        unlock: configure  5m",
    ]


def test_at_80_columns_headings_are_short_and_prose_is_folded() -> None:
    assert text(HOSTS, 80) == [
        "NAME          ROLES              ADMIN     OPER      AVAIL      TASK         AGE",
        "controller-0  controller,worker  unlocked  enabled   available  -            24h",
        "worker-0      worker             locked    disabled  online     unlock:      5m",
        "                                                                configure",
    ]


def test_no_line_is_wider_than_the_screen_and_nothing_is_lost() -> None:
    reason = (
        "Host controller-0 has failed because its link did not come back within ten minutes of a restart."
    )
    grid = Grid(
        [Column("Severity"), Column("Id"), Column("Entity"), Column("Reason"), Column("Age", "date")],
        [["critical", "200.004", "host=controller-0", reason, "2026-11-23T03:59:18Z"]],
    )
    lines = text(grid, 80)
    assert all(cell_len(line) <= 80 for line in lines)
    start = lines[0].index("REASON")
    end = lines[0].index("AGE")
    assert " ".join(line[start:end].strip() for line in lines[1:]) == reason
    assert len(text(grid, None)) == 2


def test_without_headings_and_with_numbers_to_the_right() -> None:
    grid = Grid(
        [Column("Name"), Column("Hosts", "integer"), Column("On", "boolean")],
        [["a", 5, True], ["b", 12, None]],
    )
    assert [line.plain for line in lay_out(grid, NOW, width=None, headers=False)] == [
        "a   5  yes",
        "b  12  -",
    ]


def test_states_have_colours_of_their_own() -> None:
    line = lay_out(HOSTS, NOW, width=None)[1]
    spans = {line.plain[s.start : s.end]: str(s.style) for s in line.spans if s.style}
    assert spans["available"] == "green"


def test_ages() -> None:
    assert age("2026-11-23T03:59:18.500Z", NOW) == "41s"
    assert age("2026-11-23T01:00:00Z", NOW) == "3h"
    assert age("2027-01-01T00:00:00Z", NOW) == "0s"
    assert age("soon", NOW) == "soon"
    assert age("", NOW) == ""


def test_server_tables_hide_what_is_wide() -> None:
    table = answers.Table(
        column_definitions=[
            answers.TableColumn(name="Name"),
            answers.TableColumn(name="Kernel", priority=1),
            answers.TableColumn(name="Age", type="date"),
        ],
        rows=[
            answers.TableRow(
                cells=["a", "6.1", "5m"], object=answers.RowObject(metadata=answers.Meta(namespace="n"))
            )
        ],
    )
    assert text(from_server(table), None) == ["NAME  AGE", "a     5m"]
    assert text(from_server(table, wide=True), None) == ["NAME  KERNEL  AGE", "a     6.1     5m"]
    assert text(from_server(table, namespaces=True), None) == ["CLOUD  NAME  AGE", "n      a     5m"]


def alarm(severity: str, raised: str, stale_since: str = "") -> answers.Alarm:
    status = answers.AlarmStatus(
        alarm_id="1.1", severity=severity, raised_at=raised, reason="r", entity="e", stale_since=stale_since
    )
    return answers.Alarm(metadata=answers.Meta(name=f"a-{raised}", namespace="n"), status=status)


def test_alarms_stand_worst_first_then_newest() -> None:
    alarms = [
        alarm("minor", "2026-11-23T03:00:00Z"),
        alarm("critical", "2026-11-23T01:00:00Z"),
        alarm("dire", "2026-11-23T03:00:00Z"),
        alarm("critical", "2026-11-23T02:00:00Z", stale_since="2026-11-23T03:00:00Z"),
    ]
    rows = alarm_grid(alarms).rows
    assert [(r[0], r[5][11:13]) for r in rows] == [
        ("critical", "02"),
        ("critical", "01"),
        ("minor", "03"),
        ("dire", "03"),
    ]
    assert rows[0][3] == "r (not observable now)"
    wide = alarm_grid(alarms, wide=True, clouds=True)
    assert wide.columns[0].name == "Cloud"
    assert all(len(r) == len(wide.columns) for r in wide.rows)


def test_description_spells_names_out() -> None:
    raw = {
        "apiVersion": "roost.edge/v1",
        "kind": "Host",
        "metadata": {
            "name": "c-0",
            "uid": "u",
            "labels": {"site": "north"},
            "creationTimestamp": "2026-11-23T03:00:00Z",
        },
        "spec": {
            "administrativeState": "locked",
            "interfaces": [{"port": "eth0", "networks": ["oam", "mgmt"]}],
        },
        "status": {
            "connected": True,
            "task": "",
            "conditions": [{"type": "Settled", "status": "True", "reason": "AsWanted", "message": "It is."}],
        },
    }
    assert [line.plain for line in describe(raw, NOW, None)] == [
        "Host c-0",
        "Labels: ",
        "  Site: north",
        "Creation timestamp: 2026-11-23T03:00:00Z (60m ago)",
        "",
        "Spec",
        "Administrative state: locked",
        "Interfaces: ",
        "  - Port: eth0",
        "    Networks: oam, mgmt",
        "",
        "Status",
        "Connected: yes",
        "",
        "Conditions",
        "CONDITION  STATUS  WHY       MESSAGE  AGE",
        "Settled    True    AsWanted  It is.   -",
    ]
