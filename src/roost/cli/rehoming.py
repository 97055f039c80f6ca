"""`roost subcloud rehome` and `roost rehome`: subclouds move to another central cloud, by order of one end.

Both say the same to the site's own API, the one through the link that stands. Many are moved in a window: so
many are under way at once, and when one is over the next is ordered. What is refused for one is told, and the
others go on; a move that was ordered is done or undone by the site itself, whether anybody looks or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from roost.cli import answers, choosing, output
from roost.cli.choosing import WHICH, Which
from roost.cli.client import Client, path
from roost.cli.kinds import CLOUD, SUBCLOUD
from roost.cli.login import read_secret
from roost.cli.options import Join, join_token
from roost.cli.problems import INTERRUPTED, OK, Failed, Misused, NotFound, Problem, TimedOut
from roost.cli.session import CONNECT, Connect, Session, opened, other_target

CONDITION = "Rehomed"
LOOK = 1.0
"""Seconds between two looks at the moves under way."""
GRACE = 60.0
"""Seconds after a move's own deadline, in which what came of it should be told."""

Within = Annotated[
    float, Parameter(help="Seconds in which the new central cloud must be proven; else all stays as it was.")
]


def rehome_site(
    *,
    join: Join = "",
    within: Within = 300.0,
    wait: Annotated[
        bool, Parameter(name="--wait", negative="--no-wait", help="Stay until it is over.")
    ] = True,
    connect: Connect = CONNECT,
) -> int:
    """At a site: move it to another central cloud, as when the present one is gone.

    The token comes from there: roost subcloud add NAME --managed. What runs here is
    not touched. A site that is managed and linked is moved from its central cloud
    instead: roost subcloud rehome.

    For example:
        roost rehome --join harbor.token
        roost --cloud harbor rehome --join -
    """
    token = join_token(join)
    if not token:
        raise Misused(
            "no token is given", "name the file that holds it: --join FILE, or --join - to paste it"
        )
    with opened(connect) as session:
        name = session.namespace
        before = _condition(session.client.get(CLOUD, "", name, answers.Cloud))
        _order(session, "", name, token, within)
        if not wait:
            output.say(f"{name} moves, or says why not: `roost describe cloud {name}`.")
            return OK
        until = time.monotonic() + within + GRACE
        while time.monotonic() < until:
            now = _condition(session.client.get(CLOUD, "", name, answers.Cloud))
            if now.reason in ("Moved", "RolledBack") and now != before:
                return _tell_end(name, now)
            time.sleep(LOOK)
    raise TimedOut(f"{name} has not said what came of it", f"ask it: roost describe cloud {name}")


def rehome_subclouds(
    names: Annotated[
        tuple[str, ...], Parameter(name="NAME", help="Names of subclouds, if they are not chosen otherwise.")
    ] = (),
    /,
    *,
    to: Annotated[
        Path | None,
        Parameter(
            help="Token of the new central cloud: a file, or for many a directory with NAME.token each."
        ),
    ] = None,
    to_context: Annotated[
        str,
        Parameter(
            help="Context of the new central cloud: they are declared there as here, and given tokens."
        ),
    ] = "",
    which: Which = WHICH,
    within: Within = 300.0,
    at_once: Annotated[int, Parameter(help="How many are under way at once, 500 at most.")] = 20,
    connect: Connect = CONNECT,
) -> int:
    """Move subclouds to another central cloud. What runs there is not touched.

    They are declared there first, managed as here, and given tokens: roost subcloud
    token -l region=north --directory tokens. --to-context does both. Each site enrols
    there beside its link to this cloud, proves the new link by a whole session, and
    only then gives this one up. What fails, or takes longer than --within, stays here,
    with the reason in a condition of its Cloud.

    For example:
        roost subcloud rehome harbor --to harbor.token
        roost subcloud rehome -l region=north --to tokens/ --at-once 50
        roost subcloud rehome -l region=north --to-context west
    """
    if (to is None) == (not to_context):
        raise Misused("where to must be said once", "say --to FILE, or --to-context CONTEXT")
    if not 1 <= at_once <= 500:
        raise Misused(f"--at-once {at_once} is no window", "say 1 to 500")
    with opened(connect) as session:
        some = choosing.chosen(session, names, which)
        if to is None:
            with Client(other_target(connect, to_context), connect.request_timeout) as other:
                return _Moves(session, lambda name: _made(session, other, name), within).run(some, at_once)
        files = to
        if not files.is_dir() and len(some) > 1:
            raise Misused(
                f"{files} is no directory, and {len(some)} subclouds need a token each",
                "name a directory with NAME.token of each",
            )
        return _Moves(session, lambda name: _read(files, name), within).run(some, at_once)


