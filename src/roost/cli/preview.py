"""What a firewall policy in a file would change, asked of the clouds it is meant for. Nothing is written."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.text import Text

from roost.cli import answers, output
from roost.cli.client import Client, path
from roost.cli.kinds import FIREWALL_POLICY, SUBCLOUD
from roost.cli.manifests import Document, load
from roost.cli.problems import Misused, NotFound, Problem
from roost.cli.session import Session
from roost.fleet.sharing import copy_name
from roost.model.cloud import Subcloud
from roost.model.fleet import SubcloudSelector, selects

_VERSION = FIREWALL_POLICY.group_path.removeprefix("/apis/")


class HostPlan(answers.Answer, frozen=True, kw_only=True):
    """What would change on one host."""

    host: str
    changes: list[str] = []


class PlanStatus(answers.Answer, frozen=True, kw_only=True):
    hosts: list[HostPlan] = []


class FirewallPlan(answers.Answer, frozen=True, kw_only=True):
    """The answer of POST firewallpolicies/NAME/plan."""

    status: PlanStatus = PlanStatus()


class CloudPlan(msgspec.Struct, frozen=True):
    """What would change in one cloud, or why that could not be asked."""

    cloud: str
    policy: str
    hosts: list[HostPlan]
    problem: str = ""


def plans_of(session: Session, files: tuple[str, ...], host: str = "") -> list[CloudPlan]:
    """Plans for every policy in the files, cloud by cloud; of one host or all. Raises Misused, Problem."""
    found: list[CloudPlan] = []
    for document in load(files):
        if document.kind != FIREWALL_POLICY.kind:
            raise Misused(
                f"{document.source}: {document.kind} {document.name} has no plan", "name FirewallPolicies"
            )
        if document.body["apiVersion"] != _VERSION:
            raise Misused(
                f"{document.source}: apiVersion of {document.kind} is {_VERSION}, "
                f"not {document.body['apiVersion']}"
            )
        found += _plans(session, document)
    return _only(host, found) if host else found


def _only(host: str, plans: list[CloudPlan]) -> list[CloudPlan]:
    """What concerns the hosts of that name, and what could not be asked. Raises NotFound."""
    chosen = [msgspec.structs.replace(p, hosts=[h for h in p.hosts if h.host == host]) for p in plans]
    if not any(p.hosts or p.problem for p in chosen):
        raise NotFound(f"no cloud that the policies are meant for has a host {host}")
    return [p for p in chosen if p.hosts or p.problem]


def _plans(session: Session, document: Document) -> list[CloudPlan]:
    spec = dict(document.body.get("spec") or {})
    selector = spec.pop("subclouds", None)
    cloud = document.namespace or session.namespace
    if selector is None:
        return [CloudPlan(cloud, document.name, _ask(session.client, "", cloud, document.name, spec))]
    wanted = msgspec.convert(selector, SubcloudSelector)
    subclouds, _ = session.client.list_items(SUBCLOUD, None, Subcloud)
    plans = []
    for subcloud in subclouds:
        if not selects(wanted, subcloud):
            continue
        name = subcloud.metadata.name
        problem, hosts = "", list[HostPlan]()
        if subcloud.spec.management_state != "managed":
            problem = "it is unmanaged: nothing new flows down"
        else:
            try:
                copy = copy_name(document.name, cloud)
                hosts = _ask(session.client, f"/clouds/{name}", name, copy, spec)
            except Problem as error:
                problem = error.reason
        plans.append(CloudPlan(name, document.name, hosts, problem))
    return plans


def _ask(client: Client, prefix: str, cloud: str, policy: str, spec: dict[str, Any]) -> list[HostPlan]:
    answer = client.request(
        "POST",
        f"{prefix}{path(FIREWALL_POLICY, cloud, policy)}/plan",
        json={"spec": spec},
        doing=f"plan firewall policy {policy}",
    )
    return msgspec.json.decode(answer, type=FirewallPlan).status.hosts


def lines(plans: list[CloudPlan]) -> list[Text]:
    """Plans on a screen."""
    shown: list[Text] = []
    for plan in plans:
        if plan.problem:
            shown.append(Text(f"{plan.cloud}: {plan.problem}", "yellow"))
        for host in plan.hosts:
            heading = Text(f"{plan.cloud}/{host.host}", "bold")
            heading.append("  would change:" if host.changes else "  nothing would change", "")
            shown += [heading, *(Text(f"    {change}") for change in host.changes)]
    return shown or [Text("It applies to no host.", "dim")]


def show(plans: list[CloudPlan], form: output.Format) -> None:
    """Print plans."""
    if form in ("json", "yaml"):
        output.print_data(plans, form)
    else:
        output.print_lines(lines(plans))
