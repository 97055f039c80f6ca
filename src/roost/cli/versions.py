"""`roost version`: this program's version and the cloud's."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from roost import __version__
from roost.cli import answers, output
from roost.cli.problems import OK
from roost.cli.session import CONNECT, Connect, opened


def version(
    *,
    client: Annotated[bool, Parameter(help="Do not ask the cloud.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Print the version of this program and of the cloud.

    For example:
        roost version
        roost version --client
    """
    output.say(f"roost  {__version__}")
    if client:
        return OK
    with opened(connect) as session:
        found = session.client.document("/version", answers.Version, "read the cloud's version")
        output.say(f"cloud  {found.git_version.rpartition('roost+')[2]}  ({session.client.target.name})")
    return OK