class _Moves:
    """Moves under way, by name."""

    def __init__(self, session: Session, token: Callable[[str], str], within: float) -> None:
        self._session, self._token, self._within = session, token, within
        self._under_way: dict[str, tuple[answers.Condition, float]] = {}
        self._done, self._worst = 0, OK

    def run(self, names: Sequence[str], at_once: int) -> int:
        """Order and follow all of them; the worst exit code."""
        waiting = list(reversed(names))
        with choosing.shown(len(names)) as advance:
            try:
                while waiting or self._under_way:
                    while waiting and len(self._under_way) < at_once:
                        self._begin(waiting.pop(), advance)
                    for name in list(self._under_way):
                        self._look(name, advance)
                    if self._under_way:
                        time.sleep(LOOK)
            except KeyboardInterrupt:
                under_way = len(self._under_way)
                output.note(
                    f"Interrupted: {self._done} of {len(names)} subclouds have moved; {under_way} go on by "
                    f"themselves, {len(waiting)} were not ordered."
                )
                return INTERRUPTED
        output.say(f"{self._done} of {len(names)} subclouds have moved.")
        return self._worst

    def _begin(self, name: str, advance: Callable[[], None]) -> None:
        client = self._session.client
        try:
            token = self._token(name)
            mirror = client.seek(CLOUD, "", name)
            before = _condition(msgspec.convert(mirror or {}, answers.Cloud))
            _order(self._session, f"/clouds/{name}", name, token, self._within)
        except Problem as problem:
            self._failed(problem, advance)
        else:
            self._under_way[name] = (before, time.monotonic() + self._within + GRACE)

    def _look(self, name: str, advance: Callable[[], None]) -> None:
        client, (before, until) = self._session.client, self._under_way[name]
        try:
            found = client.get(SUBCLOUD, "", name, answers.Subcloud)
            mirror = client.seek(CLOUD, "", name)
        except NotFound as problem:
            del self._under_way[name]
            self._failed(problem, advance)
            return
        now = _condition(msgspec.convert(mirror or {}, answers.Cloud))
        if found.status.moved_to:
            output.say(f"Subcloud {name} has moved to {found.status.moved_to} at epoch {found.status.epoch}.")
            self._done += 1
            advance()
        elif now.reason == "RolledBack" and now != before:
            self._failed(Failed(f"{name} has not moved. {now.message}"), advance)
        elif time.monotonic() > until:
            self._failed(
                TimedOut(f"{name} has not said what came of it", f"look later: roost subcloud show {name}"),
                advance,
            )
        else:
            return
        del self._under_way[name]

    def _failed(self, problem: Problem, advance: Callable[[], None]) -> None:
        output.show_problem(problem)
        self._worst = max(self._worst, problem.code)
        advance()


def _read(files: Path, name: str) -> str:
    """The token of a subcloud from its file. Raises Misused."""
    return read_secret(str(files / f"{name}.token" if files.is_dir() else files), "", "")


def _made(session: Session, other: Client, name: str) -> str:
    """A token of the new central cloud, where the subcloud is declared as it is here if it is not."""
    if other.seek(SUBCLOUD, "", name) is None:
        here: dict[str, Any] = session.client.get(SUBCLOUD, "", name, dict)
        metadata = {"name": name, "labels": here["metadata"].get("labels", {})}
        body = {"apiVersion": "roost.edge/v1", "kind": "Subcloud", "metadata": metadata, "spec": here["spec"]}
        other.create(SUBCLOUD, "", body)
    return other.token(SUBCLOUD, "", name, "enrolment", {}).token


def _order(session: Session, through: str, name: str, token: str, within: float) -> None:
    """Have a site take the order. `through` is the path of its API at the cloud that is asked."""
    body: dict[str, Any] = {"spec": {"token": token, "withinSeconds": within}}
    at = f"{through}{path(CLOUD, '', name)}/rehome"
    session.client.request("POST", at, json=body, doing=f"move {name}")


def _condition(cloud: answers.Cloud) -> answers.Condition:
    return next((c for c in cloud.status.conditions if c.type == CONDITION), answers.Condition())


def _tell_end(name: str, end: answers.Condition) -> int:
    if end.reason == "RolledBack":
        raise Failed(f"{name} has not moved. {end.message}")
    output.say(f"{name}: {end.message}")
    return OK
