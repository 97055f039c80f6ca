"""The product as it was when a story happened: with the mend taken out again, for one run.

A story whose plan breaks nothing any more without its mend tells of nothing; so each is run both ways. Run as
a program with the name of a story, this takes its plan and gives the report, as a worker does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec
import pytest

from roost.cloud import lifecycle, procedures
from roost.model.host import Host
from roost.model.operation import Operation, OperationAction
from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.many import quiet, report

Unmended = Callable[[], AbstractContextManager[None]]


@contextmanager
def _tries_of_whoever_has_the_name() -> Iterator[None]:
    """What was done to a host counts by its name, also of one that was deleted."""

    def tries(host: Host, action: OperationAction, operations: Iterable[Operation]) -> list[Operation]:
        return lifecycle._named(host, action, operations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "_tries", tries)
        yield


@contextmanager
def _no_order_is_ever_lost() -> Iterator[None]:
    """What a host was told before it was deleted is waited for at the one that bears its name now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedures, "_was_lost", lambda _configuration: False)
        yield


UNMENDED: dict[str, Unmended] = {
    "a-host-declared-again": _tries_of_whoever_has_the_name,
    "a-host-declared-while-it-restarts": _no_order_is_ever_lost,
}
"""By the name of the story."""


def work(name: str) -> int:
    """Take a plan, run it without the mend of a story, give the report."""
    quiet()
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(report(plan, UNMENDED[name])) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]))
