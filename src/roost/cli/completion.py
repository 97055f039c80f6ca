"""`roost completion`: scripts with which a shell completes commands and options."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from roost.cli.problems import OK


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="Which shell.")], /
) -> int:
    """Print the completion script of a shell.

    For example:
        roost completion bash > ~/.local/share/bash-completion/completions/roost
        roost completion zsh > ~/.zfunc/_roost
        roost completion fish > ~/.config/fish/completions/roost.fish
    """
    # Here, not above: the application names this module.
    from roost.cli.main import app

    sys.stdout.write(app.generate_completion(prog_name="roost", shell=shell))
    return OK
