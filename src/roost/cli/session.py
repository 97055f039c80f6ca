"""Options that every command has, and the session they open: a client and the namespace that is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter

from roost.cli import kubeconfig
from roost.cli.addressing import Aim, aim
from roost.cli.client import Client
from roost.cli.output import Format
from roost.cli.problems import NotFound

CONNECTION = Group("Connection", sort_key=90)
OUTPUT = Group("Output", sort_key=80)


@Parameter(name="*", group=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connect:
    """Which cloud to talk to."""

    cloud: Annotated[
        str, Parameter(name=("--cloud", "--context"), help="Context of the kubeconfig, or a subcloud's name.")
    ] = ""
    namespace: Annotated[
        str, Parameter(name=("--namespace", "-n"), help="Cloud whose resources are meant; default: its own.")
    ] = ""
    kubeconfig: Annotated[str, Parameter(help="File with clouds and credentials.")] = ""
    request_timeout: Annotated[float, Parameter(help="Seconds to wait for each answer.")] = 30.0


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Show:
    """How to print."""

    output: Annotated[Format, Parameter(name=("--output", "-o"), help="Form of the result.")] = "table"
    no_headers: Annotated[bool, Parameter(help="Leave headings out.")] = False

    @property
    def headers(self) -> bool:
        """Whether to print headings."""
        return not self.no_headers


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Pick:
    """Which objects to list."""

    all_namespaces: Annotated[
        bool, Parameter(name=("--all-namespaces", "-A"), help="Those of every cloud that this one knows.")
    ] = False
    selector: Annotated[
        str, Parameter(name=("--selector", "-l"), help="Labels, as site=north,tier!=test.")
    ] = ""
    field_selector: Annotated[str, Parameter(help="Fields, as status.availability=available.")] = ""
    watch: Annotated[bool, Parameter(name=("--watch", "-w"), help="Stay, and show changes as they come.")] = (
        False
    )

    def query(self) -> dict[str, str]:
        """The selectors as the API takes them."""
        query = {"labelSelector": self.selector, "fieldSelector": self.field_selector}
        return {k: v for k, v in query.items() if v}


class Session(msgspec.Struct, frozen=True):
    """A cloud to talk to and the namespace that is meant there."""

    client: Client
    namespace: str

    def scope(self, pick: Pick) -> str | None:
        """The namespace to list, None for all."""
        return None if pick.all_namespaces else self.namespace


@contextmanager
def opened(connect: Connect) -> Iterator[Session]:
    """The session that the options ask for. Raises Misused, NotFound."""
    target = target_of(connect)
    with Client(target, connect.request_timeout) as client:
        yield Session(client, connect.namespace or target.namespace or target.name)


def target_of(connect: Connect) -> kubeconfig.Target:
    """The cloud that the options name; hints then name it too."""
    aim.set(Aim(connect.kubeconfig, connect.cloud, connect.namespace))
    path = kubeconfig.locate(connect.kubeconfig, os.environ, Path.cwd())
    config, _ = kubeconfig.read(path)
    return kubeconfig.choose(config, path, connect.cloud)


def other_target(connect: Connect, context: str) -> kubeconfig.Target:
    """Another cloud of the same kubeconfig, by its context. Raises Misused, NotFound."""
    path = kubeconfig.locate(connect.kubeconfig, os.environ, Path.cwd())
    config, _ = kubeconfig.read(path)
    if context not in {c.name for c in config.contexts}:
        known = ", ".join(c.name for c in config.contexts) or "none"
        raise NotFound(f"kubeconfig {path} has no context {context!r}", f"there are: {known}")
    return kubeconfig.choose(config, path, context)


CONNECT, SHOW, PICK = Connect(), Show(), Pick()
