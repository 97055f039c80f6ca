"""`roost apply`: objects as files say they should be.

Two rounds: first every object is sent as a dry run, so that one bad object means that nothing at all
is changed; then they are sent in earnest. What the file no longer says, but said when it was last
applied, is removed: the last applied object is kept in the annotation that kubectl keeps it in, so
both can be used on the same object. `change` is the pure part: a merge patch out of three objects.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.text import Text

from roost.cli import kinds, output
from roost.cli.kinds import Kind
from roost.cli.manifests import Document, load
from roost.cli.problems import OK, Misused, Problem
from roost.cli.session import CONNECT, Connect, Session, opened

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Raw = dict[str, Any]
Verdict = Literal["created", "configured", "unchanged"]
_SERVERS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")


class Step(msgspec.Struct, frozen=True):
    """What is to be done with one object. `patch` is empty when there is nothing to change."""

    document: Document
    kind: Kind
    namespace: str
    current: Raw | None
    patch: Raw

    @property
    def verdict(self) -> Verdict:
        """What will have happened to it."""
        if self.current is None:
            return "created"
        return "configured" if self.patch else "unchanged"


def apply(
    *,
    filename: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--filename", "-f"),
            allow_leading_hyphen=True,
            help="File, directory or -; may be repeated.",
        ),
    ],
    dry_run: Annotated[bool, Parameter(help="Have the cloud check everything and change nothing.")] = False,
    diff: Annotated[bool, Parameter(help="Show what would differ, and change nothing.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Create or change objects so that they are as the files say.

    Everything is checked by the cloud first: one bad object, and nothing is changed.

    For example:
        roost apply -f site.yaml
        roost apply -f site/ --diff
        cat policy.yaml | roost apply -f -
    """
    documents = load(filename)
    with opened(connect) as session:
        steps = [_plan(session, document) for document in documents]
        _refuse_doubles(steps)
        previews = _rehearse(session, steps)
        for step, preview in zip(steps, previews, strict=True):
            if diff:
                output.print_lines(_diff(step, preview))
            if dry_run:
                output.say(f"{_label(step)} {step.verdict} (dry run)")
        if not dry_run and not diff:
            _carry_out(session, steps)
    if diff and not dry_run:
        output.note("Nothing was changed; without --diff it is applied.")
    return OK


def change(current: Raw, wanted: Raw, last: Raw) -> Raw:
    """The merge patch that makes `current` as `wanted`, removing what only `last` had."""
    patch: Raw = {}
    for key, value in wanted.items():
        old = current.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            before = last.get(key)
            inner = change(old, value, before if isinstance(before, dict) else {})
            if inner:
                patch[key] = inner
        elif key not in current or old != value:
            patch[key] = value
    for key in last:
        if key not in wanted and current.get(key) is not None:
            patch[key] = None
    return patch


def plan_patch(current: Raw, wanted: Raw) -> Raw:
    """The patch for an object that is there; empty when it is as wanted."""
    annotations = current.get("metadata", {}).get("annotations", {})
    last = _decoded(annotations.get(LAST_APPLIED, ""))
    bare = {k: v for k, v in wanted.items() if k not in ("apiVersion", "kind", "status")}
    before = {k: v for k, v in last.items() if k not in ("apiVersion", "kind", "status")}
    patch = change(current, bare, before)
    if patch or last != wanted:
        meta = patch.setdefault("metadata", {})
        noted = meta.get("annotations") or {}
        meta["annotations"] = {**noted, LAST_APPLIED: _encoded(wanted)}
    return patch


def _plan(session: Session, document: Document) -> Step:
    kind = kinds.find(document.kind, session.client)
    version = kind.group_path.removeprefix("/apis/").removeprefix("/api/")
    if document.body["apiVersion"] != version:
        raise Misused(
            f"{document.source}: apiVersion of {kind.kind} is {version}, not {document.body['apiVersion']}"
        )
    namespace = (document.namespace or session.namespace) if kind.namespaced else ""
    wanted = {k: v for k, v in document.body.items() if k != "status"}
    wanted["metadata"] = {k: v for k, v in wanted["metadata"].items() if k not in _SERVERS}
    if namespace:
        wanted["metadata"]["namespace"] = namespace
    current = session.client.seek(kind, namespace, document.name)
    patch = plan_patch(current, wanted) if current is not None else _noted(wanted)
    return Step(document, kind, namespace, current, patch)


