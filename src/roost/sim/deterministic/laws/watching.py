"""The laws as they watch a run: what is looked at, and when. How they decide stands in modules beside."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import msgspec

from roost.sim.deterministic.events import Law, Violation
from roost.sim.deterministic.laws import (
    agreement,
    alarms,
    bounds,
    cursors,
    logs,
    operations,
    restarts,
    survival,
)
from roost.sim.deterministic.laws.books import Book
from roost.sim.deterministic.laws.sizes import sizes_of
from roost.sim.deterministic.ledger import ledger
from roost.sim.deterministic.tree import Node, Tree
from roost.store.transaction import Transaction

CENTRE = "central"
MOST = 20
"""Violations of one law told of one run."""


def every() -> list[Law]:
    """All laws, new ones for one run."""
    looks = Looks()
    return [
        Cursors(looks),
        Logs(looks),
        Alarms(looks),
        Accepted(),
        Agreement(),
        Operations(),
        Restarts(),
        Bounds(),
    ]


# -- what they look at


class Glance(msgspec.Struct, frozen=True):
    """What is looked at of a store that lives, often: of its own identity and revision, how far it took its
    peers in, and which log entries came since the last look."""

    identity: str
    revision: int
    cursors: dict[str, tuple[str, int]]
    arrivals: list[logs.Arrival]


class Looks:
    """Glances at all nodes that live, taken once for all laws at each look."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self.now: dict[str, Glance] = {}

    def begin(self, tree: Tree) -> None:
        """What has been so far is no news."""
        self._at = {name: node.store.revision for name, node in tree.nodes.items() if node.alive}
        self.now.clear()

    def take(self, tree: Tree) -> None:
        """Look."""
        self.now.clear()
        for name, node in tree.nodes.items():
            seen = glance(node, self._at.get(name, 0))
            if seen is not None:
                self.now[name] = seen
                self._at[name] = seen.revision


_CURSORS = "SELECT peer, store_id, revision FROM cursors"
_ENTRIES = (
    "SELECT type, name, data FROM changes "
    f"WHERE revision > ? AND revision <= ? AND kind = '{logs.KIND}' ORDER BY revision"
)


def glance(node: Node, after: int) -> Glance | None:
    """A glance at a node; None while it is down. What was not answered as committed yet is not looked at."""
    if not node.alive:
        return None
    store = node.store
    revision = store.revision

    def work(tx: Transaction) -> Glance:
        ask = tx.connection.exec_driver_sql
        told = {row[0]: (row[1], row[2]) for row in ask(_CURSORS)}
        new = ask(_ENTRIES, (after, revision)) if revision > after else ()
        return Glance(store.identity, revision, told, [logs.Arrival(*row) for row in new])

    return store._snapshot(work)


class _Finished:
    """Books of all nodes, read once at the end for all laws."""

    def __init__(self, tree: Tree) -> None:
        self.books = {name: Book(node.rows()) for name, node in tree.nodes.items()}
        self.sites = sorted(name for name in tree.nodes if name != CENTRE and "/" not in name)
        centre = self.books[CENTRE]
        self.declared = {key[2] for key in centre.rows if key[0] == "Subcloud"}
        self.clouds = [CENTRE, *self.sites]

    def hosts(self, site: str) -> list[str]:
        """Hosts that are machines and that the site has declared."""
        there = {r.name for r in self.books[site].of("Host", origin="")}
        names = sorted(name.partition("/")[2] for name in self.books if name.startswith(f"{site}/"))
        return [name for name in names if name in there]


_FINISHED: WeakKeyDictionary[Tree, _Finished] = WeakKeyDictionary()


def _finished(tree: Tree) -> _Finished:
    if tree not in _FINISHED:
        _FINISHED[tree] = _Finished(tree)
    return _FINISHED[tree]


def _machines(tree: Tree, site: str, hosts: list[str]) -> dict[str, alarms.Machine]:
    found = {}
    for name in hosts:
        node = tree.nodes[f"{site}/{name}"]
        if node.alive:
            found[name] = alarms.machine_of(node.machine.load, node.machine._has)
    return found


