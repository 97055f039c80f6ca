"""`roost host`: the life of hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from roost.cli import answers, listing, output, powering
from roost.cli.hostview import inventory_lines, rehearsal_lines, summary_lines, thresholds_of
from roost.cli.hostwork import each, object_of
from roost.cli.kinds import ALARM, HOST, HOST_CONFIGURATION, OPERATION
from roost.cli.problems import OK, NotFound, Problem
from roost.cli.progress import Goal
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.tokens import show_token

host = App(name="host", help="Machines of a cloud: add, lock, unlock, reboot, look.")

Names = Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of hosts.")]
Wait = Annotated[bool, Parameter(negative="--no-wait", help="Follow until it is over.")]
DryRun = Annotated[bool, Parameter(help="Have the cloud check it, show the steps, and change nothing.")]
Timeout = Annotated[float, Parameter(help="Seconds to follow; the work goes on after that.")]


@host.command(name="list")
def list_hosts(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List hosts with their states.

    For example:
        roost host list
        roost host list -A -o wide
        roost host list --field-selector status.availability=failed --watch
    """
    with opened(connect) as session:
        return listing.show_list(session, HOST, pick, show, empty="No hosts; `roost host add NAME` adds one.")


@host.command(name="show")
def show_host(
    name: Annotated[str, Parameter(name="NAME", help="Name of the host.")],
    /,
    *,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show one host: states, what it waits for and what comes next, checks, alarms, what the machine has.

    For example:
        roost host show controller-0
        roost host show controller-0 -o yaml
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, HOST, name, show)
        found = session.client.get(HOST, session.namespace, name, answers.DetailedHost)
        alarms, _ = session.client.list_items(ALARM, session.namespace, answers.Alarm)
        entity = f"host={name}"
        own = [a for a in alarms if a.status.entity == entity or a.status.entity.startswith(f"{entity}.")]
        query = {"fieldSelector": f"spec.host={name}"}
        work, _ = session.client.list_items(OPERATION, session.namespace, answers.Operation, query)
        told = session.client.seek(HOST_CONFIGURATION, session.namespace, name) or {}
        output.print_lines(summary_lines(found, own, work, output.now(), thresholds_of(told)))
    return OK


