"""What one host looks like on a screen: a summary, and its inventory section by section. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.text import Text

from roost.api.tables import human
from roost.cli import answers, tables
from roost.cli.output import fields
from roost.cli.tables import Column, Grid, lay_out
from roost.model.host import Inventory, SriovCapability, Thresholds
from roost.model.operation import PLANNED

AFTER = {"unlock": "unlocked", "lock": "locked", "force-lock": "locked"}
"""The administrative state in which each action leaves a host."""
SEVERITIES = ("critical", "major", "minor", "warning")


def summary_lines(
    host: answers.DetailedHost,
    alarms: Sequence[answers.Alarm],
    operations: Sequence[answers.Operation],
    now: datetime,
    thresholds: Thresholds | None = None,
) -> list[Text]:
    """One screen about a host; `thresholds` are those in force there."""
    meta, spec, status = host.metadata, host.spec, host.status
    contact = "link up" if status.connected else "link down"
    if status.connection_changed_at:
        contact += f" for {tables.age(status.connection_changed_at, now)}"
    wanted = ""
    if spec.administrative_state != status.administrative:
        wanted = f"{spec.administrative_state} is wanted"
    lines = fields(
        [
            ("Name", meta.name),
            ("Cloud", meta.namespace),
            ("Personalities", ", ".join(spec.personalities)),
            ("Location", spec.location),
            ("Administrative", _state(status.administrative, wanted)),
            ("Operational", _state(status.operational)),
            ("Availability", _state(status.availability)),
            ("Task", status.task),
            ("Agent", f"{contact}, version {status.agent.get('version') or 'unknown'}"),
            ("Age", tables.age(meta.creation_timestamp, now)),
        ]
    )
    waits = expectation(host, operations)
    if waits:
        lines += [Text(), Text("What it waits for, and what comes next", "bold underline")]
        lines += [Text(line) for line in waits]
    lines += _section("Conditions", _conditions(status.conditions), now)
    lines += _section("Degraded because", _degraded(status.degraded), now)
    lines += _section("Health checks", _checks(status.health), now)
    if status.drain is not None and status.drain.state != "idle":
        lines += _section("Workloads that have to leave", _checks(status.drain), now)
    lines += _section("Recovery by itself", _recovery(status.recovery), now)
    lines += _section("Alarms", alarm_grid(alarms), now)
    readings = [[r.monitor, r.instance, r.level, f"{r.value:.0f} %", r.message] for r in status.readings]
    lines += _section("Monitors", _grid(["Monitor", "Instance", "Level", "Use", "Message"], readings), now)
    if thresholds is not None:
        lines += _section("Thresholds in force", _thresholds(thresholds), now)
    if status.inventory is None:
        lines += [Text(), Text("The machine has not told its inventory yet.")]
    else:
        lines += [Text(), Text("Machine", "bold underline"), *_machine(status.inventory)]
        lines += [Text(f"`roost host inventory {meta.name}` shows everything.", "dim")]
    return lines


def thresholds_of(configuration: dict[str, Any]) -> Thresholds | None:
    """The thresholds that a HostConfiguration tells its host; None when there are none to be understood."""
    try:
        return msgspec.convert(configuration["spec"]["thresholds"], Thresholds)
    except (KeyError, TypeError, msgspec.ValidationError):
        return None


def _thresholds(found: Thresholds) -> Grid:
    def percent(value: int) -> str:
        return f"{value} %" if value else "never"

    rows = [
        [word, percent(t.minor), percent(t.major), percent(t.critical)]
        for word, t in (
            ("processor", found.processor),
            ("memory", found.memory),
            ("filesystem", found.filesystem),
        )
    ]
    after = f"raised after {found.raise_after}, cleared after {found.clear_after} samples"
    rows.append(["all", f"left {found.hysteresis} % below", after, ""])
    return _grid(["Monitor", "Minor", "Major", "Critical"], rows)


def expectation(host: answers.DetailedHost, operations: Sequence[answers.Operation]) -> list[str]:
    """What a host waits for and what comes next, one sentence each; nothing when it is as wanted."""
    status = host.status
    told = {c.type: c for c in status.conditions}
    lines = []
    running = [o for o in operations if not o.status.finished_at]
    for operation in running:
        steps = operation.status.steps
        at = next((s for s in steps if s.state in ("running", "pending")), None)
        if at is not None:
            until = f" (given up at {at.deadline})" if at.deadline else ""
            lines.append(f"Now: {operation.spec.action}, {at.name}: {at.message or 'begins'}{until}")
        later = [s.name for s in steps if s.state == "pending" and s is not at]
        if later:
            lines.append(f"Then: {', '.join(later)}.")
    settled, healthy = told.get("Settled"), told.get("Healthy")
    if not running and settled is not None and settled.status != "True":
        lines.append(f"Waits: {settled.message}")
    if status.administrative == "unlocked" and healthy is not None and healthy.status != "True":
        lines.append(f"Health: {healthy.message}")
    return lines


def rehearsal_lines(host: answers.DetailedHost, action: str) -> list[Text]:
    """The steps that an action would have on a host."""
    name = host.metadata.name
    if host.status.administrative == AFTER.get(action):
        return [Text(f"{name} is {host.status.administrative} already: nothing would be done.")]
    heading = Text(name, "bold")
    heading.append(f"  {action} would have these steps, and may begin now", "")
    lines = [heading]
    for n, step in enumerate(PLANNED.get(action, ()), 1):
        waits = action == "lock" and step.name == "disable"
        longest = timedelta(seconds=host.spec.drain_seconds if waits else step.seconds)
        lines.append(Text(f"  {n}. {step.name:<10} {step.about} (at most {human(longest)})"))
    return lines


def inventory_lines(inventory: Inventory, now: datetime, width: int | None) -> list[Text]:
    """Everything a machine has."""
    lines = _machine(inventory)
    memory = [
        [n.numa_node, n.total, ", ".join(f"{p.total} x {p.size} KiB ({p.free} free)" for p in n.huge_pages)]
        for n in inventory.memory.nodes
    ]
    disks = [
        [d.name, d.size, d.transport, d.model, "yes" if d.rotational else "no", d.filesystem, d.mount]
        for d in inventory.disks
    ]
    partitions = [
        [p.name, p.size, p.label, p.filesystem, p.mount] for d in inventory.disks for p in d.partitions
    ]
    systems = [[f.mount, f.source, f.type, f.size] for f in inventory.filesystems]
    ports = [
        [
            p.name,
            p.kind,
            "up" if p.carrier else "down",
            p.speed or "",
            p.mac,
            p.driver,
            p.pci_address,
            _sriov(p.sriov),
            ", ".join(p.addresses),
        ]
        for p in inventory.ports
    ]
    devices = [[d.address, d.class_name, d.vendor, d.device, d.driver] for d in inventory.devices]
    unknown = [[u.path, u.reason] for u in inventory.unknown]
    sections = (
        ("Memory by NUMA node", ["Node", "Total MiB", "Huge pages"], memory),
        ("Disks", ["Name", "Size MiB", "Transport", "Model", "Turns", "File system", "Mount"], disks),
        ("Partitions", ["Name", "Size MiB", "Label", "File system", "Mount"], partitions),
        ("File systems", ["Mount", "Source", "Type", "Size MiB"], systems),
        (
            "Ports",
            ["Name", "Kind", "Link", "Mbit/s", "MAC", "Driver", "PCI", "SR-IOV", "Addresses"],
            ports,
        ),
        ("Other PCI devices", ["Address", "Class", "Vendor", "Device", "Driver"], devices),
        ("Could not be read", ["What", "Reason"], unknown),
    )
    for title, heads, rows in sections:
        lines += _section(title, _grid(heads, rows), now, width)
    return lines


def alarm_grid(alarms: Sequence[answers.Alarm], *, wide: bool = False, clouds: bool = False) -> Grid:
    """Alarms, the worst first, within a severity the newest first; who has one in hand, where anybody has."""
    newest = sorted(alarms, key=lambda a: a.status.raised_at, reverse=True)
    worst = sorted(newest, key=lambda a: rank(a.status.severity))
    in_hand = any(a.spec.acknowledged_by for a in worst) and not wide
    heads = ("Severity", "Id", "Entity", "Reason", "Updates", *(("Acknowledged",) if in_hand else ()))
    columns = [*(Column(h) for h in heads), Column("Age", "date")]
    rows: list[list[object]] = []
    for alarm in worst:
        status = alarm.status
        waits = "blocked" if status.blocks_updates else ""
        by = [acknowledged(alarm)] if in_hand else []
        row = [status.severity, status.alarm_id, status.entity, _reason(status), waits, *by, status.raised_at]
        until = status.suppression.until if status.suppression else ""
        more = [status.repair, acknowledged(alarm), until, alarm.metadata.name] if wide else []
        rows.append([*([alarm.metadata.namespace] if clouds else []), *row, *more])
    if wide:
        columns += [Column(h) for h in ("Repair", "Acknowledged", "Suppressed until", "Name")]
    return Grid([Column("Cloud"), *columns] if clouds else columns, rows)


def rank(severity: str) -> int:
    """0 for the worst; words this version does not know come last."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def acknowledged(alarm: answers.Alarm) -> str:
    """Who has an alarm in hand; with a word where it has become worse since."""
    by, said = alarm.spec.acknowledged_by, alarm.status.acknowledgement
    if by and said is not None and not alarm.status.acknowledged:
        return f"{by}, when it was {said.severity}"
    return by


