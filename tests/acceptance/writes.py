"""What an operator asked for, what he was told, and what must therefore be there. The judging is pure.

Every write has a number of its own, and puts it into every part of the object it writes: annotation, label
and spec. So each version of an object, wherever it is seen, says of which write it is, and a write that was
carried out by half shows. What was accepted is in the history of its home exactly once and stays until it is
written anew; what was refused or never sent is nowhere; what was not answered is there wholly or not at all.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.acceptance.doors import API_VERSION, Reply, Said

Raw = dict[str, Any]
Verb = Literal["create", "update", "delete"]
Key = tuple[str, str, str]
ANNOTATION = "storm.example/write"
LABEL = "write"
HIGHEST = 8000
"""Numbers have to fit where they are put: the order of a policy, the MTU of a network."""


# The number of a write in an object


def content(kind: str, number: int, **more: Any) -> Raw:
    """Everything of an object but its name, made of the number of its write. `more` goes into the spec."""
    meta = {"annotations": {ANNOTATION: str(number)}, "labels": {LABEL: f"w{number}"}}
    if kind == "ConfigMap":
        return {"metadata": meta, "data": {"first": str(number), "last": str(number), "fill": "x" * 200}}
    spec: Raw = {"location": f"place {number}"}
    if kind == "FirewallPolicy":
        port = ("80", "443", "8080")[number % 3]
        rule = {"action": "allow", "protocol": "tcp", "ports": [port], "description": f"write {number}"}
        spec = {"networks": ["mgmt" if number % 5 == 0 else "oam"], "rules": [rule], "order": number}
    elif kind == "Operation":
        spec = {}
    elif kind == "PlatformNetwork":
        spec = {"type": "storage", "subnets": [f"10.{200 + number % 50}.0.0/24"], "mtu": 576 + number}
    return {"metadata": meta, "spec": {**spec, **more}}


def named(kind: str, namespace: str, name: str, body: Raw) -> Raw:
    """An object to create or to replace."""
    meta = {**body["metadata"], "name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API_VERSION[kind], "kind": kind, **body, "metadata": meta}


def numbers(raw: Raw) -> set[int]:
    """The numbers that an object's parts say; one when it is whole, none when nobody here wrote it."""
    kind, meta, spec = raw["kind"], raw["metadata"], raw.get("spec") or {}
    copied = kind == "FirewallPolicy" and "." in meta["name"]
    said: list[Any] = []
    marked = ANNOTATION in meta.get("annotations", {}) or LABEL in meta.get("labels", {})
    if marked and not copied:
        said += [meta.get("annotations", {}).get(ANNOTATION), meta.get("labels", {}).get(LABEL, " ")[1:]]
    if kind == "ConfigMap" and marked:
        said += [raw.get("data", {}).get("first"), raw.get("data", {}).get("last")]
    elif kind == "PlatformNetwork" and marked:
        said += [spec.get("mtu", 0) - 576]
    elif kind in ("Host", "Subcloud") and marked:
        said += [str(spec.get("location", "")).removeprefix("place ")]
    elif kind == "FirewallPolicy":
        told = [r.get("description", "") for r in spec.get("rules", [])]
        told = [t.removeprefix("write ") for t in told if t.startswith("write ")]
        if marked or (copied and told):
            said += [*told, spec.get("order")]
            said += [] if told else ["no rule"]
    found = set()
    for one in said:
        text = str(one)
        found.add(int(text) if text.isdigit() else -1)
    return found


# What was asked and said


@dataclass
class Asked:
    """A write that was sent, or tried to be."""

    number: int
    operator: str
    cloud: str
    verb: Verb
    key: Key
    said: Said = "unanswered"
    code: int = 0
    revision: int = 0
    uid: str = ""
    wish: str = ""
    """The administrative state that it asks for, of a host."""
    must_refuse: str = ""
    """Why it may not be accepted; empty when it may."""
    why: str = ""