def _wanted(tree: Tree, site: str) -> tuple[dict[str, alarms.Machine], alarms.Alarms]:
    finished = _finished(tree)
    machines = _machines(tree, site, finished.hosts(site))
    return machines, alarms.of_site(site, finished.books[site], machines)


# -- the laws


class _Law:
    """What all have: they say what was broken, when, and each thing once."""

    name = ""

    def __init__(self) -> None:
        self._found: dict[str, float] = {}
        self._begun = False

    def begin(self, tree: Tree) -> None:
        self._found.clear()
        self._begun = True

    def observe(self, tree: Tree) -> None:
        if self._begun:
            self.look(tree)

    def look(self, tree: Tree) -> None:
        """What is looked at while the run goes on."""

    async def finish(self, tree: Tree) -> list[Violation]:
        self._say(tree, self.end(tree))
        return [Violation(self.name, at, what) for what, at in list(self._found.items())[:MOST]]

    def end(self, tree: Tree) -> list[str]:
        """What is broken in the end."""
        return []

    def _say(self, tree: Tree, found: list[str]) -> None:
        for what in found:
            self._found.setdefault(what, tree.now)


class Accepted(_Law):
    """What was accepted stays."""

    name = "accepted writes stay"

    def end(self, tree: Tree) -> list[str]:
        finished = _finished(tree)
        return [
            what
            for name in finished.clouds
            for what in survival.lost(name, finished.books[name], ledger(tree).of(name))
        ]


class Agreement(_Law):
    """One writer per fact, and all agree in the end."""

    name = "all agree"

    def end(self, tree: Tree) -> list[str]:
        finished = _finished(tree)
        centre = finished.books[CENTRE]
        found = agreement.shared(CENTRE, centre)
        for site in finished.sites:
            here = finished.books[site]
            if site in finished.declared:
                found += agreement.between_clouds(site, centre, here)
            else:
                found += [
                    f"{site} is deleted, and {k[0]} {k[2]} is still held" for k in centre.rows if k[1] == site
                ]
            found += agreement.claims(site, here)
            for host in finished.hosts(site):
                below = finished.books[f"{site}/{host}"]
                found += agreement.between_host(site, host, here, below)
        return found


class Cursors(_Law):
    """Cursors never go back or run ahead."""

    name = "cursors only rise"

    def __init__(self, looks: Looks) -> None:
        super().__init__()
        self._looks = looks
        self._before: dict[str, Glance] = {}

    def begin(self, tree: Tree) -> None:
        super().begin(tree)
        self._looks.begin(tree)
        self._before.clear()

    def look(self, tree: Tree) -> None:
        # The first of the laws looks for all that look on.
        self._looks.take(tree)
        heads = self._looks.now
        for name, now in heads.items():
            before = self._before.get(name)
            if before is not None and before.identity == now.identity:
                dropped = [p for p in before.cursors if p not in now.cursors and p != "up"]
                self._say(tree, cursors.gone_back(name, before.cursors, now.cursors, dropped))
            self._say(tree, cursors.ahead(name, now.cursors, _peers(name, heads)))
        self._before.update(heads)

    def end(self, tree: Tree) -> list[str]:
        finished = _finished(tree)
        heads = {
            n: Glance(b.identity, b.counters.get("revision", 0), b.cursors, [])
            for n, b in finished.books.items()
        }
        found = list[str]()
        for name, head in heads.items():
            peers = _peers(name, heads)
            found += cursors.ahead(name, head.cursors, peers)
            linked = {p: at for p, at in peers.items() if _is_linked(finished, name, p)}
            found += cursors.stale(name, head.cursors, linked)
        return found


