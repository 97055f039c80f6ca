"""`python -m bench [MODULE ...]`: measure, then print the table. What goes on is told on standard error.

`python -m bench kubernetes --only gets,creates --engine sqlite --runs 1` measures parts of that module, and
`python -m bench crowd --subclouds 1000,5000` fleets of these sizes, as `operations` does.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Sequence

from bench.figures import RUNS, Row, table

MODULES = (
    "store",
    "api",
    "kubernetes",
    "memory",
    "fleet",
    "operations",
    "crowd",
    "find",
    "links",
    "hostile",
    "heartbeat",
    "demo",
)


def main(arguments: list[str]) -> int:
    """Run the modules named, or all; the exit code."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _ended)
    rows: list[Row] = []
    began = time.monotonic()
    for name in given.modules or MODULES:
        print(f"[{time.monotonic() - began:5.1f} s] {name}", file=sys.stderr, flush=True)
        if name == "kubernetes":
            rows += _beside_kubernetes(given)
        elif name == "crowd":
            rows += _crowd(given)
        elif name == "operations":
            rows += _operations(given)
        else:
            rows += importlib.import_module(f"bench.{name}").measure()
    print(f"[{time.monotonic() - began:5.1f} s] done", file=sys.stderr, flush=True)
    print(table(rows))
    return 0


def _beside_kubernetes(given: argparse.Namespace) -> list[Row]:
    from bench import kubernetes

    choice = kubernetes.Choice(only=given.only, engines=given.engine, runs=given.runs, alone=given.alone)
    return kubernetes.measure(choice)


def _crowd(given: argparse.Namespace) -> list[Row]:
    from bench import crowd

    choice = crowd.Choice(subclouds=given.subclouds, engines=given.engine or ("postgresql",), runs=given.runs)
    return crowd.measure(choice)


def _operations(given: argparse.Namespace) -> list[Row]:
    from bench import operations

    choice = operations.Choice(
        subclouds=given.subclouds, engines=given.engine or ("sqlite",), runs=given.runs
    )
    return operations.measure(choice)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", type=_one_of(MODULES), help=", ".join(MODULES)
    )
    beside = parser.add_argument_group("kubernetes")
    beside.add_argument("--only", type=_names, default=(), help="measurements, with commas between")
    beside.add_argument("--engine", type=_names, default=(), help="servers beside Kubernetes': sqlite, ...")
    beside.add_argument("--runs", type=int, default=RUNS)
    beside.add_argument("--alone", action="store_true", help="leave Kubernetes out")
    parser.add_argument_group("crowd").add_argument(
        "--subclouds", type=_numbers, default=(1000,), help="numbers of subclouds, with commas between"
    )
    return parser


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def known(name: str) -> str:
        if name not in names:
            raise argparse.ArgumentTypeError(
                f"there is no benchmark {name!r}; choose from {', '.join(names)}"
            )
        return name

    return known


def _names(text: str) -> list[str]:
    """Names of measurements and servers, which bench.kubernetes checks."""
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _ended(_signal: int, _frame: object) -> None:
    """Leave in good order, so that no process under measurement is left behind."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
