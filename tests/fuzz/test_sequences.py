"""Sequences of writes by chance: what was accepted reads back, what was refused has changed nothing."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.fuzz import examples
from tests.fuzz.grammar import as_json, as_yaml, delete_options, json_patches, merge_patches
from tests.fuzz.promises import keeps, logged
from tests.fuzz.serving import PASSWORD, Server
from tests.fuzz.wire import Answer, Asked, Line

MAPS = "/api/v1/namespaces/central/configmaps"
USERS = "/apis/roost.edge/v1/users"
HOLD = "example.org/hold"

names = st.sampled_from(["one", "two", "three"])
data = st.dictionaries(st.sampled_from("abc"), st.text(max_size=3).filter(str.isprintable), max_size=3)
managers = st.sampled_from(["ada", "ben"])


def configmap(name: str, data: dict[str, str], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data}


class Machine(RuleBasedStateMachine):
    """Some ConfigMaps and one user, as they should be by what was answered."""

    server: ClassVar[Server]
    line: ClassVar[Line]

    @initialize()
    def clean(self) -> None:
        for item in self.ask("GET", MAPS).raw["items"]:
            at = f"{MAPS}/{item['metadata']['name']}"
            self.ask("PATCH", at, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
            self.ask("DELETE", at)
        self.ask("DELETE", f"{USERS}/eve")
        self.seen: dict[str, dict[str, Any]] = {}
        self.revision = self.server.revision()

    def ask(self, method: str, target: str, body: Any = None, media: str = "application/json") -> Answer:
        encoded = b"" if body is None else body if isinstance(body, bytes) else as_json(body)
        asked = Asked(method, target, [("Content-Type", media)], encoded)
        before = self.server.revision()
        try:
            answer = self.line.ask(asked, watching="watch=" in target)
        except BaseException:
            self.line.close()
            raise
        self.server.asked += 1
        keeps(asked, answer)
        if answer.code >= 400 or "dryRun=All" in target:
            assert self.server.revision() == before, (asked, answer)
        return answer

    def took(self, name: str, answer: Answer) -> None:
        """Remember what an accepted write was answered with."""
        if answer.code < 300:
            shown = answer.raw
            gone = shown["metadata"].get("deletionTimestamp") and not shown["metadata"].get("finalizers")
            if gone:
                self.seen.pop(name, None)
            else:
                self.seen[name] = shown

    @rule(name=names, data=data, held=st.booleans())
    def create(self, name: str, data: dict[str, str], held: bool) -> None:  # noqa: FBT001
        answer = self.ask("POST", MAPS, configmap(name, data, **({"finalizers": [HOLD]} if held else {})))
        assert answer.code == (409 if name in self.seen else 201)
        self.took(name, answer)

    @rule(name=names, data=data, stale=st.booleans())
    def replace(self, name: str, data: dict[str, str], stale: bool) -> None:  # noqa: FBT001
        known = self.seen.get(name)
        version = "1" if stale or known is None else known["metadata"]["resourceVersion"]
        answer = self.ask("PUT", f"{MAPS}/{name}", configmap(name, data, resourceVersion=version))
        assert answer.code in ((404, 409) if known is None else (409,) if stale else (200,))
        self.took(name, answer)

    @rule(name=names, patch=merge_patches, dry=st.sampled_from(["", "?dryRun=All"]))
    def merge(self, name: str, patch: Any, dry: str) -> None:
        answer = self.ask("PATCH", f"{MAPS}/{name}{dry}", patch, "application/merge-patch+json")
        if not dry:
            self.took(name, answer)

    @rule(name=names, patch=json_patches)
    def step(self, name: str, patch: Any) -> None:
        self.took(name, self.ask("PATCH", f"{MAPS}/{name}", patch, "application/json-patch+json"))

    @rule(name=names, data=data, manager=managers, force=st.sampled_from(["", "&force=true"]))
    def apply(self, name: str, data: dict[str, str], manager: str, force: str) -> None:
        at = f"{MAPS}/{name}?fieldManager={manager}{force}"
        answer = self.ask("PATCH", at, as_yaml(configmap(name, data)), "application/apply-patch+yaml")
        self.took(name, answer)
        if answer.code < 300:
            assert {**answer.raw.get("data", {}), **data} == answer.raw.get("data", {})

    @rule(name=names, options=st.one_of(st.just({}), delete_options))
    def delete(self, name: str, options: Any) -> None:
        known = self.seen.get(name)
        dry = "dryRun" in options
        answer = self.ask("DELETE", f"{MAPS}/{name}", options)
        if answer.code >= 300 or dry:
            return
        assert known is not None
        if answer.raw["kind"] == "Status":
            del self.seen[name]
        else:
            self.took(name, answer)

    @rule(name=names)
    def release(self, name: str) -> None:
        body = {"metadata": {"finalizers": None}}
        answer = self.ask("PATCH", f"{MAPS}/{name}", body, "application/merge-patch+json")
        assert answer.code == (200 if name in self.seen else 404)
        self.took(name, answer)

    @rule(name=names, at=st.sampled_from(["history", "history/1", "history/99999999", "status", "token"]))
    def look_back(self, name: str, at: str) -> None:
        self.ask("GET", f"{MAPS}/{name}/{at}")

    @rule(
        since=st.sampled_from(["", "&resourceVersion=0", "&resourceVersion=1", "&resourceVersion=99999999"])
    )
    def watch(self, since: str) -> None:
        self.ask("GET", f"{MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true{since}")

    @rule(password=st.sampled_from([PASSWORD, "short", "", None, 1, "x" * 300]))
    def log_in(self, password: Any) -> None:
        self.ask(
            "POST",
            USERS,
            {"apiVersion": "roost.edge/v1", "kind": "User", "metadata": {"name": "eve"}, "spec": {}},
        )
        told = self.ask("POST", f"{USERS}/eve/password", {"password": password})
        answer = self.ask("POST", "/login", {"name": "eve", "password": password})
        assert answer.code in (200, 400, 401, 429), answer
        if told.code >= 300 and password != PASSWORD:
            assert answer.code != 200
        if answer.code == 200:
            with self.server.line(answer.raw["status"]["token"]) as line:
                assert line.get("/version").code == 200
                assert line.ask(Asked("POST", "/logout")).code == 200
                assert line.get(USERS).code == 401

    @invariant()
    def what_was_accepted_reads_back(self) -> None:
        if not hasattr(self, "seen"):
            return
        found = {item["metadata"]["name"]: item for item in self.ask("GET", MAPS).raw["items"]}
        assert sorted(found) == sorted(self.seen)
        for name, shown in self.seen.items():
            assert {**found[name], "apiVersion": "v1", "kind": "ConfigMap"} == shown, json.dumps(
                [found[name], shown]
            )


def test_sequences(server: Server) -> None:
    bounds = settings(
        max_examples=examples(8),
        stateful_step_count=15,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with server.line() as line:
        Machine.server, Machine.line = server, line
        run_state_machine_as_test(Machine, settings=bounds)
    logged(server)
