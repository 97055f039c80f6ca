"""What a run is made of: the plan, its events, the laws that watch it, and what they found.

A plan is data, written and read as JSON: whoever has it can run it again. Events are ordered by the time at
which they happen, in simulated seconds after the tree has settled for the first time.

Actions, with their arguments (all have defaults):
- `crash` (`silent`: bool): the process ends at once. Its peers are told by a reset, unless it is silent, as
  when power goes: then only their own timeouts tell, or a reset when the machine is up again;
- `power-cut`: the machine goes off silently in the midst of the next commit, of which parts are left;
- `start`, `stop`: begin the process; end it in good order;
- `cut` (`direction`: "up", "down", "both"), `mend`: the link from the target to what is above it;
- `slow-link` (`delay`, `jitter`: seconds), `reset-link`: the same link;
- `slow-disk` (`seconds` for each commit), `full-disk`, `free-disk`;
- `clock-step` (`seconds`), `clock-drift` (`ppm`): the target's wall clock;
- `snapshot`, `restore`: of the target's store, by the product's own code; to the last snapshot;
- `machine` (`processor`, `memory`, `root`: percent; `dark`: a port without carrier, "" for none; `disks`: how
  many it has): of a host;
- `skew` (`version`: str; `without`: features, divided by commas): what the target's hello says of itself;
- `operate` (`verb`, and its own): what a person does; see `run.OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import msgspec

if TYPE_CHECKING:
    from roost.sim.deterministic.tree import Tree

Argument = float | int | str | bool
Action = Literal[
    "crash",
    "power-cut",
    "start",
    "stop",
    "cut",
    "mend",
    "slow-link",
    "reset-link",
    "slow-disk",
    "full-disk",
    "free-disk",
    "clock-step",
    "clock-drift",
    "snapshot",
    "restore",
    "machine",
    "skew",
    "operate",
]
ACTIONS: tuple[str, ...] = get_args(Action)


MOST_SITES = 100
MOST_HOSTS = 20
MOST_SECONDS = 1_000_000.0


class Wrong(ValueError):
    """A plan that can't be performed, and why."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens to one node, `at` simulated seconds.

    `target` is a node's name: "central", "site-0000", "site-0000/controller-0".
    """

    at: float
    action: Action
    target: str
    arguments: dict[str, Argument] = {}

    def __str__(self) -> str:
        said = "".join(f" {name}={value!r}" for name, value in sorted(self.arguments.items()))
        return f"{self.action} {self.target}{said}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run is made of: the seed of its chance, the tree, how long it lasts, what happens.

    `hosts` are those of each site. After `seconds` everything is healed and must settle.
    """

    seed: int
    sites: int = 2
    hosts: int = 2
    seconds: float = 180.0
    events: tuple[Event, ...] = ()

    def encode(self) -> bytes:
        """The plan as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def decode(cls, text: bytes | str) -> Plan:
        """The plan of a JSON text; raises msgspec.ValidationError, msgspec.DecodeError."""
        return msgspec.json.decode(text, type=cls)

    @classmethod
    def read(cls, text: bytes | str) -> Plan:
        """The plan of a JSON text, which may also be what a run gave, with the plan in it."""
        found = msgspec.json.decode(text)
        if isinstance(found, dict) and isinstance(found.get("plan"), dict):
            found = found["plan"]
        return msgspec.convert(found, cls)

    def check(self, verbs: Container[str]) -> None:
        """Raises Wrong for what can't be performed: sizes, moments, targets and verbs that there are not."""
        if not (1 <= self.sites <= MOST_SITES and 1 <= self.hosts <= MOST_HOSTS):
            raise Wrong(f"a plan has 1 to {MOST_SITES} sites of 1 to {MOST_HOSTS} hosts")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise Wrong(f"a plan lasts more than 0 and at most {MOST_SECONDS:g} seconds")
        nodes = {"central"}
        for site in range(self.sites):
            nodes |= {f"site-{site:04d}", *(f"site-{site:04d}/controller-{n}" for n in range(self.hosts))}
        for number, event in enumerate(self.events, start=1):
            said = f"event {number} ({event})"
            if not 0 <= event.at <= self.seconds:
                raise Wrong(f"{said} is at {event.at:g} s, and the plan lasts from 0 to {self.seconds:g} s")
            if event.target not in nodes:
                raise Wrong(f"{said} happens to nobody; there are {', '.join(sorted(nodes)[:12])}")
            if event.action == "operate" and event.arguments.get("verb") not in verbs:
                raise Wrong(f"{said} has no verb that people know")


class Violation(msgspec.Struct, frozen=True):
    """A law that did not hold, at simulated seconds."""

    law: str
    at: float
    message: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave. `digest` is of trace and final stores; `seconds` are of the wall clock."""

    plan: Plan
    digest: str
    trace: list[str]
    violations: list[Violation]
    seconds: float
    simulated: float


class Law(Protocol):
    """Something that must hold. One object watches one run and collects for `finish` what it sees."""

    name: str

    def begin(self, tree: Tree) -> None:
        """The tree has settled for the first time; nothing has happened yet."""
        ...

    def observe(self, tree: Tree) -> None:
        """Called after every event and every few simulated seconds; reads only."""
        ...

    async def finish(self, tree: Tree) -> list[Violation]:
        """The tree was healed and is quiet (or would not become so): what was broken."""
        ...
