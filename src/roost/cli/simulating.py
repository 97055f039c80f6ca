"""`roost sim run`: whole trees of real code in simulated time, with everything breaking that can break.

One run tells its story; many runs tell how many broke a law, and of the first that did the shortest plan that
still does, in a file, with the one command that runs it again. Nothing but that file is left behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import problems
from roost.cli.crowding import fleet
from roost.cli.output import Format, console, note, print_data, say

if TYPE_CHECKING:
    from roost.sim.deterministic.events import Outcome, Plan
    from roost.sim.deterministic.many import Report

SHRINK_SECONDS = 120.0
PLANTED_SEEDS = 500
PLACE = "roost-sim-{seed}.json"

sim = App(name="sim", help="Hunt faults of this program in simulated time; simulate fleets for a real cloud.")
sim.command(fleet)


def register(app: App) -> None:
    """Add these verbs to the application."""
    app.command(sim)


@sim.command
def run(
    *,
    seed: Annotated[int | None, Parameter(help="Run the plan of this seed and tell what happened.")] = None,
    plan: Annotated[Path | None, Parameter(help="Run the plan in this file and tell what happened.")] = None,
    seeds: Annotated[int | None, Parameter(help="Run so many seeds, and tell only what broke.")] = None,
    first: Annotated[int, Parameter(help="The first of these seeds; else 0.")] = 0,
    workers: Annotated[int, Parameter(help="Processes to run them in; else one for each processor.")] = 0,
    planted: Annotated[
        str,
        Parameter(help="Plant this bug (`roost sim bugs`); of --seeds, else 500, until one finds it."),
    ] = "",
    keep: Annotated[Path, Parameter(help="Folder for the plan of a failure.")] = Path(),
    shrink: Annotated[
        float | None,
        Parameter(help="Seconds to spend on finding the shortest plan; else 120, and none with --plan."),
    ] = None,
    output: Annotated[Format, Parameter(name=("--output", "-o"), help="table, json or yaml.")] = "table",
) -> int:
    """Run simulated trees of clouds whose links, disks, clocks and processes fail, and hold them to laws.

    The same seed or plan gives the same run, on any machine. Its story has the simulated second first, then
    what happens. Exit code 1 when a law was broken. Ctrl-C ends it, and says how far it came.

    For example:
        roost sim run --seed 7
        roost sim run --seeds 2000 --workers 2
        roost sim run --plan roost-sim-7.json -o json
        roost sim run --planted alarm-on-edge
    """
    if planted:
        _known(planted)
        if seed is None and plan is None and seeds is None:
            seeds = PLANTED_SEEDS
    _make_sense(seed, plan, seeds, {"--first": first, "--workers": workers, "--shrink": shrink or 0.0})
    chosen = _read(plan) if plan is not None else None
    if shrink is None:
        shrink = SHRINK_SECONDS if plan is None else 0.0
    if shrink > 0:
        _room(keep)
    _fixed_hashes()
    if seeds is not None:
        return _many(
            range(first, first + seeds), workers or os.cpu_count() or 1, planted, keep, shrink, output
        )
    from roost.sim.deterministic.plans import plan as plan_of

    return _one(chosen or plan_of(seed or 0), planted, keep, shrink, output)


@sim.command
def bugs() -> int:
    """List the bugs that can be planted, each a mistake that the laws must find."""
    from roost.sim.deterministic.planted import BUGS

    for name, bug in BUGS.items():
        say(f"{name:28} {bug.mistake}")
    return problems.OK


# -- one run


def _one(plan: Plan, planted: str, keep: Path, shrink: float, output: Format) -> int:
    from roost.sim.deterministic.many import one, quiet

    quiet()
    try:
        outcome = one(plan, _bug(planted))
    except Exception as error:
        raise problems.Failed(
            f"the run of seed {plan.seed} came to no end: {type(error).__name__}: {str(error)[:2000]}"
        ) from error
    if output in ("json", "yaml"):
        print_data(outcome, output)
        return problems.FAILED if outcome.violations else problems.OK
    _tell(outcome)
    if not outcome.violations:
        return problems.OK
    law = min(outcome.violations, key=lambda v: v.at).law
    if shrink > 0:
        _shortest(plan, law, planted, keep, shrink)
    return problems.FAILED


def _tell(outcome: Outcome) -> None:
    """The story of one run."""
    plan = outcome.plan
    say(
        f"Seed {plan.seed}: {plan.sites} sites of {plan.hosts} hosts, {plan.seconds:g} s, "
        f"{len(plan.events)} events"
    )
    say()
    for told in outcome.trace:
        at, _, what = told.partition(" ")
        say(f"{float(at):9.3f}  {what}" if what else f"{'':9}  {told}")
    say()
    for violation in outcome.violations:
        line = Text(f"{violation.at:9.3f}  ")
        line.append(f"{violation.law}: ", "bold red")
        line.append(violation.message)
        console().print(line, soft_wrap=True)
    kept = "every law was kept" if not outcome.violations else f"{len(outcome.violations)} violations"
    say(
        f"{kept}; {outcome.simulated:.0f} s simulated in {outcome.seconds:.2f} s; "
        f"digest {outcome.digest[:16]}"
    )


# -- many runs


def _many(chosen: range, workers: int, planted: str, keep: Path, shrink: float, output: Format) -> int:
    from roost.sim.deterministic.many import Workers, hunt
    from roost.sim.deterministic.plans import plan as plan_of

    broken: list[Report] = []
    began, simulated, left = time.monotonic(), 0.0, dict.fromkeys(chosen)
    try:
        with _progress(len(chosen)) as tick, closing(hunt(chosen, workers, planted)) as reports:
            for found in reports:
                simulated += found.simulated
                del left[found.seed]
                if found.broken:
                    broken.append(found)
                tick(len(chosen) - len(left), len(broken))
                if planted and broken:
                    break
    except Workers as error:
        raise problems.Failed(str(error), "run the seeds one by one: roost sim run --seed N") from error
    except KeyboardInterrupt:
        _interrupted(chosen, left, broken, planted)
        raise
    done, seconds = len(chosen) - len(left), time.monotonic() - began
    broken.sort(key=lambda r: r.seed)
    if output in ("json", "yaml"):
        print_data(
            {
                "seeds": done,
                "first": chosen.start,
                "seconds": round(seconds, 3),
                "perSecond": round(done / seconds, 3),
                "simulated": round(simulated, 1),
                "broken": msgspec.to_builtins(broken),
            },
            output,
        )
        return problems.FAILED if broken else problems.OK
    say(
        f"{done} seeds from {chosen.start}, {simulated / 3600:.1f} h simulated in {seconds:.1f} s: "
        f"{done / seconds:.2f} seeds a second with {workers} workers"
    )
    if not broken:
        say("Every law was kept." if not planted else f"Nothing was found of {planted}; run more seeds.")
        return problems.OK
    for found in broken[:20]:
        why = found.error or min(found.violations, key=lambda v: v.at).message
        say(f"  seed {found.seed}: {found.broken}: {why.splitlines()[0][:300]}")
    say(f"{len(broken)} of {done} seeds broke a law.")
    if shrink > 0:
        from roost.sim.deterministic.many import quiet

        quiet()
        _shortest(plan_of(broken[0].seed), broken[0].broken, planted, keep, shrink)
    else:
        say(f"Look at one: {_command(f'--seed {broken[0].seed}', planted)}")
    return problems.FAILED


def _interrupted(chosen: range, left: dict[int, None], broken: list[Report], planted: str) -> None:
    """How far it came, and how to go on."""
    note(f"interrupted after {len(chosen) - len(left)} of {len(chosen)} seeds; {len(broken)} broke a law")
    for found in sorted(broken, key=lambda r: r.seed)[:20]:
        note(f"  seed {found.seed}: {found.broken}")
    if left:
        first = min(left)
        note(f"Go on: {_command(f'--first {first} --seeds {chosen.stop - first}', planted)}")


def _shortest(plan: Plan, law: str, planted: str, keep: Path, seconds: float) -> None:
    """Shrink a failing plan, keep it in a file and say how to run it again."""
    from roost.sim.deterministic.many import shortest

    note(f"looking for the shortest plan that breaks `{law}`, {seconds:g} s at most ...")
    shrunk = shortest(plan, law, seconds=seconds, faulty=_bug(planted))
    path = keep / PLACE.format(seed=plan.seed)
    path.write_bytes(shrunk.plan.encode() + b"\n")
    small = shrunk.plan
    say(
        f"Shortest plan that breaks `{law}`: {len(small.events)} of {len(plan.events)} events, "
        f"{small.sites} sites of {small.hosts} hosts, {small.seconds:g} s "
        f"({shrunk.tries} tries{'' if shrunk.whole else ', not finished'})"
    )
    for event in small.events:
        say(f"{event.at:9.3f}  {event}")
    say(f"Run it again: {_command(f'--plan {path}', planted)}")


def _command(what: str, planted: str) -> str:
    return f"roost sim run {what}" + (f" --planted {planted}" if planted else "")


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Shows how far it is, on a terminal alone."""
    screen = console(sys.stderr)
    if not screen.is_terminal:
        yield lambda done, broken: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as shown:
        task = shown.add_task("", total=total)

        def tick(done: int, broken: int) -> None:
            shown.update(task, completed=done, description=f"{broken} broken" if broken else "")

        yield tick


