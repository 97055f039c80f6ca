"""From the command line to the role: what goes on with it, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.cli.options import UpOptions
from roost.program import commands
from roost.program.home import Home


class Became(Exception):
    """Stands for the program that this process became."""


def test_secrets_of_the_environment_do_not_go_on_with_the_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def become(_program: str, argv: list[str], environment: dict[str, str]) -> None:
        seen.append((argv, environment))
        raise Became

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setenv("ROOST_JOIN_TOKEN", "hush-token")
    monkeypatch.setenv("ROOST_DATABASE", "postgresql://roost:hush-word@database/roost")
    monkeypatch.setenv("LISTEN_FDS", "1")
    url = os.environ["ROOST_DATABASE"]
    with pytest.raises(Became):
        commands.up(UpOptions(home=tmp_path / "home", name="harbor", database=url))
    [(argv, environment)] = seen
    assert "hush" not in repr(argv) + repr(environment)
    assert environment["LISTEN_FDS"] == "1"
    settings = Home(tmp_path / "home").settings()
    assert settings is not None and settings.database == url
