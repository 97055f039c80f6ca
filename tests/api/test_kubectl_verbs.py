"""What else kubectl does, new and old, verb by verb, with the collector of garbage at work."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.engine.controller import Runner
from roost.engine.faults import write_log
from roost.engine.garbage import GarbageController
from roost.store.transaction import Transaction
from tests.api.conftest import Run
from tests.support import kubectl
from tests.support.api import PATIENCE, ApiServer

KINDS = ("Host", "FirewallPolicy", "ConfigMap", "Secret", "Event", "LogEntry", "Lease")
HOST = """
apiVersion: roost.edge/v1
kind: Host
metadata: {{name: {name}, labels: {{rack: {rack}}}}}
spec: {{location: {location}}}
"""
MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, labels: {{set: {set}}}}}
data: {{key: {value}}}
"""


def host(name: str, rack: str = "a", location: str = "row-1") -> str:
    return HOST.format(name=name, rack=rack, location=location)


def config_map(name: str, set: str = "a", value: str = "one") -> str:
    return MAP.format(name=name, set=set, value=value)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as server:

        async def collect() -> asyncio.Task[None]:
            return asyncio.create_task(Runner(server.store, GarbageController("central", {})).run())

        async def end() -> None:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)

        collecting = server.do(collect())
        yield server
        server.do(end())


@pytest.fixture
def server(module_server: ApiServer) -> Iterator[ApiServer]:
    """The server, with nothing in it afterwards."""
    yield module_server

    def clean(tx: Transaction) -> None:
        for kind in KINDS:
            for stored in tx.select(kind):
                tx.drop(kind, stored.namespace, stored.name)

    module_server.do(module_server.store.transact(clean))


@pytest.fixture
def three(run: Run) -> None:
    run("apply", "-f", "-", stdin="---".join([host("h1"), host("h2", "b"), host("h3", "b", "row-2")]))


def since(version: str, minor: int) -> None:
    if kubectl.minor(version) < minor:
        pytest.skip(f"kubectl 1.{kubectl.minor(version)} can't do this yet")


@pytest.mark.usefixtures("three")
def test_every_form_of_output(run: Run, tmp_path: Path) -> None:
    assert run("get", "host", "h1", "-o", "go-template={{.spec.location}}") == "row-1"
    template = tmp_path / "template"
    template.write_text("{.items[*].metadata.name}")
    assert run("get", "hosts", "-o", f"jsonpath-file={template}") == "h1 h2 h3"
    columns = "WHO:.metadata.name,WHERE:.spec.location"
    assert run("get", "hosts", "-o", f"custom-columns={columns}").split()[:4] == [
        "WHO",
        "WHERE",
        "h1",
        "row-1",
    ]
    template.write_text("WHO WHERE\n.metadata.name .spec.location\n")
    assert run("get", "hosts", "-o", f"custom-columns-file={template}").split()[-2:] == ["h3", "row-2"]
    template.write_text('{{range .items}}{{.metadata.name}}{{","}}{{end}}')
    assert run("get", "hosts", "-o", f"go-template-file={template}") == "h1,h2,h3,"
    order = run("get", "hosts", "--sort-by=.spec.location", "-o", "name").split()
    assert order[-1] == "host.roost.edge/h3"
    assert len(run("get", "hosts", "--chunk-size=1", "--no-headers").splitlines()) == 3
    raw = json.loads(run("get", "--raw", "/apis/roost.edge/v1/namespaces/central/hosts?limit=1"))
    assert len(raw["items"]) == 1 and raw["metadata"]["continue"]


@pytest.mark.usefixtures("three")
def test_several_kinds_at_once(run: Run) -> None:
    run("create", "configmap", "m1", "--from-literal=a=b")
    shown = run("get", "hosts,configmaps")
    assert "host.roost.edge/h1" in shown and "configmap/m1" in shown
    assert run("get", "host/h1", "cm/m1", "-o", "name").split() == ["host.roost.edge/h1", "configmap/m1"]
    assert "host.roost.edge/h1" in run("get", "roost")
    assert "doesn't have a resource type" in run("get", "all", fails=True)


def test_every_kind_of_namespace_is_listed_everywhere(run: Run) -> None:
    run("apply", "-f", "-", stdin=config_map("m1"))
    assert re.search(r"central +m1 +1 ", run("get", "cm", "-A"))
    assert run("get", "ns", "-o", "name") == "namespace/central\n"


