"""The home of one running Roost: one process at a time, what it was started as, private files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from roost.program.home import Home, Settings, StartError, split_address
from roost.program.start import settle


def test_a_home_is_made_private_and_held_by_one(tmp_path: Path) -> None:
    first = Home(tmp_path / "roost")
    first.open()
    assert stat.S_IMODE((tmp_path / "roost").stat().st_mode) == 0o700
    with pytest.raises(StartError, match=r"already runs.*stop it first"):
        Home(tmp_path / "roost").open()
    first.close()
    second = Home(tmp_path / "roost")
    second.open()
    second.close()


def test_a_home_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="--home"):
        Home(tmp_path / "file").open()


def test_settings_are_kept_private_and_read_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.settings() is None
    wanted = Settings(role="cloud", cloud="harbor", host="controller-0", advertise=["192.0.2.1:7444"])
    home.save_settings(wanted)
    assert home.settings() == wanted
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600


def test_settings_that_can_not_be_read_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(StartError, match="mend the file"):
        Home(tmp_path).settings()


def test_a_second_start_needs_no_options(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = Settings(role="cloud", cloud="harbor", host="c", api_address="192.0.2.1:1", contained=True)
    assert settle(home, first) == first
    assert settle(home, Settings(role="cloud", cloud="harbor", host="c")) == first
    moved = settle(home, Settings(role="cloud", cloud="harbor", host="c", api_address="192.0.2.2:1"))
    assert moved.api_address == "192.0.2.2:1"
    assert moved.contained
    assert home.settings() == moved


@pytest.mark.parametrize(
    "given",
    [
        Settings(role="agent", cloud="harbor", host="c"),
        Settings(role="cloud", cloud="ridge", host="c"),
        Settings(role="cloud", cloud="harbor", host="d"),
    ],
)
def test_a_home_stays_what_it_is(tmp_path: Path, given: Settings) -> None:
    home = Home(tmp_path)
    first = Settings(role="cloud", cloud="harbor", host="c")
    settle(home, first)
    with pytest.raises(StartError):
        settle(home, given)
    assert home.settings() == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("192.0.2.1", ("192.0.2.1", 7444)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", 7444)),
        ("2001:db8::1", ("2001:db8::1", 7444)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text, 7444) == expected


@pytest.mark.parametrize("text", ["", ":80", "a:b", "192.0.2.1:70000"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(StartError, match="write HOST:PORT"):
        split_address(text, 7444)
