"""`roost get`, `roost describe`, `roost delete`: any kind, the same way."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from roost.cli import kinds, listing, output
from roost.cli.describing import describe as description
from roost.cli.manifests import Document, load
from roost.cli.problems import OK, Misused, Problem
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened

KindName = Annotated[str, Parameter(name="KIND", help="A kind: hosts, host, ho, Alarm, ...")]


def get(
    kind: KindName,
    name: Annotated[str, Parameter(name="NAME", help="One object; default: all.")] = "",
    /,
    *,
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List objects of any kind, or show one.

    For example:
        roost get hosts -A
        roost get host controller-0 -o yaml
        roost get alarms --field-selector status.severity=critical --watch
    """
    kind, _, after = kind.partition("/")
    name = name or after
    with opened(connect) as session:
        found = kinds.find(kind, session.client)
        if not name:
            return listing.show_list(session, found, pick, show)
        if not pick.watch:
            return listing.show_one(session, found, name, show)
        scope = session.namespace if found.namespaced else None
        query = {**pick.query(), "fieldSelector": f"metadata.name={name}"}
        listing.watch_list(session, found, scope, query, show, namespaces=False)
    return OK


def describe(
    kind: KindName,
    name: Annotated[str, Parameter(name="NAME", help="The object.")],
    /,
    *,
    connect: Connect = CONNECT,
) -> int:
    """Show everything about one object, for people.

    For example:
        roost describe host controller-0
        roost describe subcloud harbor
    """
    with opened(connect) as session:
        found = kinds.find(kind, session.client)
        namespace = session.namespace if found.namespaced else ""
        raw: dict[str, Any] = session.client.get(found, namespace, name, dict)
        output.print_lines(description(raw, output.now(), output.width_of(output.console())))
    return OK


def delete(
    kind: Annotated[str, Parameter(name="KIND", help="A kind.")] = "",
    names: Annotated[tuple[str, ...], Parameter(name="NAME", help="Objects.")] = (),
    /,
    *,
    filename: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--filename", "-f"),
            allow_leading_hyphen=True,
            help="File, directory or - with the objects.",
        ),
    ] = (),
    dry_run: Annotated[bool, Parameter(help="Only say what would be deleted.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Delete objects by name, or those that files name.

    For example:
        roost delete alarm 100.101.controller-0
        roost delete -f site.yaml --dry-run
    """
    if bool(filename) == bool(kind):
        raise Misused("name either KIND and NAME, or files with -f")
    if kind and not names:
        raise Misused(f"no {kind} is named", f"`roost get {kind}` lists them")
    with opened(connect) as session:
        wanted: list[tuple[kinds.Kind, str, str]]
        if filename:
            wanted = [_of_document(session, d) for d in load(filename)]
        else:
            found = kinds.find(kind, session.client)
            wanted = [(found, session.namespace if found.namespaced else "", n) for n in names]
        return _delete(session, wanted, dry_run=dry_run)


def _delete(session: Session, wanted: list[tuple[kinds.Kind, str, str]], *, dry_run: bool) -> int:
    worst = OK
    for kind, namespace, name in wanted:
        try:
            answer = session.client.delete(kind, namespace, name, dry_run=dry_run)
        except Problem as problem:
            output.show_problem(problem)
            worst = max(worst, problem.code)
            continue
        held = answer.get("metadata", {}).get("deletionTimestamp")
        done = "would be deleted" if dry_run else "is being deleted" if held else "deleted"
        output.say(f"{kind.singular}/{name} {done}")
    return worst


def _of_document(session: Session, document: Document) -> tuple[kinds.Kind, str, str]:
    kind = kinds.find(document.kind, session.client, document.source)
    return kind, (document.namespace or session.namespace) if kind.namespaced else "", document.name