def test_describe_shows_what_was_logged(server: ApiServer, run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    server.do(
        server.store.transact(
            lambda tx: write_log(
                tx, "central", event="host-unlocked", entity="host=h1", text="h1 is unlocked"
            )
        )
    )
    shown = run("describe", "host", "h1")
    assert re.search(r"Normal +HostUnlocked +\S+ +roost +h1 is unlocked", shown)
    assert re.search(r"Normal +HostUnlocked +Host +h1 +h1 is unlocked", run("get", "events"))
    only = run("get", "events", "--field-selector", "involvedObject.name=h2", "--ignore-not-found")
    assert only == ""


def test_events(server: ApiServer, version: str, run: Run) -> None:
    since(version, 26)
    run("apply", "-f", "-", stdin=host("h1"))
    server.do(
        server.store.transact(
            lambda tx: write_log(
                tx, "central", event="alarm-set", entity="host=h1", text="full", severity="major"
            )
        )
    )
    assert re.search(r"Warning +AlarmSet +Host/h1 +full", run("events"))
    assert "AlarmSet" in run("events", "--for", "host/h1", "--types=Warning")
    assert "AlarmSet" not in run("events", "--for", "host/h2")
    assert json.loads(run("events", "-o", "json"))["items"][0]["reason"] == "AlarmSet"


def test_explain_in_both_versions(run: Run, version: str) -> None:
    old = run("explain", "firewallpolicy.spec.rules.ports", "--api-version=roost.edge/v1")
    assert "[]string" in old
    new = run("explain", "firewallpolicy.spec.rules.ports", "--api-version=roost.edge/v2alpha1")
    assert "from" in new and "First port." in new and "-required-" in new
    tree = run("explain", "event", "--recursive", "--api-version=events.k8s.io/v1")
    assert "regarding" in tree and "lastObservedTime" in tree
    assert "holderIdentity" in run("explain", "lease.spec")
    if kubectl.minor(version) >= 27:
        assert "administrativeState" in run("explain", "host.spec", "--output=plaintext-openapiv2")


def test_a_kind_in_its_second_version(run: Run) -> None:
    # Whole, for a list is compared as one: what the server adds to its items would look like a change.
    rule = {
        "action": "allow",
        "direction": "ingress",
        "protocol": "tcp",
        "ports": [{"from": 8000, "to": 8010}],
        "peers": [],
        "description": "",
    }
    body = {
        "apiVersion": "roost.edge/v2alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "web"},
        "spec": {"networks": ["oam"], "rules": [rule]},
    }
    run("apply", "-f", "-", stdin=json.dumps(body))
    assert run("apply", "-f", "-", stdin=json.dumps(body)) == "firewallpolicy.roost.edge/web unchanged\n"
    path = "jsonpath={.spec.rules[0].ports}"
    assert json.loads(run("get", "firewallpolicies.v2alpha1.roost.edge", "web", "-o", path)) == [
        {"from": 8000, "to": 8010}
    ]
    assert json.loads(run("get", "firewallpolicies", "web", "-o", path)) == ["8000-8010"]
    assert "oam" in run("get", "firewallpolicies.v2alpha1.roost.edge")
    body["spec"] = {"networks": ["oam"], "rules": [{**rule, "ports": [{"from": 443}]}]}
    assert run("apply", "-f", "-", stdin=json.dumps(body)) == "firewallpolicy.roost.edge/web configured\n"
    assert json.loads(run("get", "fwp", "web", "-o", path)) == ["443"]


def test_labels_and_annotations(run: Run, version: str) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    assert "already has a value" in run("label", "host", "h1", "rack=z", fails=True)
    assert "labeled" in run("label", "--overwrite", "host", "h1", "rack=z")
    assert "rack=z" in run("label", "host", "h1", "--list")
    run("annotate", "host", "h1", "note=one")
    run("annotate", "--overwrite", "host", "h1", "note=two")
    if kubectl.minor(version) >= 21:
        assert "note=two" in run("annotate", "host", "h1", "--list")
    run("annotate", "host", "h1", "note-")
    assert run("get", "host", "h1", "-o", "jsonpath={.metadata.annotations.note}") == ""


def test_wait(server: ApiServer, version: str, run: Run) -> None:
    run("apply", "-f", "-", stdin=config_map("m1"))
    command = [str(kubectl.program(version)), "wait", "cm/m1", "--for=delete", "--timeout=50s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=server.environment()) as waiting:
        run("delete", "cm", "m1")
        waiting.communicate(timeout=PATIENCE)
        # Waiting for what is already gone fails with old versions: either way it ends at once.
        assert waiting.returncode in (0, 1)
    if kubectl.minor(version) >= 31:
        command = [str(kubectl.program(version)), "wait", "cm/m2", "--for=create", "--timeout=50s"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=server.environment()
        ) as waiting:
            run("apply", "-f", "-", stdin=config_map("m2"))
            text, _ = waiting.communicate(timeout=PATIENCE)
        assert text == "configmap/m2 condition met\n"


def test_what_is_served(run: Run) -> None:
    versions = run("api-versions").split()
    assert {
        "v1",
        "roost.edge/v1",
        "roost.edge/v2alpha1",
        "events.k8s.io/v1",
        "coordination.k8s.io/v1",
    } <= set(versions)
    names = run("api-resources", "-o", "name", "--verbs=create,delete").split()
    assert {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "hosts.roost.edge"} <= set(names)
    assert "logentries.roost.edge" not in names and "services" not in names
    assert "hosts.roost.edge" in run("api-resources", "-o", "name", "--api-group=roost.edge").split()


def test_cluster_info(server: ApiServer, run: Run) -> None:
    assert server.url in run("cluster-info") and "is running at" in run("cluster-info")
    assert "Metrics API not available" in run("top", "nodes", fails=True)
    assert "# TYPE roost_alarms gauge" in run("get", "--raw", "/metrics")
    assert "NotFound" in run("get", "--raw", "/metric", fails=True)
    assert run("get", "--raw", "/readyz") == "ok"
    assert run("config", "current-context") == "central\n"
    assert "__start_kubectl" in run("completion", "bash")


def test_delete_in_every_way(run: Run, tmp_path: Path) -> None:
    manifests = tmp_path / "maps.yaml"
    manifests.write_text("---".join(config_map(f"m{n}", "ab"[n % 2]) for n in range(6)))
    run("create", "-f", str(manifests))
    assert run("delete", "cm", "m0", "--wait") == 'configmap "m0" deleted\n'
    assert run("delete", "cm", "-l", "set=b").count("deleted") == 3
    assert run("delete", "cm", "m2", "--grace-period=5", "--wait=false") == 'configmap "m2" deleted\n'
    assert "m4" in run("delete", "cm", "--all")
    assert run("delete", "-f", str(manifests), "--ignore-not-found") == ""
    assert "NotFound" in run("delete", "cm", "m0", fails=True)


def test_delete_with_dependents(run: Run) -> None:
    for how, left in (("background", []), ("foreground", []), ("orphan", ["configmap/leaf"])):
        run("apply", "-f", "-", stdin=config_map("owner"))
        uid = run("get", "cm", "owner", "-o", "jsonpath={.metadata.uid}")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
        leaf = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "leaf", "ownerReferences": [{**reference, "blockOwnerDeletion": True}]},
        }
        run("create", "-f", "-", stdin=json.dumps(leaf))
        run("delete", "cm", "owner", f"--cascade={how}")
        if not left:
            run("wait", "--for=delete", "cm/leaf", "--timeout=50s") if "leaf" in run(
                "get", "cm", "--ignore-not-found"
            ) else ""
        assert run("get", "cm", "-o", "name", "--ignore-not-found").split() == left


