"""Passwords at the command line: set, and used to log in; never in arguments or answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Roost
from tests.support.api import ApiServer

SECRET = "correct horse battery"


def test_a_password_is_set_and_logs_in(
    roost: Roost, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text(SECRET + "\n")
    (tmp_path / "wrong").write_text("wrong horse battery\n")
    assert roost("user", "add", "pia", "--role", "operator").code == 0
    made = roost("user", "password", "pia", "--password-file", str(tmp_path / "password"))
    assert made.code == 0, made.err
    assert "The password of pia is set" in made.out and SECRET not in made.out + made.err
    saved = tmp_path / "saved"
    monkeypatch.setenv("ROOST_KUBECONFIG", str(saved))
    to = ("login", server.url, "--ca-file", str(server.authority.path), "--user", "pia", "--password-file")
    refused = roost(*to, str(tmp_path / "wrong"))
    assert refused.code == 5 and not saved.exists(), refused.err
    entered = roost(*to, str(tmp_path / "password"))
    assert entered.code == 0, entered.err
    assert "as pia" in entered.out and SECRET not in entered.out + saved.read_text()
    listed = roost("user", "list")
    assert listed.code == 0 and "operator" in listed.out
    assert roost("user", "add", "x").code == 5


def test_a_password_needs_a_source(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    none = roost("user", "password", "pia")
    assert none.code == 2 and "no password was given" in none.err
    assert "--password-file" in none.err
    (tmp_path / "short").write_text("short\n")
    assert roost("user", "add", "pam").code == 0
    short = roost("user", "password", "pam", "--password-file", str(tmp_path / "short"))
    assert short.code != 0 and "from 12 to 256 characters" in short.err
