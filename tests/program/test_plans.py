"""What a firewall policy would change is told before anything is written."""

from __future__ import annotations

import pytest

from roost.api.context import ApiContext
from roost.api.status import ApiError
from roost.cloud.configuration import ConfigurationController, PlatformPorts
from roost.link import exchange
from roost.model.codec import Raw, encode
from roost.model.configuration import FirewallConfiguration, NetworkFirewall
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.host import Host, HostSpec, HostStatus, InterfaceAssignment, Inventory
from roost.model.meta import Metadata
from roost.model.network import PlatformNetwork, PlatformNetworkSpec
from roost.program.plans import changes, plan_subresource
from roost.store.store import Store
from tests.support.clock import START

CLOUD = "harbor"
PLATFORM = PlatformPorts(links=(7444,))
CALLER = exchange.Caller("admin", [])
SSH = FirewallRule(action="allow", protocol="tcp", ports=["22"])


def _meta(name: str) -> Metadata:
    return Metadata(name=name, namespace=CLOUD)


def _policy(*rules: FirewallRule) -> FirewallPolicy:
    return FirewallPolicy(
        metadata=_meta("base"), spec=FirewallPolicySpec(networks=["oam"], rules=list(rules))
    )


async def _cloud(store: Store) -> ApiContext:
    spec = HostSpec(personalities=["worker"], interfaces=[InterfaceAssignment(port="oam0", networks=["oam"])])
    await store.save(Host(metadata=_meta("worker-0"), spec=spec, status=HostStatus(inventory=Inventory())))
    network = PlatformNetworkSpec(type="oam", subnets=["192.0.2.0/24"])
    await store.save(PlatformNetwork(metadata=_meta("oam"), spec=network))
    return ApiContext(store=store, cloud=CLOUD, clock=lambda: START)


async def _plan(context: ApiContext, body: Raw) -> list[str]:
    handler = plan_subresource(PLATFORM)["firewallpolicies", "plan"]
    before = context.store.revision
    answer = await handler(context, CALLER, CLOUD, "base", body)
    assert context.store.revision == before, "a plan writes nothing"
    (host,) = answer["status"]["hosts"]
    assert host["host"] == "worker-0"
    found: list[str] = host["changes"]
    return found


async def test_a_new_policy_is_told_rule_by_rule(store: Store) -> None:
    context = await _cloud(store)
    told = await _plan(context, encode(_policy(SSH)))
    assert "make the table" in told
    assert "add to oam: allow tcp 22 (ingress)" in told
    assert "default of oam: deny (ingress)" in told


async def test_a_misspelt_field_is_refused(store: Store) -> None:
    context = await _cloud(store)
    body = encode(_policy(SSH))
    body["spec"]["rulez"] = body["spec"].pop("rules")
    with pytest.raises(ApiError, match=r'unknown field "spec\.rulez"'):
        await _plan(context, body)


async def test_a_change_is_told_against_what_is_configured(store: Store) -> None:
    context = await _cloud(store)
    await store.save(_policy(SSH))
    controller = ConfigurationController(CLOUD, PLATFORM)
    await store.transact(lambda tx: controller.decide(tx, (CLOUD, "*")))
    assert await _plan(context, encode(_policy(SSH))) == []
    web = FirewallRule(action="allow", protocol="tcp", ports=["443"])
    assert await _plan(context, encode(_policy(SSH, web))) == ["add to oam: allow tcp 443 (ingress)"]
    removal = await _plan(context, {"spec": None})
    assert removal[0].startswith("remove the table")


async def test_a_bad_policy_is_refused_with_its_field(store: Store) -> None:
    context = await _cloud(store)
    bad = {"spec": {"networks": ["oam"], "rules": [{"action": "allow", "ports": ["22"]}]}}
    with pytest.raises(ApiError) as refused:
        await _plan(context, bad)
    assert refused.value.code == 422
    assert "spec.rules[0].ports" in refused.value.message


def test_no_firewall_and_an_empty_one_are_the_same() -> None:
    empty = FirewallConfiguration(networks=[])
    some = FirewallConfiguration(networks=[NetworkFirewall(network="oam", ports=["oam0"])])
    assert changes(None, empty) == []
    assert changes(empty, None) == []
    assert changes(None, some)[0] == "make the table"
