"""The real kubectl on access: roles and bindings, service accounts and their tokens, can-i, whoami, --as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.model.access import User, UserSpec
from roost.model.meta import Metadata
from tests.support import kubectl
from tests.support.api import ApiServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("access")) as running:
        olga = User(metadata=Metadata(name="olga"), spec=UserSpec(role="operator"))
        running.do(running.store.save(olga))
        yield running


class Run:
    """kubectl of one version, as administrator unless said otherwise; names are its own."""

    def __init__(self, server: ApiServer, version: str) -> None:
        self.server, self.version = server, version

    def __call__(self, *arguments: str, fails: bool = False, **options: Any) -> str:
        done = self.server.kubectl(*arguments, program=kubectl.program(self.version) or "", **options)
        assert (done.returncode != 0) is fails, (arguments, done.stdout, done.stderr)
        return done.stderr if fails else done.stdout

    def name(self, stem: str) -> str:
        return f"{stem}-{self.version}"


@pytest.fixture
def run(server: ApiServer, version: str) -> Run:
    return Run(server, version)


def test_roles_and_bindings(run: Run) -> None:
    role, binding, wide = run.name("looker"), run.name("binding"), run.name("wide")
    run("create", "role", role, "--verb=get,list", "--resource=hosts.roost.edge")
    run("create", "rolebinding", binding, f"--role={role}", "--user=eve", "--group=crew")
    run("create", "clusterrole", wide, "--verb=list", "--resource=clouds.roost.edge,hosts.roost.edge/status")
    run("create", "clusterrole", run.name("paths"), "--verb=get", "--non-resource-url=/logs/*")
    run("create", "clusterrole", run.name("sum"), "--aggregation-rule=roost.edge/aggregate-to-reader=true")
    run("create", "clusterrolebinding", wide, f"--clusterrole={wide}", "--user=eve")
    assert "hosts.roost.edge" in run("describe", "role", role)
    assert "crew" in run("describe", "rolebinding", binding)
    assert f"ClusterRole/{wide}" in run("get", "clusterrolebinding", wide, "-o", "wide") or wide in run(
        "get", "clusterrolebinding", wide
    )
    assert run("auth", "can-i", "list", "hosts", "--as=eve") == "yes\n"
    assert run("auth", "can-i", "list", "hosts", "--as=x", "--as-group=crew") == "yes\n"
    assert run("get", "hosts", "--as=eve") == ""
    refused = run("get", "hosts", "-A", "--as=eve", fails=True)
    assert 'User "eve" cannot list resource "hosts" in API group "roost.edge" at the cluster scope' in refused
    run("delete", "rolebinding", binding)
    assert "cannot list" in run("get", "hosts", "--as=eve", fails=True)


def test_service_accounts_and_their_tokens(run: Run, server: ApiServer, tmp_path: Path) -> None:
    bot = run.name("bot")
    run("create", "serviceaccount", bot)
    run("create", "rolebinding", bot, "--clusterrole=roost:reader", f"--serviceaccount=central:{bot}")
    path = f"/api/v1/namespaces/central/serviceaccounts/{bot}/token"
    if kubectl.minor(run.version) >= 24:
        token = run("create", "token", bot, "--duration=20m").strip()
    else:
        made = server.do(_token(server, path))
        token = made
    mine = server.kubeconfig(token)
    run("get", "hosts", kubeconfig=mine)
    assert f"system:serviceaccount:central:{bot}" in run("get", "clouds", kubeconfig=mine, fails=True)
    if kubectl.minor(run.version) >= 28:
        who = run("auth", "whoami", kubeconfig=mine)
        assert "system:serviceaccounts:central" in who and "credential-id" in who
    assert "hosts.roost.edge" in run("auth", "can-i", "--list", kubeconfig=mine)
    run("delete", "serviceaccount", bot)
    run("get", "hosts", kubeconfig=mine, fails=True)


async def _token(server: ApiServer, path: str) -> str:
    from tests.api.client import Client

    answer = await Client(server.app).post(path, {})
    return str(answer.ok(201)["status"]["token"])


def test_can_i_says_what_is_so(run: Run, server: ApiServer) -> None:
    assert run("auth", "can-i", "*", "*") == "yes\n"
    for words, answer in (
        (("get", "/healthz"), "yes"),
        (("get", "/logs"), "no"),
        (("list", "hosts"), "yes"),
        (("create", "operations.roost.edge"), "yes"),
        (("create", "hosts"), "no"),
        (("create", "users.roost.edge"), "no"),
    ):
        found = server.kubectl(
            "auth", "can-i", *words, "--as=olga", program=kubectl.program(run.version) or ""
        )
        assert found.stdout.startswith(answer), (words, found)
    listed = run("auth", "can-i", "--list", "--as=olga")
    assert "operate" in listed and "operations.roost.edge" in listed
    if kubectl.minor(run.version) >= 28:
        assert "roost:operators" in run("auth", "whoami", "--as=olga")
    refused = run("get", "hosts", "--as=olga", kubeconfig=server.reader, fails=True)
    assert 'User "rita" cannot impersonate resource "users"' in refused


def test_reconcile(run: Run, tmp_path: Path) -> None:
    name, path = run.name("rec"), tmp_path / "rec.yaml"
    path.write_text(
        f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- {{apiGroups: [roost.edge], resources: [hosts], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}, namespace: central}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: User, name: zed, apiGroup: rbac.authorization.k8s.io}}]
"""
    )

    def reconciled() -> str:
        program = kubectl.program(run.version) or ""
        done = run.server.kubectl("auth", "reconcile", "-f", str(path), program=program)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "required create" in reconciled()
    assert "reconciliation required" not in reconciled()
    path.write_text(path.read_text().replace("[get]", "[get, list]"))
    assert "missing rules added" in reconciled()
    assert run("auth", "can-i", "list", "hosts", "--as=zed") == "yes\n"
