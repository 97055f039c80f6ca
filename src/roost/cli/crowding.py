"""`roost sim fleet`: thousands of simulated subclouds that dial a real central cloud.

They are declared there, enrol with real tokens at its door, and keep their certificates in a folder: started
again with it, they just dial. What befalls them is a script. Their processes end with this one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from roost.cli import answers, problems
from roost.cli.hostwork import object_of
from roost.cli.kinds import SUBCLOUD
from roost.cli.output import console, note, say
from roost.cli.session import CONNECT, Connect, Session, opened

if TYPE_CHECKING:
    from roost.sim.crowd.enrolling import Identities
    from roost.sim.crowd.many import Many
    from roost.sim.crowd.script import Step

LABEL = "roost.edge/simulated"
TOLD_EVERY, LOOKS_EVERY = 2.0, 0.2
MOST = 100_000
TOKEN_SECONDS = 24 * 3600
"""For how long a token may be used: the last of thousands enrols late."""


def fleet(
    *,
    subclouds: Annotated[int, Parameter(help="How many.")],
    hosts_per_subcloud: Annotated[int, Parameter(help="Hosts of each.")] = 1,
    faults: Annotated[Path | None, Parameter(help="File that says what befalls them, and when.")] = None,
    seconds: Annotated[float, Parameter(help="End after so long; else at Ctrl-C.")] = 0.0,
    keep: Annotated[
        Path | None, Parameter(help="Folder for their certificates, to be used again; else they are lost.")
    ] = None,
    heartbeat: Annotated[
        float, Parameter(help="Seconds between heartbeats of each; real sites have 1.")
    ] = 1.0,
    processes: Annotated[int, Parameter(help="Processes to run them in; else one for each 5,000.")] = 0,
    connect: Connect = CONNECT,
) -> int:
    """Simulate subclouds that dial this central cloud: real links, real certificates, and nothing behind.

    They are declared, managed, and labelled roost.edge/simulated; they enrol
    at the cloud's door, and tell of themselves as sites do. Every other second
    a line says how they stand.

    For example:
        roost sim fleet --subclouds 1000
        roost sim fleet --subclouds 1000 --keep certificates --faults storm.yaml
    """
    _make_sense(
        subclouds=(subclouds, 1, MOST),
        hosts_per_subcloud=(hosts_per_subcloud, 0, 100),
        heartbeat=(heartbeat, 0.1, 3600),
        processes=(processes, 0, 64),
        seconds=(seconds, 0, 10_000_000),
    )
    steps = _script(faults)
    with ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        session = stack.enter_context(opened(connect))
        from roost.sim.crowd.enrolling import Identities
        from roost.sim.crowd.many import Ended, Many

        tokens = _declared(session, subclouds, Identities(directory))
        endpoint, *more = _endpoints(tokens, directory)
        many = Many(
            count=subclouds,
            hosts=hosts_per_subcloud,
            endpoint=endpoint,
            more=more,
            directory=directory,
            heartbeat=heartbeat,
            processes=processes,
        )
        try:
            asyncio.run(_Course(many, steps, seconds).run(tokens))
        except Ended as error:
            raise problems.Failed(str(error), "start it again; fewer sites take less memory") from error
        except TimeoutError as error:
            raise problems.Failed(
                "a process of simulated sites did not answer in time", "simulate fewer, or in more processes"
            ) from error
        except KeyboardInterrupt:
            note(f"They are gone; `roost subcloud list -l {LABEL}` shows what the cloud makes of it.")
            return problems.INTERRUPTED
    return problems.OK


class _Course:
    """One simulation under way: enrol, dial, do the script's steps at their times, and tell how all stand."""

    def __init__(self, many: Many, steps: Sequence[Step], seconds: float) -> None:
        self._many, self._left, self._seconds = many, list(steps), seconds
        self._began = time.monotonic()
        self._linked_at: float | None = None

    async def run(self, tokens: dict[int, str]) -> None:
        """To the end of the time, or for ever. Raises Ended, Failed."""
        async with self._many:
            if tokens:
                await self._enrol(tokens)
            await self._many.begin()
            self._began = told = time.monotonic()
            while not self._seconds or self._passed() < self._seconds:
                await asyncio.sleep(LOOKS_EVERY)
                await self._act()
                if time.monotonic() - told >= TOLD_EVERY:
                    told = time.monotonic()
                    await self._tell()

    def _passed(self) -> float:
        return time.monotonic() - self._began

    async def _enrol(self, tokens: dict[int, str]) -> None:
        note(f"{len(tokens)} enrol ...")
        began = time.monotonic()
        wrong = await self._many.enrol(tokens)
        if wrong:
            raise problems.Failed(
                f"not all could enrol: {'; '.join(wrong)}",
                "look at the cloud's log; the others have enrolled",
            )
        say(f"{len(tokens)} have enrolled in {time.monotonic() - began:.1f} s.")

    async def _act(self) -> None:
        if self._linked_at is None:
            standing, _ = await self._many.standing()
            if standing["linked"] == standing["sites"]:
                self._linked_at = time.monotonic()
                say(f"{self._passed():8.1f} s  all are linked")
            return
        while self._left and time.monotonic() - self._linked_at >= self._left[0].at:
            step = self._left.pop(0)
            say(f"{self._passed():8.1f} s  {step.action}")
            await self._many.do(step)

    async def _tell(self) -> None:
        standing, failure = await self._many.standing()
        said = (
            f"{self._passed():8.1f} s  {standing['linked']:.0f} of {standing['sites']:.0f} linked, "
            f"{standing['inStep']:.0f} in step, {standing['entries']:.0f} told, "
            f"{standing['intent']:.0f} heard"
        )
        missing = standing["sites"] - standing["linked"] - standing["cut"]
        say(said + (f"; last failure: {failure}" if missing > 0 and failure else ""))


