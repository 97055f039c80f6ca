"""What `roost demo exec` runs speaks to the cloud of its host."""

from __future__ import annotations

import subprocess
from pathlib import Path

from roost.cli.demo.commands import at_home


def test_a_command_finds_roost_and_the_cloud_of_its_host_whatever_the_caller_exported(tmp_path: Path) -> None:
    home, programs = tmp_path / "ridge-controller-0", tmp_path / "bin"
    programs.mkdir()
    (programs / "roost").write_text('#!/bin/sh\necho "$ROOST_HOME $ROOST_KUBECONFIG $KUBECONFIG"\n')
    (programs / "roost").chmod(0o755)
    argv = [*at_home(home, programs, "/usr/bin:/bin"), "roost", "status"]
    exported = {"PATH": "/usr/bin:/bin", "KUBECONFIG": "/elsewhere/kubeconfig", "ROOST_HOME": "/elsewhere"}
    done = subprocess.run(argv, env=exported, capture_output=True, text=True, check=True)
    assert done.stdout == f"{home} {home}/kubeconfig {home}/kubeconfig\n"
