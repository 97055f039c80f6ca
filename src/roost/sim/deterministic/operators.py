"""What people do at the centre and at sites, sensible and foolish: the verbs of the action `operate`.

All goes through the real API in the node's process, with its admission, as an administrator; what is asked of
a site from the centre goes through the link. Nobody waits: an answer may come while other things happen, or
never. Every write is entered into the ledger, and so is what was answered.

`place(tree, event)` starts what one event asks for; the verbs are plain functions from a node and arguments
to the requests that they are made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from roost.api import through
from roost.link.exchange import Request
from roost.model.meta import GROUP, VERSION
from roost.sim.cloud import ADMINISTRATOR
from roost.sim.deterministic.events import Argument, Event
from roost.sim.deterministic.ledger import Key, Spec, Write, ledger
from roost.sim.deterministic.run import OPERATIONS
from roost.sim.deterministic.tree import Tree

CENTRE = "central"
PATIENCE = 40.0
"""Seconds after which somebody gives up waiting for an answer."""

_BASE = f"/apis/{GROUP}/{VERSION}"
_PLURALS = {
    "FirewallPolicy": "firewallpolicies",
    "PlatformNetwork": "platformnetworks",
    "Host": "hosts",
    "Operation": "operations",
    "Subcloud": "subclouds",
    "Alarm": "alarms",
}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One thing somebody wants: an object declared, changed or deleted.

    `way` is the cloud asked, `home` the one whose store it is for; they differ when asked through the link.
    """

    verb: str
    method: str
    key: Key
    spec: Spec | None
    way: str
    home: str


Verb = Callable[[Tree, str, dict[str, Argument]], list[Wish]]


# -- verbs


