"""What the demo prints when it is ready: what to type next. The acceptance test types every line of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec


class Stop(msgspec.Struct, frozen=True):
    """One line of the tour: what it shows and what to type."""

    shows: str
    command: str


STOPS: tuple[Stop, ...] = (
    Stop("the fleet on one screen", "{roost} status"),
    Stop("every host of every cloud", "kubectl get hosts -A"),
    Stop("subclouds as the centre sees them", "{roost} subcloud list"),
    Stop("one machine, as its agent observed it", "{roost} --cloud harbor host inventory controller-0"),
    Stop(
        "the same, with kubectl, at the site's own API", "kubectl --context harbor describe host controller-0"
    ),
    Stop("the policy that came down from the centre", "kubectl --context valley get firewallpolicies"),
    Stop("what it did on each host", "{roost} --cloud valley firewall plan"),
    Stop("the rules in the kernel of a host", "{roost} demo exec valley-worker-0 -- nft list ruleset"),
    Stop("take a host out of service, and watch", "{roost} --cloud valley host lock worker-0"),
    Stop("it is an alarm, there and at the centre", "kubectl get alarms -A"),
    Stop("and back", "{roost} --cloud valley host unlock worker-0"),
    Stop("cut a site off", "{roost} demo cut ridge"),
    Stop("a lost site is one alarm", "{roost} alarm list"),
    Stop("what runs there goes on; mend the link", "{roost} demo mend ridge"),
    Stop("kill a process; it is started again", "{roost} demo kill valley-controller-0"),
    Stop("what happened meanwhile", "{roost} log list -A"),
    Stop("what every field means", "kubectl explain host.spec"),
)


def roost_command(checkout: Path) -> str:
    """How to call roost from here."""
    return "roost" if shutil.which("roost") else str((checkout / ".venv/bin/roost").relative_to(checkout))


def text(kubeconfig: Path, roost: str, *, kubectl: bool) -> str:
    """The tour as printed."""
    width = max(len(s.command.format(roost=roost)) for s in STOPS)
    lines = [
        "In another terminal, in this folder:",
        "",
        f"  export KUBECONFIG={kubeconfig}",
        "",
    ]
    lines += [f"  {s.command.format(roost=roost):{width}}  # {s.shows}" for s in STOPS]
    if not kubectl:
        lines += ["", "kubectl is not installed here; `apt-get install kubernetes-client` brings it."]
    lines += [
        "",
        "Contexts: central, harbor, ridge, valley. Ctrl-C ends everything and leaves nothing behind.",
    ]
    return "\n".join(lines)
