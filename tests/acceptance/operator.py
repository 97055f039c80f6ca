"""An operator who works: seeded, restless, sensible and foolish, and exact about what he was told.

Each operator is a thread with a door of his own to one cloud. He makes, changes and deletes policies,
networks and config maps, marks hosts and subclouds, locks, unlocks and restarts hosts, writes over what
others have written meanwhile, and asks for what must be refused. Names of his own he alone makes and deletes;
what is called `both` belongs to two operators at once. Every answer is kept in `Writes`.

What he does follows from the seed; what comes of it does not, for he works on real processes that die.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.acceptance.doors import API_VERSION, MERGE, Door, Reply, path
from tests.acceptance.running import Demo
from tests.acceptance.writes import Asked, Key, Verb, Writes, content, counts, named, numbers, tell

Raw = dict[str, Any]
OWN_OF_EACH_KIND = 3
PAUSE = 0.7
"""Mean seconds between two acts."""
SHARED = "both"
LOCKABLE = {"harbor": ("controller-0",), "ridge": ("controller-1",), "valley": ("controller-1", "worker-0")}
SELECTIONS: tuple[Raw, ...] = (
    {},
    {"names": ["ridge", "valley"]},
    {"names": ["harbor"]},
    {"names": ["valley"], "labels": {}},
)
Begun = Callable[[str, str], None]
"""Told of each host that somebody begins to work on: cloud and host."""


class Operator:
    """One who works at one cloud, from `start` until `stop`."""

    def __init__(
        self,
        demo: Demo,
        writes: Writes,
        cloud: str,
        seed: str,
        *,
        name: str = "",
        through: bool = False,
        begun: Begun = lambda cloud, host: None,
        lockable: Mapping[str, Sequence[str]] = LOCKABLE,
    ) -> None:
        self.name = name or f"{cloud}{'-afar' if through else ''}"
        self.cloud, self.through = cloud, through
        self.acts = 0
        self.longest_silence = 0.0
        self._demo, self._writes, self._begun = demo, writes, begun
        self._lockable = lockable.get(cloud, ())
        self._random = random.Random(f"{seed}/{self.name}")
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._door: Door

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._enough.set()

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive(), f"operator {self.name} does not end"

    # -- his day

    def _run(self) -> None:
        try:
            self._door = Door(self._demo, self.cloud, through=self.through)
            acts, weights = zip(*self._day(), strict=True)
            while not self._enough.is_set():
                self._random.choices(acts, weights)[0]()
                self.acts += 1
                self._enough.wait(self._random.expovariate(1 / PAUSE))
            self.longest_silence = self._door.longest_silence
            self._door.close()
        except Exception as error:
            self._writes.problem(f"operator {self.name} could not go on: {error!r}")

    def _day(self) -> list[tuple[Callable[[], None], float]]:
        day: list[tuple[Callable[[], None], float]] = [
            (self._own, 10),
            (self._patch_shared, 4),
            (self._replace_shared, 4),
            (self._stale, 2),
            (self._mark, 2),
            (self._foolish, 4),
            (self._read_back, 3),
        ]
        if self._lockable:
            day += [(self._administer, 1.6), (self._restart, 0.4)]
        return day

    # -- things of his own

    def _own(self) -> None:
        """Make, change or delete one of the things that are his alone."""
        key = self._own_key()
        latest = self._writes.latest(self.cloud, key)
        if latest is not None and latest.said == "unanswered":
            # As anybody would, he looks first what came of it.
            there = self._get(key)
            if there is None:
                return
            exists = bool(there)
        else:
            exists = latest is not None and latest.verb != "delete"
        if not exists:
            self._create(key)
        elif self._random.random() < 0.25:
            self._delete(key)
        else:
            self._patch(key)

    def _own_key(self) -> Key:
        kinds = ["FirewallPolicy", "ConfigMap"] + (["PlatformNetwork"] if self.cloud != "central" else [])
        kind = self._random.choice(kinds)
        return (kind, self.cloud, f"{self.name}-{self._random.randrange(OWN_OF_EACH_KIND)}")

    def _create(self, key: Key) -> None:
        kind, namespace, name = key
        asked = self._begin("create", key)
        body = named(kind, namespace, name, content(kind, asked.number, **self._more(kind)))
        self._end(asked, self._door.write("POST", path(kind, namespace), body))

    def _more(self, kind: str) -> Raw:
        """Some policies of the centre are shared with sites."""
        if kind == "FirewallPolicy" and self.cloud == "central" and self._random.random() < 0.6:
            return {"subclouds": self._random.choice(SELECTIONS)}
        return {}

    def _patch(self, key: Key) -> None:
        asked = self._begin("update", key)
        self._end(asked, self._door.write("PATCH", path(*key), content(key[0], asked.number), form=MERGE))

    def _delete(self, key: Key) -> None:
        there = self._get(key)
        if not there:
            return
        asked = self._begin("delete", key)
        asked.uid = there["metadata"]["uid"]
        body = {"preconditions": {"uid": asked.uid}}
        self._end(asked, self._door.write("DELETE", path(*key), body))

    # -- things of two

    def _shared_key(self) -> Key:
        return (self._random.choice(("FirewallPolicy", "ConfigMap")), self.cloud, SHARED)

    def _patch_shared(self) -> None:
        self._patch(self._shared_key())

    def _replace_shared(self) -> None:
        """Read, think, and replace: refused when somebody else was quicker."""
        key = self._shared_key()
        there = self._get(key)
        if not there:
            return
        self._enough.wait(self._random.random() * 0.3)
        asked = self._begin("update", key)
        self._end(asked, self._door.write("PUT", path(*key), _replaced(there, key, asked)))

    def _stale(self) -> None:
        """Replace what he himself has changed since he read it: must be refused."""
        key = self._shared_key()
        there = self._get(key)
        if not there:
            return
        between = self._begin("update", key)
        reply = self._door.write("PATCH", path(*key), content(key[0], between.number), form=MERGE)
        if self._end(between, reply).said != "accepted":
            return
        asked = self._begin("update", key, must_refuse="it was made from an older version")
        self._end(asked, self._door.write("PUT", path(*key), _replaced(there, key, asked)))

    # -- hosts and subclouds

    def _mark(self) -> None:
        if self.cloud == "central":
            key = ("Subcloud", "", self._random.choice(sorted(LOCKABLE)))
        else:
            key = ("Host", self.cloud, "controller-0")
        self._patch(key)

    def _administer(self) -> None:
        """Lock, force-lock or unlock a host."""
        host = self._random.choice(self._lockable)
        wish = self._random.choice(("locked", "unlocked", "unlocked"))
        key = ("Host", self.cloud, host)
        asked = self._begin("update", key, wish=wish)
        force = wish == "locked" and self._random.random() < 0.3
        body = content("Host", asked.number, administrativeState=wish, forceLock=force)
        self._end(asked, self._door.write("PATCH", path(*key), body, form=MERGE))
        self._begun(self.cloud, host)

    def _restart(self) -> None:
        """Restart a locked host; that of one in service is refused."""
        host = self._random.choice(self._lockable)
        name = f"restart-{host}-{self._random.randrange(10**9)}"
        asked = self._begin("create", ("Operation", self.cloud, name))
        made = content("Operation", asked.number, action="reboot", host=host)
        body = named("Operation", self.cloud, name, made)
        self._end(asked, self._door.write("POST", path("Operation", self.cloud), body))
        if asked.said != "refused":
            self._begun(self.cloud, host)

    # -- what must be refused

    def _foolish(self) -> None:
        self._random.choice(
            (
                self._bad_port,
                self._no_networks,
                self._unknown_field,
                self._half_a_body,
                self._other_namespace,
                self._own_operation,
                self._bad_state,
                self._bad_delete,
            )
        )()

    def _refused_create(self, key: Key, reason: str, change: Callable[[Raw], None]) -> None:
        asked = self._begin("create", key, must_refuse=reason)
        body = named(*key, content(key[0], asked.number))
        change(body)
        self._end(asked, self._door.write("POST", path(key[0], key[1]), body))

    def _fool(self, kind: str, namespace: str = "") -> Key:
        return (kind, namespace or self.cloud, f"fool-{self._random.randrange(10**6)}")

    def _bad_port(self) -> None:
        def change(body: Raw) -> None:
            body["spec"]["rules"][0]["ports"] = ["99999"]

        self._refused_create(self._fool("FirewallPolicy"), "there is no port 99999", change)

    def _no_networks(self) -> None:
        def change(body: Raw) -> None:
            del body["spec"]["networks"]

        self._refused_create(self._fool("FirewallPolicy"), "it has no networks", change)

    def _unknown_field(self) -> None:
        def change(body: Raw) -> None:
            body["spec"]["colour"] = "red"

        self._refused_create(self._fool("PlatformNetwork"), "it has an unknown field", change)

    def _other_namespace(self) -> None:
        other = self._random.choice([c for c in ("central", *LOCKABLE) if c != self.cloud])
        self._refused_create(self._fool("ConfigMap", other), "it is no namespace of this cloud", _nothing)

    def _half_a_body(self) -> None:
        key = self._fool("ConfigMap")
        asked = self._begin("create", key, must_refuse="it is half a body")
        body = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "'
        self._end(asked, self._door.write("POST", path("ConfigMap", self.cloud), body))

    def _own_operation(self) -> None:
        key = self._fool("Operation")
        asked = self._begin("create", key, must_refuse="a lock is asked for by a host's spec")
        body = {
            "apiVersion": API_VERSION["Operation"],
            "kind": "Operation",
            "metadata": {"name": key[2], "namespace": self.cloud},
            "spec": {"action": "lock", "host": "controller-0"},
        }
        self._end(asked, self._door.write("POST", path("Operation", self.cloud), body))

    def _bad_state(self) -> None:
        key = ("Host", self.cloud, "controller-0")
        state, reason = "upside-down", "there is no such state"
        if self.cloud in ("ridge", "valley"):
            state, reason = "locked", "it is the active controller"
        asked = self._begin("update", key, must_refuse=reason)
        body = content("Host", asked.number, administrativeState=state)
        self._end(asked, self._door.write("PATCH", path(*key), body, form=MERGE))

    def _bad_delete(self) -> None:
        if self.cloud == "central":
            key, reason = ("Subcloud", "", "ridge"), "it is managed"
        else:
            key, reason = ("Host", self.cloud, "controller-0"), "it runs the cloud"
        asked = self._begin("delete", key, must_refuse=reason)
        self._end(asked, self._door.write("DELETE", path(*key)))

    # -- reading

    def _read_back(self) -> None:
        """What he alone writes must be as he wrote it last, at every moment."""
        key = self._own_key()
        latest = self._writes.latest(self.cloud, key)
        if latest is None or latest.said != "accepted":
            return
        there = self._get(key)
        if there is None:
            return
        open_still = self._writes.unanswered(self.cloud, key)
        said = numbers(there) if there else set()
        if said & open_still or (not there and latest.verb == "delete"):
            return
        if said != {latest.number} or latest.verb == "delete":
            shown = sorted(said) if there else "nothing"
            self._writes.problem(f"{tell(latest)} was accepted, and {shown} was read back")

    def _get(self, key: Key) -> Raw | None:
        """An object; empty when it is not there, None when nobody could say."""
        reply = self._door.read(path(*key))
        if reply.said == "accepted":
            return {"kind": key[0], **reply.body}
        return {} if reply.code == 404 and reply.body.get("details", {}).get("name") == key[2] else None

    # -- keeping count

    def _begin(self, verb: Verb, key: Key, *, wish: str = "", must_refuse: str = "") -> Asked:
        return self._writes.begin(self.name, self.cloud, verb, key, wish=wish, must_refuse=must_refuse)

    def _end(self, asked: Asked, reply: Reply) -> Asked:
        return self._writes.end(asked, reply)


def _replaced(there: Raw, key: Key, asked: Asked) -> Raw:
    """An object as it was read, with a new content; it carries the revision at which it was read."""
    made = named(*key, content(key[0], asked.number))
    meta = {**made["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
    return {**made, "metadata": meta}


def _nothing(body: Raw) -> None:
    """A body that is well in itself."""


def make_shared(demo: Demo, writes: Writes, clouds: tuple[str, ...]) -> None:
    """Make what belongs to two, before anything goes wrong. In a thread, for it steps into namespaces."""

    def make(cloud: str) -> None:
        door = Door(demo, cloud)
        for kind in ("FirewallPolicy", "ConfigMap"):
            asked = writes.begin("nobody", cloud, "create", (kind, cloud, SHARED))
            body = named(kind, cloud, SHARED, content(kind, asked.number))
            writes.end(asked, door.write("POST", path(kind, cloud), body))
            assert asked.said == "accepted", asked
        door.close()

    for cloud in clouds:
        thread = threading.Thread(target=make, args=(cloud,))
        thread.start()
        thread.join(60)
    missing = [c for c in clouds if not any(a.cloud == c and counts(a) for a in writes.all)]
    assert not missing, f"nothing could be made at {missing}"


def unlock_all(demo: Demo, writes: Writes) -> None:
    """The end of the day: every host is to serve."""

    def unlock(cloud: str) -> None:
        door = Door(demo, cloud)
        for host in LOCKABLE[cloud]:
            key = ("Host", cloud, host)
            for _ in range(20):
                asked = writes.begin("nobody", cloud, "update", key, wish="unlocked")
                body = content("Host", asked.number, administrativeState="unlocked", forceLock=False)
                if writes.end(asked, door.write("PATCH", path(*key), body, form=MERGE)).said == "accepted":
                    break
                time.sleep(1)
            else:
                writes.problem(f"{host} of {cloud} could not be unlocked")
        door.close()

    threads = [threading.Thread(target=unlock, args=(cloud,)) for cloud in LOCKABLE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
