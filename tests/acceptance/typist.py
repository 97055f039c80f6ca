"""An operator who types commands, with a process for each: kubectl and `roost`."""

from __future__ import annotations

import json
import random
import threading

from tests.acceptance.doors import Reply
from tests.acceptance.running import Answer, Demo
from tests.acceptance.writes import Key, Verb, Writes, content, named


class Typist:
    """One who types commands: kubectl and `roost` as they are installed, at the central cloud."""

    READS = (
        ("roost", "status"),
        ("roost", "alarm", "list", "-A"),
        ("roost", "host", "list", "-A"),
        ("roost", "--cloud", "ridge", "host", "list"),
        ("roost", "subcloud", "show", "valley"),
        ("kubectl", "get", "subclouds"),
        ("kubectl", "get", "firewallpolicies", "-A"),
    )
    KEY: Key = ("ConfigMap", "central", "typed")

    def __init__(self, demo: Demo, writes: Writes, seed: str) -> None:
        self._demo, self._writes = demo, writes
        self._random = random.Random(f"{seed}/typist")
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="typist", daemon=True)
        self.acts = self.failed = 0
        self.longest = 0.0

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._enough.set()

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive(), "the typist does not end"

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                if self._random.random() < 0.5:
                    self._write()
                else:
                    self._read()
                self.acts += 1
                self._enough.wait(self._random.uniform(3, 12))
        except Exception as error:
            self._writes.problem(f"the typist could not go on: {error!r}")

    def _read(self) -> None:
        program, *arguments = self._random.choice(self.READS)
        done = self._demo.roost(*arguments) if program == "roost" else self._demo.kubectl(*arguments)
        self._ended(done)

    def _ended(self, done: Answer) -> None:
        self.failed += done.code != 0
        self.longest = max(self.longest, done.seconds)
        if "Traceback" in done.said or (done.code != 0 and not done.error.strip()):
            self._writes.problem(f"no sentence to people: {done}")

    def _write(self) -> None:
        latest = self._writes.latest("central", self.KEY)
        changes = latest is not None and self._random.random() < 0.8
        verb: Verb = "update" if changes else "create"
        asked = self._writes.begin("typist", "central", verb, self.KEY)
        made = content("ConfigMap", asked.number)
        if verb == "create":
            text = json.dumps(named(*self.KEY, made))
            done = self._demo.kubectl("create", "-f", "-", "-o", "json", text=text)
        else:
            patch = ["--type=merge", "-p", json.dumps(made), "-o", "json"]
            done = self._demo.kubectl("patch", "configmap", self.KEY[2], *patch)
        self._ended(done)
        self._writes.end(asked, _typed(done))


REFUSALS = ("AlreadyExists", "BadRequest", "Conflict", "Forbidden", "Invalid", "NotFound")


def _typed(done: Answer) -> Reply:
    """What kubectl's answer says of a write."""
    if done.code == 0:
        return Reply("accepted", 200, json.loads(done.output))
    if any(f"({reason})" in done.error for reason in REFUSALS):
        return Reply("refused", 400, {}, done.error)
    return Reply("unanswered", 0, {}, done.error)
