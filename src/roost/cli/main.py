"""The application and its exit codes.

`app` gathers the verbs; `run` is the one place where problems become words and codes:
0 done, 1 refused or failed, 2 wrong usage, 3 no answer, 4 not found, 5 denied, 6 timed out,
130 interrupted. A reader that closes the pipe early is no error.

Options that choose the cloud and the output may stand before the command as well as after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from roost import __version__
from roost.cli import problems as codes
from roost.cli.addressing import Aim, aim
from roost.cli.problems import Misused, Problem

HELP = """\
Edge clouds: machines made clouds, clouds made one fleet.

Clouds and credentials come from a kubeconfig: --kubeconfig, $ROOST_KUBECONFIG, $KUBECONFIG, \
$ROOST_HOME/kubeconfig, ./.demo/kubeconfig or ~/.roost/kubeconfig, whichever is found first.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no answer, 4 not found, 5 denied, \
6 timed out waiting, 130 interrupted.
"""

VERBS = {
    "status": ("status:status", "One screen: this cloud, its hosts, alarms and subclouds."),
    "login": ("login:login", "Log in to a cloud and keep it as a context."),
    "cloud": ("clouds:cloud", "Clouds that this one knows, and which one commands go to."),
    "host": ("hosts:host", "Machines of a cloud: add, lock, unlock, reboot, look."),
    "subcloud": ("subclouds:subcloud", "Clouds below this one: add, manage, look."),
    "rehome": ("rehoming:rehome_site", "At a site: move it to another central cloud."),
    "alarm": ("alarms:alarm", "What is wrong now: look, acknowledge, suppress; what alarms mean."),
    "incident": ("incidents:incident", "What has happened in the fleet: alarms of one cause as one."),
    "outlet": ("outlets:outlet", "Receivers outside that are told of alarms: look, test, suspend."),
    "log": ("logs:log", "What has happened: alarms, states, operations."),
    "audit": ("audit:audit", "Who did what: list, export, verify, note the head."),
    "operation": ("operations:operation", "Long work on hosts, step by step."),
    "firewall": ("firewall:firewall", "The platform firewall: policies, and what is in force."),
    "override": ("overrides:override", "What a site wants otherwise than its centre: set, adopt, revert."),
    "network": ("networks:network", "Networks that the platform itself uses."),
    "secrets": ("secrets:secrets", "The keys of secret values: list, rotate, drop."),
    "user": ("users:user", "Who may use this cloud: add, list, delete, give tokens and passwords."),
    "get": ("objects:get", "List objects of any kind, or show one."),
    "find": ("finding:find", "Find objects of a kind by any field, in all clouds; count, add up."),
    "describe": ("objects:describe", "Show everything about one object, for people."),
    "history": ("history:history", "How an object came to be what it is, and what it was."),
    "apply": ("applying:apply", "Create or change objects so that they are as files say."),
    "delete": ("objects:delete", "Delete objects by name, or those that files name."),
    "explain": ("explain:explain", "Tell what a kind or a field means and takes."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
    "version": ("versions:version", "Print the version of this program and of the cloud."),
}
ALIASES = {"operation": "op", "subcloud": "sc"}

_LEADING = {
    "--cloud",
    "--context",
    "--namespace",
    "-n",
    "--kubeconfig",
    "--output",
    "-o",
    "--request-timeout",
}


def make_app() -> App:
    """The application with every verb of this room; `program` adds those that run clouds.

    Modules are imported when their verb is used, so that `--help` and `--version` are quick.
    """
    made = App(
        name="roost",
        help=HELP,
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=usual),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for name, (place, summary) in VERBS.items():
        made.command(f"roost.cli.{place}", name=name, alias=ALIASES.get(name), help=summary)
    return made


def usual(value: object) -> str | None:
    """What an option is when it is left out, as its help shows it; None where that says nothing."""
    if not value or isinstance(value, bool):  # 0 stands for none, and help says of what
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


app = make_app()


def run(app: App, arguments: Sequence[str]) -> int:
    """Carry out a command line; the exit code. Never raises for what a command can meet."""
    aim.set(Aim())
    try:
        result = app(hoist(arguments))
        sys.stdout.flush()
        return result if isinstance(result, int) else codes.OK
    except Problem as problem:
        return _show(problem)
    except CycloptsError as error:
        return _show(Misused(_sentence(error), _help_hint(app, arguments)))
    except KeyboardInterrupt:
        return codes.INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return codes.OK


def hoist(arguments: Sequence[str]) -> list[str]:
    """Options that stand before the command, moved behind it."""
    leading: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name, assigned, _ = rest[0].partition("=")
        if name not in _LEADING:
            break
        taken = 1 if assigned else 2
        leading += rest[:taken]
        rest = rest[taken:]
    if not rest or not leading:
        return list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def _show(problem: Problem) -> int:
    from roost.cli.output import show_problem

    try:
        show_problem(problem)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return problem.code


def _sentence(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    text = text if text.endswith("...") else text.removesuffix(".")
    return text[:1].lower() + text[1:]


def _help_hint(app: App, arguments: Sequence[str]) -> str:
    """Where help is: of the innermost command that was named and is there."""
    known, words = app, ["roost"]
    for word in hoist(arguments):
        if word.startswith("-") or word not in known:
            break
        known = known[word]
        words.append(word)
    shows = "there is" if len(words) == 1 else "it takes"
    return f"`{' '.join(words)} --help` shows what {shows}"
