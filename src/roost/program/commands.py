"""`roost up` and `roost agent`: from options to a running role."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from roost.cli.options import DATABASE_VARIABLE, JOIN_VARIABLE, AgentOptions, UpOptions
from roost.cli.problems import Failed, Misused
from roost.link.enrolment import EnrolmentFailed, enrol
from roost.link.errors import LinkError
from roost.link.identity import AUTHORITY_FILE, FACTS_FILE, Identity, NotEnrolled, load
from roost.link.node import Node
from roost.link.pki import pin
from roost.link.token import BadToken, decode
from roost.program import first_start, start
from roost.program.home import ROLES, Home, Settings, StartError
from roost.program.listeners import check_addresses
from roost.program.rehoming import finish_interrupted, free_of_order

FIRST_HOST = "controller-0"
RETRY_VARIABLE = "ROOST_RETRY_SECONDS"


def up(options: UpOptions) -> int:
    """Make this machine a cloud, or start the cloud it is; until a signal."""
    home = Home(options.home)
    try:
        home.open()
        first_start.take_back_unfinished(home)
        identity = _identity(home, options.join, "subcloud")
        known = home.settings()
        given = _cloud_settings(options, known, identity)
        if identity is not None and identity.who().name != given.cloud:
            raise StartError(
                f"the token is for subcloud {identity.who().name}, this cloud is {given.cloud}",
                "ask the central cloud for a token of this name, or start with a new home",
            )
        if known is None:
            check_addresses(given)
            first_start.begin(home, given)
        start.settle(home, given)
    except StartError as error:
        raise Failed(error.reason, error.remedy) from error
    finally:
        home.close()
    return _become_role(home)


def agent(options: AgentOptions) -> int:
    """Run this machine's agent; until a signal."""
    home = Home(options.home)
    try:
        home.open()
        first_start.take_back_unfinished(home)
        identity = _identity(home, options.join, "host")
        if identity is None:
            raise StartError(
                f"{home.path} has no identity",
                "ask the cloud for a token (roost host token NAME) and join with it: roost agent --join FILE",
            )
        node = identity.who()
        given = Settings(
            role="agent",
            cloud=node.cloud,
            host=node.name,
            contained=options.contained,
            retry_seconds=_retry_seconds(),
        )
        start.settle(home, given)
    except StartError as error:
        raise Failed(error.reason, error.remedy) from error
    finally:
        home.close()
    return _become_role(home)


def _become_role(home: Home) -> NoReturn:
    """Go on as a process that holds nothing of the command line: it saves a third of the memory.

    Same process id, same inherited sockets; secrets that were read are gone from memory and environment.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {k: v for k, v in os.environ.items() if k not in (JOIN_VARIABLE, DATABASE_VARIABLE)}
    program = [sys.executable, "-m", "roost.program.role", "--home", str(home.path)]
    os.execve(sys.executable, program, environment)  # noqa: S606


def _cloud_settings(options: UpOptions, known: Settings | None, identity: Identity | None) -> Settings:
    joined = identity.who().name if identity else ""
    name = options.name or (known.cloud if known else "") or joined or _machine_name()
    # Without --no-host nothing was said of a host: the home knows whether it has one.
    host = known.host if known else FIRST_HOST
    return Settings(
        role="cloud",
        cloud=name,
        host=host if options.host else "",
        mode=options.mode,
        api_address=str(options.address),
        link_address=str(options.link_address),
        advertise=[str(a) for a in options.advertise],
        database=options.database,
        keys=options.keys,
        contained=options.contained,
        token_file=options.token_file,
        oidc_file=options.oidc_file,
        issuer=options.issuer,
        retry_seconds=_retry_seconds(),
        roles=_roles(options, known),
    )


def _roles(options: UpOptions, known: Settings | None) -> tuple[str, ...]:
    """What was given now, else what the home was started with. Raises Misused."""
    roles: tuple[str, ...] = options.roles or (known.roles if known else ROLES)
    database = options.database or (known.database if known else "")
    if set(roles) != set(ROLES) and not database:
        raise Misused(
            "--roles divides the work of a cloud among processes, and on SQLite there is one",
            "give all of them --database, or leave --roles out",
        )
    return tuple(role for role in ROLES if role in roles)


def _machine_name() -> str:
    """This machine's name as a cloud's name."""
    name = re.sub(r"[^a-z0-9-]+", "-", os.uname().nodename.lower()).strip("-")[:63]
    return name or "cloud"


def _retry_seconds() -> float:
    """Longest pause between two tries to connect upwards, from the environment."""
    text = os.environ.get(RETRY_VARIABLE, "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise Misused(f"${RETRY_VARIABLE} is {text!r}", "set seconds from 0.1 to 3600")
    return seconds


def _identity(home: Home, token: str, kind: str) -> Identity | None:
    """The identity on the link upwards; with a token, enrol first. Raises StartError."""
    try:
        finish_interrupted(home.path)
    except (LinkError, OSError) as error:
        raise StartError(
            f"a move to another central cloud can't be finished: {error}", f"mend the files in {home.path}"
        ) from error
    if token and not _has_enrolled(home.uplink, token):
        free_of_order(home.path)
        print("Enrolling with the token.", file=sys.stderr, flush=True)
        try:
            asyncio.run(_enrol(token, home.uplink, kind))
        except (EnrolmentFailed, BadToken) as error:
            remedy = getattr(error, "remedy", "ask for a new token")
            raise StartError(error.reason, remedy) from error
    if not (home.uplink / FACTS_FILE).exists():
        return None
    try:
        identity = load(home.uplink)
    except NotEnrolled as error:
        raise StartError(error.reason, "enrol again with a new token") from error
    _check_kind(identity.who(), kind)
    return identity


def _has_enrolled(directory: Path, text: str) -> bool:
    """Whether an identity of the token's cloud is in force: a unit gives its token at each start.

    One whose certificate is over counts when it was got with this very token: that opens nothing any more,
    and the certificate is renewed when the cloud is reached. So does one that has moved on since from the one
    that was got with it.
    """
    try:
        token, known = decode(text), load(directory)
    except (BadToken, NotEnrolled):
        return False
    if token.id in known.spent:
        return True
    same = pin((directory / AUTHORITY_FILE).read_bytes()) == token.ca
    return same and (start.now() < known.expires() or token.id == known.token)


async def _enrol(token: str, directory: Path, kind: str) -> None:
    identity = await enrol(token, directory, facts=start.facts(), clock=start.now)
    _check_kind(identity.who(), kind)


def _check_kind(node: Node, kind: str) -> None:
    if node.kind != kind:
        verb = "roost agent" if node.kind == "host" else "roost up"
        raise StartError(f"the identity is that of {node}", f"use it with `{verb}`")
