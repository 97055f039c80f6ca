"""What `roost up` and `roost agent` take, as structs that `program` carries out.

Secrets are never options: a join token comes from a file, standard input, $ROOST_JOIN_TOKEN or a
prompt; the address of a database, which may hold a password, from a file or $ROOST_DATABASE.
`node_commands` registers these commands; `program` hands in what they do.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from cyclopts import App, Parameter

from roost.cli.kubeconfig import roost_home
from roost.cli.login import read_secret
from roost.cli.problems import Misused
from roost.model.meta import DNS_LABEL

Mode = Literal["simplex", "duplex", "standard"]
Role = Literal["links", "control"]
API_PORT, LINK_PORT = 7443, 7444
JOIN_VARIABLE, DATABASE_VARIABLE = "ROOST_JOIN_TOKEN", "ROOST_DATABASE"
_NAME = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$")


class Endpoint(msgspec.Struct, frozen=True):
    """An address and a port. The address may be a name where others are to reach it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud on this machine. `name` is empty where it was not given: the home knows it, or else the
    machine's name is taken."""

    home: Path
    name: str = ""
    mode: Mode = "simplex"
    address: Endpoint = Endpoint("127.0.0.1", API_PORT)
    link_address: Endpoint = Endpoint("0.0.0.0", LINK_PORT)  # noqa: S104  (lower nodes dial in)
    advertise: tuple[Endpoint, ...] = ()
    join: str = msgspec.field(default="")
    """Enrolment token, already read; empty when the cloud joins nothing now."""
    database: str = ""
    """URL of the database; empty: SQLite under `home`."""
    keys: str = ""
    """File of the keys of secret values, absolute; empty: under `home`."""
    host: bool = True
    contained: bool = False
    token_file: str = ""
    """File with static tokens, absolute; empty: none is given."""
    oidc_file: str = ""
    """File with the configuration of an OIDC provider, absolute; empty: none is given."""
    roles: tuple[Role, ...] = ()
    """What this process of the cloud does; empty where it was not given: the home knows it, or else all."""
    issuer: str = ""
    """URL under which tokens of service accounts are verified by others."""

    def __repr__(self) -> str:
        return f"UpOptions(home={str(self.home)!r}, name={self.name!r}, mode={self.mode!r})"


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """An agent on this machine. `contained`: it does not own the machine and never restarts it."""

    home: Path
    join: str = ""
    contained: bool = False

    def __repr__(self) -> str:
        return f"AgentOptions(home={str(self.home)!r}, contained={self.contained!r})"


Up = Callable[[UpOptions], int]
Agent = Callable[[AgentOptions], int]

Home = Annotated[str, Parameter(help="Directory with all state; default: $ROOST_HOME or ~/.roost.")]
Join = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Where the enrolment token is: a file, or - to paste it. Also: $ROOST_JOIN_TOKEN.",
        metavar="FILE",
    ),
]
Contained = Annotated[bool, Parameter(help="The machine is not ours: never restart it.")]


def node_commands(app: App, up: Up, agent: Agent) -> None:
    """Register `roost up` and `roost agent`, which end in the given functions."""

    def up_command(
        *,
        name: Annotated[str, Parameter(help="Name of the cloud; default: the machine's name.")] = "",
        mode: Annotated[Mode, Parameter(help="One controller, two, or controllers and workers.")] = "simplex",
        address: Annotated[
            str, Parameter(help="Where the API listens, ADDRESS[:PORT].", metavar="ADDRESS")
        ] = f"127.0.0.1:{API_PORT}",
        link_address: Annotated[
            str, Parameter(help="Where hosts and subclouds dial in, ADDRESS[:PORT].", metavar="ADDRESS")
        ] = f"0.0.0.0:{LINK_PORT}",
        advertise: Annotated[
            tuple[str, ...],
            Parameter(
                help="Where hosts and subclouds reach this cloud, ADDRESS[:PORT]; default: the port of "
                "--link-address; may be repeated.",
                metavar="ADDRESS",
            ),
        ] = (),
        join: Join = "",
        database: Annotated[
            str,
            Parameter(
                allow_leading_hyphen=True,
                help="File with the URL of a database. Also: $ROOST_DATABASE. Default: SQLite.",
                metavar="FILE",
            ),
        ] = "",
        keys: Annotated[
            str,
            Parameter(
                help="File with the keys of secret values, for processes that share a database. "
                "Default: in the home.",
                metavar="FILE",
            ),
        ] = "",
        roles: Annotated[
            tuple[Role, ...],
            Parameter(
                help="What this process does beside serving the API, where several share a database: take "
                "links of subclouds; run the controllers in its turn. May be repeated; default: both.",
                name="--role",
            ),
        ] = (),
        token_file: Annotated[
            str,
            Parameter(
                help="File with static tokens, a line each: token,user,uid,groups.",
                metavar="FILE",
            ),
        ] = "",
        oidc_file: Annotated[
            str,
            Parameter(help="File that says which OpenID Connect provider's users may come.", metavar="FILE"),
        ] = "",
        issuer: Annotated[
            str, Parameter(help="URL under which others verify tokens of service accounts.", metavar="URL")
        ] = "",
        no_host: Annotated[bool, Parameter(help="Do not make this machine a host of the cloud.")] = False,
        contained: Contained = False,
        systemd: Annotated[bool, Parameter(help="Install and start a systemd unit that does this.")] = False,
        foreground: Annotated[bool, Parameter(help="Stay in the foreground; this is the default.")] = False,
        home: Home = "",
    ) -> int:
        """Make this machine a cloud, or start the cloud that it is.

        For example:
            roost up
            roost up --name harbor --join token-file
            roost up --name central --no-host --address 192.0.2.1 --advertise 192.0.2.1 --systemd
        """
        if systemd and foreground:
            raise Misused("--systemd and --foreground exclude each other")
        link = listening(link_address, LINK_PORT, "--link-address")
        options = UpOptions(
            home=home_of(home),
            name=cloud_name(name),
            mode=mode,
            address=listening(address, API_PORT, "--address"),
            link_address=link,
            advertise=tuple(endpoint(a, link.port, "--advertise") for a in advertise),
            join=join_token(join),
            database=database_url(database),
            keys=str(Path(keys).absolute()) if keys else "",
            host=not no_host,
            contained=contained,
            token_file=absolute(token_file),
            oidc_file=absolute(oidc_file),
            issuer=issuer,
            roles=roles,
        )
        if systemd:
            from roost.cli import service

            return service.install_up(options)
        return up(options)

    def agent_command(*, join: Join = "", contained: Contained = False, home: Home = "") -> int:
        """Run this machine's agent: it dials its cloud and keeps to what the cloud wants of the machine.

        For example:
            roost agent --join -
            roost agent
        """
        return agent(AgentOptions(home=home_of(home), join=join_token(join), contained=contained))

    def down_command() -> int:
        """Stop the systemd unit that `roost up --systemd` installed, and remove it. All state is kept.

        For example:
            roost down
        """
        from roost.cli import service

        return service.remove()

    app.command(up_command, name="up")
    app.command(down_command, name="down")
    app.command(agent_command, name="agent")


