"""The laws of the simulation, on rows written by hand: what they accept, and what they find."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.sim.deterministic.laws import (
    agreement,
    alarms,
    bounds,
    cursors,
    logs,
    operations,
    restarts,
    survival,
)
from roost.sim.deterministic.laws.alarms import Machine
from roost.sim.deterministic.laws.books import Book
from roost.sim.deterministic.ledger import Ledger, Write

SITE = "site-0000"
HOST = "controller-0"
WELL = Machine(
    processor=12, memory=40, root=30, addresses={"eth0": ["10.0.0.10/24"], "eth1": ["10.0.1.10/24"]}
)
OAM = {"type": "oam", "subnets": ["10.0.0.0/24"]}


def resource(
    kind: str,
    name: str,
    *,
    namespace: str = SITE,
    origin: str = "",
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    uid: str = "",
) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "generation": 1}
    raw = {"kind": kind, "metadata": meta, "spec": spec or {}, "status": status or {}}
    return {
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "uid": meta["uid"],
        "revision": 1,
        "origin": origin,
        "data": msgspec.json.encode(raw).decode(),
    }


def book(*rows: dict[str, Any], **tables: list[dict[str, Any]]) -> Book:
    return Book({"resources": list(rows), **tables})


def said(identity: str, **words: str) -> list[dict[str, Any]]:
    return [{"name": "store-id", "value": identity}, *({"name": n, "value": v} for n, v in words.items())]


# -- accepted writes

KEY = ("FirewallPolicy", SITE, "web")


def write(
    revision: int,
    spec: dict[str, Any] | None,
    *,
    answer: str = "accepted",
    identity: str = "a",
    began: float = 0.0,
    verb: str = "patch",
) -> Write:
    return Write(
        number=revision,
        home=SITE,
        key=KEY,
        verb=verb if spec is not None else "delete",
        identity=identity,
        low=revision,
        high=revision,
        began=began,
        ended=began + 1.0,
        sent=spec,
        spec=spec if answer == "accepted" else None,
        answer=answer,  # type: ignore[arg-type]
    )


def held(spec: dict[str, Any] | None, *, restores: str = "[]", identity: str = "a") -> Book:
    rows = [resource("FirewallPolicy", "web", spec=spec)] if spec is not None else []
    return book(*rows, properties=said(identity, restores=restores))


PORT = [{"port": n} for n in range(9)]


@pytest.mark.parametrize(
    ("writes", "final", "is_lost"),
    [
        ([write(1, PORT[1])], PORT[1], False),
        ([write(1, PORT[1])], None, True),
        ([write(1, PORT[1]), write(2, PORT[2])], PORT[2], False),
        ([write(1, PORT[1]), write(2, PORT[2])], PORT[1], True),
        ([write(1, PORT[1]), write(2, None)], None, False),
        ([write(1, PORT[1]), write(2, None)], PORT[1], True),
        ([write(1, PORT[1]), write(2, PORT[2], answer="unknown", began=5)], PORT[1], False),
        ([write(1, PORT[1]), write(2, PORT[2], answer="unknown", began=5)], PORT[2], False),
        ([write(1, PORT[1]), write(2, PORT[2], answer="unknown", began=5)], PORT[3], True),
        ([write(1, PORT[1], answer="unknown", began=0), write(2, PORT[2], began=9)], PORT[1], True),
        ([write(1, PORT[1], answer="unknown")], None, False),
    ],
)
def test_what_was_accepted_stays_or_a_later_write_does(
    writes: list[Write],
    final: dict[str, Any] | None,
    is_lost: bool,  # noqa: FBT001
) -> None:
    assert bool(survival.lost(SITE, held(final), {KEY: writes})) == is_lost


def test_a_restore_takes_back_what_came_after_its_snapshot_and_nothing_else() -> None:
    restores = '[{"at": 5, "base": 3000000, "snapshotOf": "a"}]'
    writes = {KEY: [write(4, PORT[4]), write(6, PORT[6])]}
    assert survival.lost(SITE, held(PORT[4], restores=restores, identity="b"), writes) == []
    assert survival.lost(SITE, held(PORT[6], restores=restores, identity="b"), writes)
    assert survival.lost(SITE, held(None, restores=restores, identity="b"), writes)
    later = {KEY: [*writes[KEY], write(3000001, PORT[7], identity="b")]}
    assert survival.lost(SITE, held(PORT[7], restores=restores, identity="b"), later) == []


def test_a_deleted_subcloud_takes_with_it_what_was_held_for_it() -> None:
    gone = Write(
        number=9,
        home="central",
        key=("Subcloud", "", SITE),
        verb="delete",
        identity="a",
        low=8,
        high=9,
        began=10.0,
        ended=11.0,
        sent=None,
        answer="accepted",
    )
    writes = {KEY: [write(1, PORT[1])], gone.key: [gone]}
    assert survival.lost("central", held(None), writes) == []
    assert survival.lost("central", held(PORT[2]), writes)


def test_a_refused_write_is_no_write() -> None:
    ledger = Ledger()
    refused = ledger.begin(SITE, KEY, "patch", PORT[1], ("a", 3), 1.0)
    refused.answer = "refused"
    assert ledger.of(SITE) == {}


# -- agreement


def linked(above: list[dict[str, Any]], below: list[dict[str, Any]]) -> list[str]:
    return agreement.between_clouds(SITE, book(*above), book(*below))


POLICY = {"rules": ["443"]}
MIRROR = f"down:subcloud/{SITE}"


def test_two_stores_that_agree_give_nothing() -> None:
    mine: dict[str, Any] = {"spec": POLICY, "status": {"applied": 1}}
    above = [
        resource("FirewallPolicy", "shared", spec=POLICY, status={"applied": 1}),
        resource("FirewallPolicy", "web", origin=MIRROR, **mine),
    ]
    below = [
        resource("FirewallPolicy", "shared", origin="up", spec=POLICY, status={"applied": 1}),
        resource("FirewallPolicy", "web", **mine),
    ]
    assert linked(above, below) == []


@pytest.mark.parametrize(
    ("above", "below", "words"),
    [
        ([], [resource("FirewallPolicy", "web")], "above of FirewallPolicy site-0000/web is missing"),
        ([resource("FirewallPolicy", "web", origin=MIRROR)], [], "above .* should not be there"),
        ([resource("FirewallPolicy", "web")], [], "below .* is missing"),
        ([], [resource("FirewallPolicy", "web", origin="up")], "below .* should not be there"),
        (
            [resource("FirewallPolicy", "web", spec=POLICY)],
            [resource("FirewallPolicy", "web", spec={"rules": []}, origin="up")],
            "below .* differs",
        ),
        (
            [resource("FirewallPolicy", "web", status={"applied": 0})],
            [resource("FirewallPolicy", "web", status={"applied": 1}, origin="up")],
            "status .* is not what its owner wrote",
        ),
        (
            [resource("Alarm", "a", status={"severity": "major"}, origin=MIRROR)],
            [resource("Alarm", "a", status={"severity": "critical"})],
            "above .* differs",
        ),
    ],
)
def test_what_differs_is_said(above: list[dict[str, Any]], below: list[dict[str, Any]], words: str) -> None:
    found = linked(above, below)
    assert len(found) == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found[0])


def test_the_same_name_with_a_home_at_both_ends_is_left_to_people() -> None:
    assert linked([resource("FirewallPolicy", "web")], [resource("FirewallPolicy", "web", spec=POLICY)]) == []


def test_a_host_is_believed_in_what_it_owns_alone() -> None:
    status = {"readings": [1], "administrative": "unlocked"}
    above = book(resource("Host", HOST, status=status))
    same = book(resource("Host", HOST, status={"readings": [1]}, origin="up"))
    other = book(resource("Host", HOST, status={"readings": [2]}, origin="up"))
    assert agreement.between_host(SITE, HOST, above, same) == []
    assert len(agreement.between_host(SITE, HOST, above, other)) == 1


def test_nobody_claims_anothers_log() -> None:
    entry = resource("LogEntry", "log.1", status={"source": "site-0001", "sequence": 1})
    assert agreement.claims(SITE, book(entry))
    assert agreement.claims("site-0001", book(entry)) == []


# -- cursors


def test_a_cursor_goes_back_or_is_lost_only_with_its_store() -> None:
    before = {"up": ("a", 10)}
    assert cursors.gone_back(SITE, before, {"up": ("a", 10)}) == []
    assert cursors.gone_back(SITE, before, {"up": ("b", 2)}) == []
    assert cursors.gone_back(SITE, before, {"up": ("a", 9)})
    assert cursors.gone_back(SITE, before, {})
    assert cursors.gone_back(SITE, before, {}, ["up"]) == []


def test_a_cursor_is_never_beyond_its_peer_and_not_of_another_store_in_the_end() -> None:
    assert cursors.ahead(SITE, {"up": ("a", 10)}, {"up": ("a", 10)}) == []
    assert cursors.ahead(SITE, {"up": ("a", 11)}, {"up": ("a", 10)})
    assert cursors.ahead(SITE, {"up": ("b", 11)}, {"up": ("a", 10)}) == []
    assert cursors.stale(SITE, {"up": ("a", 3)}, {"up": ("a", 10)}) == []
    assert cursors.stale(SITE, {"up": ("b", 3)}, {"up": ("a", 10)})
    assert cursors.stale(SITE, {}, {"up": ("a", 10)})


# -- log entries


def arrival(number: int, uid: str = "", type: str = "ADDED", **status: str) -> logs.Arrival:
    raw = {
        "metadata": {"uid": uid or f"u{number}"},
        "status": {"source": SITE, "sequence": number, **status},
    }
    return logs.Arrival(type, f"log.{number}", msgspec.json.encode(raw).decode())


@pytest.mark.parametrize(
    ("arrivals", "found"),
    [
        ([arrival(1), arrival(2), arrival(3)], 0),
        ([arrival(1), arrival(3), arrival(2)], 1),
        ([arrival(1), arrival(1, "other", "MODIFIED")], 1),
        ([arrival(1), arrival(1, "", "MODIFIED")], 1),
        ([arrival(1), arrival(1, "", "DELETED"), arrival(2)], 0),
    ],
)
def test_entries_come_once_and_in_order(arrivals: list[logs.Arrival], found: int) -> None:
    assert len(logs.Told().take(arrivals)) == found


def test_a_restored_source_counts_on_from_its_snapshot() -> None:
    told = logs.Told()
    assert told.take([arrival(1), arrival(2)]) == []
    assert told.take([arrival(2, "other", "ADDED"), arrival(3)], {SITE}) == []


def entries(*numbers: int) -> list[dict[str, Any]]:
    return [resource("LogEntry", f"log.{n}", status={"source": SITE, "sequence": n}) for n in numbers]


@pytest.mark.parametrize(
    ("numbers", "count", "shed", "found"),
    [([1, 2, 3], 3, 0, 0), ([1, 3], 3, 0, 1), ([1, 3], 3, 1, 0), ([1, 2, 3, 4], 3, 0, 1)],
)
def test_a_gap_is_what_was_not_shed(numbers: list[int], count: int, shed: int, found: int) -> None:
    counted = [{"name": f"log:{SITE}", "value": count}]
    words = [{"name": f"log-shed:{SITE}", "value": str(shed)}]
    assert len(logs.gaps(SITE, book(*entries(*numbers), counters=counted, properties=words))) == found


# -- alarms and states


def site_book(*more: dict[str, Any], administrative: str = "unlocked", **host: Any) -> Book:
    state = {"enabled": "available"} if administrative == "unlocked" else {"disabled": "online"}
    operational, availability = next(iter(state.items()))
    status = {
        "administrative": administrative,
        "operational": operational,
        "availability": availability,
        **host,
    }
    return book(
        resource("Host", HOST, spec={"administrativeState": administrative}, status=status),
        resource("PlatformNetwork", "oam", spec=OAM),
        *more,
    )


def raised(alarm_id: str, entity: str, severity: str, **more: str) -> dict[str, Any]:
    status = {"alarmId": alarm_id, "entity": entity, "severity": severity, **more}
    return resource("Alarm", f"{alarm_id}.{entity}", status=status)


def wrong(here: Book, machine: Machine | None) -> list[str]:
    machines = {HOST: machine} if machine else {}
    return alarms.differences(SITE, alarms.of_site(SITE, here, machines), here, SITE)


MEMORY = ("100.103", f"host={HOST}", "critical")


def test_alarms_are_those_that_follow_from_the_machine() -> None:
    full = msgspec.structs.replace(WELL, memory=97.0)
    assert wrong(site_book(), WELL) == []
    assert wrong(site_book(raised(*MEMORY)), full) == []
    assert len(wrong(site_book(), full)) == 1
    assert len(wrong(site_book(raised(*MEMORY)), WELL)) == 1
    assert len(wrong(site_book(raised("100.103", f"host={HOST}", "major")), full)) == 1
    assert len(wrong(site_book(raised(*MEMORY, staleSince="2026-01-01T00:00:00Z")), full)) == 1


def test_a_dark_port_counts_on_a_network_that_has_an_alarm_for_it() -> None:
    dark = msgspec.structs.replace(WELL, dark=frozenset({"eth0", "eth1"}))
    port = raised("100.106", f"host={HOST}.port=eth0", "major")
    assert wrong(site_book(port), dark) == []
    assert len(wrong(site_book(), dark)) == 1


def test_a_locked_host_and_a_lost_one() -> None:
    locked = raised("200.001", f"host={HOST}", "warning")
    assert wrong(site_book(locked, administrative="locked"), WELL) == []
    lost = [raised(i, f"host={HOST}", "critical") for i in ("200.004", "200.005")]
    assert wrong(site_book(*lost), None) == []
    assert len(wrong(site_book(), None)) == 2


def test_alarms_of_other_identifiers_are_not_judged() -> None:
    assert wrong(site_book(raised("999.001", f"host={HOST}", "major")), WELL) == []


def test_states_follow_from_lock_and_alarms() -> None:
    def found(here: Book, wanted: alarms.Alarms) -> list[str]:
        return alarms.states(SITE, here, wanted, {HOST: WELL})

    assert found(site_book(), {}) == []
    assert found(site_book(administrative="locked"), {}) == []
    port: alarms.Alarms = {("100.106", f"host={HOST}.port=eth0"): "major"}
    assert found(site_book(), port)
    assert found(site_book(availability="degraded"), port) == []
    full: alarms.Alarms = {(MEMORY[0], MEMORY[1]): "critical"}
    assert found(site_book(operational="disabled", availability="intest"), full) == []
    assert found(site_book(operational="disabled", availability="failed"), {})


def test_an_alarm_is_not_cleared_while_its_cause_goes_on() -> None:
    full = msgspec.structs.replace(WELL, memory=97.0)
    clear = arrival(1, event="alarm-clear", alarmId="100.103", entity=f"host={HOST}")
    raise_ = arrival(2, event="alarm-set", alarmId="100.103", entity=f"host={HOST}")
    assert alarms.unchanged(HOST, clear, 1, full)
    assert alarms.unchanged(HOST, clear, 2, full) == ""
    assert alarms.unchanged(HOST, clear, 1, WELL) == ""
    assert alarms.unchanged(HOST, raise_, 0, WELL)
    assert alarms.unchanged(HOST, raise_, 1, full) == ""
    assert alarms.unchanged("controller-1", clear, 1, full) == ""


# -- operations


def operation(state: str, **spec: Any) -> dict[str, Any]:
    spec = {"action": "lock", "host": HOST, **spec}
    return resource("Operation", "lock-it", spec=spec, status={"state": state}, uid="op")


def step(state: str, deadline: float = 0.0) -> dict[str, Any]:
    return {"operation": "op", "number": 0, "name": "lock", "state": state, "deadline": deadline}


def stuck(row: dict[str, Any], *steps: dict[str, Any], wanted: alarms.Alarms | None = None) -> list[str]:
    here = site_book(row)
    here = book(*here._tables["resources"], steps=list(steps))  # type: ignore[arg-type]
    return operations.unended(SITE, here, {HOST: WELL}, wanted or {}, 1000.0)


def test_an_operation_ends_with_its_steps() -> None:
    assert stuck(operation("succeeded"), step("succeeded")) == []
    assert len(stuck(operation("succeeded"), step("pending"))) == 1
    assert len(stuck(operation("running"), step("running", 2000.0))) == 1
    assert len(stuck(operation("running"), step("running", 100.0))) == 1
    assert stuck(operation("paused", paused=True), step("pending")) == []
    assert stuck(operation("running", host="nobody"), step("running", 2000.0)) == []
    full: alarms.Alarms = {(MEMORY[0], MEMORY[1]): "critical"}
    assert stuck(operation("running"), step("running", 2000.0), wanted=full) == []
    other = {**step("pending"), "operation": "gone"}
    assert len(stuck(operation("succeeded"), step("succeeded"), other)) == 1


def test_a_host_is_where_its_operator_wants_it_or_says_why_not() -> None:
    def found(*rows: dict[str, Any], machine: Machine | None = WELL) -> list[str]:
        return operations.unsettled(SITE, book(*rows), {HOST: machine} if machine else {}, {})

    conditions = [{"type": "Settled", "message": "failed, tried again"}]
    spec = {"administrativeState": "locked"}
    there = resource("Host", HOST, spec=spec, status={"administrative": "locked"})
    not_there = resource("Host", HOST, spec=spec, status={"administrative": "unlocked"})
    says = resource("Host", HOST, spec=spec, status={"administrative": "unlocked", "conditions": conditions})
    assert found(there) == []
    assert len(found(not_there)) == 1
    assert found(not_there, operation("paused", paused=True)) == []
    assert len(found(not_there, operation("failed"))) == 1
    assert found(says, operation("failed")) == []
    assert found(not_there, machine=None) == []


# -- restarts and bounds


def test_restarts_and_intent_are_counted_against_orders() -> None:
    none, one = restarts.Orders(), restarts.Orders(reboots=1, writes=1)
    assert restarts.unasked_restarts(HOST, 0, none) == []
    assert restarts.unasked_restarts(HOST, 1, none)
    assert restarts.unasked_restarts(HOST, 1, one) == []
    assert restarts.unasked_restarts(HOST, 2, one)
    assert restarts.unasked_restarts(HOST, 2, msgspec.structs.replace(one, restores=1)) == []
    assert restarts.unasked_intent(HOST, 1, none)
    assert restarts.unasked_intent(HOST, 1, one) == []


def test_a_size_over_its_bound_is_said() -> None:
    assert bounds.over(SITE, {"history": 1}) == []
    assert len(bounds.over(SITE, {"history": 10**6})) == 1
    assert bounds.largest([("history", 1), ("history", 5), ("history", 3)]) == {"history": 5}


def test_copies_are_those_of_what_is_shared_with_managed_subclouds() -> None:
    def copy(name: str, port: str = "443") -> dict[str, Any]:
        row = resource("FirewallPolicy", name, spec={"rules": [port]})
        raw = msgspec.json.decode(row["data"])
        raw["metadata"]["labels"] = {"roost.edge/shared-by": "central"}
        return {**row, "data": msgspec.json.encode(raw).decode()}

    managed = resource("Subcloud", SITE, namespace="", spec={"managementState": "managed"})
    free = resource("Subcloud", SITE, namespace="", spec={"managementState": "unmanaged"})
    policy = resource(
        "FirewallPolicy", "web", namespace="central", spec={"rules": ["443"], "subclouds": {"names": []}}
    )
    other = resource(
        "FirewallPolicy", "web", namespace="central", spec={"rules": ["443"], "subclouds": {"names": ["x"]}}
    )
    assert agreement.shared("central", book(managed, policy, copy("web.central"))) == []
    assert len(agreement.shared("central", book(managed, policy))) == 1
    assert len(agreement.shared("central", book(managed, policy, copy("web.central", "80")))) == 1
    assert len(agreement.shared("central", book(managed, copy("web.central")))) == 1
    assert len(agreement.shared("central", book(managed, other, copy("web.central")))) == 1
    assert agreement.shared("central", book(free, copy("web.central"))) == []