def _refuse_doubles(steps: list[Step]) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for step in steps:
        key = (step.kind.kind, step.namespace, step.document.name)
        if key in seen:
            raise Misused(f"{_label(step)} stands twice: in {seen[key]} and in {step.document.source}")
        seen[key] = step.document.source


def _rehearse(session: Session, steps: list[Step]) -> list[Raw]:
    """What each object would become. Every refusal is shown before the first is raised."""
    previews: list[Raw] = []
    refusals: list[Problem] = []
    for step in steps:
        try:
            previews.append(_send(session, step, dry_run=True))
        except Problem as problem:
            problem.reason = f"{step.document.source}: {problem.reason}"
            refusals.append(problem)
    if not refusals:
        return previews
    for refusal in refusals[:-1]:
        output.show_problem(refusal)
    last = refusals[-1]
    last.remedy = f"{last.remedy}; nothing was changed" if last.remedy else "nothing was changed"
    raise last


def _carry_out(session: Session, steps: list[Step]) -> None:
    for number, step in enumerate(steps):
        try:
            _send(session, step, dry_run=False)
        except Problem as problem:
            left = len(steps) - number
            rest = f"{number} of {len(steps)} objects were applied before it, {left} were not"
            problem.remedy = f"{problem.remedy}; {rest}" if problem.remedy else rest
            raise
        output.say(f"{_label(step)} {step.verdict}")


def _send(session: Session, step: Step, *, dry_run: bool) -> Raw:
    client, name = session.client, step.document.name
    if step.current is None:
        return client.create(step.kind, step.namespace, step.patch, dry_run=dry_run)
    if not step.patch:
        return step.current
    return client.patch(step.kind, step.namespace, name, step.patch, dry_run=dry_run)


def _noted(wanted: Raw) -> Raw:
    """A new object with the note of what was applied."""
    meta = dict(wanted["metadata"])
    meta["annotations"] = {**(meta.get("annotations") or {}), LAST_APPLIED: _encoded(wanted)}
    return {**wanted, "metadata": meta}


def _diff(step: Step, preview: Raw) -> list[Text]:
    before = output.yaml_text(_comparable(step.current)).splitlines() if step.current else []
    after = output.yaml_text(_comparable(preview)).splitlines()
    label = _label(step)
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = difflib.unified_diff(before, after, f"{label} (now)", f"{label} (then)", lineterm="")
    return [Text(line, styles.get(line[:1], "")) for line in lines]


def _comparable(raw: Raw) -> Raw:
    kept = {k: v for k, v in raw.items() if k != "status"}
    meta = {k: v for k, v in kept.get("metadata", {}).items() if k not in _SERVERS}
    notes = {k: v for k, v in meta.get("annotations", {}).items() if k != LAST_APPLIED}
    meta.pop("annotations", None)
    return {**kept, "metadata": {**meta, **({"annotations": notes} if notes else {})}}


def _label(step: Step) -> str:
    return f"{step.kind.singular}/{step.document.name}"


def _encoded(raw: Raw) -> str:
    """The note as kubectl would write it, byte for byte, so that it finds nothing to change."""
    meta = {"annotations": {}, **raw["metadata"]}
    text = msgspec.json.encode({**raw, "metadata": meta}, order="sorted").decode() + "\n"
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _decoded(text: str) -> Raw:
    """The last applied object; empty when there is none that can be read."""
    try:
        found = msgspec.json.decode(text) if text else {}
    except msgspec.DecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    meta = found.get("metadata")
    if isinstance(meta, dict) and meta.get("annotations") == {}:
        # kubectl notes an empty map where there were no annotations.
        found = {**found, "metadata": {k: v for k, v in meta.items() if k != "annotations"}}
    return found
