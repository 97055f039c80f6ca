"""`roost cloud`: which clouds there are, and which one commands go to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from roost.cli import kubeconfig, listing, output
from roost.cli.kinds import CLOUD
from roost.cli.problems import OK, NotFound
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened

cloud = App(name="cloud", help="Clouds that this one knows, and which one commands go to.")


@cloud.command(name="list")
def list_clouds(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List this cloud and those below it, as they see themselves.

    For example:
        roost cloud list
    """
    with opened(connect) as session:
        return listing.show_list(session, CLOUD, pick, show)


@cloud.command(name="contexts")
def list_contexts(*, connect: Connect = CONNECT) -> int:
    """List the contexts of the kubeconfig; the one that commands go to is marked.

    For example:
        roost cloud contexts
    """
    path = kubeconfig.locate(connect.kubeconfig, os.environ, Path.cwd())
    config, _ = kubeconfig.read(path)
    for context in config.contexts:
        mark = "*" if context.name == config.current_context else " "
        server = kubeconfig.choose(config, path, context.name).server
        output.say(f"{mark} {context.name}  {server}")
    output.note(f"from {path}")
    return OK


@cloud.command(name="use")
def use_context(
    name: Annotated[str, Parameter(name="NAME", help="A context of the kubeconfig.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Let commands go to this cloud from now on.

    For example:
        roost cloud use harbor
    """
    path = kubeconfig.locate(connect.kubeconfig, os.environ, Path.cwd())
    config, raw = kubeconfig.read(path)
    names = [c.name for c in config.contexts]
    if name not in names:
        raise NotFound(
            f"kubeconfig {path} has no context {name!r}", f"there are: {', '.join(names) or 'none'}"
        )
    kubeconfig.write(path, {**raw, "current-context": name})
    output.say(f"Commands now go to {name}.")
    return OK
