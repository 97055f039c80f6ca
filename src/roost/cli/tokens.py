"""Secrets that the cloud shows once, printed with what to do with them, or kept in files for their owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from roost.cli import answers, output
from roost.cli.problems import Failed
from roost.cli.session import Show


def show_token(token: answers.TokenStatus, show: Show, title: str, then: Sequence[str]) -> None:
    """Print a token and the next step; with `-o name` the token alone, for scripts."""
    if show.output in ("json", "yaml"):
        output.print_data(token, show.output)
        return
    if show.output == "name":
        output.say(token.token)
        return
    expires = f", in force until {token.expiration_timestamp}" if token.expiration_timestamp else ""
    output.say(f"{title}{expires}; it is shown only now:")
    output.say()
    output.say(f"  {token.token}")
    if then:
        output.say()
    for line in then:
        output.say(line)


def make_directory(path: Path) -> None:
    """A directory that only its owner looks into, if it is not there. Raises Failed."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"can't make directory {path}: {error.strerror}") from error


def keep_token(path: Path, token: answers.TokenStatus) -> None:
    """Put a token into a file, whole or not at all, in place of one that is there. Raises Failed."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{token.token}\n")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise Failed(
            f"can't write {path}: {error.strerror}", "its token was made and is lost; make it anew"
        ) from error
