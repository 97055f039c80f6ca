"""A GitOps round trip, as Argo CD and Flux go: a folder in git is what should be; drift is mended, what
leaves the folder is pruned, and a second run changes nothing.

The engine here is kubectl's own: server-side apply, diff, and pruning by applyset.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.clients.policies import policy
from tests.support.api import ApiServer


class Repository:
    """A git repository with manifests, and the cloud it is applied to."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server, self.folder = server, folder
        folder.mkdir()
        self._git("init", "-q")

    def write(self, name: str, order: int) -> None:
        """Put a policy into the folder and commit it."""
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(policy(name, order)))
        self._commit(f"Set {name} to {order}")

    def remove(self, name: str) -> None:
        """Take a policy out of the folder and commit that."""
        (self.folder / f"{name}.yaml").unlink()
        self._commit(f"Remove {name}")

    def diff(self) -> int:
        """kubectl's answer: 0 in sync, 1 drifted.

        Asked as another manager, for diff does not know of the applyset's label and would remove it.
        """
        done = self._server.kubectl(
            "diff", "--server-side", "--field-manager=preview", "--force-conflicts", "-f", str(self.folder)
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode

    def sync(self) -> str:
        """Apply the folder, prune what it does not have any more."""
        return self.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=gitops",
            "--prune",
            "--namespace=central",
            "--applyset=configmaps/gitops",
            "-f",
            str(self.folder),
            environment={"KUBECTL_APPLYSET": "true"},
        )

    def orders(self) -> dict[str, int]:
        """What the cloud has."""
        listed = json.loads(self.kubectl("get", "firewallpolicies", "-o", "json"))
        return {item["metadata"]["name"]: item["spec"]["order"] for item in listed["items"]}

    def kubectl(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """kubectl's output."""
        done = self._server.kubectl(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _commit(self, message: str) -> None:
        self._git("add", "-A")
        self._git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", message)

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, timeout=60)


@pytest.fixture
def repository(server: ApiServer, tmp_path: Path) -> Repository:
    return Repository(server, tmp_path / "manifests")


def test_round_trip(repository: Repository) -> None:
    repository.write("edge", 10)
    repository.write("core", 20)
    assert repository.diff() == 1
    repository.sync()
    assert repository.orders() == {"edge": 10, "core": 20}
    assert repository.diff() == 0

    def revisions() -> list[str]:
        listed = json.loads(repository.kubectl("get", "firewallpolicies", "-o", "json"))
        return [item["metadata"]["resourceVersion"] for item in listed["items"]]

    before = revisions()
    repository.sync()
    assert revisions() == before, "a sync without a change has changed something"

    repository.kubectl("patch", "firewallpolicy", "edge", "--type=merge", "-p", '{"spec": {"order": 99}}')
    assert repository.diff() == 1, "drift is not seen"
    repository.sync()
    assert repository.orders() == {"edge": 10, "core": 20}

    repository.write("core", 21)
    repository.remove("edge")
    assert "edge pruned" in repository.sync()
    assert repository.orders() == {"core": 21}
    assert repository.diff() == 0
