"""One board controller, spoken to by Redfish (DMTF DSP0266) with sushy. Blocking: called in threads.

Board controllers are slow, and some are broken: each answer is bounded in bytes (LARGEST), a whole look in
time (`deadline`), however slowly bytes drip. Nothing is tried again here: who asks decides that, and a reset
whose answer is lost has perhaps been done. What goes wrong is `BoardFailed`, with reason and next step; of
credentials neither has a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from roost.cloud.power.deadline import Deadline
from roost.model.power import BootDevice, PowerState

CONNECT_WITHIN = 5.0
READ_WITHIN = 10.0
WITHIN = 20.0
LARGEST = 2 * 1024 * 1024
_CHUNK = 16 * 1024

T = TypeVar("T")

_STATES: dict[str, PowerState] = {
    "On": "on",
    "Off": "off",
    "PoweringOn": "turning-on",
    "PoweringOff": "turning-off",
}
_RESETS = {"on": ("On", "ForceOn"), "off": ("ForceOff",), "reset": ("ForceRestart", "PowerCycle")}
_DEVICES = {"network": "Pxe", "disk": "Hdd", "cd": "Cd", "usb": "Usb", "setup": "BiosSetup"}


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """How one is reached. `verify` is the path of certificates, or whether those of the system vouch."""

    address: str
    system: str = ""
    username: str = ""
    password: str = ""
    verify: str | bool = True

    def __repr__(self) -> str:
        return f"Board({self.address!r})"


class Seen(msgspec.Struct, frozen=True):
    """What it says of its machine."""

    state: PowerState
    model: str = ""


class BoardFailed(Exception):
    """It could not be asked, or did not do what it was told: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def look(board: Board) -> Seen:
    """Whether the machine has power; raises BoardFailed."""
    return _with_system(board, _seen)


def command(board: Board, wanted: str) -> None:
    """Turn the machine `on` or `off`, or `reset` it; raises BoardFailed. What is so already is left alone."""

    def told(system: Any) -> None:
        state = _seen(system).state
        if state == wanted:
            return
        allowed = {str(value.value) for value in system.get_allowed_reset_system_values()}
        verbs = _RESETS["on"] if (wanted, state) == ("reset", "off") else _RESETS[wanted]
        verb = next((v for v in verbs if v in allowed), "")
        if not verb:
            raise BoardFailed(
                f"it offers none of {', '.join(verbs)}, only {', '.join(sorted(allowed))}",
                "use its own console, or update its firmware",
            )
        system.reset_system(_sushy().ResetType(verb))

    _with_system(board, told)


def boot_once(board: Board, device: BootDevice) -> None:
    """Have the machine start from a device, the next time alone; raises BoardFailed."""
    sushy = _sushy()

    def told(system: Any) -> None:
        source = sushy.BootSource(_DEVICES[device])
        system.set_system_boot_options(source, enabled=sushy.BootSourceOverrideEnabled.ONCE)

    _with_system(board, told)


def _seen(system: Any) -> Seen:
    state = _STATES.get(str(getattr(system.power_state, "value", "")), "unknown")
    model = " ".join(p for p in (system.manufacturer, system.model) if isinstance(p, str))
    return Seen(state, "".join(c if c.isprintable() else " " for c in model)[:255])


def _sushy() -> Any:
    # Half a second and some megabytes: only where there is a board controller to ask.
    import sushy

    return sushy


def _with_system(board: Board, work: Callable[[Any], T]) -> T:
    """Work on the machine's resource; whatever goes wrong is BoardFailed."""
    deadline = Deadline(WITHIN)
    try:
        with deadline:
            return _on_system(board, work, deadline)
    except BoardFailed:
        raise
    except Exception as error:
        if deadline.is_over:
            raise _late() from error
        # Whatever a stranger's answer makes a library stumble over says the same: it can't be asked.
        raise _explained(error, board) from error