def _reason(status: answers.AlarmStatus) -> str:
    notes = [w for w, holds in (("not observable now", status.stale_since),) if holds]
    if status.suppressed:
        notes.append("suppressed")
    return f"{status.reason} ({', '.join(notes)})" if notes else status.reason


def _machine(inventory: Inventory) -> list[Text]:
    system, processors, product = inventory.operating_system, inventory.processors, inventory.product
    clock = {True: "synchronised", False: "not synchronised", None: "unknown"}[inventory.clock.synchronised]
    named = _unread(inventory, "product") or "not present"
    if product is not None:
        named = " ".join(w for w in (product.vendor, product.name, product.version) if w)
    counts = (("socket", processors.sockets), ("core", processors.cores), ("thread", processors.threads))
    topology = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts)
    return fields(
        [
            ("Product", named),
            ("Serial", product.serial if product else ""),
            ("System", f"{system.name or 'unknown'}, kernel {system.kernel or 'unknown'}"),
            ("Processors", f"{processors.model or 'unknown model'}: {topology}"),
            ("Isolated", processors.isolated),
            ("Memory", f"{inventory.memory.total} MiB"),
            ("Clock", f"{clock}, source {inventory.clock.source or 'unknown'}"),
        ]
    )


def _unread(inventory: Inventory, part: str) -> str:
    """Why a part of the inventory is unknown; empty when it was read, so that absent means absent."""
    reasons = [u.reason for u in inventory.unknown if u.path.split(".")[0] == part]
    return f"unknown: {reasons[0]}" if reasons else ""


