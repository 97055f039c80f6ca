"""Begin a cloud or an agent in this process, and end it in good order.

Options given now are laid over what the home was started as; what results is remembered, so that the
next start needs none. Signals end it; a second one at once. Exit code 75 asks the supervisor to start
it again (a contained restart of the machine).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict

from roost import __version__
from roost.engine.redaction import redact
from roost.link.errors import LinkError
from roost.link.node import BadNode
from roost.program.home import Home, Settings, StartError
from roost.store.errors import StoreError, Unavailable
from roost.store.remedies import CHECK

RESTART = 75
OPEN_FILES = 20_000
_CHANGEABLE = (
    "api_address",
    "link_address",
    "advertise",
    "database",
    "keys",
    "contained",
    "token_file",
    "oidc_file",
    "issuer",
    "retry_seconds",
)


def configure_logging() -> None:
    """One line an event, on standard error: for people at a terminal, key=value elsewhere."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    terminal = sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True)
        if terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            escape_controls,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def escape_controls(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Show control characters as escapes: what strangers send, a path or a name, may not steer a terminal
    or end a line of the log. Line ends stay in what this program wrote, a traceback."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return event


def raise_file_limit() -> None:
    """Take as many open files as the machine allows, up to what a fleet needs."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(
    main: Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run a role until a signal or its own end; the exit code.

    `main` is given the event that says stop, and a function by which it leaves to be started again.
    `loop_factory` makes another event loop than asyncio's own.
    """
    configure_logging()
    raise_file_limit()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_run(main))


async def _run(main: Callable[[asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]) -> int:
    stop, code = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    def leave() -> None:
        nonlocal code
        code = RESTART
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    role = loop.create_task(main(stop, leave))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait({role, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not role.done():
        await asyncio.wait({role}, timeout=10)
        role.cancel()
        await asyncio.wait({role}, timeout=5)
    stopping.cancel()
    if role.done() and not role.cancelled() and role.exception() is not None:
        _explain(role.exception())
        return 1
    return code


def _explain(error: BaseException | None) -> None:
    """Say why in one line; the whole story for what nobody foresaw."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, StartError | OSError | StoreError | LinkError | BadNode):
        print(f"roost: {error}", file=sys.stderr)
        if isinstance(error, Unavailable):
            print(f"  {CHECK}", file=sys.stderr)
    elif error is not None:
        structlog.get_logger("roost.program").error("ended by an error", exc_info=error)


def settle(home: Home, given: Settings) -> Settings:
    """What the home is, with what was given now laid over it; defaults given again change nothing.

    Raises StartError when the home is another cloud's or host's.
    """
    known = home.settings()
    if known is None:
        home.save_settings(given)
        return given
    if known.role != given.role:
        raise StartError(
            f"{home.path} is the home of {'a cloud' if known.role == 'cloud' else 'an agent'}",
            "choose another with --home",
        )
    if (known.cloud, known.host) != (given.cloud, given.host):
        raise StartError(
            f"{home.path} is the home of {_named(known)}, not of {_named(given)}",
            "leave --name and --no-host out, or choose another with --home",
        )
    usual = Settings(role=given.role)
    changed = {n: getattr(given, n) for n in _CHANGEABLE if getattr(given, n) != getattr(usual, n)}
    # Who gives none gives those that are known.
    settled = msgspec.structs.replace(known, roles=given.roles, **changed)
    if settled != known:
        home.save_settings(settled)
    return settled


def _named(settings: Settings) -> str:
    return (
        f"{settings.cloud} with host {settings.host}" if settings.host else f"{settings.cloud} without a host"
    )


def now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def facts() -> dict[str, str]:
    """What a node says of itself when it enrols."""
    return {"version": __version__, "hostname": os.uname().nodename}
