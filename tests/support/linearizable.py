"""Whether a history of concurrent operations on one register could have happened one after the other.

The algorithm is Wing and Gong's search ("Testing and verifying concurrent objects", 1993) with Lowe's memory
of the configurations already tried ("Testing for linearizability", 2017). An operation whose answer was
lost may have happened at any time after it was asked for, or never.

Values are unique, so a state is the value of the register; None when there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec


class Operation(msgspec.Struct, frozen=True):
    """One call: when it was asked for and answered, in any unit; `answered` is infinite when it never was.

    `read` gave `value`; `write` set `value`; `swap` set `value` if `expected` was there; `refused` is a swap
    that was told that something else was.
    """

    kind: Literal["read", "write", "swap", "refused"]
    asked: float
    answered: float
    value: str | None = None
    expected: str | None = None

    def after(self, state: str | None) -> tuple[bool, str | None]:
        """Whether it can happen in a state, and the state after it."""
        match self.kind:
            case "read":
                return state == self.value, state
            case "write":
                return True, self.value
            case "swap":
                return state == self.expected, self.value
            case "refused":
                return state != self.expected, state


def is_linearizable(history: Sequence[Operation], start: str | None = None) -> bool:
    """Whether there is an order of the operations that agrees with their answers and with time."""
    operations = sorted(history, key=lambda o: o.asked)
    answered = sum(1 << n for n, o in enumerate(operations) if o.answered < math.inf)
    tried: set[tuple[int, str | None]] = set()
    waiting: list[tuple[int, str | None]] = [(0, start)]
    while waiting:
        done, state = waiting.pop()
        if done & answered == answered:
            return True
        open_until = min(o.answered for n, o in enumerate(operations) if not done >> n & 1)
        for n, operation in enumerate(operations):
            if operation.asked > open_until:
                break
            if done >> n & 1:
                continue
            possible, following = operation.after(state)
            step = (done | 1 << n, following)
            if possible and step not in tried:
                tried.add(step)
                waiting.append(step)
    return False