@host.command(name="inventory")
def show_inventory(
    name: Annotated[str, Parameter(name="NAME", help="Name of the host.")],
    /,
    *,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show what a machine has: processors, memory, disks, ports, devices, and what could not be read.

    For example:
        roost host inventory controller-0
        roost host inventory controller-0 -o json
    """
    with opened(connect) as session:
        found = session.client.get(HOST, session.namespace, name, answers.DetailedHost)
        inventory = found.status.inventory
        if inventory is None:
            raise NotFound(f"{name} has not told its inventory yet", f"`roost host show {name}` says why")
        if show.output in ("json", "yaml"):
            output.print_data(inventory, show.output)
        else:
            output.print_lines(inventory_lines(inventory, output.now(), output.width_of(output.console())))
    return OK


@host.command(name="add")
def add_host(
    name: Annotated[str, Parameter(name="NAME", help="Name of the host.")],
    /,
    *,
    personality: Annotated[
        tuple[Literal["controller", "worker", "storage"], ...],
        Parameter(name=("--personality", "-p"), help="Role of the host; may be repeated."),
    ] = (),
    location: Annotated[str, Parameter(help="Where the machine stands.")] = "",
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Declare a host and print the one-time token with which its machine joins.

    For example:
        roost host add worker-0 --personality worker --location "rack 2"
    """
    spec: dict[str, Any] = {"personalities": list(personality)} if personality else {}
    if location:
        spec["location"] = location
    with opened(connect) as session:
        body = object_of("Host", {"name": name, "namespace": session.namespace}, spec)
        session.client.create(HOST, session.namespace, body)
        if show.output == "table":
            output.say(f"Host {name} is added to cloud {session.namespace}, locked.")
        return _token(session, name, show)


@host.command(name="token")
def make_token(
    name: Annotated[str, Parameter(name="NAME", help="Name of the host.")],
    /,
    *,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Make a new enrolment token for a host, as after its machine was replaced.

    For example:
        roost host token worker-0
    """
    with opened(connect) as session:
        return _token(session, name, show)


@host.command(name="readmit")
def readmit(
    names: Names,
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Let in hosts that joined before, and that this cloud has forgotten because its store was restored.

    What has a certificate of this cloud under the name is let in; nothing need be done on the machine. Each
    is declared if it is not, locked.

    For example:
        roost host readmit worker-0
    """
    with opened(connect) as session:
        for name in names:
            if session.client.seek(HOST, session.namespace, name) is None:
                body = object_of("Host", {"name": name, "namespace": session.namespace}, {})
                session.client.create(HOST, session.namespace, body)
            session.client.token(HOST, session.namespace, name, "enrolment", {"spec": {"readmit": True}})
            output.say(f"Host {name} is let in when it dials next, which takes a minute at most.")
    return OK


@host.command(name="lock")
def lock_hosts(
    names: Names,
    /,
    *,
    force: Annotated[bool, Parameter(help="Skip the checks that protect running services.")] = False,
    wait: Wait = True,
    timeout: Timeout = 600.0,
    dry_run: DryRun = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Take hosts out of service, so that they are safe to work on. Waits until workloads have left.

    For example:
        roost host lock worker-0
        roost host lock worker-0 --dry-run
        roost host lock worker-0 worker-1 --no-wait
        roost host lock controller-1 --force
    """
    action = "force-lock" if force else "lock"
    # That alone: a lock that waits when it is forced ends, and another operation does what was asked.
    wish = Wish("locked", (action,), force)
    if dry_run:
        return _rehearse(names, wish, action, connect)
    return _administer(names, wish, wait=wait, timeout=timeout, show=show, connect=connect)


@host.command(name="unlock")
def unlock_hosts(
    names: Names,
    /,
    *,
    wait: Wait = True,
    timeout: Timeout = 1500.0,
    dry_run: DryRun = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Put hosts into service, step by step: each step with its state, its reason and its time.

    For example:
        roost host unlock controller-0 --dry-run
        roost host unlock controller-0
        roost --cloud ridge host unlock controller-0 controller-1
    """
    wish = Wish("unlocked", ("unlock",))
    if dry_run:
        return _rehearse(names, wish, "unlock", connect)
    return _administer(names, wish, wait=wait, timeout=timeout, show=show, connect=connect)


@host.command(name="recover")
def recover_hosts(names: Names, /, *, connect: Connect = CONNECT) -> int:
    """Have automatic recovery begin anew, with all its tries: after you mended what made it give up.

    For example:
        roost host recover worker-0
    """
    with opened(connect) as session:
        worst = OK
        for name in dict.fromkeys(names):
            try:
                found = session.client.get(HOST, session.namespace, name, answers.DetailedHost)
                spec = {"recoveryRound": found.spec.recovery_round + 1}
                session.client.patch(HOST, session.namespace, name, {"spec": spec})
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            output.say(f"Recovery of {name} begins anew; `roost host show {name}` says how far it is.")
        return worst


@host.command(name="reboot")
def reboot_hosts(
    names: Names,
    /,
    *,
    wait: Wait = True,
    timeout: Timeout = 1200.0,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Restart the machines of locked hosts.

    For example:
        roost host reboot worker-0
    """
    with opened(connect) as session:

        def ask(name: str) -> Goal:
            meta = {"generateName": f"reboot-{name}-", "namespace": session.namespace}
            body = object_of("Operation", meta, {"action": "reboot", "host": name})
            made = session.client.create(OPERATION, session.namespace, body)
            return Goal(host=name, actions=("reboot",), operation=made["metadata"]["name"])

        return each(session, names, ask, "reboot", wait=wait, timeout=timeout, show=show)


@host.command(name="delete")
def delete_hosts(names: Names, /, *, connect: Connect = CONNECT) -> int:
    """Remove locked hosts from the cloud.

    For example:
        roost host delete worker-0
    """
    with opened(connect) as session:
        worst = OK
        for name in names:
            try:
                answer = session.client.delete(HOST, session.namespace, name)
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            held = answer.get("metadata", {}).get("deletionTimestamp")
            output.say(f"Host {name} is {'being deleted' if held else 'deleted'}.")
        return worst


class Wish(msgspec.Struct, frozen=True):
    """An administrative state, the actions that lead there, and whether checks are skipped."""

    state: str
    actions: tuple[str, ...]
    force: bool = False


def _administer(
    names: Sequence[str], wish: Wish, *, wait: bool, timeout: float, show: Show, connect: Connect
) -> int:
    spec = {"administrativeState": wish.state, "forceLock": wish.force}
    with opened(connect) as session:

        def ask(name: str) -> Goal:
            answer = session.client.patch(HOST, session.namespace, name, {"spec": spec})
            generation = int(answer.get("metadata", {}).get("generation", 0))
            return Goal(host=name, actions=wish.actions, administrative=wish.state, generation=generation)

        verb = wish.state.removesuffix("ed")
        return each(session, names, ask, verb, wait=wait, timeout=timeout, show=show)


def _rehearse(names: Sequence[str], wish: Wish, action: str, connect: Connect) -> int:
    """Ask whether it would be taken, and show which steps it would have."""
    spec = {"administrativeState": wish.state, "forceLock": wish.force}
    with opened(connect) as session:
        worst = OK
        for name in dict.fromkeys(names):
            try:
                session.client.patch(HOST, session.namespace, name, {"spec": spec}, dry_run=True)
                found = session.client.get(HOST, session.namespace, name, answers.DetailedHost)
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            output.print_lines(rehearsal_lines(found, action))
        return worst


def _token(session: Session, name: str, show: Show) -> int:
    token = session.client.token(HOST, session.namespace, name, "enrolment", {})
    lines = [
        "On the machine, as root, run this and paste the token when asked:",
        "",
        "  roost agent --join -",
    ]
    show_token(token, show, f"Enrolment token of host {name}", lines)
    return OK


host.command(powering.power_hosts, name="power")
host.command(powering.set_board, name="board")
