"""Writing with the real kubectl, new and old: apply on the server and on the client, edit, patch, delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.model.codec import Raw
from roost.store.transaction import Transaction
from tests.api.conftest import Run
from tests.support import kubectl
from tests.support.api import ApiServer

HOST = """
apiVersion: roost.edge/v1
kind: Host
metadata:
  name: h1
  labels: {rack: a}
spec:
  location: %s
  interfaces:
  - {port: eth0, networks: [oam]}
"""
POLICY = """
apiVersion: roost.edge/v1
kind: FirewallPolicy
metadata: {name: p}
spec:
  networks: [oam]
  rules:
  - {action: allow, protocol: tcp, ports: ["22"]}
"""


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture
def server(module_server: ApiServer) -> Iterator[ApiServer]:
    """The server, with nothing in it afterwards."""
    yield module_server

    def clean(tx: Transaction) -> None:
        for kind in ("Host", "FirewallPolicy"):
            for stored in tx.select(kind):
                tx.drop(kind, stored.namespace, stored.name)

    module_server.do(module_server.store.transact(clean))


def get(run: Run, name: str = "host/h1") -> Raw:
    raw: Raw = json.loads(run("get", name, "-o", "json", "--show-managed-fields"))
    return raw


def managers(raw: Raw) -> list[tuple[str, str]]:
    return sorted((e["manager"], e["operation"]) for e in raw["metadata"].get("managedFields", []))


@pytest.fixture
def new_only(version: str) -> None:
    if kubectl.minor(version) < 22:
        pytest.skip("this kubectl has no --show-managed-fields, no migration and no subresources")


def test_apply_on_the_server(run: Run, version: str) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    assert run(*apply, stdin=HOST % "here") == "host.roost.edge/h1 serverside-applied\n"
    first = json.loads(run("get", "host", "h1", "-o", "json"))
    assert run(*apply, stdin=HOST % "here") == "host.roost.edge/h1 serverside-applied\n"
    assert json.loads(run("get", "host", "h1", "-o", "json")) == first
    run(*apply, stdin=HOST % "there")
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location} {.metadata.generation}") == "there 2"
    run(*apply, stdin=HOST.partition("spec:")[0])
    shown = json.loads(run("get", "host", "h1", "-o", "json"))
    assert shown["spec"]["location"] == "" and shown["spec"].get("interfaces", []) == []


def test_conflicts_and_the_three_ways_out(run: Run) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    run(*apply, "--field-manager=one", stdin=HOST % "here")
    refused = run(*apply, "--field-manager=two", stdin=HOST % "there", fails=True)
    assert 'Apply failed with 1 conflict: conflict with "one": .spec.location' in refused
    assert "--force-conflicts" in refused
    run(*apply, "--field-manager=two", stdin=HOST % "here")
    run(*apply, "--field-manager=two", "--force-conflicts", stdin=HOST % "there")
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "there"
    shown = json.loads(run("get", "--raw", "/apis/roost.edge/v1/namespaces/central/hosts/h1"))
    assert managers(shown) == [("one", "Apply"), ("two", "Apply")]
    (one,) = (e for e in shown["metadata"]["managedFields"] if e["manager"] == "one")
    assert "f:location" not in one["fieldsV1"]["f:spec"] and "f:interfaces" in one["fieldsV1"]["f:spec"]


@pytest.mark.usefixtures("new_only")
def test_managed_fields_are_shown_when_asked_for(run: Run) -> None:
    run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
    assert "managedFields" not in run("get", "host", "h1", "-o", "yaml")
    text = run("get", "host", "h1", "-o", "yaml", "--show-managed-fields")
    assert "manager: kubectl" in text and 'k:{"port":"eth0"}' in text
    assert "operation: Apply" in text


def test_diff_on_the_server(server: ApiServer, version: str, run: Run) -> None:
    run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
    program = kubectl.program(version) or ""
    same = server.kubectl("diff", "--server-side", "-f", "-", program=program, stdin=HOST % "here")
    assert (same.returncode, same.stdout) == (0, ""), same.stderr
    other = server.kubectl("diff", "--server-side", "-f", "-", program=program, stdin=HOST % "there")
    assert other.returncode == 1 and "+  location: there" in other.stdout, other.stderr
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "here"


@pytest.mark.usefixtures("new_only")
def test_from_client_side_to_server_side(run: Run) -> None:
    run("apply", "-f", "-", stdin=HOST % "here")
    assert managers(get(run)) == [("kubectl-client-side-apply", "Update")]
    assert (
        run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
        == "host.roost.edge/h1 serverside-applied\n"
    )
    # The second is kubectl's own, for the annotation of its client-side apply.
    after = [("kubectl", "Apply"), ("kubectl-last-applied", "Apply")]
    assert managers(get(run)) == after
    # What was made by the client goes when the server no longer has it applied.
    run("apply", "--server-side", "-f", "-", stdin=(HOST % "here").replace("  labels: {rack: a}\n", ""))
    shown = get(run)
    assert "labels" not in shown["metadata"] and managers(shown) == after


@pytest.mark.usefixtures("new_only")
def test_from_server_side_back_to_client_side(run: Run) -> None:
    run("apply", "-f", "-", stdin=HOST % "here")
    run("apply", "--server-side", "-f", "-", stdin=HOST % "there")
    annotation = "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}"
    assert json.loads(run("get", "host", "h1", "-o", annotation))["spec"]["location"] == "there"
    less = (HOST % "yonder").partition("  interfaces:")[0]
    assert run("apply", "-f", "-", stdin=less) == "host.roost.edge/h1 configured\n"
    shown = get(run)
    assert shown["spec"]["location"] == "yonder" and shown["spec"].get("interfaces", []) == []


def test_dry_runs(run: Run) -> None:
    made = run("apply", "--dry-run=server", "-f", "-", stdin=HOST % "here")
    assert made == "host.roost.edge/h1 created (server dry run)\n"
    made = run("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=HOST % "here")
    assert made == "host.roost.edge/h1 serverside-applied (server dry run)\n"
    assert run("get", "hosts", "-o", "name") == ""
    run("apply", "-f", "-", stdin=HOST % "here")
    planned = run("apply", "--dry-run=server", "-f", "-", "-o", "json", stdin=HOST % "there")
    assert json.loads(planned)["spec"]["location"] == "there"
    assert run("delete", "--dry-run=server", "host", "h1").endswith("deleted (server dry run)\n")
    patch = ("patch", "host", "h1", "--type=merge", "-p", '{"spec":{"location":"x"}}', "--dry-run=server")
    assert run(*patch, "-o", "jsonpath={.spec.location}") == "x"
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "here"


def test_edit(run: Run, tmp_path: Path) -> None:
    run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/location: here/location: edited/" "$1"\n')
    editor.chmod(0o755)
    assert "edited" in run("edit", "host", "h1", environment={"EDITOR": str(editor)})
    shown = json.loads(run("get", "--raw", "/apis/roost.edge/v1/namespaces/central/hosts/h1"))
    assert shown["spec"]["location"] == "edited"
    assert managers(shown) == [("kubectl", "Apply"), ("kubectl-edit", "Update")]
    refused = run("apply", "--server-side", "-f", "-", stdin=HOST % "here", fails=True)
    assert 'conflict with "kubectl-edit" using roost.edge/v1: .spec.location' in refused


def test_patches(run: Run, version: str) -> None:
    run("apply", "-f", "-", stdin=HOST % "here")
    run("patch", "host", "h1", "--type=merge", "-p", '{"spec":{"location":"merged"}}')
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "merged"
    step = [{"op": "replace", "path": "/spec/location", "value": "stepped"}]
    run("patch", "host", "h1", "--type=json", "-p", json.dumps(step))
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "stepped"
    refused = run("patch", "host", "h1", "--type=strategic", "-p", '{"spec":{}}', fails=True)
    assert "strategic merge patch is for built-in kinds" in refused
    if kubectl.minor(version) >= 24:
        patch = (
            "patch",
            "host",
            "h1",
            "--subresource=status",
            "--type=merge",
            "-p",
            '{"status":{"task":"x"}}',
        )
        assert "status is written by the cloud's controllers alone" in run(*patch, fails=True)


def test_create_with_a_generated_name(run: Run) -> None:
    body = '{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"generateName":"edge-"}}'
    names = {run("create", "-f", "-", "-o", "name", stdin=body).strip() for _ in range(3)}
    assert len(names) == 3 and all(n.startswith("host.roost.edge/edge-") for n in names)


@pytest.mark.parametrize(
    ("cascade", "finalizer"), [("background", ""), ("orphan", "orphan"), ("foreground", "foregroundDeletion")]
)
def test_delete_says_what_becomes_of_dependents(run: Run, cascade: str, finalizer: str) -> None:
    run("apply", "-f", "-", stdin=HOST % "here")
    run("delete", "host", "h1", f"--cascade={cascade}", "--wait=false")
    if not finalizer:
        assert "not found" in run("get", "host", "h1", fails=True)
        return
    shown = json.loads(run("get", "host", "h1", "-o", "json"))
    assert shown["metadata"]["finalizers"] == [finalizer] and shown["metadata"]["deletionTimestamp"]


def test_replace(run: Run) -> None:
    run("apply", "-f", "-", stdin=HOST % "here")
    before = run("get", "host", "h1", "-o", "jsonpath={.metadata.uid}")
    assert run("replace", "-f", "-", stdin=HOST % "there") == "host.roost.edge/h1 replaced\n"
    assert run("get", "host", "h1", "-o", "jsonpath={.metadata.uid}") == before
    run("replace", "--force", "-f", "-", stdin=HOST % "anew")
    assert run("get", "host", "h1", "-o", "jsonpath={.metadata.uid}") != before
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "anew"


def test_fields_that_are_misspelt(run: Run, version: str) -> None:
    if kubectl.minor(version) < 25:
        pytest.skip("this kubectl does not ask the server to be strict")
    wrong = HOST % "here" + "  lokation: x\n"
    for how in ("--server-side", "--server-side=false"):
        refused = run("apply", how, "--validate=strict", "-f", "-", stdin=wrong, fails=True)
        assert 'unknown field "spec.lokation"' in refused
    run("apply", "--server-side", "--validate=warn", "-f", "-", stdin=wrong)
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "here"


def test_a_list_that_is_one_field(run: Run) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    run(*apply, "--field-manager=one", stdin=POLICY)
    other = POLICY.replace("allow", "deny")
    assert ".spec.rules" in run(*apply, "--field-manager=two", stdin=other, fails=True)
    grown = POLICY.partition("  rules:")[0].replace("[oam]", "[mgmt]")
    run(*apply, "--field-manager=two", stdin=grown)
    assert run("get", "fwp", "p", "-o", "jsonpath={.spec.networks[*]}") == "oam mgmt"


def test_labels_and_annotations_have_owners(run: Run) -> None:
    run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
    run("label", "host", "h1", "tier=edge")
    run("annotate", "host", "h1", "note=hello")
    run("apply", "--server-side", "-f", "-", stdin=HOST % "here")
    shown = json.loads(run("get", "--raw", "/apis/roost.edge/v1/namespaces/central/hosts/h1"))
    assert shown["metadata"]["labels"] == {"rack": "a", "tier": "edge"}
    assert shown["metadata"]["annotations"] == {"note": "hello"}
    assert ("kubectl", "Apply") in managers(shown) and len(managers(shown)) >= 2