def _peers(name: str, heads: dict[str, Glance]) -> dict[str, tuple[str, int]]:
    """Identity and revision of the stores that a node has cursors of, as its cursors name them."""
    found = {}
    for other, head in heads.items():
        stands = (head.identity, head.revision)
        if name == CENTRE and other != CENTRE and "/" not in other:
            found[f"subcloud/{other}"] = stands
        elif other.startswith(f"{name}/"):
            found[f"host/{other}"] = stands
        elif other == (name.partition("/")[0] if "/" in name else CENTRE) and name != CENTRE:
            found["up"] = stands
    return found


def _is_linked(finished: _Finished, name: str, peer: str) -> bool:
    """Whether both ends of a link are declared, so that it must be up in the end."""
    lower = name if peer == "up" else peer.partition("/")[2]
    if "/" not in lower:
        return lower in finished.declared
    site, _, host = lower.partition("/")
    return host in finished.hosts(site)


class Logs(_Law):
    """Log entries come once and in order."""

    name = "log entries come once and in order"

    def __init__(self, looks: Looks) -> None:
        super().__init__()
        self._looks = looks
        self._told: dict[str, logs.Told] = {}

    def begin(self, tree: Tree) -> None:
        super().begin(tree)
        self._told = {name: logs.Told() for name in tree.nodes}
        for name, node in tree.nodes.items():
            before = glance(node, 0)
            if before is not None:
                self._say(tree, [f"{name}: {what}" for what in self._told[name].take(before.arrivals)])

    def look(self, tree: Tree) -> None:
        restored = {e.target for e in tree.plan.events if e.action == "restore" and e.at <= tree.now}
        for name, now in self._looks.now.items():
            self._say(tree, [f"{name}: {what}" for what in self._told[name].take(now.arrivals, restored)])

    def end(self, tree: Tree) -> list[str]:
        finished = _finished(tree)
        return [what for name, book in finished.books.items() for what in logs.gaps(name, book)]


class Alarms(_Law):
    """Alarms and states follow from how things are."""

    name = "alarms follow from state"

    def __init__(self, looks: Looks) -> None:
        super().__init__()
        self._looks = looks
        self._loads: dict[str, object] = {}
        self._changes: dict[str, int] = {}
        self._spared: set[str] = set()

    def begin(self, tree: Tree) -> None:
        super().begin(tree)
        self._loads = {name: node.machine.load for name, node in tree.nodes.items() if "/" in name}
        self._changes = dict.fromkeys(self._loads, 0)
        # Where a store is put back, or people meddle with hosts and alarms, the log tells of that, too.
        meddling = ("delete-host", "delete-alarm", "delete-network", "declare-network", "set-thresholds")
        self._spared = {
            e.target.partition("/")[0]
            for e in tree.plan.events
            if e.action == "restore" or e.arguments.get("verb") in meddling
        }
        if CENTRE in self._spared:
            self._spared.update(tree.nodes)

    def look(self, tree: Tree) -> None:
        for name, before in self._loads.items():
            load = tree.nodes[name].machine.load
            if load is not before:
                self._loads[name] = load
                self._changes[name] += 1
        for site in [n for n in tree.nodes if n != CENTRE and "/" not in n and n not in self._spared]:
            now = self._looks.now.get(site)
            if now is None:
                continue
            for name in [n for n in self._loads if n.startswith(f"{site}/")]:
                machine = alarms.machine_of(self._loads[name], tree.nodes[name].machine._has)
                host = name.partition("/")[2]
                said = (alarms.unchanged(host, a, self._changes[name], machine) for a in now.arrivals)
                self._say(tree, [f"{site}: {what}" for what in said if what])

    def end(self, tree: Tree) -> list[str]:
        finished = _finished(tree)
        centre, found = finished.books[CENTRE], list[str]()
        for site in finished.sites:
            machines, wanted = _wanted(tree, site)
            here = finished.books[site]
            found += alarms.differences(site, wanted, here, site)
            found += alarms.states(site, here, wanted, machines)
            if site in finished.declared:
                found += [f"at the centre: {w}" for w in alarms.differences(site, wanted, centre, site)]
        lost = [r for r in centre.of("Alarm", namespace=CENTRE) if r.status.get("alarmId") == "280.001"]
        found += [f"{r.status.get('entity')} is said to be offline, and its link is up" for r in lost]
        for row in centre.of("Subcloud"):
            if row.name in finished.sites and row.status.get("availability") != "online":
                found.append(
                    f"{row.name} is {row.status.get('availability')} at the centre, and its link is up"
                )
        return found


