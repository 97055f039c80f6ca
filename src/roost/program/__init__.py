"""The only place that knows every room: reads the configuration, assembles the roles, runs them.

`home` is the directory of one running Roost, `cloud` a cloud in one process, `local` an agent with its
link, `start` begins either, `commands` are `roost up` and `roost agent`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

INTERRUPTED = 130


def main() -> int:
    """The command `roost`; the exit code. Ctrl-C is quiet also while modules are still being read."""
    try:
        return _main()
    except KeyboardInterrupt:
        return INTERRUPTED


def _main() -> int:
    from roost.cli import main as cli
    from roost.cli import simulating, store
    from roost.cli.demo import commands as demo
    from roost.cli.options import AgentOptions, UpOptions, node_commands

    def up(options: UpOptions) -> int:
        from roost.program import commands

        return commands.up(options)

    def agent(options: AgentOptions) -> int:
        from roost.program import commands

        return commands.agent(options)

    def locate(home: Path, use: store.Use) -> AbstractContextManager[list[store.Place]]:
        from roost.program import stores

        return stores.locate(home, use)

    node_commands(cli.app, up, agent)
    store.register(cli.app, locate)
    demo.register(cli.app)
    simulating.register(cli.app)
    return cli.run(cli.app, sys.argv[1:])
