"""Where clouds are and how to prove who asks: the kubeconfig file, shared with kubectl.

One context is one cloud. Reading picks a context and gives a `Target`, which has everything a
connection needs. A name that is no context is taken as a subcloud of the current context's cloud,
reached through that cloud's `/clouds/NAME`. Writing changes only the entries it names and keeps
everything else in the file as it was.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from roost.cli.problems import Misused, NotFound
from roost.link.files import write_private

LARGEST = 4 * 1024 * 1024
_ACCEPTED = ("https://", "http://")


class Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    """Where an API is and who vouches for it."""

    server: str = ""
    certificate_authority_data: str = ""
    certificate_authority: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class Identity(msgspec.Struct, frozen=True, rename="kebab"):
    """What proves who asks."""

    client_certificate_data: str = ""
    client_certificate: str = ""
    client_key_data: str = ""
    client_key: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")


class Context(msgspec.Struct, frozen=True):
    """A cluster, an identity, and the namespace that is meant when none is named."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


class NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: Cluster = Cluster()


class NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: Identity = Identity()


class NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: Context = Context()


class Kubeconfig(msgspec.Struct, frozen=True, rename="kebab"):
    """The file, as far as Roost uses it."""

    clusters: list[NamedCluster] = []
    users: list[NamedUser] = []
    contexts: list[NamedContext] = []
    current_context: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One cloud's API and the identity to use there."""

    name: str
    server: str
    namespace: str = ""
    user: str = ""
    authority: str = ""
    """CA certificates as PEM; empty: those the system trusts."""
    certificate: str = ""
    key: str = ""
    token: str = ""
    verify: bool = True
    server_name: str = ""
    derived: bool = False
    """Whether it is a subcloud reached through the current context's cloud."""


def roost_home(environment: Mapping[str, str]) -> Path:
    """$ROOST_HOME, by default ~/.roost."""
    return Path(environment.get("ROOST_HOME") or Path.home() / ".roost")


def locate(explicit: str, environment: Mapping[str, str], directory: Path) -> Path:
    """The kubeconfig to use; raises Misused when there is none, with what to do."""
    if explicit:
        return _existing(Path(explicit), "--kubeconfig")
    for variable in ("ROOST_KUBECONFIG", "KUBECONFIG"):
        paths = [Path(p) for p in environment.get(variable, "").split(os.pathsep) if p]
        if paths:
            found = next((p for p in paths if p.is_file()), paths[0])
            return _existing(found, f"${variable}")
    default = roost_home(environment) / "kubeconfig"
    if environment.get("ROOST_HOME") and default.is_file():
        return default
    demo = directory / ".demo" / "kubeconfig"
    if demo.is_file() and demo.stat().st_uid == os.geteuid():
        return demo
    if default.is_file():
        return default
    raise Misused(
        f"no kubeconfig: neither $ROOST_KUBECONFIG, $KUBECONFIG nor {default} names a cloud",
        "make this machine a cloud with `roost up`, or log in to one with `roost login https://ADDRESS:PORT`",
    )


def where_to_save(explicit: str, environment: Mapping[str, str]) -> Path:
    """The kubeconfig that `roost login` writes; it need not exist."""
    named = explicit or environment.get("ROOST_KUBECONFIG", "") or environment.get("KUBECONFIG", "")
    if named:
        return Path(named.split(os.pathsep)[0])
    return roost_home(environment) / "kubeconfig"


def read(path: Path) -> tuple[Kubeconfig, dict[str, Any]]:
    """The file as structs and as it stands; raises Misused."""
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise Misused(f"kubeconfig {path} can't be read: {error.strerror}") from error
    if len(text) > LARGEST:
        raise Misused(f"kubeconfig {path} is larger than {LARGEST} bytes")
    try:
        raw = yaml.safe_load(text) or {}
        return msgspec.convert(_without_nulls(raw), Kubeconfig), raw
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        first = str(error).splitlines()[0]
        raise Misused(f"kubeconfig {path} is not a kubeconfig: {first}", "mend or remove the file") from error


