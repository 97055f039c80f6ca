"""`roost subcloud`: the clouds below this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from roost.cli import answers, choosing, listing, output
from roost.cli.choosing import WHICH, Which
from roost.cli.groups import group as groups
from roost.cli.hostview import SEVERITIES
from roost.cli.kinds import CLOUD, SUBCLOUD
from roost.cli.problems import OK, Misused, Refused
from roost.cli.rehoming import rehome_subclouds
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.subcloud_errors import errors
from roost.cli.subcloud_operations import operation as operations
from roost.cli.tables import age
from roost.cli.tokens import keep_token, make_directory, show_token

subcloud = App(name="subcloud", alias="sc", help="Clouds below this one: add, manage, look.")
subcloud.command(groups)
subcloud.command(operations)
subcloud.command(errors)
subcloud.command(rehome_subclouds, name="rehome")

Name = Annotated[str, Parameter(name="NAME", help="Name of the subcloud.")]
Names = Annotated[tuple[str, ...], Parameter(name="NAME", help="Names of subclouds.")]
MaybeNames = Annotated[
    tuple[str, ...], Parameter(name="NAME", help="Names of subclouds, if they are not chosen otherwise.")
]


@subcloud.command(name="list")
def list_subclouds(
    *,
    in_group: Annotated[str, Parameter(help="Those in this group.")] = "",
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List subclouds with their availability and sync state.

    For example:
        roost subcloud list
        roost subcloud list --in-group north
        roost subcloud list --field-selector status.availability=offline
    """
    if in_group:
        fields = ",".join(f for f in (pick.field_selector, f"spec.group={in_group}") if f)
        pick = replace(pick, field_selector=fields)
    with opened(connect) as session:
        empty = "No subclouds; `roost subcloud add NAME` adds one."
        return listing.show_list(session, SUBCLOUD, pick, show, empty=empty)


@subcloud.command(name="show")
def show_subcloud(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one subcloud: state, what is out of sync, its hosts and alarms.

    For example:
        roost subcloud show harbor
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, SUBCLOUD, name, show)
        found = session.client.get(SUBCLOUD, "", name, answers.Subcloud)
        raw = session.client.seek(CLOUD, "", name)
        spec, status, now = found.spec, found.status, output.now()
        since = f" for {age(status.availability_changed_at, now)}" if status.availability_changed_at else ""
        pairs: list[tuple[str, Any]] = [
            ("Name", name),
            ("Management", spec.management_state),
            ("Enrolled", "yes" if status.enrolled else f"no; `roost subcloud token {name}` makes a token"),
            ("Availability", f"{status.availability}{since}"),
            ("Sync", status.sync),
            ("Out of sync", status.out_of_sync),
            ("Version", status.version),
            ("Moved to", f"{status.moved_to} at epoch {status.epoch}" if status.moved_to else ""),
            ("Group", spec.group),
            ("Uplink", spec.uplink),
            ("Location", _place(spec)),
            ("Description", spec.description),
            ("Labels", [f"{k}={v}" for k, v in sorted(found.metadata.labels.items())]),
            ("Certificate until", status.certificate_expires_at),
        ]
        if raw is not None:
            pairs += _health(raw)
        pairs += [(c.type, f"{c.status}: {c.message or c.reason}") for c in status.conditions]
        output.print_lines(output.fields(pairs))
    return OK


