"""Plans shown before anything is written: what a firewall policy would change, host by host.

POST firewallpolicies/NAME/plan with the policy as body (or `{"spec": null}` for its removal) compiles
each host's configuration with and without it, as the controller would, and tells the difference in
the words in which the host will tell it. Nothing is stored.
"""

from __future__ import annotations

from roost.api.context import ApiContext, Subresource
from roost.api.status import bad_request, invalid
from roost.cloud.configuration import PlatformPorts, compile_host, platform_of
from roost.engine.admission import Refused
from roost.engine.overrides import in_force
from roost.host.firewall.planning import parse, plan
from roost.host.firewall.rules import RulesetError, objects_of, render
from roost.link import exchange
from roost.model import codec
from roost.model.codec import Raw
from roost.model.configuration import FirewallConfiguration, HostConfiguration
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.host import Host
from roost.model.network import PlatformNetwork
from roost.store.transaction import Transaction


def plan_subresource(platform: PlatformPorts) -> dict[tuple[str, str], Subresource]:
    """The handler of POST firewallpolicies/NAME/plan."""

    async def show(context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw) -> Raw:
        candidate = _candidate(namespace, name, body)
        hosts = await context.store.read(lambda tx: _plans(tx, namespace, name, candidate, platform))
        return {"apiVersion": "roost.edge/v1", "kind": "FirewallPlan", "status": {"hosts": hosts}}

    return {("firewallpolicies", "plan"): show}


def changes(current: FirewallConfiguration | None, wanted: FirewallConfiguration | None) -> list[str]:
    """What leads from one firewall to the other, line by line; empty when nothing changes. Pure."""
    before = parse(objects_of(render(current).commands) if current and current.networks else None)
    try:
        return list(plan(before, wanted if wanted and wanted.networks else None).lines)
    except RulesetError as error:
        raise Refused(str(error), "mend the policy", field=error.field) from error


def _candidate(namespace: str, name: str, body: Raw) -> FirewallPolicy | None:
    """The policy in question; None for its removal. Raises ApiError 400 for unknown fields, and 422."""
    if body.get("spec", {}) is None:
        return None
    raw = {"metadata": {"name": name, "namespace": namespace}, "spec": body.get("spec", {})}
    if unknown := codec.unknown_fields(FIREWALL_POLICY, raw):
        named = ", ".join(f'unknown field "{path[:200]}"' for path in unknown[:20])
        raise bad_request(f"{named}; see kubectl explain {FIREWALL_POLICY.plural}.spec")
    resource, problems = codec.check(FIREWALL_POLICY, raw)
    if not isinstance(resource, FirewallPolicy):
        raise invalid(FIREWALL_POLICY, name, problems)
    return resource


def _plans(
    tx: Transaction, cloud: str, name: str, candidate: FirewallPolicy | None, platform: PlatformPorts
) -> list[Raw]:
    networks = in_force(tx, PlatformNetwork, cloud)
    policies = [p for p in in_force(tx, FirewallPolicy, cloud) if p.metadata.name != name]
    if candidate is not None:
        policies.append(candidate)
    ports = platform_of(tx, platform)
    found = []
    for host in tx.every(Host, cloud):
        configuration = tx.seek(HostConfiguration, cloud, host.metadata.name)
        current = configuration.spec.firewall if configuration else None
        wanted = compile_host(host, networks, policies, ports).firewall
        found.append({"host": host.metadata.name, "changes": changes(current, wanted)})
    return found