def home_of(given: str) -> Path:
    """The directory with all state, absolute."""
    return (Path(given) if given else roost_home(os.environ)).expanduser().absolute()


def absolute(given: str) -> str:
    """A file's path, absolute; empty stays empty."""
    return str(Path(given).expanduser().absolute()) if given else ""


def cloud_name(given: str) -> str:
    """A cloud's name; empty stays empty. Raises Misused."""
    if given and not re.match(DNS_LABEL, given):
        raise Misused(
            f"--name {given!r} is no name for a cloud", "use small letters, digits and -, at most 63"
        )
    return given


def endpoint(text: str, port: int, option: str) -> Endpoint:
    """ADDRESS, ADDRESS:PORT, [IPv6], [IPv6]:PORT or a bare IPv6 address. Raises Misused."""
    host, given = _split(text)
    if given:
        if not given.isdigit() or not 1 <= int(given) <= 65535:
            raise Misused(f"{option} {text!r}: {given!r} is no port", "a port is a number from 1 to 65535")
        port = int(given)
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        if not _NAME.match(host) or re.fullmatch(r"[0-9.]+", host):
            raise Misused(f"{option} {text!r} is no address", "write ADDRESS or ADDRESS:PORT") from None
    return Endpoint(host, port)


def listening(text: str, port: int, option: str) -> Endpoint:
    """An endpoint on this machine, which is an IP address. Raises Misused."""
    found = endpoint(text, port, option)
    try:
        ipaddress.ip_address(found.host)
    except ValueError:
        raise Misused(
            f"{option} {text!r} is a name", "listening needs an IP address of this machine, or 0.0.0.0"
        ) from None
    return found


def join_token(source: str) -> str:
    """The enrolment token, or empty when none was given. Raises Misused."""
    if not source and not os.environ.get(JOIN_VARIABLE):
        return ""
    if source and source != "-" and not Path(source).exists():
        # What was given may be the token itself: it is not repeated.
        raise Misused(
            "--join does not name a file that is there",
            "a token does not go on the command line, where others can read it; "
            "use a file, - or $ROOST_JOIN_TOKEN",
        )
    return read_secret(source, JOIN_VARIABLE, "Enrolment token: ")


def database_url(source: str) -> str:
    """URL of the database from a file or $ROOST_DATABASE; empty: SQLite. Raises Misused."""
    if not source:
        return _known_url(os.environ.get(DATABASE_VARIABLE, "").strip())
    if "://" in source:
        raise Misused(
            "--database takes a file that holds the URL, not the URL",
            "a URL can hold a password, and others can read the command line; $ROOST_DATABASE works too",
        )
    return _known_url(read_secret(source, DATABASE_VARIABLE, "URL of the database: "))


def _known_url(url: str) -> str:
    """The URL, after a look that it is of a database we know. Raises Misused, which does not repeat it."""
    if not url or url.startswith("sqlite:///"):
        return url
    form = "write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, other characters in it as %XX"
    try:
        parts = urlsplit(url)
        scheme, has_port, database = parts.scheme, parts.port is not None, parts.path.strip("/")
    except ValueError:
        raise Misused("the database's URL has no port that is a number", form) from None
    if scheme not in ("postgresql", "postgresql+psycopg"):
        raise Misused("the database's URL is none of PostgreSQL", form)
    if not database or any(c.isspace() for c in url) or (has_port and not parts.hostname):
        raise Misused("the database's URL is not whole", form)
    if importlib.util.find_spec("psycopg") is None:
        raise Misused("this Roost has no driver for PostgreSQL", "install it as roost[postgresql]")
    return url


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        return (host, rest.removeprefix(":")) if closed else (text, "")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""
