"""What the demo prints when it is ready: what to type next. The acceptance test types every line of it."""

from __future__ import annotations

import re
import shlex
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
    Stop("a lost site is one alarm, after some 10 seconds", "{roost} alarm list"),
    Stop(
        "what runs there goes on; look at the site itself",
        "{roost} demo exec ridge-controller-0 -- roost status",
    ),
    Stop("mend the link", "{roost} demo mend ridge"),
    Stop("kill a process; it is started again", "{roost} demo kill valley-controller-0"),
    Stop("what happened meanwhile", "{roost} log list -A"),
    Stop("what every field means", "kubectl explain host.spec"),
)


def roost_command(program: Path, here: Path) -> str:
    """How to call this very roost from `here`."""
    found = shutil.which("roost")
    if found and Path(found).resolve() == program.resolve():
        return "roost"
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def lines(roost: str, elsewhere: str = "") -> list[str]:
    """What to type, stop by stop; `elsewhere` is the demo's directory when it is not the usual one."""
    demo = f"{roost} demo"
    typed = [stop.command.format(roost=roost) for stop in STOPS]
    if not elsewhere:
        return typed
    # Behind the verb: what follows a host's name belongs to the command that runs in it.
    verb = re.compile(rf"^{re.escape(demo)} (\w+)")
    option = f" --directory {shlex.quote(elsewhere)}"
    return [verb.sub(lambda match: match[0] + option, line) for line in typed]


def text(kubeconfig: Path, typed: list[str], *, kubectl: bool) -> str:
    """The tour as printed."""
    width = max(map(len, typed))
    told = [
        "In another terminal, in this folder:",
        "",
        f"  export KUBECONFIG={shlex.quote(str(kubeconfig))}",
        "",
    ]
    told += [f"  {line:{width}}  # {stop.shows}" for line, stop in zip(typed, STOPS, strict=True)]
    if not kubectl:
        told += ["", "kubectl is not installed here; `apt-get install kubernetes-client` brings it."]
    told += [
        "",
        "Contexts: central, harbor, ridge, valley. Ctrl-C ends everything and leaves nothing behind.",
    ]
    return "\n".join(told)
