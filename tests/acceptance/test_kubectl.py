"""kubectl, as installed, at the centre and at subclouds through the centre's links."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.running import ROOST, Answer, Demo, run
from tests.acceptance.waiting import report, until

CLOUDS = ("central", "harbor", "ridge", "valley")
POLICY: dict[str, Any] = {
    "apiVersion": "roost.edge/v1",
    "kind": "FirewallPolicy",
    "metadata": {"name": "web"},
    "spec": {
        "networks": ["oam"],
        "order": 500,
        "rules": [{"action": "allow", "protocol": "tcp", "ports": ["443"], "description": "console"}],
    },
}


@pytest.fixture(scope="module")
def reader(demo: Demo, place: Path) -> Iterator[Path]:
    """The kubeconfig of a user who may look and not change, with contexts of all clouds."""
    demo.roost("user", "add", "rita", "--role", "reader").ok()
    token = demo.roost("user", "token", "rita", "-o", "name").ok().output.strip()
    config = yaml.safe_load(demo.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = place / "reader"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    yield path
    demo.roost("user", "delete", "rita", "--yes")


def as_reader(reader: Path, cloud: str, *arguments: str, text: str | None = None) -> Answer:
    argv = ["kubectl", "--kubeconfig", str(reader), "--context", cloud, "--request-timeout=20s", *arguments]
    return run(argv, text=text)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_each_context_answers_for_its_own_cloud(demo: Demo, cloud: str) -> None:
    clouds = demo.kubectl("get", "clouds", "-o", "name", cloud=cloud).ok().output.split()
    assert f"cloud.roost.edge/{cloud}" in clouds, clouds
    assert len(clouds) == (4 if cloud == "central" else 1), clouds
    hosts = demo.kubectl("get", "hosts", "-o", "json", cloud=cloud).json()["items"]
    assert {host["metadata"]["namespace"] for host in hosts} == {cloud}, "its own namespace is the default"


def test_a_watch_through_the_link_sees_a_change(demo: Demo) -> None:
    argv = ["kubectl", "--context", "ridge", "get", "hosts", "-w", "-o", "json", "--output-watch-events"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **demo.environment}
    ) as watch:
        try:
            assert watch.stdout is not None
            stream = _events(iter(lambda: watch.stdout.read(1), ""))  # type: ignore[union-attr]
            first = {(e["type"], e["object"]["metadata"]["name"]) for e in (next(stream), next(stream))}
            assert first == {("ADDED", "controller-0"), ("ADDED", "controller-1")}, first
            demo.kubectl("label", "host", "controller-1", "rack=b7", cloud="ridge").ok()
            for event in stream:
                if event["object"]["metadata"].get("labels", {}).get("rack") == "b7":
                    break
            assert (event["type"], event["object"]["metadata"]["name"]) == ("MODIFIED", "controller-1")
        finally:
            watch.kill()
    demo.kubectl("label", "host", "controller-1", "rack-", cloud="ridge").ok()


def _events(characters: Iterator[str]) -> Iterator[dict[str, Any]]:
    """JSON objects of a stream, one after another."""
    text, depth, quoted, escaped = "", 0, False, False
    for character in characters:
        text += character
        if quoted:
            escaped, quoted = (character == "\\" and not escaped), character != '"' or escaped
        elif character == '"':
            quoted = True
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                yield json.loads(text)
                text = ""


def test_apply_patch_wait_and_delete_at_a_subcloud_through_the_centre(demo: Demo) -> None:
    text = yaml.safe_dump(POLICY)
    assert "created" in demo.kubectl("apply", "-f", "-", cloud="valley", text=text).ok().output
    # kubectl says "configured", for list items have got defaults; generation 2 below tells otherwise.
    demo.kubectl("apply", "-f", "-", cloud="valley", text=text).ok()
    demo.kubectl("wait", "fwp/web", "--for=condition=Ready", "--timeout=40s", cloud="valley").ok()
    assert demo.local("valley", "get", "fwp", "web", "-o", "name").ok().output.strip().endswith("/web")
    rules = demo.inside("valley-worker-0", "nft", "list", "ruleset").ok().output
    assert "tcp dport 443" in rules, rules

    patch = json.dumps({"spec": {"order": 600}})
    demo.kubectl("patch", "fwp", "web", "--type=merge", "-p", patch, cloud="valley").ok()
    answer = demo.local("valley", "get", "fwp", "web", "-o", "jsonpath={.spec.order} {.metadata.generation}")
    assert answer.ok().output == "600 2", answer

    bad = {**POLICY, "spec": {**POLICY["spec"], "rules": [{"action": "allow", "ports": ["443"]}]}}
    refused = demo.kubectl("apply", "-f", "-", cloud="valley", text=yaml.safe_dump(bad))
    assert refused.code != 0 and "protocol any has no ports" in refused.said, refused
    assert "set protocol to tcp, udp or sctp" in refused.said, f"no remedy: {refused}"

    demo.kubectl("delete", "fwp", "web", "--timeout=30s", cloud="valley").ok()
    assert "NotFound" in demo.local("valley", "get", "fwp", "web").error

    def gone() -> None:
        seen = demo.kubectl("-n", "valley", "get", "fwp", "web")
        assert "NotFound" in seen.error, f"the centre still shows it: {seen}"
        rules = demo.inside("valley-worker-0", "nft", "list", "ruleset").ok().output
        assert "tcp dport 443" not in rules, "its rule is still in the kernel"

    until("a deleted policy is gone at the centre and from the kernel", gone, 40)


@pytest.mark.parametrize("cloud", ["central", "valley"])
def test_a_reader_may_look_and_not_change_here_and_through_the_link(
    demo: Demo, reader: Path, cloud: str
) -> None:
    seen = as_reader(reader, cloud, "get", "hosts", "-o", "name").ok().output.split()
    assert "host.roost.edge/controller-0" in seen, seen
    who = as_reader(reader, cloud, "auth", "whoami", "-o", "json")
    if who.code == 0:
        assert who.json()["status"]["userInfo"]["username"] == "rita", who
    assert as_reader(reader, cloud, "auth", "can-i", "list", "hosts").output.strip() == "yes"
    assert as_reader(reader, cloud, "auth", "can-i", "patch", "hosts").output.split()[0] == "no"
    before = demo.kubectl("get", "hosts", "-o", "json", cloud=cloud).json()["items"][0]["spec"]
    text = yaml.safe_dump(POLICY)
    for refused in (
        as_reader(reader, cloud, "label", "host", "controller-0", "mine=1"),
        as_reader(
            reader, cloud, "patch", "host", "controller-0", "-p", '{"spec":{"location":"x"}}', "--type=merge"
        ),
        as_reader(reader, cloud, "delete", "fwp", "--all"),
        as_reader(reader, cloud, "apply", "-f", "-", text=text),
    ):
        assert refused.code != 0 and "Forbidden" in refused.error, refused
        assert "rita" in refused.error and "reader" in refused.error, f"who and why is not said: {refused}"
    after = demo.kubectl("get", "hosts", "-o", "json", cloud=cloud).json()["items"][0]["spec"]
    assert after == before


def test_nobody_gets_in_without_a_credential(demo: Demo, place: Path) -> None:
    config = yaml.safe_load(demo.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": base64.b64encode(b"guessed").decode()}
    path = place / "nobody"
    path.write_text(yaml.safe_dump(config))
    for cloud in ("central", "ridge"):
        refused = as_reader(path, cloud, "get", "hosts")
        assert refused.code != 0, refused
        assert "Unauthorized" in refused.error or "must be logged in" in refused.error, refused


def test_a_write_to_a_mirrored_object_at_the_centre_is_refused_with_the_remedy(demo: Demo) -> None:
    for arguments in (
        ["label", "host", "controller-1", "a=b"],
        ["patch", "host", "controller-1", "--type=merge", "-p", '{"spec":{"administrativeState":"locked"}}'],
        ["delete", "host", "controller-1"],
    ):
        refused = demo.kubectl("-n", "ridge", *arguments)
        assert refused.code != 0, refused
        assert "its home is subcloud ridge" in refused.said, refused
        assert "kubectl --context ridge" in refused.said, f"the remedy is not said: {refused}"
    host = demo.local("ridge", "get", "host", "controller-1", "-o", "json").json()
    assert host["spec"]["administrativeState"] == "unlocked" and not host["metadata"].get("labels"), host
    remedy = run(
        [str(ROOST), "--cloud", "ridge", "host", "list", "-o", "name"], environment=demo.environment
    ).ok()
    assert "controller-1" in remedy.output


def test_a_copy_at_a_site_is_changed_at_the_centre_alone(demo: Demo) -> None:
    refused = demo.kubectl("delete", "fwp", "site-baseline.central", cloud="harbor")
    assert refused.code != 0 and "central" in refused.said, refused
    report(refused.said.strip())
