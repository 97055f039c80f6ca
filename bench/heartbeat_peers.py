"""The two processes of `bench.heartbeat`: one with an observer, one with the senders of many hosts.

Each takes commands as lines of JSON on standard input and tells what happens on standard output; times are
those of the machine's monotonic clock, which both share.

    observer: {"port"}, then {"register", "networks", "period"}; tells {"registered", "id", "secret"} and, at
              each change, {"host", "verdict", "states", "at"}; {"stop"} tells its counters and costs
    senders:  {"send", "id", "secret", "port", "networks", "period"}; {"silence"} tells {"silent", "at"}
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import threading
import time
from typing import Any

import structlog

from roost.cloud.heartbeat_observer import Observer
from roost.engine.heartbeat import Registration, new_secret
from roost.host.heartbeat import Plan, Sender
from roost.model.heartbeat import HeartbeatConfiguration, HeartbeatNetwork

_lock = threading.Lock()


def tell(**said: Any) -> None:
    """One line."""
    with _lock:
        print(json.dumps(said), flush=True)


def observe() -> None:
    """The process of the observer."""
    observer: Observer

    def changed(name: str) -> None:
        at = time.monotonic()
        found = observer(name)
        states = {n.network: n.state for n in found.networks}
        tell(host=name, verdict=found.verdict, states=states, at=at)

    observer = Observer(int(json.loads(sys.stdin.readline())["port"]), changed=changed)
    observer.start()
    for line in sys.stdin:
        asked = json.loads(line)
        if "register" in asked:
            secret = new_secret()
            registration = Registration(
                secret=secret, period_milliseconds=asked["period"], networks=asked["networks"]
            )
            made = observer.register(asked["register"], registration)
            tell(registered=asked["register"], id=made.id.hex(), secret=secret.hex())
        else:
            used = resource.getrusage(resource.RUSAGE_SELF)
            counters = {f: getattr(observer.counters, f) for f in observer.counters.__struct_fields__}
            tell(counters=counters, priority=observer.priority, processor=used.ru_utime + used.ru_stime)


def send() -> None:
    """The process of the senders."""
    senders: dict[str, Sender] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "send" in asked:
            networks = [
                HeartbeatNetwork(network=n, ports=["lo"], targets=[f"127.0.0.{number}"])
                for number, n in enumerate(asked["networks"], start=1)
            ]
            configuration = HeartbeatConfiguration(
                period_milliseconds=asked["period"], port=asked["port"], networks=networks
            )
            plan = Plan(
                id=bytes.fromhex(asked["id"]),
                secret=bytes.fromhex(asked["secret"]),
                configuration=configuration,
            )
            senders.setdefault(asked["send"], Sender()).carry(plan)
        elif "silence" in asked:
            senders[asked["silence"]].carry(None)
            tell(silent=asked["silence"], at=time.monotonic())
        else:
            used = resource.getrusage(resource.RUSAGE_SELF)
            priorities = sorted({s.priority for s in senders.values()})
            tell(processor=used.ru_utime + used.ru_stime, priority=", ".join(priorities))


if __name__ == "__main__":
    # Standard output is for the answers.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    observe() if sys.argv[1] == "observer" else send()
