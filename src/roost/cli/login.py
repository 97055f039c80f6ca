"""`roost login`: keep the address of a cloud, its authority and a token in the kubeconfig.

The authority is pinned: from a file, or as the server sends it, then only after its fingerprint was
confirmed by the person or matches --ca-fingerprint. The token, or the password, comes from a prompt,
standard input, a file, $ROOST_TOKEN or $ROOST_PASSWORD, never from the command line, where others can
read it. Nothing is saved before the cloud has accepted the token.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from roost.cli import answers, kubeconfig, output
from roost.cli.client import Client
from roost.cli.kinds import CLOUD
from roost.cli.kubeconfig import Target
from roost.cli.problems import OK, Denied, Misused, Problem, Unreachable

PORT = 7443
CONNECT_SECONDS = 10.0


def login(
    server: Annotated[
        str, Parameter(name="SERVER", help="Address of the cloud's API, as https://192.0.2.1:7443.")
    ],
    /,
    *,
    name: Annotated[str, Parameter(help="Name of the context; default: the cloud's own name.")] = "",
    ca_file: Annotated[str, Parameter(help="The cloud's certificate authority, PEM.")] = "",
    ca_fingerprint: Annotated[str, Parameter(help="SHA-256 of the authority that is expected.")] = "",
    token_file: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="File with the token; - reads standard input.")
    ] = "",
    user: Annotated[str, Parameter(help="Log in with this name and a password, instead of a token.")] = "",
    password_file: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="File with the password; - reads standard input.")
    ] = "",
    kubeconfig_file: Annotated[str, Parameter(name="--kubeconfig", help="File to write.")] = "",
) -> int:
    """Log in to a cloud: check its authority, try a token, save both as a context.

    For example:
        roost login https://192.0.2.1:7443
        roost login https://192.0.2.1:7443 --ca-file ca.pem --token-file token
        roost login https://192.0.2.1:7443 --ca-fingerprint SHA256 --name harbor
        roost login https://192.0.2.1:7443 --user ada
        roost login https://192.0.2.1:7443 --user ada --password-file ada.password
    """
    address = complete(server)
    authority = _authority(address, ca_file, ca_fingerprint) if address.startswith("https://") else ""
    if user:
        password = read_secret(password_file, "ROOST_PASSWORD", f"Password of {user}: ", what="password")
        token = begin_session(
            Target(name=name or address, server=address, authority=authority), user, password
        )
    else:
        token = read_secret(token_file, "ROOST_TOKEN", "Token: ")
    target = Target(name=name or address, server=address, authority=authority, token=token)
    with Client(target) as client:
        who = whoami(client)
        clouds, _ = client.list_items(CLOUD, None, answers.Cloud)
    cloud = own_cloud(clouds, address)
    context = name or cloud or urlsplit(address).hostname or "roost"
    path = kubeconfig.where_to_save(kubeconfig_file, os.environ)
    raw = kubeconfig.read(path)[1] if path.exists() else {}
    cluster = {"server": address}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    kubeconfig.write(path, kubeconfig.remember(raw, context, cluster, {"token": token}, cloud))
    output.say(f"Logged in to {context} as {who or 'an unnamed user'}; saved in {path}.")
    return OK


def begin_session(target: Target, user: str, password: str) -> str:
    """A token for a name and a password. Raises Denied when they are wrong."""
    import msgspec

    with Client(target) as client:
        answer = client.request("POST", "/login", json={"name": user, "password": password}, doing="log in")
    return msgspec.json.decode(answer, type=answers.Token).status.token


def complete(server: str) -> str:
    """The whole address; https and the usual port may be left out. Raises Misused."""
    text = server if "://" in server else f"https://{server}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError as error:
        raise Misused(f"{server!r} is no address: {error}") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise Misused(f"{server!r} is no address", "write it as https://ADDRESS:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = f":{PORT}" if "://" not in server else ""
    at = f":{port}" if port else default
    return f"{parts.scheme}://{host}{at}{parts.path.rstrip('/')}"


def own_cloud(clouds: list[answers.Cloud], address: str) -> str:
    """The name of the cloud that answered: the one that is under none of the others it knows."""
    through = urlsplit(address).path.rpartition("/clouds/")[2]
    names = {c.metadata.name for c in clouds}
    if through in names:
        return through
    roots = [c.metadata.name for c in clouds if c.status.upper not in names]
    return roots[0] if len(roots) == 1 else ""


def whoami(client: Client) -> str:
    """The user the cloud takes us for. Raises Denied when it takes us for nobody."""
    answer = client.request(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        json={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        doing="log in",
    )
    import msgspec

    found: dict[str, Any] = msgspec.json.decode(answer)
    return str(found.get("status", {}).get("userInfo", {}).get("username", ""))


def read_secret(source: str, variable: str, prompt: str, what: str = "token") -> str:
    """A secret from a file, standard input (-), the environment or a prompt. Raises Misused."""
    if source and source != "-":
        try:
            secret = Path(source).read_text()[:65536]
        except OSError as error:
            raise Misused(f"{source} can't be read: {(error.strerror or str(error)).lower()}") from error
    elif source == "-" and not sys.stdin.isatty():
        secret = sys.stdin.readline(65536)
    elif not source and variable and os.environ.get(variable):
        secret = os.environ[variable]
    elif sys.stdin.isatty():
        secret = getpass.getpass(prompt)
    else:
        set_it = f"set ${variable}, or " if variable else ""
        file = f"--{what}-file FILE, or --{what}-file - for standard input"
        raise Misused(f"no {what} was given, and there is no terminal to ask at", f"{set_it}name {file}")
    secret = secret.strip()
    if not secret:
        raise Misused(f"the {what} is empty")
    return secret


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a DER certificate, as people compare it."""
    return hashlib.sha256(certificate).hexdigest()


