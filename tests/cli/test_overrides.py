"""`roost override`: at a site and at its central cloud, against a real API with the rules of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.cloud import overriding
from roost.fleet import reviewing
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.codec import Raw, encode
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.meta import Metadata
from roost.model.override import (
    Difference,
    LocalOverride,
    LocalOverrideSpec,
    LocalOverrideStatus,
    OverrideTarget,
)
from roost.store.transaction import UP, Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

COPY = "FirewallPolicy/base.far"
NAME = "firewallpolicy.base.far"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """A cloud that has a copy from above, and a subcloud that has overridden one of its own."""
    rules = {**overriding.rules("central"), **reviewing.rules("central")}
    with ApiServer(tmp_path, cloud="central", rules=rules) as running:
        running.do(running.store.transact(_furnish))
        yield running


def _furnish(tx: Transaction) -> None:
    tx.copy(_policy("base.far", "central", order=7, hosts={"labels": {"zone": "a"}}), UP)
    tx.copy(_management(), UP)
    spec = SubcloudSpec(management_state="managed")
    tx.save(Subcloud(metadata=Metadata(name="harbor"), spec=spec))
    shared = FirewallPolicySpec(networks=["oam"], order=1, subclouds=SubcloudSelector())
    tx.save(FirewallPolicy(metadata=Metadata(name="shared", namespace="central"), spec=shared))
    tx.copy(encode(_of_harbor()), "down:subcloud/harbor")


def _policy(name: str, namespace: str, **spec: object) -> Raw:
    meta = {"name": name, "namespace": namespace, "uid": "u", "generation": 3}
    body = {"apiVersion": "roost.edge/v1", "kind": "FirewallPolicy", "metadata": meta}
    return {**body, "spec": {"networks": ["oam"], **spec}}


def _management() -> Raw:
    meta = {"name": "far", "namespace": "central", "uid": "m", "generation": 1}
    body = {"apiVersion": "roost.edge/v1", "kind": "Management", "metadata": meta}
    return {**body, "spec": {"managementState": "managed"}}


def _of_harbor() -> LocalOverride:
    target = OverrideTarget(kind="FirewallPolicy", name="shared.central")
    difference = Difference(path="/order", central="1", local="5", before="2", conflict=True)
    return LocalOverride(
        metadata=Metadata(name="mine", namespace="harbor", uid="o-uid", generation=2),
        spec=LocalOverrideSpec(target=target, patch={"order": 5}, reason="because", by="eve"),
        status=LocalOverrideStatus(in_force=True, differences=[difference], conflicts=1),
    )


def test_what_is_set_is_shown_first_and_a_further_patch_is_laid_over_it(
    server: ApiServer, roost: Roost
) -> None:
    words = ["override", "set", COPY, "--patch", "{order: 9}", "--reason", "why not"]
    tried = roost(*words, "--dry-run")
    assert tried.code == 0 and "would be overridden by" in tried.out, tried
    assert "7" in tried.out and "9" in tried.out and "/order" in tried.out
    assert "Nothing is overridden." in roost("override", "list").err
    assert roost(*words).code == 0
    again = roost(
        "override", "set", "fwp/base.far", "--patch", '{"spec": {"hosts": {"labels": {"zone": null}}}}'
    )
    assert again.code == 0, again.err
    shown = roost("override", "show", COPY, "-o", "json")
    spec = json.loads(shown.out)["spec"]
    assert spec["patch"] == {"order": 9} and spec["removes"] == ["/hosts/labels/zone"]
    assert (spec["reason"], spec["by"]) == ("why not", "admin")
    assert (spec["target"]["uid"], spec["target"]["generation"]) == ("u", 3)
    listed = roost("override", "list").out
    assert NAME in listed and "base.far" in listed and "why not" in listed
    assert roost("override", "remove", COPY).code == 0
    assert roost("override", "show", NAME).code == 4


def test_all_of_it_is_put_out_of_force(server: ApiServer, roost: Roost) -> None:
    done = roost("override", "set", COPY, "--withdraw", "--reason", "nobody gets in")
    assert done.code == 0 and "put out of force" in done.out, done
    early = roost("override", "set", COPY, "--restore")
    assert early.code == 1 and f"roost override remove {NAME}" in early.err, "nothing would be left of it"
    patched = roost("override", "set", COPY, "--patch", "{order: 9}")
    assert patched.code == 0 and "stays out of force" in patched.err and "nobody gets in" in patched.err
    spec = json.loads(roost("override", "show", COPY, "-o", "json").out)["spec"]
    assert spec["withdrawn"] is True and spec["patch"] == {"order": 9}
    assert "all of its target" in roost("override", "show", COPY).out
    back = roost("override", "set", COPY, "--restore", "--reason", "mended")
    assert back.code == 0 and "is overridden" in back.out, back
    spec = json.loads(roost("override", "show", COPY, "-o", "json").out)["spec"]
    assert not spec.get("withdrawn") and spec["patch"] == {"order": 9}
    assert "not put out of force" in roost("override", "set", COPY, "--restore").err
    both = roost("override", "set", COPY, "--withdraw", "--patch", "{order: 9}")
    assert both.code == 2 and "exclude each other" in both.err
    silent = roost("override", "set", COPY)
    assert silent.code == 2 and "--withdraw" in silent.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["base.far", "--patch", "{order: 1}"], 2, "write KIND/NAME"),
        (["Host/h", "--patch", "{order: 1}"], 2, "Host can't be overridden"),
        ([COPY, "--patch", "order"], 2, "is no object"),
        ([COPY, "--patch", "{order: ["], 2, "neither JSON nor YAML"),
        ([COPY, "--patch", "@none"], 2, "can't be read"),
        (["FirewallPolicy/none", "--patch", "{order: 1}"], 4, "there are in central: base.far, shared"),
        (["FirewallPolicy/base", "--patch", "{order: 1}"], 4, "did you mean base.far?"),
        ([COPY, "--patch", "{order: 1}"], 1, "give a reason"),
        ([COPY, "--patch", "{order: 7}", "--reason", "r"], 1, "says so already"),
        ([COPY, "--patch", "{order: many}", "--reason", "r"], 1, "spec.order"),
        (["FirewallPolicy/shared", "--patch", "{order: 5}", "--reason", "r"], 1, "kubectl edit"),
    ],
)
def test_what_can_not_be_set_is_refused_with_the_next_step(
    roost: Roost, server: ApiServer, words: list[str], code: int, said: str
) -> None:
    result = roost("override", "set", *words)
    assert result.code == code and said in result.err, result
    assert roost("override", "list", "-o", "name").out == ""


def test_both_sides_of_a_conflict_are_shown(roost: Roost, server: ApiServer) -> None:
    shown = roost("override", "show", "FirewallPolicy/shared.central", "-n", "harbor").out
    assert "/order  changed on both sides" in shown and "because" in shown and "eve" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("  ")] == [
        ["before:", "2"],
        ["central:", "1"],
        ["local:", "5"],
    ]


def test_a_decision_speaks_of_what_was_looked_at(roost: Roost, server: ApiServer) -> None:
    done = roost("override", "adopt", "harbor", "mine", "--comment", "fine")
    assert done.code == 0 and "will be adopted" in done.out, done
    changed = roost("override", "revert", "harbor", "FirewallPolicy/shared.central")
    assert changed.code == 0 and "will be reverted" in changed.out, changed
    spec = json.loads(roost("get", "overridereview", "mine", "-n", "harbor", "-o", "json").out)["spec"]
    assert spec == {
        "override": "mine",
        "uid": "o-uid",
        "generation": 2,
        "decision": "revert",
        "comment": "",
        "by": "admin",
    }
    assert roost("override", "adopt", "harbor", "none").code == 4
    assert roost("override", "adopt", "ridge", COPY).code == 4


def test_a_copy_is_not_edited_and_who_does_is_told_how_to_override_it(server: ApiServer) -> None:
    patch = json.dumps({"spec": {"order": 1}})
    done = server.kubectl("patch", "fwp", "base.far", "--type=merge", "-p", patch)
    assert done.returncode != 0 and "roost override set FirewallPolicy/base.far" in done.stderr, done.stderr


def test_in_the_namespace_of_a_subcloud_only_decisions_are_written(server: ApiServer, tmp_path: Path) -> None:
    exception = {
        "apiVersion": "roost.edge/v1",
        "kind": "SubcloudException",
        "metadata": {"name": "e", "namespace": "harbor"},
        "spec": {"kind": "FirewallPolicy", "name": "shared", "patch": {"order": 5}},
    }
    policy = _policy("mine", "harbor")
    del policy["metadata"]["uid"], policy["metadata"]["generation"]
    for number, (body, said) in enumerate(
        [
            (exception, ""),
            (policy, "belongs to subcloud harbor"),
            ({**exception, "metadata": {"name": "e", "namespace": "central"}}, "this cloud itself"),
            ({**exception, "metadata": {"name": "e", "namespace": "ridge"}}, "no subcloud of central"),
        ]
    ):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(body))
        done = server.kubectl("create", "-f", str(file))
        assert (done.returncode == 0) is not bool(said), done.stderr
        assert said in done.stderr


def test_who_decides_on_what_is_not_there_hears_what_there_is(server: ApiServer, roost: Roost) -> None:
    typo = roost("override", "adopt", "habor", "mine")
    assert typo.code == 4 and '"habor" not found' in typo.err and "did you mean harbor?" in typo.err, typo
    late = roost("override", "revert", "harbor", "fresh")
    assert late.code == 4 and "has not come up yet" in late.err and "mine" in late.err, late