def declare_policy(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """A firewall policy: shared by the centre (`subclouds`), its own for one site (`site`), a site's."""
    rule = {"action": "allow", "protocol": "tcp", "ports": [str(said.get("port", 443))]}
    spec: Spec = {"networks": ["oam"], "rules": [rule]}
    if "subclouds" in said:
        spec["subclouds"] = {} if said["subclouds"] == "*" else {"names": [said["subclouds"]]}
    return [_wish("DECLARE", ("FirewallPolicy", _namespace(where, said), str(said["name"])), spec, where)]


def delete_policy(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Take a firewall policy away."""
    return [_wish("DELETE", ("FirewallPolicy", _namespace(where, said), str(said["name"])), None, where)]


def _live(state: str, *, force: bool) -> Verb:
    def verb(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
        spec = {"administrativeState": state, "forceLock": force}
        return [_of_site("PATCH", where, said, ("Host", str(said["host"])), spec)]

    return verb


def reboot(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Have a host restarted."""
    name = f"reboot-{said['host']}-{int(tree.now * 1000)}"
    return [_wish("POST", ("Operation", where, name), {"action": "reboot", "host": said["host"]}, where)]


def _steer(field: str) -> Verb:
    def verb(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
        """Every operation that is at work."""
        found = [
            raw["metadata"]["name"]
            for raw in _objects(tree, where, "Operation")
            if not (raw.get("status") or {}).get("finishedAt")
        ]
        return [_wish("PATCH", ("Operation", where, name), {field: True}, where) for name in found]

    return verb


def delete_host(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Delete a host; refused unless it is locked."""
    return [_wish("DELETE", ("Host", where, str(said["host"])), None, where)]


def declare_host(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Declare a host, unlocked, perhaps once more under the name of one that was deleted."""
    return [_wish("DECLARE", ("Host", where, str(said["host"])), {"administrativeState": "unlocked"}, where)]


def set_thresholds(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """When a host's memory is an alarm."""
    spec = {"thresholds": {"memory": {"major": said.get("major", 80)}}}
    return [_wish("PATCH", ("Host", where, str(said["host"])), spec, where)]


def declare_network(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """A platform network that no port is on."""
    spec = {"type": said["name"], "subnets": [f"172.20.{said.get('third', 0)}.0/24"]}
    return [_wish("DECLARE", ("PlatformNetwork", _namespace(where, said), str(said["name"])), spec, where)]


def delete_network(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Take a network away."""
    return [_wish("DELETE", ("PlatformNetwork", _namespace(where, said), str(said["name"])), None, where)]


def _manage(state: str) -> Verb:
    def verb(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
        return [_wish("PATCH", ("Subcloud", "", str(said["site"])), {"managementState": state}, where)]

    return verb


def delete_subcloud(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Delete a subcloud; refused while it is managed."""
    return [_wish("DELETE", ("Subcloud", "", str(said["site"])), None, where)]


def declare_subcloud(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Declare a subcloud, managed."""
    return [_wish("DECLARE", ("Subcloud", "", str(said["site"])), {"managementState": "managed"}, where)]


def acknowledge_alarm(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Take the first alarm in hand."""
    names = [raw["metadata"]["name"] for raw in _objects(tree, where, "Alarm")]
    return [_wish("PATCH", ("Alarm", where, name), {"acknowledgedBy": "night"}, where) for name in names[:1]]


def delete_alarm(tree: Tree, where: str, said: dict[str, Argument]) -> list[Wish]:
    """Delete the first alarm by hand, as if that mended anything."""
    names = [raw["metadata"]["name"] for raw in _objects(tree, where, "Alarm")]
    return [_wish("DELETE", ("Alarm", where, name), None, where) for name in names[:1]]


VERBS: dict[str, Verb] = {
    "declare-policy": declare_policy,
    "delete-policy": delete_policy,
    "lock": _live("locked", force=False),
    "force-lock": _live("locked", force=True),
    "unlock": _live("unlocked", force=False),
    "reboot": reboot,
    "pause": _steer("paused"),
    "abort": _steer("aborted"),
    "delete-host": delete_host,
    "declare-host": declare_host,
    "set-thresholds": set_thresholds,
    "declare-network": declare_network,
    "delete-network": delete_network,
    "manage": _manage("managed"),
    "unmanage": _manage("unmanaged"),
    "delete-subcloud": delete_subcloud,
    "declare-subcloud": declare_subcloud,
    "acknowledge-alarm": acknowledge_alarm,
    "delete-alarm": delete_alarm,
}


def _namespace(where: str, said: dict[str, Argument]) -> str:
    """Of what is declared at a cloud: its own, or that of one of its subclouds."""
    return str(said.get("site", where)) if where == CENTRE else where


def _wish(method: str, key: Key, spec: Spec | None, where: str) -> Wish:
    return Wish(verb=f"{method.lower()}", method=method, key=key, spec=spec, way=where, home=where)


def _of_site(method: str, where: str, said: dict[str, Argument], what: tuple[str, str], spec: Spec) -> Wish:
    """Of a site, asked there or at the centre through its link."""
    site = str(said.get("site", where))
    return Wish(
        verb=method.lower(), method=method, key=(what[0], site, what[1]), spec=spec, way=where, home=site
    )


def _objects(tree: Tree, where: str, kind: str) -> list[dict[str, Any]]:
    """What somebody sees at a cloud before he acts; nothing while it is down."""
    if not tree.nodes[where].alive:
        return []
    rows = tree.nodes[where].rows()["resources"]
    found = [r for r in rows if r["kind"] == kind and r["namespace"] == where and r["origin"] == ""]
    return [msgspec.json.decode(str(r["data"])) for r in found]


# -- carrying out

_GOING: WeakKeyDictionary[Tree, set[asyncio.Task[None]]] = WeakKeyDictionary()


async def place(tree: Tree, event: Event) -> None:
    """Start what an event asks for, and come back at once."""
    said = dict(event.arguments)
    verb = str(said.pop("verb", ""))
    for wish in VERBS[verb](tree, event.target, said):
        task = asyncio.create_task(_carry_out(tree, wish), name=f"operator {verb}")
        going = _GOING.setdefault(tree, set())
        going.add(task)
        task.add_done_callback(going.discard)
    # The request goes out before anything else happens at this moment.
    await asyncio.sleep(0)


OPERATIONS.update(dict.fromkeys(VERBS, place))


def going(tree: Tree) -> int:
    """How many people still wait for an answer."""
    return len(_GOING.get(tree, ()))


async def end(tree: Tree) -> None:
    """Nobody waits any longer."""
    tasks = list(_GOING.pop(tree, ()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _carry_out(tree: Tree, wish: Wish) -> None:
    """Ask, and enter what was answered. Somebody who declares what is there already changes it."""
    if wish.method != "DECLARE":
        await _ask(tree, wish)
        return
    made = msgspec.structs.replace(wish, method="POST")
    if await _ask(tree, made) == 409:
        await _ask(tree, msgspec.structs.replace(wish, method="PATCH"))


async def _ask(tree: Tree, wish: Wish) -> int:
    """Make one request; its status, 0 when none came."""
    node, name = tree.nodes[wish.way], "/".join(wish.key[1:])
    if not node.alive:
        tree.say(f"{wish.way} answers nobody: {wish.verb} {wish.key[0]} {name}")
        return 0
    write = ledger(tree).begin(wish.home, wish.key, wish.verb, wish.spec, _stands(tree, wish.home), tree.now)
    cloud = node.cloud
    try:
        async with asyncio.timeout(PATIENCE):
            status, body = await node.within(_request(through.handler(cloud.api), wish))
    except asyncio.CancelledError:
        write.answer = "unknown"
        raise
    except Exception as error:
        # Nobody answered in time, or the process died under it, whatever that looks like from within.
        status, body = 0, repr(error).encode()
    if not node.alive or node.cloud is not cloud:
        # Nobody hears what a dead process says.
        status = 0
    _enter(tree, write, status, body)
    tree.say(f"answered {status or 'nothing'} at {wish.way}: {wish.verb} {wish.key[0]} {name}")
    return status


def _stands(tree: Tree, home: str) -> tuple[str, int]:
    """Identity and revision of a store as it is now; nothing known while it is down."""
    node = tree.nodes.get(home)
    return (node.store.identity, node.store.revision) if node is not None and node.alive else ("", 0)


def _enter(tree: Tree, write: Write, status: int, body: bytes) -> None:
    """Enter an answer. 503 and 504 say that nobody knows, as every proxy means them."""
    write.ended = tree.now
    if 200 <= status < 300:
        write.answer = "accepted"
        raw = msgspec.json.decode(body)
        _, high = _stands(tree, write.home)
        write.high = high or write.high
        if write.sent is None:
            return
        write.spec = raw.get("spec") or {}
        write.low = write.high = int(raw["metadata"]["resourceVersion"])
    elif status in (0, 500, 502, 503, 504):
        write.answer = "unknown"
    else:
        write.answer = "refused"


async def _request(handler: Callable[[Request], Awaitable[Any]], wish: Wish) -> tuple[int, bytes]:
    kind, namespace, name = wish.key
    path = _BASE + (f"/namespaces/{namespace}" if namespace else "") + f"/{_PLURALS[kind]}"
    if wish.way != wish.home:
        path = f"/clouds/{wish.home}{path}"
    body: dict[str, Any] = {} if wish.spec is None else {"spec": wish.spec}
    if wish.method == "POST":
        meta = {"name": name, **({"namespace": namespace} if namespace else {})}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": meta, **body}
    else:
        path += f"/{name}"
    media = "application/merge-patch+json" if wish.method == "PATCH" else "application/json"
    request = Request(
        method=wish.method,
        path=path,
        headers=[("content-type", media), ("accept", "application/json")],
        body=msgspec.json.encode(body) if wish.spec is not None else b"",
        caller=ADMINISTRATOR,
    )
    response = await handler(request)
    return response.status, b"".join([part async for part in response.body])
