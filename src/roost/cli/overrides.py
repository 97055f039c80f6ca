"""`roost override`: what a site wants otherwise than its central cloud, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import answers, kinds, listing, output
from roost.cli.client import Client, path
from roost.cli.kinds import LOCAL_OVERRIDE, OVERRIDE_REVIEW, SUBCLOUD
from roost.cli.login import whoami
from roost.cli.problems import OK, Misused, NotFound, Problem, Refused
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, normal, shown
from roost.model import patches
from roost.model.override import Decision, LocalOverride, override_name

override = App(
    name="override", help="What a site wants otherwise than its central cloud: set, adopt, revert."
)

Raw = dict[str, Any]
Target = Annotated[str, Parameter(name="KIND/NAME", help="What came from the central cloud.")]
Name = Annotated[str, Parameter(name="NAME", help="Name of the override, or KIND/NAME of its target.")]
Subcloud = Annotated[str, Parameter(name="SUBCLOUD", help="Name of the subcloud.")]
Comment = Annotated[str, Parameter(help="Why, for the site's people.")]
API = "roost.edge/v1"


@override.command(name="set")
def set_override(
    target: Target,
    /,
    *,
    patch: Annotated[
        str, Parameter(help="Merge patch of its spec, as JSON or YAML; @FILE reads a file.")
    ] = "",
    withdraw: Annotated[bool, Parameter(help="Put all of it out of force, until --restore.")] = False,
    restore: Annotated[bool, Parameter(help="Take --withdraw back; what is patched stays so.")] = False,
    reason: Annotated[str, Parameter(help="Why; needed while the site is managed.")] = "",
    dry_run: Annotated[bool, Parameter(help="Show what would be in force, and change nothing.")] = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Override part of what came from the central cloud, at this site. Null removes a field.

    Fields that are not in the patch go on following the central cloud. A further patch is laid over the
    first.

    For example:
        roost override set FirewallPolicy/baseline.central --patch '{order: 10}' --reason "printer moved"
        roost override set fwp/baseline.central --patch @open-443.yaml --reason "ticket 81" --dry-run
        roost override set fwp/lockdown.central --withdraw --reason "nobody gets in"
        roost override set fwp/lockdown.central --restore --reason "mended above"
    """
    if not patch and not withdraw and not restore:
        raise Misused("nothing is said of what should be otherwise", "give --patch, --withdraw or --restore")
    if withdraw and (patch or restore):
        raise Misused(
            f"--withdraw and {'--patch' if patch else '--restore'} exclude each other",
            "what is out of force as a whole differs in no field; say one after the other",
        )
    wanted = read_patch(patch) if patch else {}
    with opened(connect) as session:
        kind, name = _target(session.client, target)
        raw = session.client.get(kind, session.namespace, name, dict)
        before = _override_of(session.client, session.namespace, kind.kind, name)
        whole = patches.composed(_patch(before), wanted) if before else wanted
        was_out = bool((before or {}).get("spec", {}).get("withdrawn"))
        if restore:
            _may_restore(kind.kind, name, before, was_out=was_out, patched=bool(whole))
        out = withdraw or (was_out and not restore)
        wish = {"reason": reason} | ({"withdrawn": True} if out else {})
        made = _written(session, before, kind.kind, raw, whole, wish, dry_run=dry_run)
        if show.output != "table":
            output.print_data(made, show.output if show.output in ("json", "yaml") else "json")
            return OK
        _show_effect(kind.kind, raw, whole)
        verb = "would be" if dry_run else "is"
        how = "put out of force" if out else "overridden"
        output.say(f"{kind.kind} {name} {verb} {how} by {made['metadata']['name']}.")
        if was_out and out and patch:
            output.note("It stays out of force as a whole; --restore takes that back.")
        if before and not reason and (kept := made["spec"].get("reason")):
            output.note(f"The reason stays: {kept} (--reason gives another)")
    return OK