def test_a_directory_and_kustomize(run: Run, tmp_path: Path) -> None:
    inner = tmp_path / "site" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "site" / "a.yaml").write_text(config_map("m1"))
    (inner / "b.yaml").write_text(host("h1"))
    assert run("apply", "-R", "-f", str(tmp_path / "site")).count("created") == 2
    (tmp_path / "site" / "kustomization.yaml").write_text(
        "resources: [a.yaml, inner/b.yaml]\nnamePrefix: x-\ncommonLabels: {site: north}\n"
    )
    done = run("apply", "-k", str(tmp_path / "site"))
    assert "configmap/x-m1 created" in done and "host.roost.edge/x-h1 created" in done
    assert run("get", "cm,hosts", "-l", "site=north", "-o", "name").split() == [
        "configmap/x-m1",
        "host.roost.edge/x-h1",
    ]


def test_prune_by_a_list_of_kinds(run: Run, version: str) -> None:
    both = "---".join([config_map("m1"), config_map("m2")])
    run("apply", "-f", "-", stdin=both)
    flag = "--prune-allowlist" if kubectl.minor(version) >= 26 else "--prune-whitelist"
    done = run(
        "apply", "--prune", "-l", "set=a", flag, "core/v1/ConfigMap", "-f", "-", stdin=config_map("m1")
    )
    assert "configmap/m2 pruned" in done
    assert run("get", "cm", "-o", "name") == "configmap/m1\n"


@pytest.mark.parametrize("parent", ["secrets/site", "configmaps/site"])
def test_prune_by_set(run: Run, version: str, parent: str) -> None:
    since(version, 27)
    both = "---".join([config_map("m1"), host("h1")])
    options = ("-n", "central", "--prune", f"--applyset={parent}", "-f", "-")
    environment = {"KUBECTL_APPLYSET": "true"}
    run("apply", *options, stdin=both, environment=environment)
    done = run("apply", *options, stdin=config_map("m1"), environment=environment)
    assert "host.roost.edge/h1 pruned" in done
    kind = parent.partition("/")[0]
    kinds = "jsonpath={.metadata.annotations.applyset\\.kubernetes\\.io/contains-group-kinds}"
    assert run("get", kind, "site", "-o", kinds) == "ConfigMap"


def test_proxy(server: ApiServer, version: str, run: Run) -> None:
    run("apply", "-f", "-", stdin=config_map("m1"))
    command = [str(kubectl.program(version)), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=server.environment()) as proxy:
        assert proxy.stdout is not None
        match = re.search(r"127\.0\.0\.1:\d+", proxy.stdout.readline())
        assert match
        url = f"http://{match[0]}/api/v1/namespaces/central/configmaps/m1"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert json.load(answer)["data"] == {"key": "one"}
        proxy.terminate()


def test_may_i(run: Run, server: ApiServer) -> None:
    for kind in (
        "events",
        "leases.coordination.k8s.io",
        "firewallpolicies.v2alpha1.roost.edge",
        "configmaps",
    ):
        assert run("auth", "can-i", "create", kind) == "yes\n"
    done = server.kubectl("auth", "can-i", "create", "leases", kubeconfig=server.reader)
    assert done.stdout.startswith("no")