def _state(word: str, more: str = "") -> Text:
    text = Text(word or "unknown", tables.style_of(word))
    if more:
        text.append(f" ({more})", "dim")
    return text


def _conditions(conditions: Sequence[answers.Condition]) -> Grid:
    rows = [[c.type, c.status, c.reason, c.message, c.last_transition_time] for c in conditions]
    heads = ["Condition", "Status", "Why", "Message"]
    return Grid([*(Column(h) for h in heads), Column("Age", "date")], [list(r) for r in rows])


def _degraded(reasons: Sequence[answers.DegradedReason]) -> Grid:
    return _grid(["Reason", "What", "Alarm"], [[r.reason, r.message, r.alarm] for r in reasons])


def _checks(report: answers.CheckReport | None) -> Grid:
    checks = report.checks if report is not None else []
    rows = [[c.name, c.state, f"{c.seconds:.1f} s" if c.seconds else "", c.message] for c in checks]
    return _grid(["Check", "State", "Took", "Message"], rows)


def _recovery(recovery: answers.Recovery) -> Grid:
    rows = []
    for c in recovery.counts:
        of = f"{c.tries} of {c.limit}" if c.limit else str(c.tries)
        state = "off" if c.off else "on"
        rows.append([c.cause, of, c.restarts, state, c.message])
    return _grid(["Cause", "Tries", "Restarts", "Automatic", "What happens"], rows)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Grid:
    numbers = {"Size MiB", "Total MiB", "Mbit/s", "Node"}
    columns = [Column(h, "integer" if h in numbers else "string") for h in heads]
    return Grid(columns, [list(r) for r in rows])


def _section(title: str, grid: Grid, now: datetime, width: int | None = None) -> list[Text]:
    if not grid.rows:
        return []
    return [Text(), Text(title, "bold underline"), *lay_out(grid, now, width=width)]


def _sriov(capability: SriovCapability | None) -> str:
    return f"{capability.functions}/{capability.total_functions}" if capability else ""