@subcloud.command(name="add")
def add_subcloud(
    name: Name,
    /,
    *,
    location: Annotated[str, Parameter(help="Where it is.")] = "",
    description: Annotated[str, Parameter(help="For people.")] = "",
    group: Annotated[str, Parameter(help="Group it is in.")] = "",
    managed: Annotated[bool, Parameter(help="Let shared intent flow down from the start.")] = False,
    mode: Annotated[
        Literal["simplex", "duplex", "standard"], Parameter(help="System mode named in the printed command.")
    ] = "simplex",
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Declare a subcloud and print the one-time token with which its site joins.

    For example:
        roost subcloud add harbor --location "pier 4" --managed
        roost subcloud add valley --mode standard
    """
    spec: dict[str, Any] = {"location": location, "description": description, "group": group}
    spec = {k: v for k, v in spec.items() if v}
    if managed:
        spec["managementState"] = "managed"
    with opened(connect) as session:
        body = {
            "apiVersion": "roost.edge/v1",
            "kind": "Subcloud",
            "metadata": {"name": name},
            "spec": spec,
        }
        session.client.create(SUBCLOUD, "", body)
        if show.output == "table":
            state = "managed" if managed else f"unmanaged (`roost subcloud manage {name}` changes that)"
            output.say(f"Subcloud {name} is added, {state}.")
        return _token(session, name, mode, show)


@subcloud.command(name="token")
def make_token(
    names: MaybeNames = (),
    /,
    *,
    which: Which = WHICH,
    directory: Annotated[
        Path | None, Parameter(help="Write each token to a file of its own here, for its owner alone.")
    ] = None,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Make a new enrolment token for a subcloud; for many, in files.

    A file is what `roost up --join FILE` takes at the site.

    For example:
        roost subcloud token harbor
        roost subcloud token -l region=north --directory tokens
    """
    with opened(connect) as session:
        some = choosing.chosen(session, names, which)
        if directory is not None:
            make_directory(directory)
            return choosing.each(some, lambda name: _keep_token(session, name, directory), "given a token")
        if len(some) > 1:
            raise Misused(f"{len(some)} tokens do not go on one screen", "say --directory DIRECTORY")
        return _token(session, some[0], "simplex", show)


@subcloud.command(name="readmit")
def readmit(
    names: Names,
    /,
    *,
    managed: Annotated[bool, Parameter(help="Let shared intent flow down from the start.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Let in subclouds that joined before, and that this cloud has forgotten because its store was restored.

    What has a certificate of this cloud under the name is let in; nothing need be done at the site. Each is
    declared if it is not.

    For example:
        roost subcloud readmit harbor --managed
    """
    with opened(connect) as session:
        for name in names:
            if session.client.seek(SUBCLOUD, "", name) is None:
                spec = {"managementState": "managed"} if managed else {}
                meta = {"name": name}
                body = {"apiVersion": "roost.edge/v1", "kind": "Subcloud", "metadata": meta, "spec": spec}
                session.client.create(SUBCLOUD, "", body)
            session.client.token(SUBCLOUD, "", name, "enrolment", {"spec": {"readmit": True}})
            output.say(f"Subcloud {name} is let in when it dials next, which takes a minute at most.")
    return OK


@subcloud.command(name="update")
def update(
    names: MaybeNames = (),
    /,
    *,
    which: Which = WHICH,
    description: Annotated[str | None, Parameter(help="For people.")] = None,
    location: Annotated[str | None, Parameter(help="Where it is.")] = None,
    latitude: Annotated[float | None, Parameter(help="In degrees, north positive.")] = None,
    longitude: Annotated[float | None, Parameter(help="In degrees, east positive.")] = None,
    group: Annotated[str | None, Parameter(help="Group it is in; '' takes it out.")] = None,
    uplink: Annotated[
        str | None, Parameter(help="Uplink through which it is reached; '': not known.")
    ] = None,
    label: Annotated[
        tuple[str, ...], Parameter(help="A label to set, as region=north, or to take away, as region-.")
    ] = (),
    connect: Connect = CONNECT,
) -> int:
    """Change what is said of subclouds: where they are, their group, their labels.

    For example:
        roost subcloud update harbor --location "pier 4" --latitude 53.54 --longitude 9.98
        roost subcloud update -l region=north --group north
        roost subcloud update harbor ridge --label tier=test --label old-
    """
    spec = {
        "description": description,
        "location": location,
        "latitude": latitude,
        "longitude": longitude,
        "group": group,
        "uplink": uplink,
    }
    body: dict[str, Any] = {"spec": {k: v for k, v in spec.items() if v is not None}}
    if label:
        body["metadata"] = {"labels": dict(map(_label, label))}
    if not body["spec"] and not label:
        raise Misused("nothing to change is named", "`roost subcloud update --help` tells what there is")
    return _patch(names, which, body, "changed", connect)


@subcloud.command(name="manage")
def manage(names: MaybeNames = (), /, *, which: Which = WHICH, connect: Connect = CONNECT) -> int:
    """Let shared intent flow down to subclouds.

    For example:
        roost subcloud manage harbor ridge valley
        roost subcloud manage --in-group north
    """
    return _patch(names, which, {"spec": {"managementState": "managed"}}, "managed", connect)


@subcloud.command(name="unmanage")
def unmanage(names: MaybeNames = (), /, *, which: Which = WHICH, connect: Connect = CONNECT) -> int:
    """Leave subclouds to themselves: shared intent no longer flows down.

    For example:
        roost subcloud unmanage harbor
    """
    return _patch(names, which, {"spec": {"managementState": "unmanaged"}}, "unmanaged", connect)


@subcloud.command(name="delete")
def delete_subclouds(names: MaybeNames = (), /, *, which: Which = WHICH, connect: Connect = CONNECT) -> int:
    """Forget unmanaged subclouds. The sites go on running by themselves.

    What was shared with a site stays in force there. One that is managed is
    refused: unmanage it first.

    For example:
        roost subcloud delete harbor
        roost subcloud delete -l tier=trial
    """

    def delete(session: Session, name: str) -> None:
        answer = session.client.delete(SUBCLOUD, "", name)
        if answer.get("metadata", {}).get("deletionTimestamp"):
            output.note(f"{name} is there until its finalizers are done.")

    with opened(connect) as session:
        some = choosing.chosen(session, names, which)
        return choosing.each(some, lambda name: delete(session, name), "deleted")


@subcloud.command(name="leave")
def leave(*, connect: Connect = CONNECT) -> int:
    """At a site: leave the central cloud. What came from there becomes the site's own; the link is given up.

    A site that is managed and linked is let go there first: roost subcloud unmanage NAME.

    For example:
        roost subcloud leave
        roost --cloud harbor subcloud leave
    """
    with opened(connect) as session:
        name = session.namespace
        found = session.client.get(CLOUD, "", name, answers.Cloud)
        if found.spec.stands_alone:
            output.say(f"{name} stands alone already.")
            return OK
        session.client.patch(CLOUD, "", name, {"spec": {"standsAlone": True}})
        output.say(f"{name} leaves its central cloud; what came from there becomes its own.")
    return OK


@subcloud.command(name="rejoin")
def rejoin(*, connect: Connect = CONNECT) -> int:
    """At a site that has left: dial the central cloud again. What it made its own stays its own.

    For example:
        roost subcloud rejoin
    """
    with opened(connect) as session:
        name = session.namespace
        found = session.client.get(CLOUD, "", name, answers.Cloud)
        if not found.spec.stands_alone:
            raise Refused(*_has_not_left(name, found.status))
        session.client.patch(CLOUD, "", name, {"spec": {"standsAlone": False}})
        output.say(f"{name} dials its central cloud again.")
        output.note(
            "What it made its own stays in force beside the copies that come: "
            "see `roost get firewallpolicies`."
        )
    return OK


def _has_not_left(name: str, status: answers.CloudStatus) -> tuple[str, str]:
    """Why there is nothing to rejoin, and what to do."""
    if status.upper:
        link = "up" if status.upper_connected else "down; it dials by itself"
        return f"{name} has not left {status.upper}; its link is {link}", "there is nothing to do"
    return (
        f"{name} has no central cloud that it has left",
        "say it to the site that is meant (roost --cloud NAME subcloud rejoin), "
        "or join one with a token: roost up --join FILE",
    )


def _patch(names: tuple[str, ...], which: Which, body: dict[str, Any], done: str, connect: Connect) -> int:
    with opened(connect) as session:
        some = choosing.chosen(session, names, which)
        return choosing.each(some, lambda name: _patched(session, name, body), done)


def _keep_token(session: Session, name: str, directory: Path) -> None:
    token = session.client.token(SUBCLOUD, "", name, "enrolment", {})
    keep_token(directory / f"{name}.token", token)


def _patched(session: Session, name: str, body: dict[str, Any]) -> None:
    session.client.patch(SUBCLOUD, "", name, body)


def _label(text: str) -> tuple[str, str | None]:
    """A label to set, or (None) to take away. Raises Misused."""
    key, equals, value = text.partition("=")
    if equals and key:
        return key, value
    if text.endswith("-") and text[:-1]:
        return text[:-1], None
    raise Misused(f"--label {text} says nothing", "write KEY=VALUE to set one, or KEY- to take it away")


def _place(spec: answers.SubcloudSpec) -> str:
    if spec.latitude is None or spec.longitude is None:
        return spec.location
    return f"{spec.location} ({spec.latitude:g}, {spec.longitude:g})".strip()


def _health(raw: dict[str, Any]) -> list[tuple[str, Any]]:
    import msgspec

    cloud = msgspec.convert(raw, answers.Cloud)
    hosts, alarms = cloud.status.hosts, cloud.status.alarms
    return [
        ("Mode", cloud.spec.system_mode),
        (
            "Hosts",
            f"{hosts.available} of {hosts.total} available, {hosts.locked} locked, {hosts.failed} failed",
        ),
        (
            "Alarms",
            ", ".join(f"{getattr(alarms, s)} {s}" for s in SEVERITIES),
        ),
    ]


def _token(session: Session, name: str, mode: str, show: Show) -> int:
    token = session.client.token(SUBCLOUD, "", name, "enrolment", {})
    lines = [
        "At the site, on its first controller, as root, run this and paste the token when asked:",
        "",
        f"  roost up --name {name} --mode {mode} --join -",
    ]
    show_token(token, show, f"Enrolment token of subcloud {name}", lines)
    return OK
