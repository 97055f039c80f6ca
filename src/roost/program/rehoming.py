"""Moves this cloud to another central cloud when that is ordered, and tells the former ones.

An order is kept on disk before it is answered. Then, beside the link that stands and goes on:

1. enrol with the order's token, into an identity of its own;
2. prove it: one whole session with the new owner, which takes nothing in (`link.moving`);
3. decide, on disk: from here on the move is done to its end, whoever dies;
4. end the session with the old owner, put the new identity in its place, dial.

Whatever fails before 3, or takes longer than the order's deadline, undoes the order: the link that stood is
as it was, and a condition of the Cloud tells why. What is in force here is touched by none of it: copies of
the old owner stay until the new one has told all that it has to say.

To each former owner a last word is left, for LAST_WORDS_FOR; one that can't be reached is tried at growing
pauses. One that has heard it is told once a day all the same: it may come back from a backup of before.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from roost.cloud.leaving import keep_as_own
from roost.engine.admission import Refused as NotAllowed
from roost.engine.faults import write_log
from roost.engine.overrides import management
from roost.link import identity, moving, rehoming_files
from roost.link import token as tokens
from roost.link.enrolment import EnrolmentFailed, enrol
from roost.link.errors import LinkError, Refused
from roost.link.exchange import Caller, Unreachable
from roost.link.identity import Identity, NotEnrolled
from roost.link.intake import refused_property
from roost.link.lower import LowerLink, Patience
from roost.link.rehoming import MOVED
from roost.link.rehoming_files import Former, Order
from roost.model import chance, time
from roost.model.cloud import Cloud
from roost.model.codec import Raw
from roost.model.fault import LogSeverity
from roost.model.meta import Condition, set_condition
from roost.program.enrolments import MANAGED
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import UP, Transaction

CONDITION = "Rehomed"
USUAL_WITHIN, LEAST_WITHIN, MOST_WITHIN = 300.0, 10.0, 86_400.0
"""Seconds in which a move must come to its switch."""

AGAIN = 2.0
ENROL_WITHIN = 30.0
LAST_WORDS_FOR = timedelta(days=30)
LAST_WORDS = Patience(first=5.0, cap=3600.0)
HEARD_AGAIN = 86_400.0
BEGIN_ANEW = 60.0
_log = structlog.get_logger("roost.program")


class GivenUp(Exception):
    """A move that will not come about: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class Rehomer:
    """Of one cloud. `run` until cancelled; `order` from the API."""

    def __init__(
        self,
        store: Store,
        cloud: str,
        home: Path,
        link: LowerLink | None,
        *,
        clock: Callable[[], datetime],
        facts: dict[str, str],
    ) -> None:
        self._store, self._cloud, self._home, self._link = store, cloud, home, link
        self._clock, self._facts = clock, facts
        self._ordered, self._switched = asyncio.Event(), asyncio.Event()

    # -- orders

    async def order(self, text: str, within: float, caller: Caller) -> datetime:
        """Keep an order to move; its deadline. Raises admission's Refused, and changes nothing then."""
        try:
            wanted = tokens.decode(text)
        except tokens.BadToken as error:
            raise NotAllowed(
                str(error),
                f"make one at the new cloud: roost subcloud token {self._cloud}",
                field="spec.token",
            ) from None
        if not LEAST_WITHIN <= within <= MOST_WITHIN:
            raise NotAllowed(
                f"a move can't take {within:g} seconds",
                f"say {LEAST_WITHIN:g} to {MOST_WITHIN:g}",
                field="spec.withinSeconds",
            )
        known = rehoming_files.order(self._home)
        if known is not None:
            if tokens.decode(known.token).id == wanted.id:
                return time.parse(known.deadline)
            raise NotAllowed(
                f"{self._cloud} is being moved, by order of {known.by}",
                f"wait until {known.deadline}; then it has moved, or has given up and says why",
            )
        await self._store.read(lambda tx: self._check(tx, caller))
        now = self._clock()
        deadline = time.stamp(now + timedelta(seconds=within))
        given = Order(token=text, ordered_at=time.seconds(now), deadline=deadline, by=caller.name)
        rehoming_files.keep_order(self._home, given)
        self._ordered.set()
        return time.parse(deadline)

    def _check(self, tx: Transaction, caller: Caller) -> None:
        cloud = tx.load(Cloud, "", self._cloud)
        if self._link is None:
            raise NotAllowed(
                f"{self._cloud} has no central cloud to leave",
                "join one with the token: roost up --join FILE",
            )
        if cloud.spec.stands_alone:
            raise NotAllowed(f"{self._cloud} stands alone", "have it dial again: roost subcloud rejoin")
        if not caller.linked and cloud.status.upper_connected and management(tx, self._cloud) == "managed":
            upper = cloud.status.upper or "its central cloud"
            raise NotAllowed(
                f"{upper} manages this site and is linked to it",
                f"have it moved from there: roost subcloud rehome {self._cloud}",
            )

    # -- moving

    async def run(self) -> None:
        """Carry orders out, and tell former owners."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kept_up(self._move))
            group.create_task(self._kept_up(self._tell_formers))

    async def _kept_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong with moving must not end the cloud."""
        while True:
            try:
                await work()
            except Exception:
                _log.exception("moving failed, and is begun anew in a minute")
                await asyncio.sleep(BEGIN_ANEW)

    async def _move(self) -> None:
        while True:
            self._ordered.clear()
            try:
                given = rehoming_files.order(self._home)
                if given is None or self._link is None:
                    await self._say_what_came_of_it()
                    await self._ordered.wait()
                else:
                    await self._follow(given, self._link)
            except (StoreError, OSError, LinkError) as error:
                _log.warning("the move is tried again", reason=str(error))
                await asyncio.sleep(AGAIN)

    async def _follow(self, given: Order, link: LowerLink) -> None:
        try:
            await self._carry_out(given, link)
        except GivenUp as failure:
            await self._give_up(failure)

    async def _carry_out(self, given: Order, link: LowerLink) -> None:
        before = identity.load(self._home / rehoming_files.CURRENT)
        if not rehoming_files.is_ready(self._home):
            stays = f"if it is not done by {given.deadline}, it stays with {before.upper}"
            message = f"It moves to another central cloud by order of {given.by}; {stays}."
            await self._say("Unknown", "Moving", message)
            following = await self._proven(given, before)
            self._in_time(given, "it was proven too late")
            rehoming_files.make_ready(self._home, self._clock())
            _log.info("the move is decided", to=following.upper, epoch=following.epoch)
        try:
            await link.between("it moves to another central cloud", self._switch)
        except Unreachable:
            # The link is given up; the next start finishes this, or who begins the link again.
            await asyncio.sleep(AGAIN)
            return
        self._switched.set()

    async def _switch(self) -> None:
        kept = await self._store.transact(self._part)
        if kept:
            _log.info("what nobody manages is kept as this cloud's own", kept=kept)
        rehoming_files.finish_switch(self._home)

    async def _proven(self, given: Order, before: Identity) -> Identity:
        """Enrol and prove until it is done. Raises GivenUp."""
        following = self._home / rehoming_files.NEXT
        while True:
            try:
                found = await self._enrolled(given, following, before)
                await moving.prove(following, self._store.identity, clock=self._clock)
                return found
            except (LinkError, OSError) as error:
                if isinstance(error, Refused) and error.code == "version":
                    raise GivenUp(error.reason, error.remedy) from None
                _log.info("the new owner is not proven yet", reason=str(error))
                self._in_time(given, str(error))
            await asyncio.sleep(AGAIN)

    async def _enrolled(self, given: Order, following: Path, before: Identity) -> Identity:
        with contextlib.suppress(NotEnrolled):
            return self._fitting(identity.load(following), before)
        managed = await self._store.read(lambda tx: management(tx, self._cloud))
        left = (time.parse(given.deadline) - self._clock()).total_seconds()
        try:
            found = await enrol(
                given.token,
                following,
                facts={**self._facts, MANAGED: managed},
                clock=self._clock,
                within=max(1.0, min(left, ENROL_WITHIN)),
                highest=before.highest,
            )
        except EnrolmentFailed as error:
            if error.unreached:
                raise
            raise GivenUp(error.reason, error.remedy) from None
        return self._fitting(found, before)

    def _fitting(self, found: Identity, before: Identity) -> Identity:
        """An identity that can take the place of the present one. Raises GivenUp."""
        if found.who() != before.who():
            raise GivenUp(
                f"the token is for {found.who()}, this is {before.who()}",
                f"make one at the new cloud: roost subcloud token {self._cloud}",
            )
        if not found.epoch:
            raise GivenUp(
                f"{found.upper} is of a version that knows nothing of moving", "bring it to this version"
            )
        if rehoming_files.same_owner(self._home / rehoming_files.NEXT, self._home / rehoming_files.CURRENT):
            raise GivenUp(f"{found.upper} owns it already", "there is nothing to do")
        if found.epoch <= before.epoch:
            raise GivenUp("it was given up before", "order it again, with a new token")
        return found

    def _part(self, tx: Transaction) -> list[str]:
        """The new owner's stream is another: all of it is asked for, and what it lacks goes at its end.

        From an unmanaged cloud nothing is taken away: what it has from above is its own then.
        """
        tx.drop_cursor(UP)
        tx.drop_property(refused_property(UP))
        return keep_as_own(tx, self._cloud) if management(tx, self._cloud) == "unmanaged" else []

    def _in_time(self, given: Order, reason: str) -> None:
        if self._clock() >= time.parse(given.deadline):
            raise GivenUp(
                f"it was not done by {given.deadline}: {reason}", "see to that, then order it again"
            )

    async def _give_up(self, failure: GivenUp) -> None:
        """Undo the order, and say why."""
        _log.warning("the move is given up", reason=failure.reason)
        rehoming_files.give_up(self._home, self._clock())
        kept = identity.load(self._home / rehoming_files.CURRENT)
        self._switched.set()
        await self._say(
            "False", "RolledBack", f"It stays with {kept.upper}: {failure.reason}; {failure.remedy}."
        )

    async def _say_what_came_of_it(self) -> None:
        """What was moving and is ordered no more has moved, or stays: whichever process did the last step."""
        if self._link is None:
            return
        now = identity.load(self._home / rehoming_files.CURRENT)
        if rehoming_files.has_switched(self._home, now):
            message = f"It moved to {now.upper} at epoch {now.epoch}."
            condition = Condition(type=CONDITION, status="True", reason="Moved", message=message)
        else:
            message = f"It stays with {now.upper}; the log of this process says why."
            condition = Condition(type=CONDITION, status="False", reason="RolledBack", message=message)

        def work(tx: Transaction) -> None:
            current = tx.load(Cloud, "", self._cloud)
            if any(c.type == CONDITION and c.reason == "Moving" for c in current.status.conditions):
                _tell(tx, self._cloud, condition)

        await self._store.transact(work)

    async def _say(self, status: Literal["False", "Unknown"], reason: str, message: str) -> None:
        condition = Condition(type=CONDITION, status=status, reason=reason, message=message[:1024])
        await self._store.transact(lambda tx: _tell(tx, self._cloud, condition))

    # -- last words

    async def _tell_formers(self) -> None:
        loop = asyncio.get_running_loop()
        tries: dict[Path, tuple[int, float]] = {}
        while True:
            self._switched.clear()
            left = rehoming_files.formers(self._home)
            tries = {f.directory: tries.get(f.directory, (0, 0.0)) for f in left}
            for former in left:
                count, due = tries[former.directory]
                if loop.time() < due:
                    continue
                pause = await self._told(former, count + 1)
                if pause is None:
                    del tries[former.directory]
                else:
                    tries[former.directory] = (count + 1, loop.time() + pause)
            soonest = min((due for _, due in tries.values()), default=None)
            try:
                async with asyncio.timeout(None if soonest is None else max(0.1, soonest - loop.time())):
                    await self._switched.wait()
            except TimeoutError:
                continue

    async def _told(self, former: Former, count: int) -> float | None:
        """After how many seconds a former owner is to be told again, after so many times; None: never."""
        name, due = former.identity.upper, self._clock() < former.since + LAST_WORDS_FOR
        current = self._home / rehoming_files.CURRENT
        try:
            now = identity.load(current)
            if rehoming_files.same_owner(former.directory, current):
                rehoming_files.forget(former.directory)
                return None
            answer = await moving.say_last_word(
                former.directory,
                self._store.identity,
                moved_to=now.upper,
                epoch=now.epoch,
                clock=self._clock,
            )
        except (LinkError, OSError) as error:
            said = str(error)
            if due:
                _log.info("a former owner has not heard the last word", former=name, reason=said)
                return LAST_WORDS.pause(count, LAST_WORDS.cap)
        else:
            said = answer.reason if answer is not None else "it knows nothing of moving"
            if due and answer is not None and answer.code == MOVED:
                return HEARD_AGAIN * chance.between(0.5, 1.0)
        _log.info("a former owner is told no more", former=name, answer=said)
        rehoming_files.forget(former.directory)
        return None