def _on_system(board: Board, work: Callable[[Any], T], deadline: Deadline) -> T:
    sushy = _sushy()
    connector = _connector(board)
    session = connector._session
    # A redirect would carry the request, and perhaps its credentials, to where nobody told it to go.
    session.max_redirects = 0
    session.trust_env = False
    session.hooks["response"].append(_bounded(deadline))
    deadline.bound(session)
    try:
        root = sushy.Sushy(
            board.address,
            connector=connector,
            auth=sushy.auth.BasicAuth(board.username, board.password) if board.username else None,
        )
        return work(root.get_system(_system_path(root, board)))
    finally:
        session.close()


def _connector(board: Board) -> Any:
    """What speaks HTTP to it and nobody else, each request once.

    Left alone, sushy makes three of what gets no answer, and takes its credentials to whatever address an
    answer names.
    """

    class Once(_sushy().connector.Connector):  # type: ignore[misc]
        def _op(
            self, method: str, path: str = "", *, server_side_retries_left: int | None = None, **named: Any
        ) -> Any:
            if _origin(urljoin(board.address, path)) != _origin(board.address):
                raise BoardFailed(
                    "its answers point to another address, which is asked nothing",
                    "check that the address is a board controller's; update its firmware",
                )
            return super()._op(method, path, server_side_retries_left=0, **named)

    return Once(
        board.address,
        verify=board.verify,
        default_request_timeout=READ_WITHIN,
        connect_timeout=CONNECT_WITHIN,
        server_side_retries=1,
    )


def _origin(url: str) -> tuple[str, str, int]:
    """Where a URL leads: its scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or 443


def _system_path(root: Any, board: Board) -> str:
    if board.system:
        return board.system
    paths: tuple[str, ...] = root.get_system_collection().members_identities
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise BoardFailed("it knows no machine", "look at it with a browser; update its firmware")
    raise BoardFailed(
        f"it has {len(paths)} machines: {', '.join(sorted(paths))[:500]}",
        "name one in spec.boardController.system",
    )


def _late() -> BoardFailed:
    return BoardFailed(f"it did not finish its answer in {WITHIN:g} s", "restart the board controller")


def _bounded(deadline: Deadline) -> Callable[..., None]:
    """Reads an answer within bounds, before anybody else does."""

    def read(response: Any, **_: Any) -> None:
        parts, size = list[bytes](), 0
        while part := response.raw.read1(_CHUNK, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                response.close()
                raise BoardFailed(
                    f"an answer of more than {LARGEST} bytes came",
                    "check that the address is a board controller's",
                )
            if deadline.is_over:
                response.close()
                raise _late()
        response._content, response._content_consumed = b"".join(parts), True

    return read


def _explained(error: Exception, board: Board) -> BoardFailed:
    """What sushy and requests say, as a reason and a next step; nothing of what was sent."""
    import requests

    sushy = _sushy()
    chain = _chain(error)
    for one in chain:
        if isinstance(one, BoardFailed):
            return one
    if isinstance(error, sushy.exceptions.AccessError):
        return BoardFailed(
            "it does not take the user name and password",
            "correct the Secret named in spec.boardController.secret",
        )
    if any(isinstance(e, requests.exceptions.SSLError) for e in chain):
        return BoardFailed(
            f"the certificate of {board.address} is not vouched for",
            "put its certificate, or its authority's, into spec.boardController.caBundle",
        )
    if any(isinstance(e, requests.exceptions.Timeout) for e in chain):
        return BoardFailed(
            f"{board.address} did not answer in time", "check its network; restart the board controller"
        )
    if isinstance(error, sushy.exceptions.HTTPError):
        return BoardFailed(
            f"it answered with HTTP {error.status_code}", "look at its own log; restart the board controller"
        )
    if any(
        isinstance(e, requests.exceptions.ConnectionError | sushy.exceptions.ConnectionError) for e in chain
    ):
        return BoardFailed(
            f"{board.address} can't be reached", "check its address, its network and its cable"
        )
    return BoardFailed(
        f"it did not answer as Redfish does ({type(error).__name__})",
        "check that the address is a board controller's; update its firmware",
    )


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found