def _declared(session: Session, count: int, identities: Identities) -> dict[int, str]:
    """Declare those that are not there; tokens, by number, of those that have no certificate."""
    from roost.sim.subcloud import site_name

    found = {i.metadata.name: i for i in session.client.list_items(SUBCLOUD, None, answers.Item)[0]}
    there = {site_name(n) for n in range(count)} & found.keys()
    if real := sorted(name for name in there if found[name].metadata.labels.get(LABEL) != "true"):
        more = f" and {len(real) - 3} more" if len(real) > 3 else ""
        raise problems.Refused(
            f"{', '.join(real[:3])}{more} would be taken over: declared, and not as simulated",
            f"simulate at another cloud; if they are simulated, label them {LABEL}=true",
        )
    missing = [n for n in range(count) if site_name(n) not in there]
    without = [n for n in range(count) if not identities.has(site_name(n)) or site_name(n) not in there]
    tokens: dict[int, str] = {}
    with _shown(len(missing) + len(without)) as advance:
        for number in missing:
            metadata = {"name": site_name(number), "labels": {LABEL: "true"}}
            body = object_of("Subcloud", metadata, {"managementState": "managed"})
            session.client.create(SUBCLOUD, "", body)
            advance()
        for number in without:
            asked = {"spec": {"expirationSeconds": TOKEN_SECONDS}}
            token = session.client.token(SUBCLOUD, "", site_name(number), "enrolment", asked)
            tokens[number] = token.token
            advance()
    if missing:
        say(f"{len(missing)} subclouds are declared.")
    return tokens


def _endpoints(tokens: dict[int, str], directory: Path) -> list[str]:
    """Where to dial: of this machine's own addresses, if the cloud has any; kept for the next time."""
    from roost.link import token

    kept = directory / "endpoint"
    if tokens:
        endpoints = token.decode(next(iter(tokens.values()))).endpoints
        found = [one for one in endpoints if one.startswith("127.")] or endpoints[:1]
        kept.write_text("".join(f"{one}\n" for one in found))
    try:
        known = kept.read_text().split()
    except OSError as error:
        raise problems.NotFound(
            f"{kept} can't be read: {error.strerror}", "give another folder with --keep"
        ) from error
    if not known:
        raise problems.NotFound(f"{kept} names no endpoint", "give another folder with --keep")
    return known


@contextmanager
def _shown(total: int) -> Iterator[Callable[[], None]]:
    """Shows how far it is, on a terminal alone."""
    screen = console(sys.stderr)
    if not total or not screen.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=screen) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _script(path: Path | None) -> list[Step]:
    """Raises Misused, NotFound."""
    if path is None:
        return []
    from roost.sim.crowd.script import BadScript, parse

    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise problems.NotFound(
            f"{path} can't be read: {error.strerror}", "name a file with steps"
        ) from error
    except BadScript as error:
        raise problems.Misused(f"{path}: {error}", "docs/fleet.md tells what a step has") from error


def _make_sense(**numbers: tuple[float, float, float]) -> None:
    """Raises Misused for a number that is not within its bounds."""
    for name, (number, least, most) in numbers.items():
        if not least <= number <= most:
            raise problems.Misused(
                f"--{name.replace('_', '-')} {number:g} makes no sense", f"give {least:g} to {most:g}"
            )
