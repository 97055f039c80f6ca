"""Exit codes and sentences for what goes wrong before a cloud is reached; help; completion."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roost import __version__
from roost.cli.main import VERBS, app, hoist
from roost.model.host import Host
from roost.model.meta import Metadata
from tests.cli.conftest import Roost
from tests.support.api import ApiServer


def kubeconfig(path: Path, server: str, **user: str) -> Path:
    config = {
        "current-context": "far",
        "clusters": [{"name": "far", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_version(roost: Roost) -> None:
    result = roost("--version")
    assert (result.code, result.out.strip()) == (0, __version__)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], 'unknown command "nonsense"'),
        (["nonsense"], "`roost --help` shows what there is"),
        (["hosts", "list"], "`roost --help` shows what there is"),
        (["host", "lok"], 'Did you mean "lock"?'),
        (["host", "lok"], "`roost host --help` shows"),
        (["host", "list", "--colour"], "`roost host list --help` shows"),
        (["get", "hosts", "--colour"], "`roost get --help` shows"),
        (["host", "lock"], "parameter NAME requires an argument"),
        (["host", "list", "--colour"], "unknown option: --colour"),
        (["host", "list", "-o", "jsn"], 'Did you mean "json"?'),
        (["delete"], "name either KIND and NAME, or files with -f"),
        (["apply", "-f", "missing.yaml"], "missing.yaml can't be read: no such file or directory"),
        (["log", "list", "--since", "yesterday"], "write a span, as 90s, 30m, 2h"),
    ],
)
def test_wrong_usage_is_two_and_one_sentence(roost: Roost, arguments: list[str], sentence: str) -> None:
    result = roost(*arguments)
    assert result.code == 2
    assert sentence in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_without_a_kubeconfig_it_says_what_to_do(roost: Roost) -> None:
    result = roost("host", "list")
    assert result.code == 2
    assert "no kubeconfig" in result.err
    assert "roost up" in result.err
    assert "roost login" in result.err


def test_nobody_listens(roost: Roost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(
        "KUBECONFIG", str(kubeconfig(tmp_path / "k", f"https://127.0.0.1:{port}", token="x.y"))
    )
    result = roost("host", "list")
    assert result.code == 3
    assert f"cloud far at https://127.0.0.1:{port} can't be reached: connection refused" in result.err
    assert "x.y" not in result.err


def test_nobody_answers_in_time(roost: Roost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "k", f"http://127.0.0.1:{port}")))
        result = roost("host", "list", "--request-timeout", "0.2")
    assert result.code == 3
    assert "no answer in time" in result.err


def test_a_foreign_authority_is_not_trusted(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "foreign", server.url, token="x.y")
    result = roost("host", "list", "--kubeconfig", str(path))
    assert result.code == 3
    assert "its certificate is not trusted" in result.err
    assert "roost login" in result.err


def test_denied_is_five(roost: Roost, server: ApiServer) -> None:
    stranger = server.kubeconfig("0123456789abcdef.wrong")
    result = roost("host", "list", "--kubeconfig", str(stranger))
    assert result.code == 5
    assert "does not accept these credentials" in result.err
    reader = roost("user", "add", "ada", "--kubeconfig", str(server.reader))
    assert reader.code == 5
    assert 'User "rita" cannot create resource "users"' in reader.err
    assert reader.err.count("ask an administrator") == 1 and "operate" not in reader.err
    server.do(server.store.save(Host(metadata=Metadata(name="controller-0", namespace="central"))))
    lock = roost("host", "lock", "controller-0", "--kubeconfig", str(server.reader))
    assert lock.code == 5
    assert "for administrativeState, forceLock and recoveryRound the verb operate is enough" in lock.err


def test_not_found_is_four(roost: Roost, server: ApiServer) -> None:
    assert roost("host", "show", "nobody").code == 4
    result = roost("get", "host", "nobody")
    assert result.code == 4
    assert '"nobody" not found' in result.err


def test_unknown_kind_names_those_there_are(roost: Roost, server: ApiServer) -> None:
    result = roost("get", "pods")
    assert result.code == 2
    assert "there is no kind 'pods'" in result.err
    assert "hosts" in result.err and "leases" in result.err and "rolebindings" in result.err
    assert "did you mean hosts?" in roost("get", "hots").err


def test_an_unknown_kind_in_a_file_is_told_with_file_and_document(
    roost: Roost, server: ApiServer, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("---\napiVersion: roost.edge/v1\nkind: Hots\nmetadata: {name: a}\n")
    for verb in ("apply", "delete"):
        result = roost(verb, "-f", str(file))
        assert result.code == 2
        assert f"{file}, document 1: there is no kind 'Hots'" in result.err
        assert "did you mean Host?" in result.err


@pytest.mark.parametrize("name", ["firewallpolicies.roost.edge", "firewallpolicies.v1.roost.edge", "fwp"])
def test_kinds_are_named_as_kubectl_takes_them(roost: Roost, server: ApiServer, name: str) -> None:
    assert roost("get", name).code == 0
    assert roost("get", "firewallpolicies.v9.roost.edge").code == 2
    assert roost("get", "roles.rbac.authorization.k8s.io").code == 0


def test_options_may_stand_before_the_command() -> None:
    assert hoist(["--cloud", "harbor", "host", "list"]) == ["host", "list", "--cloud", "harbor"]
    assert hoist(["-n=x", "-o", "json", "get", "hosts"]) == ["get", "hosts", "-n=x", "-o", "json"]
    assert hoist(["-n", "x", "get", "--", "hosts"]) == ["get", "-n", "x", "--", "hosts"]
    assert hoist(["--version"]) == ["--version"]
    assert hoist(["--cloud", "x"]) == ["--cloud", "x"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(roost: Roost, verb: str) -> None:
    result = roost(verb, "--help")
    assert result.code == 0
    assert "Usage: roost" in result.out
    for command in app[verb]:
        if command.startswith("-"):
            continue
        told = roost(verb, command, "--help").out
        assert "For example:" in told, f"{verb} {command}"
        assert f"roost {verb}" in told or "roost --cloud" in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_verbs(roost: Roost, shell: str, tmp_path: Path) -> None:
    result = roost("completion", shell)
    assert result.code == 0
    for word in ("subcloud", "unlock", "--all-namespaces"):
        assert word in result.out.replace("-l all-namespaces", "--all-namespaces")
    if shell == "bash":
        script = tmp_path / "roost.bash"
        script.write_text(result.out)
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED_EARLY = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "roost.cli.options":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from roost.program import main
sys.exit(main())
"""


def test_ctrl_c_is_quiet_also_before_the_command_has_begun() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_EARLY],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_help_says_what_an_option_is_when_it_is_left_out(roost: Roost) -> None:
    told = " ".join(roost("host", "lock", "--help").out.replace("│", " ").split())
    assert "[default: 600]" in told and "[default: 30]" in told and "[default: table]" in told
    assert 'default: ""' not in told and "[default: False]" not in told


def test_a_closed_pipe_is_quiet(server: ApiServer, controller: object, tmp_path: Path) -> None:
    code = "import sys\nfrom roost.cli.main import app, run\nsys.exit(run(app, sys.argv[1:]))"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "host", "list"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env=server.environment(),
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_heavy_parts_are_imported_only_when_used() -> None:
    code = (
        "import sys\nfrom roost.cli.main import app, run\nrun(app, ['--help'])\n"
        "heavy = {'httpx', 'yaml', 'sqlalchemy', 'cryptography', 'starlette'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "set()"
