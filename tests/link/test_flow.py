"""What travels, and who may write what: tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.link import node
from roost.link.entries import Refuse
from roost.link.flow import (
    Copy,
    Decision,
    Direction,
    Downward,
    Drop,
    Nothing,
    Replace,
    Upward,
    audience,
    coalesced,
)
from roost.link.messages import Entry, EntryType
from roost.link.node import BadNode, parse, parse_uri
from roost.link.permission import permitted
from roost.model.codec import Raw
from roost.store.transaction import Change, ChangeType, Stored
from tests.link.world import resource

HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "controller-0")
POLICY = {"networks": ["oam"]}


def stored(raw: Raw, origin: str, uid: str = "u1") -> Stored:
    meta = {**raw["metadata"], "uid": uid}
    data = msgspec.json.encode({**raw, "metadata": meta}).decode()
    return Stored(raw["kind"], meta.get("namespace", ""), meta["name"], uid, 7, origin, data)


def change(
    raw: Raw, origin: str, *, before: Raw | None = None, type: ChangeType | None = None, uid: str = "u1"
) -> Change:
    now = stored(raw, origin, uid)
    previous = stored(before, origin, uid).data if before else ""
    kind: ChangeType = type or ("MODIFIED" if before else "ADDED")
    return Change(7, kind, now.kind, now.namespace, now.name, origin, now.data, previous)


def entry(type: EntryType, raw: Raw, uid: str = "u1") -> Entry:
    of = stored(raw, "", uid)
    data = b"" if type == "deleted" else of.data.encode()
    return Entry(type=type, kind=of.kind, namespace=of.namespace, name=of.name, data=data)


def policy(**fields: Any) -> Raw:
    return resource("FirewallPolicy", "harbor", "web", **{"spec": POLICY, **fields})


def machine(**fields: Any) -> Raw:
    return resource("Host", "harbor", "controller-0", **fields)


def log_entry(name: str = "controller-0-1", source: str = "harbor/controller-0") -> Raw:
    return resource("LogEntry", "harbor", name, status={"source": source})


# -- names of nodes


@pytest.mark.parametrize("text", ["subcloud/harbor", "host/harbor/controller-0"])
def test_a_node_is_what_its_text_says(text: str) -> None:
    assert str(parse(text)) == text
    assert parse_uri(parse(text).uri) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "harbor",
        "subcloud/",
        "subcloud/a/b",
        "host/a",
        "host/a/b/c",
        "cloud/a",
        "subcloud/A",
        "subcloud/a.b",
        "subcloud/-a",
        "subcloud/a\n",
        "subcloud/" + "a" * 64,
        "host//b",
    ],
)
def test_other_texts_name_no_node(text: str) -> None:
    with pytest.raises(BadNode):
        parse(text)


# -- what is offered

A_STATUS = {"status": {"hosts": 1}}
OFFERS: list[tuple[str, Direction, Change, str | None]] = [
    ("new intent", Downward(HARBOR), change(policy(), ""), "intent"),
    ("intent from further up", Downward(HARBOR), change(policy(), "up"), "intent"),
    ("what came from there", Downward(HARBOR), change(policy(), "down:subcloud/harbor"), None),
    ("changed intent", Downward(HARBOR), change(policy(), "", before=policy(spec={})), "intent"),
    ("status alone", Downward(HARBOR), change(policy(**A_STATUS), "", before=policy()), None),
    ("removed intent", Downward(HARBOR), change(policy(), "", before=policy(), type="DELETED"), "deleted"),
    ("removed there", Downward(HARBOR), change(policy(), HARBOR.origin, type="DELETED"), None),
    ("another cloud's", Downward(node.subcloud("ridge")), change(policy(), ""), None),
    ("observation", Downward(HARBOR), change(log_entry(), ""), None),
    ("what stays", Downward(HARBOR), change(resource("Subcloud", "", "harbor"), ""), None),
    ("its host", Downward(HOST), change(machine(), ""), "intent"),
    ("its host, from above", Downward(HOST), change(machine(), "up"), "intent"),
    ("another host", Downward(HOST), change(resource("Host", "harbor", "worker-0"), ""), None),
    ("a policy, to a host", Downward(HOST), change(policy(), ""), None),
    ("own object", Upward(HARBOR), change(machine(), ""), "object"),
    ("own object changed", Upward(HARBOR), change(machine(status={}), "", before=machine()), "object"),
    ("object from below", Upward(HARBOR), change(log_entry(), HOST.origin), "object"),
    ("own object removed", Upward(HARBOR), change(machine(), "", type="DELETED"), "deleted"),
    ("status of intent", Upward(HARBOR), change(policy(**A_STATUS), "up", before=policy()), "status"),
    ("intent taken in", Upward(HARBOR), change(policy(), "up"), None),
    ("intent changed", Upward(HARBOR), change(policy(), "up", before=policy(spec={})), None),
    ("intent removed", Upward(HARBOR), change(policy(), "up", type="DELETED"), None),
    ("its own cloud", Upward(HARBOR), change(resource("Cloud", "", "harbor"), ""), "object"),
    ("another cloud", Upward(HARBOR), change(resource("Cloud", "", "ridge"), ""), None),
    ("a local kind", Upward(HARBOR), change(resource("User", "", "ada"), ""), None),
    ("an unknown kind", Upward(HARBOR), change(resource("Wheel", "harbor", "w"), ""), None),
    ("a host's log entry", Upward(HOST), change(log_entry(), ""), "object"),
    ("a host's status", Upward(HOST), change(machine(status={}), "up", before=machine()), "status"),
    ("a host's own object", Upward(HOST), change(machine(), ""), None),
]


@pytest.mark.parametrize("direction, step, expected", [o[1:] for o in OFFERS], ids=[o[0] for o in OFFERS])
def test_offers(direction: Direction, step: Change, expected: str | None) -> None:
    offered = direction.offer(step)
    assert (offered.type if offered else None) == expected


def test_intent_carries_no_status_and_status_no_spec() -> None:
    whole = policy(**A_STATUS)
    down = Downward(HARBOR).offer(change(whole, ""))
    assert down and set(msgspec.json.decode(down.data)) == {"apiVersion", "kind", "metadata", "spec"}
    up = Upward(HARBOR).offer(change(whole, "up", before=policy()))
    assert up and msgspec.json.decode(up.data) == {
        "kind": "FirewallPolicy",
        "metadata": {"name": "web", "namespace": "harbor", "uid": "u1"},
        "status": {"hosts": 1},
    }


# -- taking in, below


def taken(decision: Decision) -> Raw:
    assert isinstance(decision, Copy | Replace)
    return decision.raw


def test_who_owns_fields_above_is_not_told_below() -> None:
    owned = policy()
    owned["metadata"]["managedFields"] = [{"manager": "ann@central", "operation": "Apply"}]
    down = Downward(HARBOR)
    told = down.offer(change(owned, "", before=None))
    assert told is not None and b"ann" not in told.data and told == down.current(stored(owned, ""))
    assert down.offer(change(owned, "", before=policy())) is None, "ownership alone is no news"
    moved = {**owned, "spec": {"networks": ["mgmt"]}}
    assert down.offer(change(moved, "", before=owned)) is not None
    taken = down.decide(None, entry("intent", owned))
    assert isinstance(taken, Copy) and "managedFields" not in taken.raw["metadata"], (
        "of an older version above"
    )


def test_intent_is_copied_and_keeps_the_status_that_is_here() -> None:
    existing = stored(policy(spec={"networks": ["mgmt"]}, **A_STATUS), "up")
    decision = Downward(HARBOR).decide(existing, entry("intent", policy()))
    assert isinstance(decision, Copy) and decision.origin == "up"
    assert taken(decision)["status"] == {"hosts": 1} and taken(decision)["spec"] == POLICY


def test_another_resource_of_the_same_name_does_not_inherit_status() -> None:
    existing = stored(policy(**A_STATUS), "up", uid="old")
    assert "status" not in taken(Downward(HARBOR).decide(existing, entry("intent", policy(), "new")))


def test_status_in_intent_is_not_taken() -> None:
    assert "status" not in taken(Downward(HARBOR).decide(None, entry("intent", policy(**A_STATUS))))


def test_unknown_fields_survive() -> None:
    newer = policy(spec={**POLICY, "shape": "round"}, extra=[1])
    raw = taken(Downward(HARBOR).decide(None, entry("intent", newer)))
    assert raw["spec"]["shape"] == "round" and raw["extra"] == [1]


def damaged(type: EntryType, of: Raw, data: bytes) -> Entry:
    return msgspec.structs.replace(entry(type, of), data=data)


DOWN: list[tuple[str, Stored | None, Entry, type]] = [
    ("home here", stored(policy(), ""), entry("intent", policy()), Refuse),
    ("home below", stored(policy(), "down:subcloud/x"), entry("intent", policy()), Refuse),
    ("other namespace", None, entry("intent", resource("FirewallPolicy", "ridge", "w", spec=POLICY)), Refuse),
    ("unknown kind", None, entry("intent", resource("Wheel", "harbor", "w")), Refuse),
    ("observation", None, entry("intent", log_entry()), Refuse),
    ("object", None, entry("object", policy()), Refuse),
    ("unreadable", None, entry("intent", policy(spec={"networks": 3})), Refuse),
    ("no JSON", None, damaged("intent", policy(), b"{"), Refuse),
    ("no object", None, damaged("intent", policy(), b"[]"), Refuse),
    ("another name", None, damaged("intent", policy(), stored(machine(), "").data.encode()), Refuse),
    ("too large", None, damaged("intent", policy(), b" " * (5 * 1024 * 1024)), Refuse),
    ("removed", stored(policy(), "up"), entry("deleted", policy()), Drop),
    ("removed, home here", stored(policy(), ""), entry("deleted", policy()), Nothing),
    ("removed, gone", None, entry("deleted", policy()), Nothing),
]


@pytest.mark.parametrize("existing, what, expected", [d[1:] for d in DOWN], ids=[d[0] for d in DOWN])
def test_taking_in_below(existing: Stored | None, what: Entry, expected: type) -> None:
    assert isinstance(Downward(HARBOR).decide(existing, what), expected)


# -- taking in, above

MINE, OTHER = HARBOR.origin, "down:host/harbor/other"
UP: list[tuple[str, node.Node, Stored | None, Entry, type]] = [
    ("object", HARBOR, None, entry("object", machine()), Copy),
    ("object again", HARBOR, stored(machine(), MINE), entry("object", machine()), Copy),
    ("object, home here", HARBOR, stored(machine(), ""), entry("object", machine()), Refuse),
    ("object, another's", HARBOR, stored(machine(), OTHER), entry("object", machine()), Refuse),
    ("status", HARBOR, stored(policy(), ""), entry("status", policy(**A_STATUS)), Replace),
    ("status from further up", HARBOR, stored(policy(), "up"), entry("status", policy()), Replace),
    ("status of nothing", HARBOR, None, entry("status", policy()), Nothing),
    ("status of another", HARBOR, stored(policy(), "", "new"), entry("status", policy()), Nothing),
    ("status of its own", HARBOR, stored(policy(), MINE), entry("status", policy()), Refuse),
    ("bad status", HARBOR, stored(policy(), ""), entry("status", policy(status={"hosts": "x"})), Refuse),
    ("no status", HARBOR, stored(policy(), ""), entry("status", policy(status=3)), Refuse),
    ("intent", HARBOR, None, entry("intent", policy()), Refuse),
    ("removed", HARBOR, stored(machine(), MINE), entry("deleted", machine()), Drop),
    ("removed, home here", HARBOR, stored(machine(), ""), entry("deleted", machine()), Nothing),
    ("removed, another's", HARBOR, stored(machine(), OTHER), entry("deleted", machine()), Nothing),
    ("host's log entry", HOST, None, entry("object", log_entry()), Copy),
    ("log entry of another", HOST, None, entry("object", log_entry(source="harbor/x")), Refuse),
    ("another's log entry", HOST, stored(log_entry(), OTHER), entry("object", log_entry()), Refuse),
]


@pytest.mark.parametrize("who, existing, what, expected", [u[1:] for u in UP], ids=[u[0] for u in UP])
def test_taking_in_above(who: node.Node, existing: Stored | None, what: Entry, expected: type) -> None:
    assert isinstance(Upward(who).decide(existing, what), expected)


def test_a_host_moves_only_the_fields_it_owns() -> None:
    existing = stored(
        machine(spec={"location": "here"}, status={"availability": "available", "readings": []}), ""
    )
    reported = machine(
        spec={"location": "mars"},
        status={"availability": "failed", "administrative": "unlocked", "agent": {"version": "9"}},
    )
    raw = taken(Upward(HOST).decide(existing, entry("status", reported)))
    assert raw["spec"] == {"location": "here"}
    assert raw["status"] == {"availability": "available", "agent": {"version": "9"}}


def test_a_host_owns_the_whole_status_of_its_configuration_but_not_its_spec() -> None:
    existing = stored(resource("HostConfiguration", "harbor", "controller-0", spec={"sources": {"a": 1}}), "")
    reported = resource(
        "HostConfiguration", "harbor", "controller-0", spec={}, status={"appliedGeneration": 4}
    )
    raw = taken(Upward(HOST).decide(existing, entry("status", reported)))
    assert raw["status"] == {"appliedGeneration": 4} and raw["spec"] == {"sources": {"a": 1}}


HOST_MAY_NOT = [
    entry("object", machine()),
    entry("deleted", machine()),
    entry("status", resource("Host", "harbor", "worker-0")),
    entry("status", resource("Host", "ridge", "controller-0")),
    entry("status", policy()),
    entry("object", policy()),
    entry("status", log_entry()),
    entry("object", log_entry("worker-0-1")),
    entry("object", log_entry("controller-01")),
    entry("object", resource("LogEntry", "ridge", "controller-0-1")),
    entry("object", resource("Alarm", "harbor", "controller-0-x")),
    entry("object", resource("Credential", "", "x")),
    entry("status", resource("User", "", "admin")),
    entry("object", resource("Cloud", "", "harbor")),
]
SUBCLOUD_MAY_NOT = [
    entry("object", resource("Host", "ridge", "controller-0")),
    entry("object", resource("Host", "", "controller-0")),
    entry("object", resource("Cloud", "", "ridge")),
    entry("object", resource("Cloud", "harbor", "harbor")),
    entry("object", resource("Subcloud", "", "harbor")),
    entry("status", resource("Subcloud", "", "harbor")),
    entry("object", resource("User", "", "admin")),
    entry("object", resource("Credential", "", "x")),
    entry("object", resource("Host", "harbor", "../x")),
    entry("object", resource("Host", "harbor", "Upper")),
    entry("deleted", resource("Wheel", "harbor", "x")),
]


@pytest.mark.parametrize("what", HOST_MAY_NOT, ids=lambda e: f"{e.type}-{e.kind}-{e.namespace}-{e.name}")
def test_a_host_may_not_write_what_it_does_not_own(what: Entry) -> None:
    assert permitted(HOST, what)
    assert isinstance(Upward(HOST).decide(None, what), Refuse)


@pytest.mark.parametrize("what", SUBCLOUD_MAY_NOT, ids=lambda e: f"{e.type}-{e.kind}-{e.namespace}-{e.name}")
def test_a_subcloud_may_not_write_what_it_does_not_own(what: Entry) -> None:
    assert permitted(HARBOR, what)
    assert isinstance(Upward(HARBOR).decide(None, what), Refuse)


# -- what is woken, what is joined


def test_changes_wake_only_whom_they_can_concern() -> None:
    assert audience(change(policy(), "")) == ("subcloud/harbor",)
    assert audience(change(machine(), "")) == ("subcloud/harbor", "host/harbor/controller-0")
    assert audience(change(log_entry(), "")) == ()
    assert audience(change(log_entry(), "", type="DELETED")) == ("subcloud/harbor",)
    assert audience(change(resource("Subcloud", "", "harbor"), "")) == ()
    assert audience(change(resource("Wheel", "harbor", "w"), "")) == ()


def test_the_last_of_each_resource_is_kept_but_every_log_entry() -> None:
    a, b, gone = entry("intent", policy()), entry("status", machine()), entry("deleted", policy())
    told, untold = entry("object", log_entry()), entry("deleted", log_entry())
    dated = [(1, a), (2, told), (3, b), (4, a), (5, untold), (6, gone)]
    assert coalesced(dated) == [(2, told), (3, b), (5, untold), (6, gone)]
