"""Ways to know people that a cloud is started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.api.identity.oidc import Oidc
from roost.api.identity.tokenfile import TokenFile
from roost.program.access import authenticators
from roost.program.home import Settings, StartError


def test_what_settings_name_is_there(tmp_path: Path) -> None:
    assert authenticators(Settings(role="cloud")) == []
    config = tmp_path / "oidc.json"
    config.write_text(json.dumps({"issuer": "https://id.example.org", "audiences": ["roost"]}))
    settings = Settings(role="cloud", token_file=str(tmp_path / "tokens"), oidc_file=str(config))
    found = authenticators(settings)
    assert [type(a) for a in found] == [TokenFile, Oidc]


def test_a_bad_configuration_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="does not configure an OIDC provider"):
        authenticators(Settings(role="cloud", oidc_file=str(tmp_path / "none")))
