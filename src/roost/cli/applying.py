"""`roost apply`: objects as files say they should be, by server-side apply.

Two rounds: first every object is sent as a dry run, so that one bad object means that nothing at all
is changed; then they are sent in earnest. The cloud remembers which fields this command has applied: what
the file no longer says is removed, what others have written stays, and where both say something
different the cloud refuses until the file agrees or `--force` takes the field over. An object is sent
in the version of its file.

Secret values are never shown: whether one has changed is told by the revision that a write gave, and before
the write not at all.
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
from roost.cli.problems import OK, Contested, Misused, Problem
from roost.cli.session import CONNECT, Connect, Session, opened
from roost.model.secrecy import MARK

Raw = dict[str, Any]
Verdict = Literal["created", "configured", "unchanged"]
_SERVERS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")


class Step(msgspec.Struct, frozen=True):
    """One object: what the file wants it to be, and what it is (None: not there)."""

    document: Document
    kind: Kind
    namespace: str
    current: Raw | None
    wanted: Raw

    def verdict(self, after: Raw) -> Verdict:
        """What has happened to it, or would have, when it has become `after`."""
        if self.current is None:
            return "created"
        if _comparable(self.current) != _comparable(after):
            return "configured"
        written = _revision(self.current) != _revision(after)
        return "configured" if written and _marked(_comparable(after)) else "unchanged"

    def conceals(self, preview: Raw) -> bool:
        """Whether the preview can't tell if it would differ: a value it had and would have is a secret."""
        return self.current is not None and _marked(_comparable(self.current)) and _marked(preview)


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
    force: Annotated[
        bool, Parameter(help="Take over fields that others have set to something else.")
    ] = False,
    connect: Connect = CONNECT,
) -> int:
    """Create or change objects so that they are as the files say.

    Everything is checked by the cloud first: one bad object, and nothing is changed.

    For example:
        roost apply -f site.yaml
        roost apply -f site/ --diff
        roost apply -f site.yaml --dry-run
        roost apply -f site.yaml --force
        cat policy.yaml | roost apply -f -
    """
    documents = load(filename)
    with opened(connect) as session:
        steps = [_plan(session, document) for document in documents]
        _refuse_doubles(steps)
        rehearsal = {"dryRun": "All"} | ({"force": "true"} if force else {})
        previews = _rehearse(session, steps, rehearsal)
        differing = False
        for step, preview in zip(steps, previews, strict=True):
            if diff:
                lines = _difference(step, preview)
                output.print_lines(lines)
                differing = differing or bool(lines)
            if dry_run:
                output.say(_foretold(step, preview))
        if not dry_run and not diff:
            _carry_out(session, steps, {"force": "true"} if force else {})
    if diff and not differing:
        output.note("No difference.")
    elif diff and not dry_run:
        output.note("Nothing was changed; without --diff it is applied.")
    return OK


def _plan(session: Session, document: Document) -> Step:
    stored = kinds.find(document.kind, session.client, document.source)
    kind = kinds.in_version(stored, document.body["apiVersion"], session.client, document.source)
    namespace = (document.namespace or session.namespace) if kind.namespaced else ""
    wanted = {k: v for k, v in document.body.items() if k != "status"}
    wanted["metadata"] = {k: v for k, v in wanted["metadata"].items() if k not in _SERVERS}
    if namespace:
        wanted["metadata"]["namespace"] = namespace
    return Step(document, kind, namespace, session.client.seek(kind, namespace, document.name), wanted)


def _refuse_doubles(steps: list[Step]) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for step in steps:
        key = (step.kind.kind, step.namespace, step.document.name)
        if key in seen:
            raise Misused(f"{_label(step)} stands twice: in {seen[key]} and in {step.document.source}")
        seen[key] = step.document.source


def _rehearse(session: Session, steps: list[Step], query: dict[str, str]) -> list[Raw]:
    """What each object would become. Every refusal is shown before the first is raised."""
    previews: list[Raw] = []
    refusals: list[Problem] = []
    for step in steps:
        try:
            previews.append(session.client.apply(step.kind, step.namespace, step.wanted, query))
        except Problem as problem:
            if isinstance(problem, Contested):
                problem.remedy = "make the file agree, or take the fields over with --force"
            problem.reason = f"{step.document.source}: {problem.reason}"
            refusals.append(problem)
    if not refusals:
        return previews
    for refusal in refusals[:-1]:
        output.show_problem(refusal)
    last = refusals[-1]
    last.remedy = f"{last.remedy}; nothing was changed" if last.remedy else "nothing was changed"
    raise last


def _carry_out(session: Session, steps: list[Step], query: dict[str, str]) -> None:
    for number, step in enumerate(steps):
        try:
            after = session.client.apply(step.kind, step.namespace, step.wanted, query)
        except Problem as problem:
            left = len(steps) - number
            rest = f"{number} of {len(steps)} objects were applied before it, {left} were not"
            problem.remedy = f"{problem.remedy}; {rest}" if problem.remedy else rest
            raise
        output.say(f"{_label(step)} {step.verdict(after)}")


def _foretold(step: Step, preview: Raw) -> str:
    """What a dry run says of an object."""
    verdict = step.verdict(preview)
    unsure = verdict == "unchanged" and step.conceals(preview)
    return f"{_label(step)} {verdict}{', unless a secret value differs' if unsure else ''} (dry run)"


def _difference(step: Step, preview: Raw) -> list[Text]:
    """What would differ as lines; empty when it is known that nothing would."""
    before = output.yaml_text(_comparable(step.current)).splitlines() if step.current else []
    after = output.yaml_text(_comparable(preview)).splitlines()
    label = _label(step)
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = difflib.unified_diff(before, after, f"{label} (now)", f"{label} (then)", lineterm="")
    shown = [Text(line, styles.get(line[:1], "")) for line in lines]
    if step.conceals(preview):
        shown.append(Text(f"{label}: a secret value may differ; secret values can't be shown", "yellow"))
    return shown


def _revision(raw: Raw) -> str:
    return str(raw["metadata"].get("resourceVersion", ""))


def _marked(value: Any) -> bool:
    """Whether a secret value is somewhere in it."""
    if isinstance(value, dict):
        return any(_marked(inner) for inner in value.values())
    return isinstance(value, str) and value == MARK


def _comparable(raw: Raw) -> Raw:
    kept = {k: v for k, v in raw.items() if k != "status"}
    meta = {k: v for k, v in kept.get("metadata", {}).items() if k not in _SERVERS}
    return {**kept, "metadata": meta}


def _label(step: Step) -> str:
    return f"{step.kind.singular}/{step.document.name}"
