"""Secrets that the cloud shows once, printed with what to do with them."""

from __future__ import annotations

from collections.abc import Sequence

from roost.cli import answers, output
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
