"""Applying files: what is created, changed, removed, left alone; all or nothing; kubectl beside it."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from roost.cli.manifests import parse
from roost.cli.problems import Misused
from roost.engine.vault import Vault
from roost.link.files import write_private
from roost.model.firewall import FirewallPolicy
from tests.cli.conftest import Result, Roost
from tests.support.api import ApiServer

POLICY = """\
apiVersion: roost.edge/v1
kind: FirewallPolicy
metadata: {name: platform, labels: {team: edge}}
spec:
  networks: [oam]
  order: 10
  rules:
  - {action: allow, protocol: tcp, ports: ["22"]}
"""
NETWORK = """\
apiVersion: roost.edge/v1
kind: PlatformNetwork
metadata: {name: oam}
spec: {type: oam, subnets: [192.0.2.0/24]}
"""


def policy(server: ApiServer) -> FirewallPolicy:
    return server.do(server.store.read(lambda tx: tx.load(FirewallPolicy, "central", "platform")))


def test_created_then_unchanged_then_configured(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"{POLICY}---\n{NETWORK}")
    first = roost("apply", "-f", str(file))
    assert (first.code, first.out) == (0, "firewallpolicy/platform created\nplatformnetwork/oam created\n")
    before = policy(server).metadata.resource_version
    second = roost("apply", "-f", str(file))
    assert second.out == "firewallpolicy/platform unchanged\nplatformnetwork/oam unchanged\n"
    assert policy(server).metadata.resource_version == before
    file.write_text(
        POLICY.replace("  order: 10\n", "").replace(", labels: {team: edge}", "") + "---\n" + NETWORK
    )
    third = roost("apply", "-f", str(file))
    assert third.out == "firewallpolicy/platform configured\nplatformnetwork/oam unchanged\n"
    now = policy(server)
    assert now.spec.order == 1000, "what the file no longer says goes back to its default"
    assert now.metadata.labels == {}


def test_another_served_version_is_applied_as_it_stands(
    roost: Roost, server: ApiServer, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    newer = POLICY.replace("roost.edge/v1", "roost.edge/v2alpha1").replace('["22"]', "[{from: 22}]")
    file.write_text(newer)
    assert roost("apply", "-f", str(file)).out == "firewallpolicy/platform created\n"
    assert policy(server).spec.rules[0].ports == ["22"]
    assert roost("apply", "-f", str(file)).out == "firewallpolicy/platform unchanged\n"
    file.write_text(newer.replace("{from: 22}", "{from: 22}, {from: 8000, to: 8010}"))
    shown = roost("apply", "-f", str(file), "--diff").out
    assert "+    - from: 8000\n+      to: 8010\n" in shown and "apiVersion" not in shown
    assert roost("apply", "-f", str(file)).out == "firewallpolicy/platform configured\n"
    assert policy(server).spec.rules[0].ports == ["22", "8000-8010"]
    assert server.kubectl("apply", "--server-side", "--field-manager=roost", "-f", str(file)).returncode == 0


@pytest.mark.parametrize("version", ["roost.edge/v7", "apps/v1", "v1", "../v1", "roost.edge/v1/hosts"])
def test_a_version_that_is_not_served_is_refused_with_those_that_are(
    roost: Roost, server: ApiServer, version: str, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"{NETWORK}---\n{POLICY.replace('roost.edge/v1', version)}")
    before = server.store.revision
    result = roost("apply", "-f", str(file))
    assert result.code == 2 and f"is not served in apiVersion '{version}'" in result.err
    assert "roost.edge/v1, roost.edge/v2alpha1" in result.err
    assert server.store.revision == before


def test_one_object_in_two_versions_stands_twice(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    newer = POLICY.replace("roost.edge/v1", "roost.edge/v2alpha1").replace('["22"]', "[{from: 22}]")
    file.write_text(f"{POLICY}---\n{newer}")
    assert "stands twice" in roost("apply", "-f", str(file)).err


def test_one_bad_object_and_nothing_is_changed(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY)
    (tmp_path / "b.yaml").write_text(NETWORK.replace("192.0.2.0/24", "192.0.2.7/24"))
    result = roost("apply", "-f", str(tmp_path / "a.yaml"), "-f", str(tmp_path / "b.yaml"))
    assert result.code == 1
    assert "b.yaml, document 1: can't apply platformnetwork oam" in result.err
    assert "spec.subnets[0]" in result.err
    assert "nothing was changed" in result.err
    assert roost("get", "firewallpolicies").out == ""


def test_dry_run_with_differences(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(POLICY)
    assert roost("apply", "-f", str(file)).code == 0
    file.write_text(POLICY.replace("order: 10", "order: 20"))
    result = roost("apply", "-f", str(file), "--dry-run", "--diff")
    assert result.code == 0
    assert "-  order: 10\n+  order: 20\n" in result.out
    assert result.out.splitlines()[-1] == "firewallpolicy/platform configured (dry run)"
    assert "managedFields" not in result.out
    assert policy(server).spec.order == 10
    alone = roost("apply", "-f", str(file), "--diff")
    assert (alone.code, alone.err) == (0, "Nothing was changed; without --diff it is applied.\n")
    assert "-  order: 10\n+  order: 20\n" in alone.out
    assert policy(server).spec.order == 10
    file.write_text(POLICY)
    same = roost("apply", "-f", str(file), "--diff")
    assert (same.code, same.out, same.err) == (0, "", "No difference.\n")


def test_a_misspelt_field_is_refused(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(POLICY.replace("order: 10", "ordre: 10"))
    result = roost("apply", "-f", str(file))
    assert result.code == 1
    assert 'unknown field "spec.ordre"' in result.err
    file.write_text(POLICY)
    assert roost("apply", "-f", str(file)).code == 0
    file.write_text(POLICY.replace("order: 10", "ordre: 10"))
    assert 'unknown field "spec.ordre"' in roost("apply", "-f", str(file)).err
    assert policy(server).spec.order == 10


def test_from_standard_input(roost: Roost, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POLICY.encode())))
    assert roost("apply", "-f", "-").out == "firewallpolicy/platform created\n"


def test_the_same_object_twice_is_refused(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{POLICY}---\n{POLICY}")
    result = roost("apply", "-f", str(tmp_path))
    assert result.code == 2
    assert "firewallpolicy/platform stands twice" in result.err


def test_what_others_wrote_is_left_alone(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(POLICY)
    roost("apply", "-f", str(file))
    assert server.kubectl("label", "fwp", "platform", "owner=kubectl").returncode == 0
    assert roost("apply", "-f", str(file)).out == "firewallpolicy/platform unchanged\n"
    assert policy(server).metadata.labels == {"team": "edge", "owner": "kubectl"}


def test_what_others_set_is_taken_over_by_force_only(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(POLICY)
    assert server.kubectl("apply", "--server-side", "-f", str(file)).returncode == 0
    assert roost("apply", "-f", str(file)).out == "firewallpolicy/platform unchanged\n"
    file.write_text(POLICY.replace("order: 10", "order: 20"))
    contested = roost("apply", "-f", str(file))
    assert contested.code == 1
    assert ".spec.order" in contested.err and '"kubectl"' in contested.err
    assert "--force" in contested.err and "nothing was changed" in contested.err
    assert contested.err.count(".spec.order") == 1, "each conflict is told once"
    assert policy(server).spec.order == 10
    file.write_text(POLICY.replace("order: 10", "order: 20").replace("oam", "mgmt").replace("edge}", "core}"))
    several = roost("apply", "-f", str(file)).err
    assert several.count(".spec.order") == several.count(".metadata.labels.team") == 1
    file.write_text(POLICY.replace("order: 10", "order: 20"))
    assert roost("apply", "-f", str(file), "--force").out == "firewallpolicy/platform configured\n"
    assert policy(server).spec.order == 20


SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: switch}
stringData: {password: swordfish}
"""


