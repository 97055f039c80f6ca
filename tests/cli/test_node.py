"""Options of `roost up` and `roost agent`, and the systemd unit."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cyclopts import App

from roost.cli import service
from roost.cli.main import make_app, run
from roost.cli.options import AgentOptions, Endpoint, UpOptions, endpoint, node_commands
from roost.cli.problems import Failed, Misused, Refused


class Node:
    """An application whose `up` and `agent` only note what they were asked."""

    def __init__(self) -> None:
        self.asked: list[UpOptions | AgentOptions] = []
        self.app: App = make_app()
        node_commands(self.app, self._note, self._note)

    def _note(self, options: UpOptions | AgentOptions) -> int:
        self.asked.append(options)
        return 0

    def run(self, *arguments: str) -> int:
        return run(self.app, arguments)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    for name in ("ROOST_JOIN_TOKEN", "ROOST_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROOST_HOME", str(tmp_path / "home"))
    return Node()


def test_up_without_anything(node: Node, tmp_path: Path) -> None:
    assert node.run("up") == 0
    assert node.asked == [UpOptions(home=tmp_path / "home")]


def test_up_with_everything(node: Node, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "url").write_text("postgresql://u:p@h/d")
    line = "up --name harbor --mode duplex --address [::1]:8000 --link-address 192.0.2.1"
    more = f"--advertise edge.example --advertise 192.0.2.1:9 --no-host --contained --home {tmp_path}/h"
    files = f"--join {tmp_path}/token --database {tmp_path}/url"
    assert node.run(*f"{line} {more} {files}".split()) == 0
    assert node.asked == [
        UpOptions(
            home=tmp_path / "h",
            name="harbor",
            mode="duplex",
            address=Endpoint("::1", 8000),
            link_address=Endpoint("192.0.2.1", 7444),
            advertise=(Endpoint("edge.example", 7444), Endpoint("192.0.2.1", 9)),
            join="secret",
            database="postgresql://u:p@h/d",
            host=False,
            contained=True,
        )
    ]
    assert "secret" not in repr(node.asked[0])


def test_what_is_advertised_has_the_port_that_listens(node: Node) -> None:
    assert node.run("up", "--link-address", "192.0.2.1:8000", "--advertise", "edge.example") == 0
    (asked,) = node.asked
    assert isinstance(asked, UpOptions)
    assert asked.advertise == (Endpoint("edge.example", 8000),)


def test_tokens_from_the_environment_and_standard_input(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_JOIN_TOKEN", "from-environment")
    assert node.run("agent") == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("from-input\n"))
    assert node.run("agent", "--join", "-", "--contained") == 0
    assert [(o.join, o.contained) for o in node.asked] == [("from-environment", False), ("from-input", True)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("up --name Harbor", "no name for a cloud"),
        ("up --mode triplex", 'Choose from: "simplex", "duplex", "standard"'),
        ("up --address edge.example", "is a name"),
        ("up --address 1.2.3.4:0", "no port"),
        ("up --advertise 1.2.3", "no address"),
        ("up --systemd --foreground", "exclude each other"),
        ("up --join abcd.secretsecret", "a token does not go on the command line"),
        ("up --database postgresql://u:p@h/d", "takes a file that holds the URL"),
        ("agent --join -", "the token is empty"),
    ],
)
def test_refused(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, sentence: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert node.run(*line.split()) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "secretsecret" not in told
    assert node.asked == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ("192.0.2.1", 5)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("2001:db8::1", ("2001:db8::1", 5)),
        ("[2001:db8::1]", ("2001:db8::1", 5)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("edge.example:80", ("edge.example", 80)),
    ],
)
def test_endpoints(text: str, found: tuple[str, int]) -> None:
    assert endpoint(text, 5, "--x") == Endpoint(*found)
    assert endpoint(str(Endpoint(*found)), 1, "--x") == Endpoint(*found)


@pytest.mark.parametrize("text", ["", "a b", "host:port", "[::1", "192.0.2.256", "x:70000"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(Misused):
        endpoint(text, 5, "--x")


# -- systemd


class Systemd:
    """A directory for units and a record of what systemctl was asked."""

    def __init__(self, directory: Path) -> None:
        self.units, self.running = directory / "units", directory / "running"
        self.units.mkdir()
        self.running.mkdir()
        self.asked: list[str] = []

    def run(self, arguments: Sequence[str]) -> str:
        self.asked.append(" ".join(arguments))
        return ""

    def install(self, options: UpOptions) -> int:
        return service.install_up(options, units=self.units, running=self.running, run=self.run)


def test_the_unit_holds_no_secret_and_says_the_same_again(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/no such/roost"])
    systemd = Systemd(tmp_path)
    options = UpOptions(
        home=tmp_path / "a home",
        name="harbor",
        join="join-secret",
        database="postgresql://u:p@h/d",
        advertise=(Endpoint("192.0.2.1", 9),),
        host=False,
        contained=True,
        roles=("links",),
    )
    assert systemd.install(options) == 0
    text = (systemd.units / "roost.service").read_text()
    assert "join-secret" not in text
    assert "postgresql" not in text
    assert systemd.asked == ["daemon-reload", "enable roost.service", "restart roost.service"]
    for name in ("join.secret", "database.secret"):
        assert stat.S_IMODE((options.home / name).stat().st_mode) == 0o600
    assert f'ROOST_HOME={tmp_path}/a home"' in text
    secrets = {"join": options.home / "join.secret", "database": options.home / "database.secret"}
    assert node.run(*service.up_arguments(options, secrets)) == 0
    assert node.asked == [options]


def test_words_are_quoted_for_systemd() -> None:
    text = service.unit_text(["/bin/x", "a b", "100%", "$HOME", 'q"'], Path("/h"))
    assert 'ExecStart=/bin/x "a b" 100%% $$HOME "q\\""\n' in text


def test_without_systemd_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="systemd does not run on this machine"):
        service.install_up(UpOptions(home=tmp_path), units=tmp_path, running=tmp_path / "none")
    with pytest.raises(Refused):
        service.remove(units=tmp_path, running=tmp_path / "none")


def test_a_unit_that_can_not_be_written(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    systemd.units.rmdir()
    with pytest.raises(Failed, match=r"roost\.service can't be written"):
        systemd.install(UpOptions(home=tmp_path / "h"))
    assert systemd.asked == []


def test_removing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    systemd = Systemd(tmp_path)
    systemd.install(UpOptions(home=tmp_path / "h"))
    systemd.asked.clear()
    assert service.remove(units=systemd.units, running=systemd.running, run=systemd.run) == 0
    assert systemd.asked == ["disable --now roost.service", "daemon-reload"]
    assert not list(systemd.units.iterdir())
    capsys.readouterr()
    assert service.remove(units=systemd.units, running=systemd.running, run=systemd.run) == 0
    assert capsys.readouterr().out == "There is no roost.service.\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_itself_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    """The unit is read by systemd's own parser; running it needs a machine that systemd has booted."""
    unit = tmp_path / "roost.service"
    unit.write_text(service.unit_text([sys.executable, "-m", "roost.program", "up"], tmp_path / "a home"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://u:hush@h/d", "none of PostgreSQL"),
        ("mysql://u:hush@h/d", "none of PostgreSQL"),
        ("hush", "none of PostgreSQL"),
        ("postgresql://u:hush@h:port/d", "no port"),
        ("postgresql://u:hush@h", "not whole"),
        ("postgresql://u:hush hush@h/d", "not whole"),
    ],
)
def test_a_url_of_no_database_is_refused_and_not_repeated(
    node: Node, tmp_path: Path, url: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "url").write_text(url)
    assert node.run("up", "--database", f"{tmp_path}/url") == 2
    told = capsys.readouterr().err
    assert said in told and "postgresql+psycopg://" in told and "hush" not in told and not node.asked
