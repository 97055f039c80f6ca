"""GET /metrics: figures of this cloud for Prometheus, in its text format or OpenMetrics.

Read by whom RBAC lets get the path /metrics. What is counted as it happens (requests, batches, changes) is of
this process; what stands (alarms, outlets, links) is read from the store at most every FRESH seconds, however
many ask. Labels are bounded: past MOST_SERIES the clouds with the fewest alarms are told together, as
`(others)`. The library is imported with the first request.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api.context import ApiContext
from roost.model import time as times
from roost.model.cloud import SUBCLOUD
from roost.model.fault import ALARM
from roost.model.host import HOST
from roost.model.outlet import ALARM_OUTLET, AlarmOutlet
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

FRESH = 2.0
MOST_SERIES = 5000
OTHERS = "(others)"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Upper bounds of the histogram of answers."""

Series = dict[tuple[str, str, str], int]


class _AlarmState(msgspec.Struct, frozen=True, rename="camel"):
    alarm_id: str = ""
    severity: str = ""
    suppressed: bool = False


class _AlarmLine(msgspec.Struct, frozen=True):
    status: _AlarmState = _AlarmState()


class _LinkState(msgspec.Struct, frozen=True):
    availability: str = "unknown"


class _LinkLine(msgspec.Struct, frozen=True):
    status: _LinkState = _LinkState()


_alarm = msgspec.json.Decoder(_AlarmLine).decode
_link = msgspec.json.Decoder(_LinkLine).decode


class Standing(msgspec.Struct, frozen=True):
    """What stands in the store: alarms by cloud, severity and id; subclouds and hosts by availability."""

    revision: int
    alarms: Series
    suppressed: int
    links: Mapping[tuple[str, str], int]
    outlets: list[AlarmOutlet]


def look(tx: Transaction) -> Standing:
    """Count what stands."""
    alarms: Counter[tuple[str, str, str]] = Counter()
    suppressed = 0
    for stored in tx.select(ALARM.kind):
        status = _alarm(stored.data).status
        if status.suppressed:
            suppressed += 1
        else:
            alarms[(stored.namespace, status.severity, status.alarm_id)] += 1
    links: Counter[tuple[str, str]] = Counter()
    for kind, name in ((SUBCLOUD.kind, "subcloud"), (HOST.kind, "host")):
        for stored in tx.select(kind, origin=HERE):
            links[(name, _link(stored.data).status.availability)] += 1
    outlets = [s.typed(AlarmOutlet) for s in tx.select(ALARM_OUTLET.kind, origin=HERE)]
    return Standing(tx.revision, bounded(alarms, MOST_SERIES), suppressed, links, outlets)


