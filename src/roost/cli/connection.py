"""An HTTP client to one target: TLS from the kubeconfig's own certificates, a deadline on everything.

`ssl` loads key pairs from files only; they are handed over through an anonymous memory file, so that
no key is ever written to a disk.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from roost import __version__
from roost.cli.kubeconfig import Target
from roost.cli.problems import Misused

if TYPE_CHECKING:
    import httpx


def tls(target: Target) -> ssl.SSLContext:
    """The TLS settings for a target; raises Misused when its certificates are no good."""
    try:
        context = ssl.create_default_context(cadata=target.authority or None)
    except ssl.SSLError as error:
        raise Misused(
            f"the certificate authority of context {target.name} is not valid PEM: {error}"
        ) from error
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if target.certificate:
        handle = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            with os.fdopen(handle, "w", closefd=False) as file:
                file.write(f"{target.certificate}\n{target.key}\n")
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        except ssl.SSLError as error:
            raise Misused(
                f"the client certificate of context {target.name} can't be used: {error.reason or error}",
                "log in again with `roost login`",
            ) from error
        finally:
            os.close(handle)
    return context


def open_http(target: Target, timeout: float) -> httpx.Client:
    """A client for a target. Each phase of a request ends within `timeout` seconds."""
    import httpx

    headers = {"User-Agent": f"roost/{__version__}"}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    secure = target.server.startswith("https://")
    return httpx.Client(
        base_url=target.server,
        headers=headers,
        verify=tls(target) if secure else False,
        timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        limits=httpx.Limits(max_connections=16),
        follow_redirects=False,
        trust_env=not _is_loopback(target.server),
    )


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
