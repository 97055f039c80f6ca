"""Concurrent clients of several processes that are killed: one order explains all that they were told."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.support.linearizable import Operation, is_linearizable

ROOT = Path(__file__).parents[2]
PROCESSES, ROUNDS = 2, 2

CLIENT = """
import asyncio, random, sys, time
from roost.store.errors import AlreadyExists, Conflict, NotFound, Unavailable
from roost.store.store import Store
from tests.support.stores import raw

url, name, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = random.Random(seed)
out = sys.stdout

def say(*words):
    out.write(" ".join(map(str, words)) + chr(10))
    out.flush()

def new(key, value):
    return raw("Host", key, spec={"location": value})

async def client(store, number):
    known, n = {}, 0
    while True:
        n += 1
        key, value = source.choice("abc"), f"{name}.{number}.{n}"
        kind = source.choice(["find", "get", "write", "swap", "swap", "tear"])
        call = f"{value} {key}"
        if kind in ("find", "get"):
            say("ask", call, "read", "-", "-", time.monotonic_ns())
            try:
                stored = await (store.find if kind == "find" else store.get)("Host", "harbor", key)
            except NotFound:
                stored = None
            if stored is None:
                say("told", value, "read", "-", time.monotonic_ns())
            else:
                known[key] = (str(stored.revision), stored.raw["spec"]["location"])
                say("told", value, "read", known[key][1], time.monotonic_ns())
        elif kind == "write":
            def work(tx):
                there = tx.find("Host", "harbor", key)
                return tx.replace(new(key, value)) if there else tx.create(new(key, value))
            say("ask", call, "write", value, "-", time.monotonic_ns())
            stored = await store.transact(work)
            known[key] = (str(stored.revision), value)
            say("told", value, "write", value, time.monotonic_ns())
        elif kind == "swap" and key in known:
            revision, expected = known[key]
            say("ask", call, "swap", value, expected, time.monotonic_ns())
            try:
                stored = await store.transact(lambda tx: tx.replace(new(key, value), expected=revision))
            except (Conflict, NotFound):
                del known[key]
                say("told", value, "refused", value, time.monotonic_ns())
            else:
                known[key] = (str(stored.revision), value)
                say("told", value, "swap", value, time.monotonic_ns())
        elif kind == "tear":
            # A unit that fails in the middle of the others' batch.
            def torn(tx):
                if tx.find("Host", "harbor", key):
                    tx.replace(new(key, "torn " + value))
                    tx.set_property("torn", value)
                raise LookupError
            try:
                await store.transact(torn)
            except LookupError:
                pass

async def main():
    store = await Store.open(url)
    await asyncio.gather(*(client(store, n) for n in range(3)))

asyncio.run(main())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [11, 12])
def test_what_clients_were_told_has_one_order(store_url: str, seed: int) -> None:
    source = random.Random(seed)
    print("seed", seed)
    lines: list[list[str]] = []
    for round in range(ROUNDS):
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, store_url, f"{round}{n}", str(source.randrange(10**9))],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for n in range(PROCESSES)
        ]
        for client in clients:
            assert client.stdout is not None
            for _ in range(source.randrange(80, 200)):
                lines.append(client.stdout.readline().split())
            client.kill()
        for client in clients:
            assert client.stdout is not None
            lines += [
                line.split() for line in client.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
            ]
            client.communicate()
    histories = operations(lines)
    assert sum(map(len, histories.values())) > 80
    for key, history in histories.items():
        assert is_linearizable(history), f"seed {seed}, key {key}: {history}"
        reads = [n for n, o in enumerate(history) if o.kind == "read" and o.value]
        spoilt = list(history)
        spoilt[reads[-1]] = Operation("read", history[reads[-1]].asked, history[reads[-1]].answered, "never")
        assert not is_linearizable(spoilt), "the check itself is awake"


def operations(lines: list[list[str]]) -> dict[str, list[Operation]]:
    """The operations by key. Of those that were never answered, reads say nothing."""
    answers = {words[1]: words[2:] for words in lines if words and words[0] == "told"}
    found: dict[str, list[Operation]] = defaultdict(list)
    for words in lines:
        if not words or words[0] != "ask" or len(words) != 7:
            continue
        call, key, kind, value, expected, asked = words[1:]
        told = answers.get(call)
        if told is None and kind == "read":
            continue
        outcome, seen, answered = (told[0], told[1], float(told[2])) if told else (kind, value, math.inf)
        shown = None if seen == "-" else seen
        found[key].append(Operation(outcome, float(asked), answered, shown, expected))  # type: ignore[arg-type]
    return found


W: Final = "write"
R: Final = "read"
S: Final = "swap"
X: Final = "refused"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([Operation(W, 0, 1, "a"), Operation(R, 2, 3, "a")], "yes"),
        ([Operation(W, 0, 1, "a"), Operation(R, 2, 3, None)], "no"),
        ([Operation(W, 0, 3, "a"), Operation(R, 1, 2, None)], "yes"),
        ([Operation(W, 0, 9, "a"), Operation(R, 1, 2, "a"), Operation(R, 3, 4, None)], "no"),
        ([Operation(W, 0, math.inf, "a"), Operation(R, 5, 6, None), Operation(R, 7, 8, "a")], "yes"),
        ([Operation(W, 0, 1, "a"), Operation(S, 2, 5, "b", "a"), Operation(S, 2, 5, "c", "a")], "no"),
        ([Operation(W, 0, 1, "a"), Operation(S, 2, 5, "b", "a"), Operation(X, 2, 5, "c", "a")], "yes"),
        ([Operation(W, 0, 1, "a"), Operation(X, 2, 5, "c", "a")], "no"),
        ([Operation(W, 0, 1, "a"), Operation(W, 2, 3, "b"), Operation(R, 4, 5, "a")], "no"),
    ],
)
def test_the_checker_knows_these(history: list[Operation], expected: str) -> None:
    assert is_linearizable(history) == (expected == "yes")


@given(st.lists(st.tuples(st.sampled_from(["w", "r"]), st.floats(0, 3), st.floats(0, 3)), max_size=9))
def test_every_history_made_in_order_is_found_in_order(moves: list[tuple[str, float, float]]) -> None:
    """Operations take effect at whole moments; each is asked for somewhat before and answered after."""
    state, history = None, list[Operation]()
    for at, (move, before, after) in enumerate(moves):
        if move == "w":
            state = str(at)
        history.append(Operation(W if move == "w" else R, at - before, at + after, state))
    assert is_linearizable(history)
