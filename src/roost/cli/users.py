"""`roost user`: who may use a cloud's API."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from roost.cli import listing, output
from roost.cli.client import path
from roost.cli.kinds import USER
from roost.cli.login import read_secret
from roost.cli.problems import OK, Misused, Problem
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.tokens import show_token
from roost.model.access import Role

user = App(name="user", help="Who may use this cloud: add, list, delete, give tokens and passwords.")

Name = Annotated[str, Parameter(name="NAME", help="Name of the user.")]


Hours = Annotated[float, Parameter(help="How long a token is in force.")]


@user.command(name="list")
def list_users(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List users and their roles.

    For example:
        roost user list
    """
    with opened(connect) as session:
        return listing.show_list(session, USER, pick, show)


@user.command(name="add")
def add_user(
    name: Name,
    /,
    *,
    role: Annotated[Role, Parameter(help="What the user may do.")] = "reader",
    description: Annotated[str, Parameter(help="For people.")] = "",
    token: Annotated[bool, Parameter(help="Make a bearer token at once.")] = False,
    hours: Hours = 24.0,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Add a user.

    For example:
        roost user add ada --role administrator --token
    """
    spec: dict[str, Any] = {"role": role}
    if description:
        spec["description"] = description
    body = {"apiVersion": "roost.edge/v1", "kind": "User", "metadata": {"name": name}, "spec": spec}
    with opened(connect) as session:
        session.client.create(USER, "", body)
        if show.output == "table":
            output.say(f"User {name} is added as {role}.")
        return _token(session, name, hours, show) if token else OK


@user.command(name="token")
def make_token(name: Name, /, *, hours: Hours = 24.0, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Make a bearer token for a user; it is shown once.

    For example:
        roost user token ada --hours 8
        roost user token robot -o name > token
    """
    with opened(connect) as session:
        return _token(session, name, hours, show)


@user.command(name="password")
def set_password(
    name: Name,
    /,
    *,
    password_file: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True, help="File with the password; - reads standard input.", metavar="FILE"
        ),
    ] = "",
    connect: Connect = CONNECT,
) -> int:
    """Set a user's password, asked for twice; the user's sessions end.

    For example:
        roost user password ada
        roost user password ada --password-file ada.password
    """
    password = read_secret(password_file, "", f"New password of {name}: ", what="password")
    if not password_file and read_secret("", "", "Again: ", what="password") != password:
        raise Misused("the two passwords are not the same; nothing was changed")
    with opened(connect) as session:
        session.client.request(
            "POST",
            f"{path(USER, '', name)}/password",
            json={"spec": {"password": password}},
            doing=f"set the password of {name}",
        )
    output.say(f"The password of {name} is set; roost login SERVER --user {name} asks for it.")
    return OK


@user.command(name="delete")
def delete_users(
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of users.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Delete users; their tokens end with them.

    For example:
        roost user delete ada
    """
    worst = OK
    with opened(connect) as session:
        for name in names:
            try:
                session.client.delete(USER, "", name)
            except Problem as problem:
                output.show_problem(problem)
                worst = max(worst, problem.code)
                continue
            output.say(f"User {name} is deleted.")
    return worst


def _token(session: Session, name: str, hours: float, show: Show) -> int:
    spec = {"spec": {"expirationSeconds": round(hours * 3600)}}
    token = session.client.token(USER, "", name, "token", spec)
    server = session.client.target.server
    lines = ["They log in with this, and paste the token when asked:", "", f"  roost login {server}"]
    show_token(token, show, f"Bearer token of {name}", lines)
    return OK