def bounded(alarms: Mapping[tuple[str, str, str], int], most: int) -> Series:
    """The same counts in so many series at most: clouds with the fewest alarms are told together. Pure.

    So are the rarest ids, when clouds below tell more of them than there can be series.
    """
    if len(alarms) <= most:
        return dict(alarms)
    alarms = _with_common_ids(alarms, most // 2)
    by_cloud: Counter[str] = Counter()
    series: Counter[str] = Counter()
    kinds = {(severity, id) for _, severity, id in alarms}
    for (cloud, _, _), number in alarms.items():
        by_cloud[cloud] += number
        series[cloud] += 1
    left, kept = most - len(kinds), set()
    for cloud in sorted(by_cloud, key=lambda c: (-by_cloud[c], c)):
        if series[cloud] > left:
            # One that tells very much must not take the names of those that tell little.
            continue
        kept.add(cloud)
        left -= series[cloud]
    found: Counter[tuple[str, str, str]] = Counter()
    for (cloud, severity, id), number in alarms.items():
        found[(cloud if cloud in kept else OTHERS, severity, id)] += number
    return dict(found)


def _with_common_ids(alarms: Mapping[tuple[str, str, str], int], most: int) -> Series:
    """The same counts with so many kinds of alarm at most, and one more for each severity."""
    kinds: Counter[tuple[str, str]] = Counter()
    for (_, severity, id), number in alarms.items():
        kinds[(severity, id)] += number
    kept = set(sorted(kinds, key=lambda k: (-kinds[k], k))[:most])
    found: Counter[tuple[str, str, str]] = Counter()
    for (cloud, severity, id), number in alarms.items():
        found[(cloud, severity, id if (severity, id) in kept else OTHERS)] += number
    return found


class Metrics:
    """The figures of one API's process."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._store: Store = context.store
        self._requests: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, list[int]] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._batches = 0
        self._changes: Counter[str] = Counter()
        self._standing: Standing | None = None
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._registry: CollectorRegistry | None = None
        self._unsubscribe = self._store.subscribe(self._committed)

    def close(self) -> None:
        """Hear of no more commits."""
        self._unsubscribe()

    # -- counting

    def answered(self, method: str, code: int, seconds: float) -> None:
        """A request was answered after so many seconds; of a watch: its answer began."""
        verb = method if method in METHODS else "other"
        self._requests[(verb, code)] += 1
        buckets = self._durations.setdefault(verb, [0] * (len(SECONDS) + 1))
        buckets[bisect_left(SECONDS, seconds)] += 1
        self._seconds[verb] += seconds

    def _committed(self, changes: list[Change]) -> None:
        self._batches += 1
        for change in changes:
            self._changes[change.type] += 1

    # -- showing

    async def respond(self, request: Request) -> Response:
        """The figures as text."""
        from prometheus_client.exposition import choose_encoder

        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._standing is None or now > self._looked_at + FRESH:
                self._standing = await self._store.read(look)
                self._looked_at = now
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        body = await asyncio.to_thread(encode, self._collectors())
        return Response(body, media_type=kind)

    def _collectors(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            self._registry.register(self)
        return self._registry

    def describe(self) -> list[Metric]:
        """Nothing ahead of time."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        info = GaugeMetricFamily("roost_info", "This cloud and its version.", labels=["cloud", "version"])
        info.add_metric([self._context.cloud, self._context.version], 1)
        yield info
        requests = CounterMetricFamily(
            "roost_http_requests", "Requests answered by this process.", labels=["method", "code"]
        )
        for (method, code), number in sorted(self._requests.items()):
            requests.add_metric([method, str(code)], number)
        yield requests
        durations = HistogramMetricFamily(
            "roost_http_answer_seconds", "Time until an answer began.", labels=["method"]
        )
        for method, buckets in sorted(self._durations.items()):
            counted, told = 0, []
            for bound, number in zip((*map(str, SECONDS), "+Inf"), buckets, strict=True):
                counted += number
                told.append((bound, counted))
            durations.add_metric([method], told, sum_value=self._seconds[method])
        yield durations
        yield GaugeMetricFamily(
            "roost_store_revision", "Revision that this process knows.", value=self._store.revision
        )
        yield CounterMetricFamily(
            "roost_store_batches", "Commits that this process was told of.", value=self._batches
        )
        changes = CounterMetricFamily("roost_store_changes", "Changes in them.", labels=["type"])
        for type, number in sorted(self._changes.items()):
            changes.add_metric([type.lower()], number)
        yield changes
        if self._standing is not None:
            yield from _standing(self._standing)
            yield from _outlets(self._standing.outlets)


def _standing(standing: Standing) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    alarms = GaugeMetricFamily(
        "roost_alarms", "Alarms that stand and are not suppressed.", labels=["cloud", "severity", "alarm_id"]
    )
    for labels, number in sorted(standing.alarms.items()):
        alarms.add_metric(labels, number)
    yield alarms
    yield GaugeMetricFamily("roost_alarms_suppressed", "Alarms that are.", value=standing.suppressed)
    links = GaugeMetricFamily(
        "roost_lower_nodes", "Hosts and subclouds by availability.", labels=["kind", "availability"]
    )
    for (kind, availability), number in sorted(standing.links.items()):
        links.add_metric([kind, availability], number)
    yield links


def _outlets(outlets: list[AlarmOutlet]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["outlet", "type"]
    state = GaugeMetricFamily("roost_outlet_state", "1 for the state it is in.", labels=[*labels, "state"])
    waiting = GaugeMetricFamily("roost_outlet_waiting", "Changes not sent yet, at least.", labels=labels)
    last = GaugeMetricFamily(
        "roost_outlet_last_delivery_timestamp_seconds", "When something was acknowledged.", labels=labels
    )
    counted = {
        name: CounterMetricFamily(f"roost_outlet_{name}", text, labels=labels)
        for name, text in (
            ("delivered", "Messages acknowledged."),
            ("retries", "Attempts that failed."),
            ("refused", "Messages that the receiver would not have."),
            ("merged", "Messages told in counted summaries."),
            ("shed", "Alarms set and cleared that were never sent."),
            ("snapshots", "Snapshots sent."),
        )
    }
    for outlet in outlets:
        values, status = [outlet.metadata.name, outlet.spec.type], outlet.status
        state.add_metric([*values, status.state], 1)
        waiting.add_metric(values, status.waiting)
        if status.last_delivery_at:
            last.add_metric(values, times.parse(status.last_delivery_at).timestamp())
        for name, family in counted.items():
            family.add_metric(values, getattr(status, name))
    yield from (state, waiting, last, *counted.values())


def started() -> float:
    """A moment to measure from."""
    return time.perf_counter()
