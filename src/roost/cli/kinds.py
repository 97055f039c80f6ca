"""Names of kinds, as people write them, made into where they are served.

The kinds this version knows are known without asking; others (a newer cloud's) are looked up in its
discovery. A name may say group and version as kubectl takes it: plural.group or plural.version.group.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import msgspec

from roost.cli.problems import Misused, NotFound
from roost.model.kind import KindInfo
from roost.model.registry import KINDS, SERVED

if TYPE_CHECKING:
    from roost.cli.client import Client


class Kind(msgspec.Struct, frozen=True):
    """What is needed to address a kind."""

    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    group_path: str = "/apis/roost.edge/v1"


def group_path(info: KindInfo) -> str:
    """Path below which a kind is served."""
    return f"/apis/{info.api_version}" if info.group else f"/api/{info.version}"


def _kind(info: KindInfo) -> Kind:
    return Kind(info.kind, info.plural, info.singular, info.namespaced, info.short_names, group_path(info))


KNOWN = {info.kind: _kind(info) for info in KINDS if info.served}

CLOUD = KNOWN["Cloud"]
SUBCLOUD = KNOWN["Subcloud"]
SUBCLOUD_GROUP = KNOWN["SubcloudGroup"]
SUBCLOUD_OPERATION = KNOWN["SubcloudOperation"]
HOST = KNOWN["Host"]
HOST_CONFIGURATION = KNOWN["HostConfiguration"]
PLATFORM_NETWORK = KNOWN["PlatformNetwork"]
FIREWALL_POLICY = KNOWN["FirewallPolicy"]
ALARM = KNOWN["Alarm"]
LOG_ENTRY = KNOWN["LogEntry"]
ALARM_SUPPRESSION = KNOWN["AlarmSuppression"]
OPERATION = KNOWN["Operation"]
INCIDENT = KNOWN["Incident"]
USER = KNOWN["User"]
LOCAL_OVERRIDE = KNOWN["LocalOverride"]
OVERRIDE_REVIEW = KNOWN["OverrideReview"]

_GROUP_PATH = re.compile(r"/apis/[a-z0-9.-]{1,253}/[a-z0-9]{1,63}|/api/[a-z0-9]{1,63}")


def find(name: str, client: Client, where: str = "") -> Kind:
    """The kind called `name` (kind, plural, singular or short name); raises Misused when there is none, with
    `where` it was read."""
    word = name.lower()
    known = _match(word, list(KNOWN.values())) or _qualified(word)
    if known is not None:
        return known
    served = _served(client)
    found = _match(word, served)
    if found is None:
        there = f"{where}: " if where else ""
        raise Misused(f"{there}there is no kind {name!r}", _suggestion(name, [*KNOWN.values(), *served]))
    return found


def in_version(kind: Kind, api_version: str, client: Client, where: str) -> Kind:
    """The kind where another of its versions is served; raises Misused when there is none, with `where` the
    version was read."""
    at = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    if at == kind.group_path:
        return kind
    known = [_kind(info) for info in SERVED if info.kind == kind.kind]
    found = next((k for k in known if k.group_path == at), None) or _look_up(client, kind, at)
    if found is None:
        versions = dict.fromkeys(_version(k) for k in (kind, *known))
        there = f"it is known in: {', '.join(versions)}"
        raise Misused(f"{where}: {kind.kind} is not served in apiVersion {api_version[:100]!r}", there)
    return found


def _version(kind: Kind) -> str:
    return kind.group_path.removeprefix("/apis/").removeprefix("/api/")


def _look_up(client: Client, kind: Kind, at: str) -> Kind | None:
    """The kind as the cloud tells it at a path, of a version that is not known here."""
    if not _GROUP_PATH.fullmatch(at):
        return None
    try:
        return next((k for k in _told(client, at) if k.kind == kind.kind), None)
    except NotFound:
        return None


def _qualified(word: str) -> Kind | None:
    """The kind that `plural.group` or `plural.version.group` names, of all versions that are served."""
    plural, dot, rest = word.partition(".")
    for info in SERVED if dot else ():
        full = f"{info.version}.{info.group}".strip(".")
        if plural == info.plural and rest.strip(".") in (full, info.group):
            return _kind(info)
    return None


def _suggestion(name: str, kinds: list[Kind]) -> str:
    """What may have been meant, and what there is."""
    plurals = sorted({k.plural for k in kinds})
    words = {k.kind for k in kinds} if name[:1].isupper() else {*plurals, *(k.singular for k in kinds)}
    close = difflib.get_close_matches(name, sorted(words), n=1, cutoff=0.7)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}there are: {', '.join(plurals)}"


def _match(word: str, kinds: list[Kind]) -> Kind | None:
    for kind in kinds:
        if word in (kind.kind.lower(), kind.plural, kind.singular, *kind.short_names):
            return kind
    return None


def _served(client: Client) -> list[Kind]:
    return [kind for at in ("/apis/roost.edge/v1", "/api/v1") for kind in _told(client, at)]


def _told(client: Client, at: str) -> list[Kind]:
    """The kinds that the cloud's discovery names below a path."""
    from roost.cli import answers

    served = client.document(at, answers.ResourceList, "read which kinds there are").resources
    return [
        Kind(r.kind, r.name, r.singular_name or r.kind.lower(), r.namespaced, tuple(r.short_names), at)
        for r in served
        if "/" not in r.name
    ]
