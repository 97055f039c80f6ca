"""Commands named in hints go to the cloud that the command itself went to.

A hint is pasted as it stands. Every cloud has a controller-0: without the `--cloud` that was given, what is
pasted would reach the current context's cloud. So whatever is printed for people passes through `addressed`,
which puts the options of the connection into each `roost VERB` without them. Not into `roost subcloud`, which
is mostly meant for the central cloud, nor into verbs that ask no cloud.
"""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar

import msgspec
from rich.text import Text

_VERBS = (
    *("host", "alarm", "outlet", "log", "audit", "operation", "firewall", "override", "network", "secrets"),
    *("user", "get", "describe", "history", "apply", "delete"),
)
_HINT = re.compile(rf"(?<![\w./-])roost (?=(?:{'|'.join(_VERBS)})\b(?P<rest>[^`;()\n]*))")
_GIVEN = {
    "--kubeconfig": re.compile(r"--kubeconfig\b"),
    "--cloud": re.compile(r"--(?:cloud|context)\b"),
    "-n": re.compile(r"(?<!\S)-n\b|--(?:namespace|all-namespaces)\b|(?<!\S)-A\b"),
}


class Aim(msgspec.Struct, frozen=True):
    """The options that chose the cloud; what is empty was not given."""

    kubeconfig: str = ""
    cloud: str = ""
    namespace: str = ""


aim: ContextVar[Aim] = ContextVar("aim", default=Aim())  # noqa: B039  (frozen)
"""What the command that runs was told."""


def addressed(text: str, told: Aim) -> str:
    """A text with the options put into each command it names. Pure."""
    for at, words in _missing(text, told):
        text = text[:at] + words + text[at:]
    return text


def addressed_text(text: Text, told: Aim) -> Text:
    """The same with its styles kept."""
    for at, words in _missing(text.plain, told):
        before, after = text.divide([at])
        before.append(words)
        text = before.append_text(after)
    return text


def _missing(text: str, told: Aim) -> list[tuple[int, str]]:
    """Where which options belong, the last first."""
    given = {"--kubeconfig": told.kubeconfig, "--cloud": told.cloud, "-n": told.namespace}
    found = []
    for hint in reversed(list(_HINT.finditer(text))):
        words = "".join(
            f"{option} {shlex.quote(value)} "
            for option, value in given.items()
            if value and not _GIVEN[option].search(hint["rest"])
        )
        if words:
            found.append((hint.end(), words))
    return found
