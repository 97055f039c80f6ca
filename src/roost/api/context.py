"""What the API needs from the rest of the house, handed in by `program`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.types import Scope

from roost import __version__
from roost.engine import admission
from roost.engine.vault import Vault
from roost.link import exchange
from roost.model.codec import Raw
from roost.store.store import Store

CallCloud = Callable[[str, exchange.Request], Awaitable[exchange.Response]]
Authenticator = Callable[[Scope], Awaitable[exchange.Caller | None]]
Subresource = Callable[["ApiContext", exchange.Caller, str, str, Raw], Awaitable[Raw]]


@dataclass(frozen=True, slots=True)
class ApiContext:
    """One cloud's API.

    `cloud` is the name of this cloud; its resources live in the namespace of that name.
    `rules` are the admission rules by kind. `authenticate` are further ways to know a caller, asked
    before certificates and tokens. `call_cloud` forwards a request to a subcloud (None: there are
    no subclouds). `subresources` answer POST on `PLURAL/NAME/SUBRESOURCE`, called with this
    context, the caller, namespace, name and body; they raise admission.Refused or status.ApiError.
    `vault` seals secret values; without it they are refused. `compares`: a secret value that is written again
    is known to be no change, which tells who writes that it is the one. `issuer` is the URL under which
    others verify tokens of service accounts.
    """

    store: Store
    cloud: str
    version: str = __version__
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    rules: Mapping[str, Sequence[admission.Rule]] = field(default_factory=dict)
    authenticate: Sequence[Authenticator] = ()
    call_cloud: CallCloud | None = None
    subresources: Mapping[tuple[str, str], Subresource] = field(default_factory=dict)
    vault: Vault | None = None
    compares: bool = True
    issuer: str = ""

    @property
    def issuer_url(self) -> str:
        """Who issues tokens of service accounts; by default a name that no other cloud of the fleet has."""
        return self.issuer or f"https://{self.cloud}.roost.internal"
