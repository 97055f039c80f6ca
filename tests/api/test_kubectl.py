"""The real kubectl, new and old, against a real server with TLS."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.engine import admission
from roost.model.cloud import Cloud, CloudSpec
from roost.model.codec import Raw
from roost.model.fault import Alarm, AlarmStatus
from roost.model.host import Host
from roost.model.meta import Condition, Metadata
from roost.store.transaction import Transaction
from tests.api.conftest import Run
from tests.support import kubectl
from tests.support.api import ApiServer

HOST = """
apiVersion: roost.edge/v1
kind: Host
metadata:
  name: {name}
  labels: {{rack: {rack}}}
spec:
  location: {location}
"""


def host(name: str, rack: str = "a", location: str = "row 1") -> str:
    return HOST.format(name=name, rack=rack, location=location)


def keep_locked(tx: Transaction, request: admission.Request) -> None:
    """A rule as a cloud has it: locked hosts alone are deleted."""
    if request.operation == "delete" and request.old is not None:
        assert isinstance(request.old, Host)
        if request.old.spec.administrative_state == "unlocked":
            raise admission.Refused("the host is unlocked", "lock it first: roost host lock NAME")


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    directory = tmp_path_factory.mktemp("api")
    with ApiServer(directory, rules={"Host": [keep_locked]}) as server:
        yield server


@pytest.fixture
def server(module_server: ApiServer) -> Iterator[ApiServer]:
    """The server, with no hosts and alarms in it."""
    yield module_server

    def clean(tx: Transaction) -> None:
        for kind in ("Host", "Alarm", "Subcloud", "User", "FirewallPolicy"):
            for stored in tx.select(kind):
                tx.drop(kind, stored.namespace, stored.name)

    module_server.do(module_server.store.transact(clean))


def rows(text: str) -> list[list[str]]:
    """Words of a table, line by line."""
    return [line.split() for line in text.strip().splitlines()]


@pytest.fixture
def three(run: Run) -> None:
    manifests = [host("h1"), host("h2", "b"), host("h3", "b", "row 2")]
    run("apply", "-f", "-", stdin="---".join(manifests))


def test_version(run: Run) -> None:
    assert "v1.33.0-roost+" in run("version")


def test_api_resources(run: Run) -> None:
    lines = {line[0]: line[1:] for line in rows(run("api-resources"))}
    assert lines["hosts"] == ["ho", "roost.edge/v1", "true", "Host"]
    assert lines["subclouds"] == ["sc", "roost.edge/v1", "false", "Subcloud"]
    assert lines["namespaces"] == ["ns", "v1", "false", "Namespace"]
    assert "credentials" not in lines
    names = run("api-resources", "-o", "name", "--api-group", "roost.edge", "--namespaced=false").split()
    assert {name.removesuffix(".roost.edge") for name in names} == {
        "clouds",
        "incidents",
        "subcloudgroups",
        "subcloudoperations",
        "subclouds",
        "uplinks",
        "users",
    }
    assert "roost.edge/v1" in run("api-versions").split()


@pytest.mark.usefixtures("three")
def test_get_as_table(run: Run) -> None:
    head, *lines = rows(run("get", "hosts"))
    assert head == ["NAME", "PERSONALITIES", "ADMINISTRATIVE", "OPERATIONAL", "AVAILABILITY", "TASK", "AGE"]
    assert [line[0] for line in lines] == ["h1", "h2", "h3"]
    assert lines[0][1:5] == ["controller,worker", "locked", "disabled", "offline"]
    assert re.fullmatch(r"\d+s", lines[0][-1])
    assert "KERNEL" in run("get", "hosts", "-o", "wide").splitlines()[0]
    assert "KERNEL" not in run("get", "hosts").splitlines()[0]
    assert rows(run("get", "ho", "h2", "--no-headers"))[0][0] == "h2"
    assert "rack=a" in run("get", "host", "h1", "--show-labels")
    assert rows(run("get", "host", "h1", "-L", "rack"))[1][-1] == "a"


@pytest.mark.usefixtures("three")
def test_get_as_data(run: Run) -> None:
    one = json.loads(run("get", "host", "h1", "-o", "json"))
    assert one["kind"] == "Host" and one["apiVersion"] == "roost.edge/v1"
    assert one["spec"]["location"] == "row 1" and one["spec"]["administrativeState"] == "locked"
    assert one["metadata"]["generation"] == 1 and one["metadata"]["uid"]
    several = json.loads(run("get", "hosts", "-o", "json"))
    assert [i["metadata"]["name"] for i in several["items"]] == ["h1", "h2", "h3"]
    assert "administrativeState: locked" in run("get", "host", "h1", "-o", "yaml")
    assert run("get", "hosts", "-o", "name").split() == [f"host.roost.edge/h{n}" for n in (1, 2, 3)]
    assert run("get", "hosts", "-o", "jsonpath={.items[*].spec.location}") == "row 1 row 1 row 2"
    columns = "custom-columns=N:.metadata.name,L:.spec.location"
    assert rows(run("get", "hosts", "-o", columns))[3] == ["h3", "row", "2"]
    template = "go-template={{range .items}}{{.metadata.name}};{{end}}"
    assert run("get", "hosts", "-o", template) == "h1;h2;h3;"


@pytest.mark.usefixtures("three")
def test_sort_and_select(run: Run) -> None:
    def names(*arguments: str) -> list[str]:
        return [r[0] for r in rows(run("get", "hosts", "--no-headers", *arguments))]

    run("patch", "host", "h1", "--type=merge", "-p", '{"spec":{"location":"zoo"}}')
    assert names("--sort-by=.spec.location") == ["h2", "h3", "h1"]
    assert names("-l", "rack=b") == ["h2", "h3"]
    assert names("-l", "rack in (a),!nothing") == ["h1"]
    assert names("-l", "rack notin (a)") == ["h2", "h3"]
    assert names("--field-selector", "metadata.name=h2") == ["h2"]
    assert names("--field-selector", "status.availability=offline,metadata.name!=h2") == ["h1", "h3"]
    assert names("--chunk-size=1") == ["h1", "h2", "h3"]
    refused = run("get", "hosts", "--field-selector", "spec.location=zoo", fails=True)
    assert "field label not supported: spec.location" in refused


def test_all_namespaces(server: ApiServer, run: Run) -> None:
    def mirror(tx: Transaction) -> None:
        meta = {"name": "h9", "namespace": "harbor", "uid": "u"}
        tx.copy({"apiVersion": "roost.edge/v1", "kind": "Host", "metadata": meta, "spec": {}}, "down:harbor")
        cloud = {"apiVersion": "roost.edge/v1", "kind": "Cloud", "metadata": {"name": "harbor", "uid": "c"}}
        tx.copy(cloud, "down:harbor")

    server.do(server.store.transact(mirror))
    run("apply", "-f", "-", stdin=host("h1"))
    lines = [r[:2] for r in rows(run("get", "hosts", "-A", "--no-headers"))]
    assert lines == [["central", "h1"], ["harbor", "h9"]]
    assert [r[0] for r in rows(run("get", "ns", "--no-headers"))] == ["central", "harbor"]
    assert [r[0] for r in rows(run("get", "hosts", "-n", "harbor", "--no-headers"))] == ["h9"]
    refused = run("label", "host", "h9", "-n", "harbor", "a=b", fails=True)
    assert "its home is subcloud harbor, here is a copy" in refused and "use its context" in refused
    refused = run("apply", "-n", "harbor", "-f", "-", stdin=host("h8"), fails=True)
    assert "namespace harbor belongs to subcloud harbor" in refused and "--context harbor" in refused
    server.do(server.store.transact(lambda tx: tx.drop("Cloud", "", "harbor")))


@pytest.mark.usefixtures("three")
def test_watch(server: ApiServer, version: str, run: Run) -> None:
    program = str(kubectl.program(version))
    with subprocess.Popen(
        [
            program,
            "get",
            "hosts",
            "-w",
            "-o",
            "custom-columns=N:.metadata.name,L:.spec.location",
            "--no-headers",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=server.environment(),
    ) as watching:
        guard = threading.Timer(60, watching.kill)
        guard.start()
        try:
            assert watching.stdout is not None
            first = [watching.stdout.readline().split()[0] for _ in range(3)]
            run("patch", "host", "h2", "--type=merge", "-p", '{"spec":{"location":"moved"}}')
            assert watching.stdout.readline().split() == ["h2", "moved"]
            run("delete", "host", "h3")
            assert watching.stdout.readline().split()[0] == "h3"
        finally:
            guard.cancel()
            watching.terminate()
    assert first == ["h1", "h2", "h3"]


def test_watch_as_table(server: ApiServer, version: str, run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    command = [str(kubectl.program(version)), "get", "hosts", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=server.environment()) as watching:
        guard = threading.Timer(60, watching.kill)
        guard.start()
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline().split()[0] == "NAME"
            assert watching.stdout.readline().split()[0] == "h1"
            run("apply", "-f", "-", stdin=host("h2"))
            assert watching.stdout.readline().split()[:3] == ["h2", "controller,worker", "locked"]
        finally:
            guard.cancel()
            watching.terminate()


def test_describe(run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    text = run("describe", "host", "h1")
    assert re.search(r"^Name: +h1$", text, re.MULTILINE)
    assert re.search(r"Administrative State: +locked", text)
    assert re.search(r"^Events: +<none>$", text, re.MULTILINE)


def test_create(run: Run) -> None:
    assert run("create", "-f", "-", stdin=host("h1")) == "host.roost.edge/h1 created\n"
    again = run("create", "-f", "-", stdin=host("h1"), fails=True)
    assert '(AlreadyExists): error when creating "STDIN": hosts.roost.edge "h1" already exists' in again
    generated = '{"apiVersion":"roost.edge/v1","kind":"Host","metadata":{"generateName":"edge-"}}'
    made = run("create", "-f", "-", "-o", "name", stdin=generated)
    assert re.fullmatch(r"host\.roost\.edge/edge-[a-z0-9]{5}\n", made)


def test_apply_diff_and_dry_run(server: ApiServer, version: str, run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "host.yaml"
    manifest.write_text(host("h1"))
    assert run("apply", "-f", str(manifest)) == "host.roost.edge/h1 created\n"
    assert run("apply", "-f", str(manifest)) == "host.roost.edge/h1 unchanged\n"
    manifest.write_text(host("h1", location="elsewhere"))
    difference = server.kubectl("diff", "-f", str(manifest), program=kubectl.program(version) or "")
    assert difference.returncode == 1, difference.stderr
    assert "-  location: row 1" in difference.stdout and "+  location: elsewhere" in difference.stdout
    planned = run("apply", "--dry-run=server", "-f", str(manifest), "-o", "jsonpath={.spec.location}")
    assert planned == "elsewhere"
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "row 1"
    assert run("apply", "-f", str(manifest)) == "host.roost.edge/h1 configured\n"
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location} {.metadata.generation}") == "elsewhere 2"
    same = server.kubectl("diff", "-f", str(manifest), program=kubectl.program(version) or "")
    assert (same.returncode, same.stdout) == (0, "")
    manifest.write_text(host("h1").replace("  labels: {rack: a}\n", ""))
    run("apply", "-f", str(manifest))
    assert run("get", "host", "h1", "-o", "jsonpath={.metadata.labels}") == ""


def test_edit(run: Run, tmp_path: Path) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/row 1/row 7/" "$1"\n')
    editor.chmod(0o755)
    assert "edited" in run("edit", "host", "h1", environment={"EDITOR": str(editor)})
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "row 7"


def test_patch_label_annotate(run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    patched = run("patch", "host", "h1", "--type=merge", "-p", '{"spec":{"thresholds":{"hysteresis":9}}}')
    assert patched == "host.roost.edge/h1 patched\n"
    steps = [
        {"op": "replace", "path": "/spec/location", "value": "row 5"},
        {"op": "test", "path": "/spec/forceLock", "value": False},
    ]
    run("patch", "host", "h1", "--type=json", "-p", json.dumps(steps))
    shown = run("get", "host", "h1", "-o", "jsonpath={.spec.location} {.spec.thresholds.hysteresis}")
    assert shown == "row 5 9"
    failing = '[{"op":"test","path":"/spec/location","value":"row 1"}]'
    assert "step 0 of the patch" in run("patch", "host", "h1", "--type=json", "-p", failing, fails=True)
    refused = run("patch", "host", "h1", "--type=strategic", "-p", '{"spec":{}}', fails=True)
    assert "strategic merge patch" in refused
    run("label", "host", "h1", "rack=z", "--overwrite")
    run("label", "host", "h1", "tier=edge")
    assert run("get", "hosts", "-l", "rack=z,tier=edge", "-o", "name") == "host.roost.edge/h1\n"
    run("label", "host", "h1", "tier-")
    run("annotate", "host", "h1", "note=hello there")
    shown = run("get", "host", "h1", "-o", "jsonpath={.metadata.labels.tier}|{.metadata.annotations.note}")
    assert shown == "|hello there"
    assert "is not a label value" in run(
        "patch", "host", "h1", "--type=merge", "-p", '{"metadata":{"labels":{"a":"b c"}}}', fails=True
    )


def test_replace(run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    body = json.loads(run("get", "host", "h1", "-o", "json"))
    body["spec"]["location"] = "row 3"
    assert run("replace", "-f", "-", stdin=json.dumps(body)) == "host.roost.edge/h1 replaced\n"
    conflict = run("replace", "-f", "-", stdin=json.dumps(body), fails=True)
    assert "(Conflict)" in conflict and "has changed" in conflict
    assert run("get", "host", "h1", "-o", "jsonpath={.spec.location}") == "row 3"


@pytest.mark.usefixtures("three")
def test_delete(run: Run) -> None:
    assert run("delete", "host", "h1") == 'host.roost.edge "h1" deleted\n'
    assert '(NotFound): hosts.roost.edge "h1" not found' in run("get", "host", "h1", fails=True)
    assert run("delete", "host", "h1", "--ignore-not-found") == ""
    run("patch", "host", "h2", "--type=merge", "-p", '{"spec":{"administrativeState":"unlocked"}}')
    refused = run("delete", "host", "h2", fails=True)
    assert "the host is unlocked; lock it first" in refused
    run("delete", "hosts", "-l", "rack=b", "--field-selector", "metadata.name=h3")
    assert run("get", "hosts", "-o", "name") == "host.roost.edge/h2\n"


def test_delete_waits_for_finalizers(server: ApiServer, run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    run("patch", "host", "h1", "--type=merge", "-p", '{"metadata":{"finalizers":["roost.edge/drain"]}}')
    run("delete", "host", "h1", "--wait=false")
    assert run("get", "host", "h1", "-o", "jsonpath={.metadata.deletionTimestamp}")
    run("patch", "host", "h1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "NotFound" in run("get", "host", "h1", fails=True)


def test_wait(server: ApiServer, version: str, run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    assert "timed out" in run("wait", "host/h1", "--for=condition=Ready", "--timeout=1s", fails=True)
    command = [str(kubectl.program(version)), "wait", "host/h1", "--for=condition=Ready", "--timeout=50s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=server.environment()) as waiting:
        ready = Condition(type="Ready", status="True", reason="Tested", last_transition_time="")

        def settle(tx: Transaction) -> None:
            raw: Raw = tx.get("Host", "central", "h1").raw
            condition = {"type": ready.type, "status": ready.status, "reason": ready.reason}
            settled = {"conditions": [condition], "observedGeneration": raw["metadata"]["generation"]}
            tx.replace({**raw, "status": {**raw["status"], **settled}})

        server.do(server.store.transact(settle))
        text, _ = waiting.communicate(timeout=60)
    assert text == "host.roost.edge/h1 condition met\n" and waiting.returncode == 0
    if kubectl.minor(version) >= 23:
        met = run("wait", "host/h1", "--for=jsonpath={.status.availability}=offline", "--timeout=20s")
        assert met == "host.roost.edge/h1 condition met\n"


def test_explain(run: Run, version: str) -> None:
    text = run("explain", "host.spec.thresholds")
    assert "When monitors speak up." in text and "hysteresis" in text and "filesystem" in text
    assert "Unit: percent." in run("explain", "hosts.spec.thresholds.processor.major")
    tree = run("explain", "host", "--recursive")
    for field in ("administrativeState", "personalities", "inventory", "bootId", "resourceVersion"):
        assert field in tree
    if kubectl.minor(version) >= 27:
        assert "locked\n    unlocked" in run("explain", "host.spec.administrativeState")
    assert "does not exist" in run("explain", "host.spec.nonsense", fails=True)


def test_auth(server: ApiServer, version: str, run: Run) -> None:
    assert run("auth", "can-i", "create", "hosts") == "yes\n"
    assert run("auth", "can-i", "*", "*") == "yes\n"
    reader = server.reader

    def asks(*arguments: str) -> str:
        program = kubectl.program(version) or ""
        return server.kubectl("auth", "can-i", *arguments, program=program, kubeconfig=reader).stdout

    assert asks("get", "hosts") == "yes\n"
    assert asks("delete", "hosts").startswith("no")
    assert server.kubectl("auth", "can-i", "create", "alarms").stdout.startswith("no")
    listed = run("auth", "can-i", "--list")
    assert re.search(r"hosts\.roost\.edge .*\[get list watch create update patch delete", listed)
    if kubectl.minor(version) >= 28:
        assert "roost:administrators" in run("auth", "whoami")


def test_reader_looks_only(server: ApiServer, run: Run) -> None:
    run("apply", "-f", "-", stdin=host("h1"))
    assert "h1" in run("get", "hosts", kubeconfig=server.reader)
    refused = run("delete", "host", "h1", kubeconfig=server.reader, fails=True)
    assert (
        'User "rita" cannot delete resource "hosts" in API group "roost.edge" in the namespace "central"'
        in refused
    )


def test_bearer_token(server: ApiServer, run: Run) -> None:
    run("create", "-f", "-", stdin='{"apiVersion":"roost.edge/v1","kind":"User","metadata":{"name":"tom"}}')
    path = "/apis/roost.edge/v1/users/tom/token"
    answer = json.loads(run("create", "--raw", path, "-f", "-", stdin='{"spec":{"expirationSeconds":900}}'))
    config = server.kubeconfig(answer["status"]["token"])
    assert run("get", "hosts", "-o", "name", kubeconfig=config) == ""
    assert "cannot create" in run("create", "-f", "-", stdin=host("h1"), kubeconfig=config, fails=True)
    run("patch", "user", "tom", "--type=merge", "-p", '{"spec":{"disabled":true}}')
    assert 'user "tom" is disabled' in run("get", "hosts", kubeconfig=config, fails=True)
    run("delete", "user", "tom")
    run("create", "-f", "-", stdin='{"apiVersion":"roost.edge/v1","kind":"User","metadata":{"name":"tom"}}')
    refused = run("get", "hosts", kubeconfig=config, fails=True)
    assert "must be logged in" in refused or "Unauthorized" in refused


def test_errors_name_field_reason_and_remedy(run: Run) -> None:
    wrong = host("h1").replace("location: row 1", "thresholds: {processor: {major: 96, critical: 95}}")
    refused = run("create", "-f", "-", stdin=wrong, fails=True)
    assert 'Host.roost.edge "h1" is invalid' in refused or 'The Host "h1" is invalid' in refused
    assert "spec.thresholds.processor: levels must rise from minor to critical; set minor < major" in refused
    unknown = run("create", "-f", "-", stdin=host("h1").replace("location", "lokation"), fails=True)
    assert "lokation" in unknown and "unknown field" in unknown
    enum = run("patch", "--dry-run=server", "host", "x", "--type=merge", "-p", "{}", fails=True)
    assert 'hosts.roost.edge "x" not found' in enum
    assert "Invalid value: 'H_1'" in run("create", "-f", "-", stdin=host("H_1"), fails=True)
    compiled = '{"apiVersion":"roost.edge/v1","kind":"HostConfiguration","metadata":{"name":"h1"}}'
    assert "written by the cloud's controllers alone" in run("create", "-f", "-", stdin=compiled, fails=True)
    assert 'the server doesn\'t have a resource type "pods"' in run("get", "pods", fails=True)


def test_alarm_is_acknowledged_not_made(server: ApiServer, run: Run) -> None:
    alarm = Alarm(
        metadata=Metadata(name="a1", namespace="central"),
        status=AlarmStatus(alarm_id="200.001", severity="warning", entity="host=h1", reason="h1 is locked"),
    )
    server.do(server.store.save(alarm))
    run(
        "patch",
        "alarm",
        "a1",
        "--type=merge",
        "-p",
        '{"spec":{"acknowledgedBy":"me"},"status":{"severity":"critical"}}',
    )
    shown = run("get", "alarm", "a1", "-o", "jsonpath={.spec.acknowledgedBy} {.status.severity}")
    assert shown == "me warning"
    refused = run("delete", "alarm", "a1", fails=True)
    assert "resources of this kind are deleted by the cloud's controllers alone; remove its cause" in refused


def test_the_cloud_itself(server: ApiServer, run: Run) -> None:
    server.do(server.store.save(Cloud(metadata=Metadata(name="central"), spec=CloudSpec(location="Bremen"))))
    assert re.search(r"Location: +Bremen", run("describe", "cloud", "central"))
    refused = run("delete", "cloud", "central", fails=True)
    assert "resources of this kind are deleted by" in refused