class Writes:
    """All of it, by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.all: list[Asked] = []
        self.problems: list[str] = []

    def begin(
        self, operator: str, cloud: str, verb: Verb, key: Key, *, wish: str = "", must_refuse: str = ""
    ) -> Asked:
        """A write that is about to be sent; unanswered until it is."""
        with self._lock:
            asked = Asked(len(self.all) + 1, operator, cloud, verb, key, wish=wish, must_refuse=must_refuse)
            assert asked.number <= HIGHEST, "more writes than numbers"
            self.all.append(asked)
        return asked

    def end(self, asked: Asked, reply: Reply) -> Asked:
        """What was said to it."""
        with self._lock:
            asked.code, asked.why = reply.code, reply.why
            if reply.said == "accepted" and asked.verb != "delete":
                meta = reply.body.get("metadata", {})
                asked.revision, asked.uid = int(meta["resourceVersion"]), meta["uid"]
            elif reply.said == "accepted" and not asked.uid:
                asked.uid = reply.body.get("details", {}).get("uid", "")
            asked.said = reply.said
            if asked.said == "accepted" and asked.must_refuse:
                self.problems.append(f"{tell(asked)} was accepted, though {asked.must_refuse}")
            if reply.code == 500:
                self.problems.append(f"{tell(asked)} was answered with an internal error: {reply.why}")
        return asked

    def problem(self, text: str) -> None:
        with self._lock:
            self.problems.append(text)

    def latest(self, cloud: str, key: Key) -> Asked | None:
        """The last write to an object that may have changed it."""
        with self._lock:
            found = [a for a in self.all if (a.cloud, a.key) == (cloud, key) and counts(a)]
        return found[-1] if found else None

    def unanswered(self, cloud: str, key: Key) -> set[int]:
        """Numbers of the writes to an object of which nobody knows yet whether they happened."""
        with self._lock:
            return {a.number for a in self.all if (a.cloud, a.key, a.said) == (cloud, key, "unanswered")}

    def table(self) -> list[str]:
        """What was said, for people."""
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.all:
            counted[one.operator][one.said] += 1
        kinds: tuple[Said, ...] = ("accepted", "refused", "unanswered", "never sent")
        return [f"{who:22} " + ", ".join(f"{counted[who][k]} {k}" for k in kinds) for who in sorted(counted)]


def counts(asked: Asked) -> bool:
    """Whether it may have changed anything."""
    return asked.said in ("accepted", "unanswered")


def tell(asked: Asked) -> str:
    kind, namespace, name = asked.key
    return f"write {asked.number} ({asked.operator}: {asked.verb} {kind} {namespace}/{name} at {asked.cloud})"


# The judgement at rest


def judge_object(history: Sequence[Asked], seen: Raw | None) -> list[str]:
    """What is wrong with an object at its home, once all is quiet, given every write to its name."""
    found = []
    live = seen["metadata"]["uid"] if seen else ""
    uids = {a.uid for a in history if a.said == "accepted" and a.verb != "delete"}
    taken = {a.uid for a in history if a.verb == "delete" and counts(a)}
    gone = {a.uid for a in history if a.verb == "delete" and a.said == "accepted"}
    for uid in sorted(uids - taken - {live}):
        last = max((a for a in history if a.uid == uid), key=lambda a: a.revision)
        found.append(f"{tell(last)} was accepted and is lost: {'another' if seen else 'nothing'} is there")
    if seen is None:
        return found
    if live in gone:
        found.append(f"{_of(seen)} is there again, though its deletion was accepted")
    said = numbers(seen)
    if len(said) > 1 or -1 in said:
        return [*found, f"{_of(seen)} is of several writes: {sorted(said)}"]
    if not said:
        if uids:
            found.append(f"{_of(seen)} has nothing of the writes that were accepted")
        return found
    by_number = {a.number: a for a in history if a.verb != "delete"}
    write = by_number.get(said.pop())
    accepted = [a for a in history if a.said == "accepted" and a.uid == live and a.verb != "delete"]
    if write is None or not counts(write):
        found.append(f"{_of(seen)} says what was not accepted: {tell(write) if write else numbers(seen)}")
    elif write.said == "accepted" and write.uid != live:
        found.append(f"{_of(seen)} says what was written to another of this name: {tell(write)}")
    elif write.said == "accepted" and write is not (last := max(accepted, key=lambda a: a.revision)):
        found.append(f"{tell(last)} was accepted and is lost: write {write.number} is there")
    return found + _wish(history, seen)


def _wish(history: Sequence[Asked], seen: Raw) -> list[str]:
    """The administrative state is the one asked for last; what was not answered may have come at any time."""
    wishes = [a for a in history if a.wish and counts(a)]
    if not wishes:
        return []
    accepted = [a for a in wishes if a.said == "accepted"]
    allowed = {a.wish for a in wishes if a.said == "unanswered"}
    if accepted:
        allowed.add(max(accepted, key=lambda a: a.revision).wish)
    state = seen["spec"]["administrativeState"]
    return (
        [] if state in allowed or not accepted else [f"{_of(seen)} is {state}, asked was {sorted(allowed)}"]
    )


def judge(asked: Iterable[Asked], cloud: str, seen: dict[Key, Raw]) -> list[str]:
    """What is wrong at one home with everything that was written there."""
    by_key: dict[Key, list[Asked]] = defaultdict(list)
    for one in asked:
        if one.cloud == cloud:
            by_key[one.key].append(one)
    return [text for key, history in by_key.items() for text in judge_object(history, seen.get(key))]


def _of(raw: Raw) -> str:
    return f"{raw['kind']} {raw['metadata'].get('namespace', '')}/{raw['metadata']['name']}"
