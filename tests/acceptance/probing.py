"""Packets at every host all the time: what its rules let through and hold back must not change for a moment.

Each round sends to each host of a site, over IPv4 and IPv6, from the site's router: to a port that the shared
policy lets through, which answers (with a refusal: nothing listens), and to one that no policy lets through,
which is silent.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.acceptance import checker
from tests.acceptance.doors import enter
from tests.acceptance.running import Demo, Raw

PASSES, HELD_BACK = 22, 9
ANSWER_WITHIN = 6.0
SILENT_FOR = 1.2


class Prober:
    """One that probes every site in turn, from `start` until `stop`."""

    def __init__(self, demo: Demo, processes: Callable[[], dict[str, Raw]]) -> None:
        """`processes` says what is known of them now."""
        self._demo, self._processes = demo, processes
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self.probes = 0
        self.while_dead: Counter[str] = Counter()
        self.problems: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._enough.set()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the prober does not end"

    def _run(self) -> None:
        try:
            while not self._enough.is_set():
                for site in checker.SITES:
                    enter(self._demo, f"{site}-router")
                    self._round(site)
                    self._enough.wait(0.5)
        except Exception as error:
            self.problems.append(f"the prober could not go on: {error!r}")

    def _round(self, site: str) -> None:
        targets = {address: host for host in checker.SITES[site] for address in checker.addresses(site, host)}
        before = self._processes()
        said = probe([(address, port) for address in targets for port in (PASSES, HELD_BACK)])
        for (address, port), answer in said.items():
            process = f"{site}-{targets[address]}"
            self.probes += 1
            self.while_dead[process] += before[process]["state"] != "ready"
            if (answer in checker.LET_THROUGH) != (port == PASSES):
                state = before[process]["state"]
                self.problems.append(f"port {port} of {address} ({process}, {state}) gave {answer!r}")


def probe(asked: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """What comes back from TCP ports, as seen from this thread's namespace: as `checker.probe`."""
    said = dict.fromkeys(asked, "silence")
    waiting: dict[int, tuple[tuple[str, int], socket.socket]] = {}
    poll = select.poll()
    for target in asked:
        one = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        try:
            one.connect(target)
        except BlockingIOError:
            waiting[one.fileno()] = (target, one)
            poll.register(one.fileno(), select.POLLOUT)
        except OSError as error:
            said[target] = str(error.strerror)
            one.close()
    start = time.monotonic()
    while waiting:
        wanted = any(target[1] == PASSES for target, _ in waiting.values())
        left = start + (ANSWER_WITHIN if wanted else SILENT_FOR) - time.monotonic()
        if left <= 0:
            break
        for number, _ in poll.poll(min(left, SILENT_FOR) * 1000):
            target, one = waiting.pop(number)
            poll.unregister(number)
            code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            said[target] = {0: "open", 111: "refused"}.get(code, f"error {code}")
            one.close()
    for _, one in waiting.values():
        one.close()
    return said