class Operations(_Law):
    """Every operation ends."""

    name = "every operation ends"

    def end(self, tree: Tree) -> list[str]:
        finished, found = _finished(tree), list[str]()
        for site in finished.sites:
            machines, wanted = _wanted(tree, site)
            found += operations.unended(site, finished.books[site], machines, wanted, _clock(tree, site))
            found += operations.unsettled(site, finished.books[site], machines, wanted)
        return found


def _clock(tree: Tree, site: str) -> float:
    """Seconds since the epoch as the site's own clock has them; 0, before all deadlines, while it is down."""
    node = tree.nodes[site]
    return float(node.store._snapshot(lambda tx: tx.now.timestamp())) if node.alive else 0.0


class Restarts(_Law):
    """Nothing is restarted or configured anew without intent."""

    name = "nothing restarts unasked"

    def __init__(self) -> None:
        super().__init__()
        self._restarts: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._identities: dict[str, str] = {}
        self._restored: dict[str, int] = {}
        self._machines: dict[str, object] = {}
        self._changed: dict[str, int] = {}

    def begin(self, tree: Tree) -> None:
        super().begin(tree)
        for name, node in tree.nodes.items():
            if "/" in name:
                self._restarts[name] = node.machine.restarts
                self._machines[name] = node.machine._has
            else:
                self._revisions[name] = node.store.revision

    def look(self, tree: Tree) -> None:
        for name, node in tree.nodes.items():
            if "/" in name and node.machine._has is not self._machines.get(name):
                self._machines[name] = node.machine._has
                self._changed[name] = self._changed.get(name, 0) + 1
            if node.alive and self._identities.setdefault(name, node.store.identity) != node.store.identity:
                self._identities[name] = node.store.identity
                self._restored[name] = self._restored.get(name, 0) + 1

    def end(self, tree: Tree) -> list[str]:
        finished, written, found = _finished(tree), ledger(tree), list[str]()
        centre = self._restored.get(CENTRE, 0)
        for site in finished.sites:
            book = finished.books[site]
            for host in finished.hosts(site):
                name = f"{site}/{host}"
                writes = [w for w in written.writes if w.answer != "refused" and w.home in (site, CENTRE)]
                orders = restarts.Orders(
                    reboots=sum(w.key[0] == "Operation" and w.verb == "post" for w in writes),
                    writes=len(writes),
                    machine=self._changed.get(name, 0),
                    restores=self._restored.get(site, 0) + centre + self._restored.get(name, 0),
                    subclouds=sum(w.key[0] == "Subcloud" for w in writes),
                )
                again = tree.nodes[name].machine.restarts - self._restarts.get(name, 0)
                found += restarts.unasked_restarts(name, again, orders)
                since = [c for c in book.table("changes") if c["revision"] > self._revisions.get(site, 0)]
                found += restarts.unasked_intent(name, restarts.changes_of_intent(since, host), orders)
        return found


class Bounds(_Law):
    """Everything is bounded."""

    name = "everything is bounded"

    def look(self, tree: Tree) -> None:
        for name, node in tree.nodes.items():
            if node.alive:
                self._say(tree, bounds.over(name, sizes_of(node)))

    def end(self, tree: Tree) -> list[str]:
        found = []
        for name, book in _finished(tree).books.items():
            sizes = {
                "history": len(book.table("changes")),
                "log entries": len(book.of("LogEntry", origin="")),
                "operations": len(book.of("Operation", origin="")),
                "events": len(book.of("Event", origin="")),
                "steps": len(book.table("steps")),
            }
            found += bounds.over(name, sizes)
        return found
