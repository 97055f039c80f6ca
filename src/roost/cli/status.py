"""`roost status`: one screen about a cloud. `picture` is pure; the rest fetches and follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.text import Text

from roost.cli import answers, output
from roost.cli.client import Client
from roost.cli.hostview import SEVERITIES, alarm_grid
from roost.cli.kinds import ALARM, CLOUD, HOST, SUBCLOUD
from roost.cli.problems import OK, Problem
from roost.cli.session import CONNECT, SHOW, Connect, Session, Show, opened
from roost.cli.tables import Column, Grid, lay_out, style_of
from roost.cli.watching import Change, Snapshot, Watches

ROWS = 20
ALARMS = 10


class Scene(msgspec.Struct):
    """All that the screen shows, by name."""

    name: str
    clouds: dict[str, answers.Cloud] = {}
    subclouds: dict[str, answers.Subcloud] = {}
    hosts: dict[str, answers.Host] = {}
    alarms: dict[str, answers.Alarm] = {}


def status(
    *,
    watch: Annotated[
        bool, Parameter(name=("--watch", "-w"), help="Stay, and keep the screen fresh.")
    ] = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """One screen: this cloud, its hosts by state, its alarms by severity, its subclouds.

    For example:
        roost status
        roost --cloud harbor status
        roost status --watch
    """
    with opened(connect) as session:
        if watch:
            _watch(session)
            return OK
        scene = _fetch(session.client, session.namespace)
        if show.output in ("json", "yaml"):
            output.print_data(summary(scene), show.output)
        else:
            output.print_lines(picture(scene, output.now(), output.width_of(output.console())))
    return OK


def picture(scene: Scene, now: datetime, width: int | None) -> list[Text]:
    """The screen."""
    lines = _header(scene)
    hosts = list(scene.hosts.values())
    lines.append(_counted("Hosts", len(hosts), by_state(hosts)))
    active = [a for a in scene.alarms.values() if not a.status.suppressed]
    lines.append(_counted("Alarms", len(active), alarm_words(list(scene.alarms.values()))))
    if scene.subclouds:
        lines.append(_counted("Subclouds", len(scene.subclouds), _subcloud_states(scene)))
    cloud = scene.clouds.get(scene.name)
    if cloud is not None and cloud.status.fleet is not None:
        alarms = cloud.status.fleet.alarms
        words = [(s, n) for s in (*SEVERITIES, "suppressed", "acknowledged") if (n := getattr(alarms, s))]
        lines.append(_counted("Fleet", sum(getattr(alarms, s) for s in SEVERITIES), words))
    if cloud is not None and cloud.status.processes:
        lines += [Text(), *lay_out(_process_grid(cloud.status.processes), now, width=width)]
    if hosts:
        lines += [Text(), *lay_out(_host_grid(hosts[:ROWS]), now, width=width)]
        lines += _more(len(hosts) - ROWS, "hosts", "roost host list")
    if scene.subclouds:
        lines += [Text(), *lay_out(_subcloud_grid(scene), now, width=width)]
        lines += _more(len(scene.subclouds) - ROWS, "subclouds", "roost subcloud list")
    if active:
        grid = alarm_grid(active)
        cut = Grid(grid.columns, grid.rows[:ALARMS])
        lines += [Text(), *lay_out(cut, now, width=width)]
        lines += _more(len(active) - ALARMS, "alarms", "roost alarm list")
    return lines


def alarm_words(alarms: Sequence[answers.Alarm]) -> list[tuple[str, int]]:
    """How many alarms of each severity count, how many of these updates wait for; how many are suppressed."""
    active = [a.status for a in alarms if not a.status.suppressed]
    words = Counter(a.severity for a in active)
    words["acknowledged"] = sum(a.acknowledged for a in active)
    words["blocking updates"] = sum(a.blocks_updates for a in active)
    words["suppressed"] = len(alarms) - len(active)
    order = (*SEVERITIES, "acknowledged", "blocking updates", "suppressed")
    return [(w, words[w]) for w in order if words[w]]


def by_state(hosts: Sequence[answers.Host]) -> list[tuple[str, int]]:
    """How many hosts in each state that matters: locked ones as locked, others by availability."""
    words = Counter(
        "locked" if h.status.administrative == "locked" else h.status.availability or "unknown" for h in hosts
    )
    order = ("available", "degraded", "intest", "online", "failed", "offline", "power-off", "locked")
    return [(w, words[w]) for w in order if words[w]] + sorted(
        (w, n) for w, n in words.items() if w not in order
    )


def summary(scene: Scene) -> dict[str, object]:
    """The counts, for programs."""
    cloud = scene.clouds.get(scene.name)
    return {
        "cloud": scene.name,
        "version": cloud.status.version if cloud else "",
        "hosts": dict(by_state(list(scene.hosts.values()))),
        "alarms": {
            **dict.fromkeys(SEVERITIES, 0),
            **dict(alarm_words(list(scene.alarms.values()))),
        },
        "subclouds": dict(_subcloud_states(scene)),
        "processes": [
            {"name": p.name, "roles": p.roles, "active": p.active, "links": p.links, "since": p.since}
            for p in (cloud.status.processes if cloud else [])
        ],
    }


def _header(scene: Scene) -> list[Text]:
    line = Text(scene.name, "bold")
    cloud = scene.clouds.get(scene.name)
    if cloud is None:
        line.append("  has not described itself yet", "dim")
        return [line]
    kind = "central cloud" if scene.subclouds else "cloud"
    line.append(f"  {cloud.spec.system_mode} {kind}, version {cloud.status.version or 'unknown'}")
    if cloud.spec.location:
        line.append(f", {cloud.spec.location}")
    if cloud.status.upper:
        link = "up" if cloud.status.upper_connected else "down"
        line.append(f", under {cloud.status.upper} (link ")
        line.append(link, "green" if link == "up" else "red")
        line.append(f", {cloud.status.management_state})" if cloud.status.management_state else ")")
    return [line, *_own_way(cloud)]


def _own_way(cloud: answers.Cloud) -> list[Text]:
    """What nobody would look for: what is otherwise here than above, and what the log no longer has."""
    lines = []
    if cloud.status.local_overrides:
        count = cloud.status.local_overrides
        lines.append(Text(f"Overrides: {count:>4}   see: roost override list", "yellow"))
    for condition in cloud.status.conditions:
        if condition.type == "FailureAvoidance" and condition.status == "True":
            lines.append(Text(f"Silent:    {condition.message}", "yellow"))
    if cloud.status.log_shed.total:
        gone = cloud.status.log_shed
        lines.append(Text(f"Log:       {gone.total} entries were shed since {gone.since}", "yellow"))
    return lines


def _counted(title: str, total: int, counts: Sequence[tuple[str, int]]) -> Text:
    line = Text(f"{title + ':':<11}{total:>4}")
    for word, count in counts:
        line.append("   ")
        line.append(f"{count} {word}", style_of(word))
    return line


def _subcloud_states(scene: Scene) -> list[tuple[str, int]]:
    found = scene.subclouds.values()
    words = Counter(s.status.availability for s in found) + Counter(s.status.sync for s in found)
    words["unknown"] = sum(s.status.availability == "unknown" for s in found)
    order = ("online", "offline", "unknown", "in-sync", "out-of-sync")
    counts = [(w, words[w]) for w in order if words[w]]
    unmanaged = sum(s.spec.management_state == "unmanaged" for s in found)
    return [*counts, ("unmanaged", unmanaged)] if unmanaged else counts


def _process_grid(processes: Sequence[answers.CloudProcess]) -> Grid:
    """Of a cloud that has several processes."""
    columns = [Column("Process"), Column("Roles"), Column("Active"), Column("Links", "integer")]
    columns += [Column("Address"), Column("Age", "date")]
    rows: list[list[object]] = [
        [p.name, ",".join(p.roles), "yes" if p.active else "", p.links, p.address, p.since] for p in processes
    ]
    return Grid(columns, rows)


def _host_grid(hosts: Sequence[answers.Host]) -> Grid:
    heads = ("Host", "Personalities", "Administrative", "Operational", "Availability", "Task")
    rows = [
        [
            h.metadata.name,
            ",".join(h.spec.personalities),
            h.status.administrative,
            h.status.operational,
            h.status.availability,
            h.status.task,
        ]
        for h in hosts
    ]
    return Grid([Column(h) for h in heads], [list(r) for r in rows])


def _subcloud_grid(scene: Scene) -> Grid:
    """Those that need attention first."""
    trouble = {"offline": 0, "unknown": 1}

    def order(subcloud: answers.Subcloud) -> tuple[int, bool, str]:
        state = subcloud.status
        return (trouble.get(state.availability, 2), state.sync == "in-sync", subcloud.metadata.name)

    rows = []
    for subcloud in sorted(scene.subclouds.values(), key=order)[:ROWS]:
        name, state = subcloud.metadata.name, subcloud.status
        cloud = scene.clouds.get(name)
        counts = [cloud.status.hosts.available, cloud.status.hosts.total] if cloud else ["", ""]
        alarms = cloud.status.alarms if cloud else answers.Severities()
        hosts = f"{counts[0]}/{counts[1]}" if cloud else ""
        bad = f"{alarms.critical}/{alarms.major}/{alarms.minor}" if cloud else ""
        row = [name, subcloud.spec.management_state, state.availability, state.sync, hosts, bad]
        rows.append([*row, state.availability_changed_at])
    heads = ("Subcloud", "Management", "Availability", "Sync", "Hosts", "Alarms C/M/m")
    return Grid([*(Column(h) for h in heads), Column("Since", "date")], [list(r) for r in rows])


def _more(count: int, what: str, command: str) -> list[Text]:
    return [Text(f"... and {count} more {what}: `{command}`", "dim")] if count > 0 else []


def _fetch(client: Client, namespace: str) -> Scene:
    scene = Scene(namespace)
    scene.clouds = {c.metadata.name: c for c in client.list_items(CLOUD, None, answers.Cloud)[0]}
    scene.subclouds = {s.metadata.name: s for s in client.list_items(SUBCLOUD, None, answers.Subcloud)[0]}
    scene.hosts = {h.metadata.name: h for h in client.list_items(HOST, namespace, answers.Host)[0]}
    scene.alarms = {a.metadata.name: a for a in client.list_items(ALARM, namespace, answers.Alarm)[0]}
    return scene


def _watch(session: Session) -> None:
    """Keep the screen fresh until interrupted; changes that come together are drawn together."""
    from rich.console import Group
    from rich.live import Live

    scene = Scene(session.namespace)
    screen = output.console()
    if not screen.is_terminal:
        raise Problem(
            "`roost status --watch` needs a terminal", "leave --watch out, or use `roost get KIND --watch`"
        )
    with Watches(session.client) as watches, Live(console=screen, auto_refresh=False, screen=True) as live:
        watches.add("clouds", CLOUD, None, answers.Cloud)
        watches.add("subclouds", SUBCLOUD, None, answers.Subcloud)
        watches.add("hosts", HOST, session.namespace, answers.Host)
        watches.add("alarms", ALARM, session.namespace, answers.Alarm)
        while True:
            taken = watches.take(1.0)
            while taken is not None:
                put(scene, *taken)
                taken = watches.take(0.0)
            live.update(Group(*picture(scene, output.now(), screen.width)[: screen.height]), refresh=True)


def put(scene: Scene, name: str, event: object) -> None:
    """Take what a watch brought into the scene."""
    known: dict[str, answers.Item] = getattr(scene, name)
    if isinstance(event, Snapshot):
        known.clear()
        known.update({i.metadata.name: i for i in event.items})
    elif isinstance(event, Change):
        if event.type == "DELETED":
            known.pop(event.item.metadata.name, None)
        else:
            known[event.item.metadata.name] = event.item
