"""A systemd unit that runs `roost up`: written, started, removed.

Secrets do not go into the unit: the join token and the database's URL are put into files under the
home, readable by their owner alone, which the unit's command names. Texts are made by pure functions.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from roost.cli import output
from roost.cli.options import UpOptions
from roost.cli.problems import OK, Failed, Refused

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
NAME = "roost.service"
SECONDS = 60.0

Run = Callable[[Sequence[str]], str]

_UNIT = """\
# Written by `roost up --systemd`; changes are overwritten by it.
[Unit]
Description=Roost edge cloud
Wants=network-online.target
After=network-online.target

[Service]
Type=simple
Environment={environment}
ExecStart={command}
Restart=always
RestartSec=2
TimeoutStopSec=30
KillMode=mixed
UMask=0077
LimitNOFILE=65536
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def install_up(
    options: UpOptions, *, units: Path = UNITS, running: Path = RUNNING, run: Run | None = None
) -> int:
    """Write the unit, start it now and at each start of the machine. Raises Refused, Failed."""
    systemctl = run or _systemctl
    _require(running)
    options.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    arguments = up_arguments(options, keep_secrets(options))
    text = unit_text([*program(), *arguments], options.home)
    try:
        (units / NAME).write_text(text)
    except OSError as error:
        raise Failed(
            f"{units / NAME} can't be written: {(error.strerror or str(error)).lower()}", "run as root"
        ) from error
    systemctl(["daemon-reload"])
    systemctl(["enable", NAME])
    systemctl(["restart", NAME])
    output.say(f"{NAME} is started and starts with the machine; `journalctl -u {NAME} -f` shows its log.")
    return OK


def remove(*, units: Path = UNITS, running: Path = RUNNING, run: Run | None = None) -> int:
    """Stop the unit and take it away. What lies under the home stays."""
    systemctl = run or _systemctl
    _require(running)
    if not (units / NAME).exists():
        output.say(f"There is no {NAME}.")
        return OK
    systemctl(["disable", "--now", NAME])
    (units / NAME).unlink(missing_ok=True)
    systemctl(["daemon-reload"])
    output.say(f"{NAME} is removed; the state of the cloud is kept.")
    return OK


def unit_text(command: Sequence[str], home: Path) -> str:
    """The unit that runs a command."""
    line = " ".join(_quoted(word) for word in command)
    return _UNIT.format(command=line, environment=_quoted(f"ROOST_HOME={home}"))


def up_arguments(options: UpOptions, secrets: dict[str, Path]) -> list[str]:
    """`up` and the options that say the same as `options`; `secrets` are files by option."""
    arguments = ["up", "--home", str(options.home), "--mode", options.mode, "--address", str(options.address)]
    arguments += ["--link-address", str(options.link_address)]
    if options.name:
        arguments += ["--name", options.name]
    for advertised in options.advertise:
        arguments += ["--advertise", str(advertised)]
    for role in options.roles:
        arguments += ["--role", role]
    named = (
        ("keys", options.keys),
        ("token-file", options.token_file),
        ("oidc-file", options.oidc_file),
        ("issuer", options.issuer),
    )
    for option, value in named:
        if value:
            arguments += [f"--{option}", value]
    for option, file in secrets.items():
        arguments += [f"--{option}", str(file)]
    if not options.host:
        arguments.append("--no-host")
    if options.contained:
        arguments.append("--contained")
    return arguments


def keep_secrets(options: UpOptions) -> dict[str, Path]:
    """Write what must not stand in the unit into files of the home; the files by option."""
    kept = {}
    for option, secret in (("join", options.join), ("database", options.database)):
        file = options.home / f"{option}.secret"
        if not secret:
            continue
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            os.fchmod(handle, 0o600)
            stream.write(secret + "\n")
        kept[option] = file
    return kept


def program() -> list[str]:
    """How to start this program again, with whole paths."""
    script = Path(sys.argv[0]).absolute()
    if script.name == "roost" and os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-m", "roost.program"]


def _require(running: Path) -> None:
    if not running.is_dir():
        raise Refused(
            "systemd does not run on this machine", "leave --systemd out and stay in the foreground"
        )


def _systemctl(arguments: Sequence[str]) -> str:
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError as error:
        raise Failed("systemctl is not there", "leave --systemd out and stay in the foreground") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(
            f"`{shlex.join(command)}` gave no answer in {SECONDS:g} seconds", "see `journalctl -xe`"
        ) from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(
            f"`{shlex.join(command)}` failed: {told[-1] if told else done.returncode}", "see `journalctl -xe`"
        )
    return done.stdout


def _quoted(word: str) -> str:
    """A word as systemd reads it: %, $, quotes and blanks protected."""
    safe = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{safe}"' if any(c in safe for c in " \t\"'\\;") or not safe else safe