@override.command(name="list")
def list_overrides(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List overrides: at a site its own, at the central cloud those of subclouds.

    For example:
        roost override list
        roost override list --all-namespaces
        roost override list -n harbor
    """
    with opened(connect) as session:
        return listing.show_list(session, LOCAL_OVERRIDE, pick, show, empty="Nothing is overridden.")


@override.command(name="show")
def show_override(name: Name, /, *, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Show one override: both sides, field by field, and what the central cloud has decided.

    For example:
        roost override show firewallpolicy.baseline.central
        roost override show firewallpolicy.baseline.central -n harbor
    """
    with opened(connect) as session:
        called = _called(session.client, session.namespace, name)
        if show.output != "table":
            return listing.show_one(session, LOCAL_OVERRIDE, called, show)
        raw = session.client.get(LOCAL_OVERRIDE, session.namespace, called, dict)
        output.print_lines(override_lines(msgspec.convert(raw, LocalOverride)))
    return OK


@override.command(name="remove")
def remove_override(name: Name, /, *, connect: Connect = CONNECT) -> int:
    """Give an override up at the site: everything follows the central cloud again.

    For example:
        roost override remove firewallpolicy.baseline.central
    """
    with opened(connect) as session:
        called = _called(session.client, session.namespace, name)
        session.client.delete(LOCAL_OVERRIDE, session.namespace, called)
        output.say(f"Override {called} is removed.")
    return OK


@override.command(name="adopt")
def adopt(subcloud: Subcloud, name: Name, /, *, comment: Comment = "", connect: Connect = CONNECT) -> int:
    """At the central cloud: let a subcloud keep what it has overridden, as an exception for it alone.

    For example:
        roost override adopt harbor firewallpolicy.baseline.central --comment "as agreed"
    """
    return _review(subcloud, name, "adopt", comment, connect)


@override.command(name="revert")
def revert(subcloud: Subcloud, name: Name, /, *, comment: Comment = "", connect: Connect = CONNECT) -> int:
    """At the central cloud: have a subcloud give up what it has overridden.

    For example:
        roost override revert harbor firewallpolicy.baseline.central
    """
    return _review(subcloud, name, "revert", comment, connect)


def read_patch(text: str) -> Raw:
    """A merge patch of a spec, as it is or within `spec`. Raises Misused."""
    import yaml

    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise Misused(f"the patch can't be read from {text[1:]}: {why.lower()}") from error
    try:
        patch = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise Misused(f"the patch is neither JSON nor YAML: {' '.join(str(error).split())[:200]}") from error
    if isinstance(patch, dict) and set(patch) == {"spec"}:
        patch = patch["spec"]
    if not isinstance(patch, dict) or not patch:
        what = "is empty; it" if patch in (None, {}) else "is no object; it"
        raise Misused(f"the patch {what} must name fields of spec", "as '{order: 10}'")
    return patch


def override_lines(found: LocalOverride) -> list[Text]:
    """One override on a screen."""
    spec, status = found.spec, found.status
    pairs: list[tuple[str, Any]] = [
        ("Name", found.metadata.name),
        ("Target", f"{spec.target.kind}/{spec.target.name}"),
        ("In force", "yes" if status.in_force else "no"),
        ("Puts out of force", "all of its target" if spec.withdrawn else ""),
        ("Reason", spec.reason),
        ("By", spec.by),
        ("Review", status.review),
        ("Made against", f"generation {status.base.generation}" if status.base else ""),
        ("Central now", f"generation {status.central_generation}" if status.central_generation else ""),
    ]
    lines = output.fields(pairs)
    for difference in status.differences:
        heading = Text(difference.path or "all of it", "bold")
        heading.append("  changed on both sides" if difference.conflict else "", "yellow")
        lines.append(heading)
        sides = [("central", difference.central), ("local", difference.local)]
        if difference.conflict:
            sides.insert(0, ("before", difference.before))
        lines += output.fields([(side, value or "(absent)") for side, value in sides], indent=2)
    lines += output.fields([(c.type, f"{c.status}: {c.message}") for c in status.conditions])
    return lines


def _target(client: Client, text: str) -> tuple[kinds.Kind, str]:
    kind, slash, name = text.partition("/")
    if not slash or not name:
        raise Misused(f"{text!r} names no object", "write KIND/NAME, as FirewallPolicy/baseline.central")
    found = kinds.find(kind, client)
    if found.kind not in OVERRIDABLE:
        raise Misused(f"{found.kind} can't be overridden", f"one of: {', '.join(sorted(OVERRIDABLE))}")
    return found, name


def _called(client: Client, namespace: str, name: str) -> str:
    """The name of an override, also when its target was named. Raises NotFound."""
    if "/" not in name:
        return name
    kind, target = _target(client, name)
    found = _override_of(client, namespace, kind.kind, target)
    if found is None:
        raise NotFound(
            f"{namespace} does not override {kind.kind} {target}", f"see: roost override list -n {namespace}"
        )
    return str(found["metadata"]["name"])


def _override_of(client: Client, namespace: str, kind: str, name: str) -> Raw | None:
    """The override that there is of a target, whatever its name."""
    query = {"fieldSelector": f"spec.target.kind={kind},spec.target.name={name}"}
    found, _ = client.list_items(LOCAL_OVERRIDE, namespace, dict, query)
    return found[0] if found else None


def _may_restore(kind: str, name: str, before: Raw | None, *, was_out: bool, patched: bool) -> None:
    """Raise Refused when there is nothing to take back, or nothing would be left of the override."""
    if before is None or not was_out:
        raise Refused(f"{kind} {name} is not put out of force here", "see: roost override list")
    if not patched:
        called = before["metadata"]["name"]
        raise Refused(
            f"nothing else of {kind} {name} is overridden",
            f"give the override up: roost override remove {called}",
        )


def _patch(raw: Raw) -> Raw:
    spec = raw.get("spec", {})
    return patches.joined(spec.get("patch", {}), spec.get("removes", []))


def _written(
    session: Session,
    before: Raw | None,
    kind: str,
    target: Raw,
    patch: Raw,
    wish: Raw,
    *,
    dry_run: bool,
) -> Raw:
    """Write the override; as the cloud has it, or would."""
    values, removes = patches.split(patch)
    meta = target["metadata"]
    by = _who(session.client)
    seen = {
        "kind": kind,
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "generation": meta.get("generation", 0),
    }
    former = (before or {}).get("spec", {}).get("reason", "")
    spec = {**wish, "target": seen, "patch": values, "removes": removes, "by": by}
    spec["reason"] = wish["reason"] or former
    if before is None:
        name = {"name": override_name(kind, meta["name"])}
        body = {"apiVersion": API, "kind": LOCAL_OVERRIDE.kind, "metadata": name, "spec": spec}
        return session.client.create(LOCAL_OVERRIDE, session.namespace, body, dry_run=dry_run)
    called = before["metadata"]["name"]
    answer = session.client.request(
        "PUT",
        path(LOCAL_OVERRIDE, session.namespace, called),
        query={"dryRun": "All"} if dry_run else {},
        json={**before, "spec": spec},
        doing=f"change override {called}",
    )
    made: Raw = msgspec.json.decode(answer)
    return made


def _who(client: Client) -> str:
    """Who the cloud takes us for; nobody, when it does not tell."""
    try:
        return whoami(client)
    except Problem:
        return ""


def _show_effect(kind: str, target: Raw, patch: Raw) -> None:
    """What would be in force beside what the central cloud says."""
    info = OVERRIDABLE[kind]
    try:
        central, local = normal(info, target)["spec"], laid_over(info, target, patch)["spec"]
    except Unfit:
        return
    for pointer in patches.leaves(patch):
        sides = [
            (side, shown(patches.at(spec, pointer)) or "(absent)")
            for side, spec in (("central", central), ("local", local))
        ]
        same = "  says so already" if sides[0][1] == sides[1][1] else ""
        output.print_lines([Text(pointer, "bold").append(same, "dim"), *output.fields(sides, indent=2)])


def _review(subcloud: str, name: str, decision: Decision, comment: str, connect: Connect) -> int:
    with opened(connect) as session:
        client = session.client
        below = client.get(SUBCLOUD, "", subcloud, answers.Subcloud)
        try:
            called = _called(client, subcloud, name)
            meta = client.get(LOCAL_OVERRIDE, subcloud, called, dict)["metadata"]
        except NotFound as absent:
            if below.status.availability == "online":
                raise
            late = (
                f"{subcloud} is {below.status.availability}: what it has overridden since has not come up yet"
            )
            raise NotFound(f"{absent.reason}; {late}", absent.remedy) from absent
        spec = {
            "override": called,
            "uid": meta["uid"],
            "generation": meta.get("generation", 1),
            "decision": decision,
            "comment": comment,
            "by": _who(client),
        }
        if client.seek(OVERRIDE_REVIEW, subcloud, called) is None:
            body = {
                "apiVersion": API,
                "kind": OVERRIDE_REVIEW.kind,
                "metadata": {"name": called},
                "spec": spec,
            }
            client.create(OVERRIDE_REVIEW, subcloud, body)
        else:
            client.patch(OVERRIDE_REVIEW, subcloud, called, {"spec": spec})
        what = "adopted: it becomes an exception" if decision == "adopt" else "reverted"
        output.say(f"Override {called} of {subcloud} will be {what} when {subcloud} has heard of it.")
    return OK
