"""Let one event of a plan happen on a tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from roost.model.host import Disk
from roost.sim.deterministic.events import Argument, Event
from roost.sim.deterministic.network import Conditions, Skew, Way
from roost.sim.deterministic.tree import Node, Tree
from roost.sim.machine import Load
from roost.store.errors import StoreError

OPERATIONS: dict[str, Callable[[Tree, Event], Awaitable[None]]] = {}
"""What people do, by the `verb` of an event `operate`."""


async def perform(tree: Tree, event: Event) -> None:
    """Let one event happen. Raises KeyError for a target or a verb that there is not."""
    node = tree.nodes[event.target]
    if event.action == "operate":
        await OPERATIONS[str(event.arguments["verb"])](tree, event)
    elif event.action in _LASTING:
        await _LASTING[event.action](node)
    else:
        _AT_ONCE[event.action](node, event.arguments)


Arguments = dict[str, Argument]


def _number(arguments: Arguments, name: str, default: float) -> float:
    return float(arguments.get(name, default))


def _crash(node: Node, arguments: Arguments) -> None:
    node.crash(silent=bool(arguments.get("silent", False)))


def _power_cut(node: Node, _: Arguments) -> None:
    node.lose_power()


def _start(node: Node, _: Arguments) -> None:
    node.start()


def _cut(node: Node, arguments: Arguments) -> None:
    ways: dict[str, tuple[Way, ...]] = {"up": ("up",), "down": ("down",), "both": ("up", "down")}
    if node.link is not None:
        node.link.cut(*ways[str(arguments.get("direction", "both"))])


def _mend(node: Node, _: Arguments) -> None:
    if node.link is not None:
        node.link.mend()


def _slow_link(node: Node, arguments: Arguments) -> None:
    if node.link is not None:
        delay, jitter = _number(arguments, "delay", 0.5), _number(arguments, "jitter", 0.5)
        conditions = Conditions(delay=delay, jitter=jitter, loss=_number(arguments, "loss", 0.05))
        node.link.conditions = {"up": conditions, "down": conditions}


def _reset_link(node: Node, _: Arguments) -> None:
    if node.link is not None:
        node.link.break_all()


def _slow_disk(node: Node, arguments: Arguments) -> None:
    node.disk.slow_seconds = _number(arguments, "seconds", 1.0)


def _full_disk(node: Node, _: Arguments) -> None:
    node.disk.is_full = True


def _free_disk(node: Node, _: Arguments) -> None:
    node.disk.is_full, node.disk.slow_seconds = False, 0.0


def _clock_step(node: Node, arguments: Arguments) -> None:
    node.clock.step(_number(arguments, "seconds", 0.0))


def _clock_drift(node: Node, arguments: Arguments) -> None:
    node.clock.drift(_number(arguments, "ppm", 0.0))


def _machine(node: Node, arguments: Arguments) -> None:
    machine = node.machine
    load = machine.load
    dark = load.dark_ports
    if "dark" in arguments:
        dark = frozenset(port for port in str(arguments["dark"]).split(",") if port)
    machine.load = Load(
        processor=_number(arguments, "processor", load.processor),
        memory=_number(arguments, "memory", load.memory),
        root=_number(arguments, "root", load.root),
        dark_ports=dark,
    )
    if "disks" in arguments:
        machine.change(disks=_disks(machine._has.disks, int(arguments["disks"])))


def _disks(disks: list[Disk], number: int) -> list[Disk]:
    """So many disks, made after the first."""
    first = disks[0]
    more = [
        msgspec.structs.replace(
            first, name=f"nvme{n}n1", path=f"{first.path}-{n}", serial=f"{first.serial}{n}"
        )
        for n in range(1, number)
    ]
    return [first, *more]


def _skew(node: Node, arguments: Arguments) -> None:
    without = frozenset(word for word in str(arguments.get("without", "")).split(",") if word)
    node.station.skew = Skew(version=str(arguments.get("version", "")), without=without)


def _snapshot(node: Node, _: Arguments) -> None:
    header = node.disk.take_snapshot(node.clock())
    node.tree.say(f"snapshot of {node.name} at revision {header.revision}")


_AT_ONCE: dict[str, Callable[[Node, Arguments], None]] = {
    "crash": _crash,
    "power-cut": _power_cut,
    "start": _start,
    "cut": _cut,
    "mend": _mend,
    "slow-link": _slow_link,
    "reset-link": _reset_link,
    "slow-disk": _slow_disk,
    "full-disk": _full_disk,
    "free-disk": _free_disk,
    "clock-step": _clock_step,
    "clock-drift": _clock_drift,
    "machine": _machine,
    "skew": _skew,
    "snapshot": _snapshot,
}


async def _stop(node: Node) -> None:
    await node.stop()


async def _restore(node: Node) -> None:
    """As an operator does: stop, restore, start if it ran."""
    if not node.disk.has_snapshot:
        node.tree.say(f"no snapshot of {node.name} to restore")
        return
    ran = node.running
    await node.stop()
    if node.running:
        node.tree.say(f"{node.name} was started meanwhile; nothing is restored")
        return
    try:
        result = node.disk.restore(node.clock())
        node.tree.say(f"restored {node.name} from revision {result.at}; it goes on from {result.base}")
    except (StoreError, OSError) as error:
        # The database is as it was, and the node goes on with it.
        node.tree.say(f"{node.name} could not be restored: {type(error).__name__}")
    if ran:
        node.start()


_LASTING: dict[str, Callable[[Node], Awaitable[None]]] = {"stop": _stop, "restore": _restore}