# -- helps


def _make_sense(seed: int | None, plan: Path | None, seeds: int | None, numbers: dict[str, float]) -> None:
    """Raises Misused for what can't be run."""
    given = [name for name, it in (("--seed", seed), ("--seeds", seeds), ("--plan", plan)) if it is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} can't be had together" if given else "say what to run"
        raise problems.Misused(said, "give one of --seed N, --seeds COUNT, --plan FILE")
    if seeds is not None and seeds < 1:
        raise problems.Misused(f"--seeds {seeds} is no number of seeds to run", "give a count of at least 1")
    for name, number in numbers.items():
        if number < 0:
            raise problems.Misused(f"{name} {number:g} makes no sense", "give a number that is not negative")


def _room(keep: Path) -> None:
    """Make the folder before anything is run for it."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise problems.Misused(
            f"{keep} can't be made: {error.strerror}", "give a folder for the plan with --keep"
        ) from error


def _fixed_hashes() -> None:
    """Begin anew with PYTHONHASHSEED=0: only then a run is the same in every process."""
    if os.environ.get("PYTHONHASHSEED") == "0":
        return
    os.environ["PYTHONHASHSEED"] = "0"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "roost.program", *sys.argv[1:]])  # noqa: S606


def _read(path: Path) -> Plan:
    from roost.sim.deterministic.events import Plan, Wrong
    from roost.sim.deterministic.operators import VERBS

    try:
        plan = Plan.read(path.read_bytes())
        plan.check(VERBS)
    except Wrong as error:
        raise problems.Misused(f"{path}: {error}", "mend that event, or leave it out") from error
    except OSError as error:
        raise problems.NotFound(
            f"{path} can't be read: {error.strerror}", "name a file that this command made"
        ) from error
    except msgspec.MsgspecError as error:
        raise problems.Misused(f"{path} is no plan: {error}", "name a file that this command made") from error
    return plan


def _known(planted: str) -> None:
    from roost.sim.deterministic.planted import BUGS

    if planted not in BUGS:
        raise problems.Misused(f"there is no bug named {planted}", "see: roost sim bugs")


def _bug(planted: str) -> Any:
    if not planted:
        return None
    from roost.sim.deterministic.planted import BUGS

    return BUGS[planted].plant
