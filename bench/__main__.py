"""`python -m bench [MODULE ...]`: measure, then print the table. What goes on is told on standard error."""

from __future__ import annotations

import importlib
import signal
import sys
import time

from bench.figures import Row, table

MODULES = ("store", "api", "memory", "fleet", "demo")


def main(arguments: list[str]) -> int:
    """Run the modules named, or all; the exit code."""
    unknown = [a for a in arguments if a not in MODULES]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(MODULES)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _ended)
    rows: list[Row] = []
    began = time.monotonic()
    for name in arguments or MODULES:
        print(f"[{time.monotonic() - began:5.1f} s] {name}", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"bench.{name}").measure()
    print(f"[{time.monotonic() - began:5.1f} s] done", file=sys.stderr, flush=True)
    print(table(rows))
    return 0


def _ended(_signal: int, _frame: object) -> None:
    """Leave in good order, so that no process under measurement is left behind."""
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
