"""The store against a dictionary: whatever is written, in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from roost.engine.clock import LoopClock
from roost.model.codec import Raw
from roost.model.host import Host, HostStatus
from roost.store.errors import AlreadyExists, Conflict, NotFound
from roost.store.store import Store
from roost.store.transaction import Change, Transaction
from tests.support.clock import START
from tests.support.stores import history, new_database, raw

NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.fixed_dictionaries({"location": st.sampled_from(["", "attic", "cellar"])})
KIND = "Host"


class Model:
    """What a dictionary would say of one resource."""

    def __init__(self, uid: str, spec: Raw, origin: str) -> None:
        self.uid, self.spec, self.origin = uid, spec, origin
        self.status: Raw = {}
        self.generation = 1
        self.finalizers: list[str] = []
        self.dying = False


class History(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.databases = contextlib.ExitStack()
        self.loop = asyncio.new_event_loop()
        self.url = self.databases.enter_context(new_database())
        self.store = self.loop.run_until_complete(Store.open(self.url, clock=LoopClock(START), inline=True))
        self.model: dict[str, Model] = {}
        self.revision = 0
        self.uids: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run_until_complete(self.store.close())
            self.loop.close()
            self.databases.close()

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(self.store.transact(work))

    def moved(self, *, by: int) -> None:
        assert self.store.revision == self.revision + by
        self.revision = self.store.revision

    @rule(name=NAMES, spec=SPECS)
    def create(self, name: str, spec: Raw) -> None:
        try:
            made = self.do(lambda tx: tx.create(raw(KIND, name, spec=spec)))
        except AlreadyExists:
            assert name in self.model
            self.moved(by=0)
            return
        assert name not in self.model
        assert made.uid not in self.uids
        self.uids.add(made.uid)
        self.model[name] = Model(made.uid, spec, "")
        self.moved(by=1)

    @rule(name=NAMES, spec=SPECS, finalizers=st.lists(st.sampled_from(["x", "y"]), unique=True, max_size=2))
    def replace(self, name: str, spec: Raw, finalizers: list[str]) -> None:
        new = raw(KIND, name, spec=spec, metadata={"finalizers": finalizers})
        known = self.model.get(name)
        if known:
            new["status"] = known.status
        before = self.do(lambda tx: tx.find(KIND, "harbor", name))
        try:
            self.do(lambda tx: tx.replace(new))
        except NotFound:
            assert known is None
            self.moved(by=0)
            return
        assert known is not None
        if known.dying and not finalizers:
            del self.model[name]
            self.moved(by=1)
            return
        known.generation += known.spec != spec
        known.spec, known.finalizers = spec, finalizers
        after = self.do(lambda tx: tx.get(KIND, "harbor", name))
        assert before is not None
        self.moved(by=int(bare(before.raw) != bare(after.raw)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def replace_stale(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        current = self.do(lambda tx: tx.get(KIND, "harbor", name))
        for bad in ({"expected": str(current.revision + 1)}, {"expected": "0"}):
            try:
                self.do(lambda tx, bad=bad: tx.replace({**current.raw, "spec": {"location": "moon"}}, **bad))
            except Conflict as error:
                assert error.actual == f"revision {current.revision}"
            else:
                raise AssertionError("a stale write was taken")
        self.moved(by=0)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def replace_same(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))

        def work(tx: Transaction) -> None:
            current = tx.get(KIND, "harbor", name).raw
            turned = dict(reversed(current.items()))
            tx.replace(turned, expected=current["metadata"]["resourceVersion"])

        self.do(work)
        dying = self.model[name].dying and not self.model[name].finalizers
        assert not dying
        self.moved(by=0)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), task=st.sampled_from(["", "unlock: check"]))
    def report(self, data: st.DataObject, task: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))

        def work(tx: Transaction) -> None:
            host = tx.load(Host, "harbor", name)
            # What else the struct brings must not count.
            changed = msgspec.structs.replace(
                host,
                status=HostStatus(task=task),
                spec=msgspec.structs.replace(host.spec, location="nowhere"),
            )
            tx.report(changed)

        before = self.do(lambda tx: tx.get(KIND, "harbor", name)).raw
        self.do(work)
        after = self.do(lambda tx: tx.get(KIND, "harbor", name)).raw
        assert after["spec"] == before["spec"]
        assert bare(after)["metadata"] == bare(before)["metadata"]
        self.model[name].status = after["status"]
        self.moved(by=int(after.get("status") != before.get("status")))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        known = self.model.get(name)
        try:
            self.do(lambda tx: tx.remove(KIND, "harbor", name))
        except NotFound:
            assert known is None
            self.moved(by=0)
            return
        assert known is not None
        if not known.finalizers:
            del self.model[name]
            self.moved(by=1)
            return
        self.moved(by=0 if known.dying else 1)
        known.generation += 0 if known.dying else 1
        known.dying = True

    @rule(name=NAMES, spec=SPECS, generation=st.integers(1, 9))
    def copy(self, name: str, spec: Raw, generation: int) -> None:
        known = self.model.get(name)
        if known is not None and known.origin == "":
            return
        metadata = {
            "uid": "far-" + name,
            "generation": generation,
            "creationTimestamp": "2020-01-01T00:00:00Z",
        }
        given = raw(KIND, name, spec=spec, status={"task": ""}, metadata=metadata)
        before = self.do(lambda tx: tx.find(KIND, "harbor", name))
        self.do(lambda tx: tx.copy(given, "down:a"))
        after = self.do(lambda tx: tx.get(KIND, "harbor", name))
        assert bare(after.raw) == bare(given)
        assert after.origin == "down:a"
        self.moved(by=int(before is None or before.data != after.data))
        copied = Model("far-" + name, spec, "down:a")
        copied.generation, copied.status = generation, given["status"]
        self.model[name] = copied

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        self.do(lambda tx: tx.drop(KIND, "harbor", name))
        self.moved(by=int(self.model.pop(name, None) is not None))

    @rule(name=NAMES, spec=SPECS)
    def fail(self, name: str, spec: Raw) -> None:
        """Work that writes and then fails has not happened."""

        def work(tx: Transaction) -> None:
            tx.copy(raw(KIND, name, spec={"location": "moon"}, metadata={"uid": "u"}), "down:b")
            tx.next_number("moon")
            raise LookupError("changed its mind")

        try:
            self.do(work)
        except LookupError:
            self.moved(by=0)
        else:
            raise AssertionError("the failure was swallowed")

    @rule()
    def reopen(self) -> None:
        identity = self.store.identity
        self.loop.run_until_complete(self.store.close())
        self.store = self.loop.run_until_complete(Store.open(self.url, clock=LoopClock(START), inline=True))
        assert (self.store.identity, self.store.revision) == (identity, self.revision)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {s.name: s for s in self.do(lambda tx: tx.select(KIND, "harbor"))}
        assert sorted(found) == sorted(self.model)
        for name, known in self.model.items():
            stored = found[name]
            metadata = stored.raw["metadata"]
            assert (stored.uid, stored.origin) == (known.uid, known.origin)
            assert metadata["uid"] == known.uid
            assert stored.raw["spec"] == known.spec
            assert metadata["generation"] == known.generation
            assert metadata.get("finalizers", []) == known.finalizers
            assert bool(metadata.get("deletionTimestamp")) == known.dying
            assert "resourceVersion" not in stored.data

    @invariant()
    def history_is_whole(self) -> None:
        if not hasattr(self, "store"):
            return
        changes = self.loop.run_until_complete(history(self.store))
        assert [c.revision for c in changes] == list(range(1, self.revision + 1))
        assert replay(changes) == {
            (s.kind, s.namespace, s.name): s.data for s in self.do(lambda tx: tx.select(KIND))
        }


def bare(given: Raw) -> Raw:
    """An object without its revision."""
    return {**given, "metadata": {k: v for k, v in given["metadata"].items() if k != "resourceVersion"}}


def replay(changes: list[Change]) -> dict[tuple[str, str, str], str]:
    """The state that a history leads to; fails when a step does not follow from the one before."""
    state: dict[tuple[str, str, str], str] = {}
    for change in changes:
        key = (change.kind, change.namespace, change.name)
        assert (key in state) == (change.type != "ADDED")
        assert change.previous == state.get(key, "")
        if change.type == "DELETED":
            del state[key]
        else:
            assert change.data != change.previous
            state[key] = change.data
    return state


TestHistory = pytest.mark.timeout(600)(History.TestCase)
TestHistory.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