def _authority(address: str, ca_file: str, expected: str) -> str:
    """PEM of the authority to trust. Raises Misused, Denied, Unreachable."""
    wanted = expected.lower().removeprefix("sha256:").replace(":", "")
    if ca_file:
        try:
            pem = Path(ca_file).read_text()
            found = fingerprint(ssl.PEM_cert_to_DER_cert(pem))
        except OSError as error:
            raise Misused(f"{ca_file} can't be read: {(error.strerror or str(error)).lower()}") from error
        except ValueError as error:
            raise Misused(f"{ca_file} is not a PEM certificate") from error
    else:
        certificate = _sent_authority(address)
        pem, found = ssl.DER_cert_to_PEM_cert(certificate), fingerprint(certificate)
    if wanted:
        if wanted != found:
            raise Denied(
                f"the authority of {address} has the fingerprint {found}, not {wanted}",
                "someone may stand between; ask the cloud's administrator",
            )
    elif not ca_file:
        _confirm(address, found)
    return pem


def _confirm(address: str, found: str) -> None:
    output.note(f"The authority of {address} has the SHA-256 fingerprint\n  {found}")
    if not sys.stdin.isatty():
        raise Denied(
            "the authority is not confirmed",
            f"compare it, then give --ca-fingerprint {found}, or use --ca-file",
        )
    output.note("Is it the one the cloud's administrator told you? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Denied("the authority was not confirmed; nothing was saved")


def _sent_authority(address: str) -> bytes:
    """The last certificate of the chain that a server sends, which must be an authority's."""
    from cryptography import x509

    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            chain = _chain(secure)
    except OSError as error:
        raise Unreachable(
            f"{address} can't be reached: {(error.strerror or str(error)).lower()}", "is the address right?"
        ) from error
    last = x509.load_der_x509_certificate(chain[-1]) if chain else None
    if last is None or not _is_authority(last):
        raise Problem(
            f"{address} does not send its certificate authority",
            "give it with --ca-file; it stands in the kubeconfig that the cloud wrote for its administrator",
        )
    return chain[-1]


def _chain(secure: ssl.SSLSocket) -> list[bytes]:
    # Public from Python 3.13 on; before that the same call is one level down.
    inner: Any = secure if hasattr(secure, "get_unverified_chain") else secure._sslobj  # type: ignore[attr-defined]
    chain = inner.get_unverified_chain() or []
    return [c if isinstance(c, bytes) else c.public_bytes(2) for c in chain]


def _is_authority(certificate: Any) -> bool:
    from cryptography import x509

    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return bool(constraints.value.ca)
