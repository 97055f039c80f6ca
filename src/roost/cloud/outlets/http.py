"""POST of JSON with a deadline, as webhooks and Alertmanager share it: what each answer means, in words.

Redirects are not followed, proxies of the environment not used. Answers are read up to a bound and never
shown: what a receiver says is not this cloud's to repeat.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime

import httpx

from roost import __version__
from roost.cloud.outlets.pausing import Failed, Unwanted, judged, retry_after
from roost.cloud.outlets.sink import Settings
from roost.cloud.outlets.tls import context_of, tls_failure
from roost.model.outlet import address_of

MOST_ANSWER = 64 * 1024


class Poster:
    """One receiver over HTTP or HTTPS."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        spec = settings.spec
        self._clock = clock
        scheme, self._host, self._port = address_of(spec.endpoint)
        verify: ssl.SSLContext | bool = False
        if scheme == "https":
            verify = context_of(spec.ca_bundle, settings.credentials)
        headers = [(b"user-agent", f"roost/{__version__}".encode()), (b"content-type", b"application/json")]
        if token := settings.credentials.get("token"):
            # Bytes as they are: as text one that is not ASCII could not be sent at all.
            headers.append((b"authorization", b"Bearer " + token.strip()))
        basic: httpx.BasicAuth | None = None
        if "username" in settings.credentials and spec.type == "alertmanager":
            password = settings.credentials.get("password", b"")
            basic = httpx.BasicAuth(settings.credentials["username"], password)
        self._client = httpx.AsyncClient(
            verify=verify,
            headers=headers,
            auth=basic,
            timeout=float(spec.limits.timeout_seconds),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=1),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return when it is accepted; raises Failed, Unwanted."""
        where = f"{self._host}:{self._port}"
        try:
            async with self._client.stream("POST", url, content=body, headers=dict(headers)) as answer:
                size = 0
                async for part in answer.aiter_raw():
                    size += len(part)
                    if size > MOST_ANSWER:
                        break
                self._judge(answer, where)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _not_connected(error, where, self._host) from error
        except httpx.TimeoutException as error:
            raise Failed(
                f"{where} did not answer in time",
                "see whether it is overloaded; spec.limits.timeoutSeconds is how long is waited",
                doubtful=True,
                code="NoAnswer",
            ) from error
        except httpx.LocalProtocolError as error:
            raise _unsendable() from error
        except httpx.HTTPError as error:
            raise Failed(
                f"the connection to {where} broke: {type(error).__name__}",
                "see its log",
                doubtful=True,
                code="ConnectionLost",
            ) from error
        except (httpx.InvalidURL, ValueError) as error:
            raise _unsendable() from error

    def _judge(self, answer: httpx.Response, where: str) -> None:
        status = answer.status_code
        match judged(status):
            case "accepted":
                return
            case "unwanted":
                raise Unwanted(f"{where} answered {status}")
            case "again":
                asked = retry_after(answer.headers.get("retry-after", ""), self._clock())
                raise Failed(
                    f"{where} answered {status}",
                    "see its log; it is tried again",
                    retry_after=asked,
                    code="ReceiverFailed",
                )
        remedy = "check spec.endpoint; nothing is passed over until it accepts again"
        if status in (401, 403):
            remedy = "check the token, user or signing key in its Secret"
        elif 300 <= status < 400:
            remedy = "set spec.endpoint to where it points; redirects are not followed"
        raise Failed(f"{where} answered {status}", remedy, halted=True, code="Refused")

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def _unsendable() -> Failed:
    return Failed(
        "the endpoint or a header can't be sent",
        "check spec.endpoint and the values of its Secret",
        halted=True,
        code="BadEndpoint",
    )


def _not_connected(error: Exception, where: str, host: str) -> Failed:
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            break
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, host)
        cause = cause.__cause__ or cause.__context__
    return Failed(
        f"{where} can't be reached: {str(error)[:200] or type(error).__name__}",
        "check that it runs, its address and the way there",
    )
