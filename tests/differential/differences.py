"""What may differ between Kubernetes' answers and ours, and why. Everything else is a fault.

`EVENED` is evened out before answers are compared (`normal`, `definitions`); `DIFFERENCES` each excuse
answers of a certain kind; `APART` is what no sequence asks for.
docs/kubernetes-differences.md shows them and is checked against them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roost.model.codec import Raw
from tests.differential.requests import JSON_PATCH
from tests.differential.servers import Answer, Step


class Seen(msgspec.Struct, frozen=True):
    """An answer as it came and as it is compared."""

    answer: Answer
    normal: Raw

    @property
    def code(self) -> int:
        return self.answer.code

    @property
    def details(self) -> Raw:
        """Of a Status; empty for anything else."""
        body = self.answer.body
        found: Raw = (
            (body.get("details") or {}) if isinstance(body, dict) and body.get("kind") == "Status" else {}
        )
        return found

    @property
    def causes(self) -> list[str]:
        """Fields of a Status that are blamed."""
        return [cause.get("field", "") for cause in self.details.get("causes", ())]


class Evened(msgspec.Struct, frozen=True, kw_only=True):
    """A difference that no comparison shows."""

    name: str
    kubernetes: str
    roost: str
    why: str


class Difference(Evened, frozen=True, kw_only=True):
    """A difference that `excuses(step, ours, theirs)` knows when it sees it."""

    excuses: Callable[[Step, Seen, Seen], bool]


EVENED: tuple[Evened, ...] = (
    Evened(
        name="Revisions, identities, times",
        kubernetes="`resourceVersion`, `uid`, times, random parts of names and continue tokens of its own.",
        roost="Its own likewise. Times have milliseconds in conditions.",
        why="They are opaque: only their order and equality mean something, and that is compared.",
    ),
    Evened(
        name="Status from the beginning",
        kubernetes="An object has no `status` until a controller writes one.",
        roost="`status` is there at once, with its defaults.",
        why="Tables and programs need not tell absent from unknown; controllers fill it within a moment.",
    ),
    Evened(
        name="Spec is always there",
        kubernetes="An object that was written without `spec` has none.",
        roost="`spec` is there, with its defaults.",
        why="What is in force can be read from the object alone.",
    ),
    Evened(
        name="Empty defaults",
        kubernetes="A default that is empty text can't stand in a definition of 1.20: the field is absent.",
        roost="Such fields of `spec` are shown as empty text.",
        why="A fault of that version of Kubernetes, not of the convention.",
    ),
    Evened(
        name="Rules between fields",
        kubernetes="A definition of 1.20 has no rules between fields: ports pass for a protocol without.",
        roost="Refused with 422, the field, the reason and the remedy.",
        why="What can't work is told when it is written. The sequences compared stay clear of it.",
    ),
    Evened(
        name="Grace of a deletion",
        kubernetes="`metadata.deletionGracePeriodSeconds: 0` beside `deletionTimestamp`.",
        roost="Only `deletionTimestamp`.",
        why="No kind here is ended with grace; finalizers say what is waited for.",
    ),
    Evened(
        name="Texts of errors",
        kubernetes="A message for programmers, with causes now and then.",
        roost="What was refused, why, and the next step; each as a cause too.",
        why="Clients go by code and reason, which are compared; people read the text.",
    ),
    Evened(
        name="Tables",
        kubernetes="Columns of a definition print one value and can't count.",
        roost="Columns can join the items of a list and count them.",
        why="The rows, their objects and their order are compared, the cells but for the name are not.",
    ),
    Evened(
        name="Ownership of fields",
        kubernetes="`managedFields` of every writer, also where nobody applies.",
        roost="Its own entries.",
        why="Entries name times and versions; what ownership leads to, conflicts and removals, is compared.",
    ),
)


APART: tuple[Evened, ...] = (
    Evened(
        name="A watch from a revision that is not reached",
        kubernetes="200, and nothing is told until that revision has passed.",
        roost="410 Expired after a short wait: list anew.",
        why="Such a revision is from another life of the store, as after a backup was put back; a client "
        "that waits for it is blind for as long.",
    ),
    Evened(
        name="A list at a revision that is not reached",
        kubernetes="504 with the cause ResourceVersionTooLarge, and a Retry-After header.",
        roost="The same without the header; `details.retryAfterSeconds` is there.",
        why="For the header client-go repeats the request ten times, in vain, before it looks at the cause "
        "and lists without a revision.",
    ),
    Evened(
        name="Pages of large objects",
        kubernetes="A page has as many objects as `limit` says, whatever their size.",
        roost="A page ends early at 8 MiB; its continue token leads on.",
        why="The memory that an answer takes is bounded. The convention lets pages be shorter.",
    ),
)


def _error(seen: Seen) -> bool:
    return 400 <= seen.code < 500


def _sorted(seen: Seen) -> Any:
    """The objects of a list, or of the first events of a watch, by name."""
    if "events" in seen.normal:
        return sorted(
            seen.normal["events"], key=lambda e: (e["type"], str(e["object"]["metadata"].get("name")))
        )
    items = seen.normal["body"].get("items") if isinstance(seen.normal["body"], dict) else None
    return sorted(items, key=lambda i: str(i["metadata"].get("name"))) if items else None


def _without(seen: Seen, *path: str) -> Raw:
    """The compared answer without a field."""
    copied: Raw = msgspec.json.decode(msgspec.json.encode(seen.normal))
    inner: Any = copied
    for key in path[:-1]:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(path[-1], None)
    return copied


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        name="Bad input is no internal error",
        kubernetes="500 for some bad input: a resourceVersion on create, one that is no number, a body of "
        "DeleteOptions that is no JSON.",
        roost="400, or 409 for a resourceVersion that can't be the stored one.",
        why="A 500 tells clients to try again, which can't help.",
        excuses=lambda step, ours, theirs: theirs.code == 500 and _error(ours),
    ),
    Difference(
        name="A wrong kind in the body",
        kubernetes="422 for custom resources, 400 for its own kinds.",
        roost="400 for all.",
        why="As Kubernetes answers for its own kinds.",
        excuses=lambda step, ours, theirs: (
            theirs.code == 422 and "kind" in theirs.causes and ours.code == 400
        ),
    ),
    Difference(
        name="apiVersion and kind left out",
        kubernetes="400 without kind, 500 without apiVersion.",
        roost="Taken: the path says both.",
        why="Nothing is ambiguous, and a person with curl need not say it twice.",
        excuses=lambda step, ours, theirs: (
            ours.code in (200, 201)
            and theirs.code in (400, 500)
            and isinstance(step.body, dict)
            and not {"kind", "apiVersion"} <= set(step.body)
        ),
    ),
    Difference(
        name="Values of a wrong type in metadata",
        kubernetes="400, for metadata is decoded before anything is checked.",
        roost="422 with the field, as for every other field.",
        why="One way to tell which field is wrong.",
        excuses=lambda step, ours, theirs: (
            theirs.code == 400 and ours.code == 422 and any(f.startswith("metadata") for f in ours.causes)
        ),
    ),
    Difference(
        name="Paths that are not served",
        kubernetes="404 with plain text, or with the details of an object that was not asked for.",
        roost="404 with a Status.",
        why="Clients can read it as every other error.",
        excuses=lambda step, ours, theirs: (
            ours.code == theirs.code == 404 and not ours.details and isinstance(ours.answer.body, dict)
        ),
    ),
    Difference(
        name="Methods that a path does not have",
        kubernetes="400 or 409 for custom resources where a name is missing or too much; details in its 405.",
        roost="405.",
        why="As Kubernetes answers for its own kinds.",
        excuses=lambda step, ours, theirs: ours.code == 405 and theirs.code in (400, 405, 409),
    ),
    Difference(
        name="A namespaced kind created without a namespace",
        kubernetes="404 or 405 without a hint.",
        roost="400 that says what is missing.",
        why="The path exists for lists; what lacks is the namespace.",
        excuses=lambda step, ours, theirs: (
            step.method == "POST"
            and "/namespaces/" not in step.target
            and (ours.code, theirs.code) == (400, 404)
        ),
    ),
    Difference(
        name="Update without a resourceVersion",
        kubernetes="422 for custom resources; many of its own kinds take it.",
        roost="Taken: the last write wins.",
        why="As Kubernetes does for its own kinds; whoever wants to be careful sends the resourceVersion.",
        excuses=lambda step, ours, theirs: (
            step.method == "PUT" and ours.code == 200 and "metadata.resourceVersion" in theirs.causes
        ),
    ),
    Difference(
        name="A write of status alone on the object itself",
        kubernetes="Status is ignored, yet the resourceVersion moves.",
        roost="Status is ignored and nothing is written.",
        why="A write that changes nothing wakes nobody.",
        excuses=lambda step, ours, theirs: (
            isinstance(step.body, dict)
            and "status" in step.body
            and _without(ours, "body", "metadata", "resourceVersion")
            == _without(theirs, "body", "metadata", "resourceVersion")
        ),
    ),
    Difference(
        name="Patches that are none",
        kubernetes="422 for a patch of a wrong form.",
        roost="400.",
        why="The patch can't be understood; 422 is for an object that it would make.",
        excuses=lambda step, ours, theirs: (
            step.method == "PATCH" and (ours.code, theirs.code) == (400, 422) and "kind" not in theirs.causes
        ),
    ),
    Difference(
        name="Steps of a JSON patch that fail",
        kubernetes="422 without details.",
        roost="422 with the object, the step and its path.",
        why="One can see which of the steps it was.",
        excuses=lambda step, ours, theirs: (
            step.content == JSON_PATCH and ours.code == theirs.code == 422 and not theirs.details
        ),
    ),
    Difference(
        name="How a conflict names the kind",
        kubernetes="`details.kind` is the plural, but the kind for a failed precondition of a deletion.",
        roost="The plural.",
        why="One name for one thing.",
        excuses=lambda step, ours, theirs: (
            ours.code == theirs.code == 409
            and _without(ours, "body", "details", "kind") == _without(theirs, "body", "details", "kind")
        ),
    ),
    Difference(
        name="Order of lists that may be old",
        kubernetes="In any order when they come from its memory: with a resourceVersion, and the first "
        "events of a watch. Newer versions sort them.",
        roost="By namespace and name.",
        why="An order that is always the same can be compared.",
        excuses=lambda step, ours, theirs: (
            ours.code == theirs.code == 200
            and (step.method == "WATCH" or "resourceVersion" in step.path)
            and _sorted(ours) is not None
            and _sorted(ours) == _sorted(theirs)
        ),
    ),
    Difference(
        name="Metadata alone, of one and of many",
        kubernetes="406 or 500 when PartialObjectMetadata is asked for on a list, or its list on one object.",
        roost="The form that fits what is asked for.",
        why="What is meant is plain.",
        excuses=lambda step, ours, theirs: (
            "as=PartialObjectMetadata" in step.accept and ours.code == 200 and theirs.code in (406, 500)
        ),
    ),
    Difference(
        name="A namespace in an object whose kind has none",
        kubernetes="Dropped silently in 1.20; refused by newer versions for their own kinds.",
        roost="400.",
        why="Whoever names a namespace expects it to matter.",
        excuses=lambda step, ours, theirs: (
            "/namespaces/" not in step.target
            and isinstance(step.body, dict)
            and "namespace" in step.body.get("metadata", {})
            and (ours.code, theirs.code) == (400, 201)
        ),
    ),
)


def excuse(step: Step, ours: Seen, theirs: Seen) -> str:
    """Name of the difference that explains two answers: empty for equal ones. Raises Unexplained."""
    if ours.normal == theirs.normal:
        return ""
    for difference in DIFFERENCES:
        if difference.excuses(step, ours, theirs):
            return difference.name
    raise Unexplained(step, ours, theirs)


class Unexplained(AssertionError):
    """Two answers that differ and should not."""

    def __init__(self, step: Step, ours: Seen, theirs: Seen) -> None:
        body = step.body if isinstance(step.body, bytes) else msgspec.json.encode(step.body)
        super().__init__(
            f"{step.method} {step.path} ({step.content}) {body[:300]!r}\n"
            f"Kubernetes: {_told(theirs)}\nRoost:      {_told(ours)}"
        )


def _told(seen: Seen) -> str:
    body = seen.answer.body
    if isinstance(body, dict) and body.get("kind") == "Status":
        details, message = seen.normal["body"]["details"], body.get("message", "")
        return f"{seen.code} {body.get('reason')} {details} {message[:200]}"
    return msgspec.json.encode(seen.normal, order="sorted").decode()[:2000]


def page() -> str:
    """docs/kubernetes-differences.md."""
    lines = [
        "# Differences from Kubernetes' API server",
        "",
        "The same requests go to a real Kubernetes API server (1.20, with our kinds as",
        "CustomResourceDefinitions) and to Roost's, and the answers are compared: codes, reasons, objects,",
        "lists, events of watches. What differs stands here, each with its reason; anything else fails the",
        "tests in `tests/differential`. The page is made from the list they go by:",
        "",
        "```sh",
        "python -m tests.differential.differences > docs/kubernetes-differences.md",
        "```",
        "",
        "## In answers",
        "",
        *_table(DIFFERENCES),
        "",
        "## In objects and texts",
        "",
        *_table(EVENED),
        "",
        "## Where the sequences do not go",
        "",
        *_table(APART),
    ]
    return "\n".join(lines) + "\n"


def _table(entries: tuple[Evened, ...] | tuple[Difference, ...]) -> list[str]:
    rows = [f"| {e.name} | {e.kubernetes} | {e.roost} | {e.why} |" for e in entries]
    return ["| What | Kubernetes | Roost | Why |", "| --- | --- | --- | --- |", *rows]


if __name__ == "__main__":
    print(page(), end="")