def asked(body: Raw) -> tuple[str, float]:
    """Token and seconds of a request to move. Raises admission's Refused, which does not repeat the token."""
    spec: Any = body.get("spec") or {}
    token: Any = spec.get("token") if isinstance(spec, dict) else None
    if not isinstance(token, str) or not token:
        raise NotAllowed("there is no token", "write that of the new central cloud", field="spec.token")
    within: Any = spec.get("withinSeconds", USUAL_WITHIN)
    if not isinstance(within, int | float) or isinstance(within, bool):
        raise NotAllowed("withinSeconds is no number", "write seconds", field="spec.withinSeconds")
    return token, float(within)


def finish_interrupted(home: Path) -> None:
    """Before the identity is read: finish a switch that was decided. Raises OSError, LinkError."""
    if rehoming_files.is_ready(home):
        rehoming_files.finish_switch(home)


def free_of_order(home: Path) -> None:
    """Forget an order, for its operator gives the cloud another identity by hand."""
    if not rehoming_files.is_ready(home):
        shutil.rmtree(home / rehoming_files.NEXT, ignore_errors=True)


def _tell(tx: Transaction, cloud: str, condition: Condition) -> None:
    current = tx.load(Cloud, "", cloud)
    conditions = set_condition(current.status.conditions, condition, time.stamp(tx.now))
    if conditions == current.status.conditions:
        return
    status = msgspec.structs.replace(current.status, conditions=conditions)
    tx.report(msgspec.structs.replace(current, status=status))
    severity: LogSeverity = "warning" if condition.status == "False" else "info"
    event = {"Moving": "cloud-moves", "Moved": "cloud-moved", "RolledBack": "cloud-stays"}[condition.reason]
    text = f"{cloud}: {condition.message}"
    write_log(tx, cloud, event=event, entity=f"cloud={cloud}", severity=severity, text=text)
