"""From the command line to the role: what goes on with it, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from roost.cli.options import UpOptions
from roost.cli.problems import Failed
from roost.program import commands, first_start
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


@pytest.mark.parametrize("options", [UpOptions(home=Path(), name="lab"), UpOptions(home=Path(), host=False)])
def test_a_start_without_options_starts_the_same_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: UpOptions
) -> None:
    def become(*_arguments: object) -> None:
        raise Became

    monkeypatch.setattr(os, "execve", become)
    home = tmp_path / "home"
    with pytest.raises(Became):
        commands.up(msgspec.structs.replace(options, home=home))
    first = Home(home).settings()
    assert first is not None and bool(first.host) == options.host
    first_start.complete(Home(home))
    with pytest.raises(Became):
        commands.up(UpOptions(home=home))
    assert Home(home).settings() == first


def test_a_home_is_not_made_another_cloud_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def become(*_arguments: object) -> None:
        raise Became

    monkeypatch.setattr(os, "execve", become)
    home = tmp_path / "home"
    with pytest.raises(Became):
        commands.up(UpOptions(home=home, name="lab"))
    first_start.complete(Home(home))
    with pytest.raises(Failed, match="lab with host controller-0, not of lab without a host"):
        commands.up(UpOptions(home=home, name="lab", host=False))