def choose(config: Kubeconfig, path: Path, cloud: str) -> Target:
    """The target for a context, or for a subcloud under the current context; raises Misused, NotFound."""
    contexts = {c.name: c.context for c in config.contexts}
    name = cloud or config.current_context
    if not name:
        known = ", ".join(contexts) or "none"
        raise Misused(
            f"kubeconfig {path} has no current context", f"name one with --cloud; there are: {known}"
        )
    if name in contexts:
        return _target(config, path, name, contexts[name])
    current = contexts.get(config.current_context)
    if current is None:
        known = ", ".join(contexts) or "none"
        raise NotFound(f"kubeconfig {path} has no context {name!r}", f"there are: {known}")
    upper = _target(config, path, config.current_context, current)
    return msgspec.structs.replace(
        upper,
        name=name,
        server=f"{upper.server.split('/clouds/')[0]}/clouds/{name}",
        namespace=name,
        derived=True,
    )


def remember(
    raw: dict[str, Any], name: str, cluster: dict[str, Any], user: dict[str, Any], namespace: str
) -> dict[str, Any]:
    """The file with a context added or replaced and made current; `raw` is not changed."""
    new = {"apiVersion": "v1", "kind": "Config", "preferences": {}, **raw}
    new["clusters"] = _put(raw.get("clusters"), {"name": name, "cluster": cluster})
    new["users"] = _put(raw.get("users"), {"name": f"{name}-user", "user": user})
    context: dict[str, Any] = {"cluster": name, "user": f"{name}-user"}
    if namespace:
        context["namespace"] = namespace
    new["contexts"] = _put(raw.get("contexts"), {"name": name, "context": context})
    new["current-context"] = name
    return new


def write(path: Path, raw: dict[str, Any]) -> None:
    """Put the file in place atomically, readable by its owner alone."""
    import yaml

    write_private(path, yaml.safe_dump(raw, sort_keys=False).encode())


def _existing(path: Path, named_by: str) -> Path:
    if not path.is_file():
        raise Misused(f"{named_by} names {path}, which is not there", "correct it, or run `roost login`")
    return path


def _put(entries: Any, entry: dict[str, Any]) -> list[Any]:
    kept = [e for e in entries or [] if e.get("name") != entry["name"]]
    return [*kept, entry]


def _without_nulls(value: Any) -> Any:
    """`key: null` is how some tools write an empty value."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def _target(config: Kubeconfig, path: Path, name: str, context: Context) -> Target:
    cluster = next((c.cluster for c in config.clusters if c.name == context.cluster), None)
    if cluster is None or not cluster.server.startswith(_ACCEPTED):
        raise Misused(
            f"context {name} of {path} names cluster {context.cluster!r}, which has no server address"
        )
    user = next((u.user for u in config.users if u.name == context.user), Identity())
    return Target(
        name=name,
        server=cluster.server.rstrip("/"),
        namespace=context.namespace,
        user=context.user,
        authority=_pem(cluster.certificate_authority_data, cluster.certificate_authority, path),
        certificate=_pem(user.client_certificate_data, user.client_certificate, path),
        key=_pem(user.client_key_data, user.client_key, path),
        token=user.token or _file(user.token_file, path).strip(),
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name,
    )


def _pem(data: str, file: str, path: Path) -> str:
    if not data:
        return _file(file, path)
    try:
        return base64.b64decode(data, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Misused(f"kubeconfig {path} has certificate data that is not base64 of PEM: {error}") from error


def _file(name: str, path: Path) -> str:
    if not name:
        return ""
    file = Path(name) if Path(name).is_absolute() else path.parent / name
    try:
        return file.read_text()
    except OSError as error:
        raise Misused(f"kubeconfig {path} names {file}, which can't be read: {error.strerror}") from error