def test_a_changed_secret_value_is_configured(roost: Roost, tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "vault" / "keys", write_private, datetime.now(UTC))
    file = tmp_path / "secret.yaml"
    file.write_text(SECRET)
    with ApiServer(tmp_path, vault=vault) as server:

        def apply(*options: str) -> Result:
            return roost("apply", "-f", str(file), "--kubeconfig", str(server.administrator), *options)

        assert "unless" not in apply("--dry-run").out, "it is not there yet"
        assert apply().out == "secret/switch created\n"
        assert apply().out == "secret/switch unchanged\n"
        file.write_text(SECRET.replace("swordfish", "trout"))
        told = apply("--diff")
        assert told.out == "secret/switch: a secret value may differ; secret values can't be shown\n"
        assert "without --diff" in told.err and "No difference" not in told.err
        dry = apply("--dry-run").out
        assert dry == "secret/switch unchanged, unless a secret value differs (dry run)\n"
        assert apply().out == "secret/switch configured\n"
        assert apply().out == "secret/switch unchanged\n"


def test_delete_by_file_and_by_name(roost: Roost, server: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"{POLICY}---\n{NETWORK}")
    roost("apply", "-f", str(file))
    dry = roost("delete", "-f", str(file), "--dry-run")
    assert "firewallpolicy/platform would be deleted" in dry.out
    assert roost("delete", "fwp", "platform").out == "firewallpolicy/platform deleted\n"
    rest = roost("delete", "-f", str(file))
    assert (rest.code, rest.out) == (4, "platformnetwork/oam deleted\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: Host", "file, document 1 has no apiVersion"),
        ("apiVersion: v1", "file, document 1 has no kind"),
        ("apiVersion: v1\nkind: Host", "has no metadata.name"),
        ("- 1", "file, document 1 is not an object but list"),
        ("a: [", "file line"),
        ("!!python/object:os.system {}", "file line 1 is not YAML"),
    ],
)
def test_bad_files(text: str, sentence: str) -> None:
    with pytest.raises(Misused) as told:
        parse(text.encode(), "file")
    assert sentence in told.value.reason


def test_lists_are_taken_apart() -> None:
    items = [yaml.safe_load(POLICY), yaml.safe_load(NETWORK)]
    found = parse(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}).encode(), "f")
    assert [d.kind for d in found] == ["FirewallPolicy", "PlatformNetwork"]
