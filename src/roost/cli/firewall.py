"""`roost firewall`: policies, and what they came to on each host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import answers, listing, output, preview
from roost.cli.kinds import FIREWALL_POLICY, HOST_CONFIGURATION
from roost.cli.problems import OK, NotFound
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened
from roost.cli.tables import Column, Grid, age, lay_out, style_of
from roost.model.firewall import FirewallPolicy, FirewallRule

firewall = App(name="firewall", help="The platform firewall: policies, and what is in force on each host.")


@firewall.command(name="list")
def list_policies(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List firewall policies and on how many hosts they are in force.

    For example:
        roost firewall list
    """
    with opened(connect) as session:
        return listing.show_list(session, FIREWALL_POLICY, pick, show)


@firewall.command(name="show")
def show_policy(
    name: Annotated[str, Parameter(name="NAME", help="Name of the policy.")],
    /,
    *,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show one policy with its rules in order.

    For example:
        roost firewall show platform
    """
    with opened(connect) as session:
        if show.output != "table":
            return listing.show_one(session, FIREWALL_POLICY, name, show)
        raw = session.client.get(FIREWALL_POLICY, session.namespace, name, dict)
        policy = msgspec.convert(raw, FirewallPolicy)
        output.print_lines(policy_lines(policy))
    return OK


@firewall.command(name="plan")
def show_plan(
    host: Annotated[str, Parameter(name="HOST", help="Name of a host; default: all.")] = "",
    /,
    *,
    file: Annotated[
        tuple[str, ...],
        Parameter(name=("--file", "-f"), help="Policies not declared yet: show what they would change."),
    ] = (),
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show what the policies came to on each host: the plan, whether it is in force, or why not.

    With files, show what the policies in them would change on each host; nothing is written.

    For example:
        roost firewall plan
        roost firewall plan controller-0
        roost firewall plan -A
        roost firewall plan -f policy.yaml
    """
    with opened(connect) as session:
        if file:
            preview.show(preview.plans_of(session, file, host), show.output)
            return OK
        found, _ = session.client.list_items(
            HOST_CONFIGURATION, session.scope(pick), answers.HostConfiguration
        )
        chosen = [c for c in found if host in ("", c.metadata.name)]
        if host and not chosen:
            raise NotFound(
                f"host {host} of {session.namespace} has no configuration",
                "`roost host list` shows the hosts",
            )
        if show.output in ("json", "yaml"):
            output.print_data(chosen, show.output)
            return OK
        if not chosen:
            output.note("No host has a configuration yet.")
        for n, configuration in enumerate(chosen):
            if n:
                output.say()
            output.print_lines(plan_lines(configuration))
    return OK


def policy_lines(policy: FirewallPolicy) -> list[Text]:
    """A policy on a screen."""
    spec, status = policy.spec, policy.status
    hosts = spec.hosts
    labels = [f"{k}={v}" for k, v in hosts.labels.items()]
    shared = ""
    if spec.subclouds is not None:
        words = [*spec.subclouds.names, *(f"{k}={v}" for k, v in spec.subclouds.labels.items())]
        shared = ", ".join(words) or "all subclouds"
    force = f"on {status.applied} of {status.hosts} hosts"
    if spec.subclouds is not None:
        force = f"in {status.in_sync} of {status.subclouds} subclouds"
    lines = output.fields(
        [
            ("Name", policy.metadata.name),
            ("Networks", list(spec.networks)),
            ("Hosts", [*hosts.personalities, *labels] or ["all"]),
            ("Shared with", shared),
            ("Order", spec.order),
            ("Otherwise", f"ingress {spec.default_ingress}, egress {spec.default_egress}"),
            ("In force", force),
            *((c.type, f"{c.status}: {c.message or c.reason}") for c in status.conditions),
        ]
    )
    if spec.rules:
        grid = _rules(spec.rules)
        lines += [Text(), *lay_out(grid, output.now(), width=output.width_of(output.console()))]
    return lines


def plan_lines(configuration: answers.HostConfiguration) -> list[Text]:
    """What one host has of its configuration."""
    meta, status = configuration.metadata, configuration.status
    heading = Text(f"{meta.name}", "bold")
    behind = meta.generation - status.applied_generation
    heading.append(
        f"  generation {status.applied_generation} of {meta.generation} in force", "yellow" if behind else ""
    )
    lines = [heading]
    for aspect in status.aspects:
        line = Text(f"  {aspect.aspect}  ")
        line.append(aspect.state, style_of(aspect.state))
        if aspect.changed_at:
            line.append(f"  {age(aspect.changed_at, output.now())} ago", "dim")
        lines.append(line)
        if aspect.message:
            lines.append(Text(f"    {aspect.message}"))
        lines += [Text(f"    {entry}", _plan_style(entry)) for entry in aspect.plan]
    networks = configuration.spec.firewall.networks if configuration.spec.firewall else []
    for network in networks:
        count = len(network.rules)
        rules = f"{count} rule{'' if count == 1 else 's'}"
        text = f"  wanted on {network.network} ({', '.join(network.ports)}): {rules}"
        lines.append(
            Text(f"{text}, otherwise ingress {network.default_ingress}, egress {network.default_egress}")
        )
    if not status.aspects:
        lines.append(Text("  The host has not answered yet.", "dim"))
    return lines


def _plan_style(entry: str) -> str:
    return {"+": "green", "-": "red"}.get(entry[:1], "")


def _rules(rules: Sequence[FirewallRule]) -> Grid:
    heads = ["Action", "Direction", "Protocol", "Ports", "Peers", "Description"]
    rows: list[list[Any]] = [
        [r.action, r.direction, r.protocol, r.ports or "any", r.peers or "any", r.description] for r in rules
    ]
    return Grid(
        [Column("#", "integer"), *(Column(h) for h in heads)], [[n, *r] for n, r in enumerate(rows, 1)]
    )
