"""The operator that test_kopf runs: tells of what it sees in the file $TOLD, answers in an annotation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import kopf

_TOLD = Path(os.environ["TOLD"])


def _tell(handler: str, name: str | None, spec: Any) -> None:
    with _TOLD.open("a") as file:
        file.write(json.dumps({"handler": handler, "name": name, "order": spec["order"]}) + "\n")


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage()
    settings.peering.standalone = True


@kopf.on.create("roost.edge", "v1", "firewallpolicies")
def created(name: str | None, spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    _tell("create", name, spec)
    patch.metadata.annotations["answer"] = f"seen {spec['order']}"


@kopf.on.update("roost.edge", "v1", "firewallpolicies", field="spec")
def updated(name: str | None, spec: kopf.Spec, **_: Any) -> None:
    _tell("update", name, spec)


@kopf.on.resume("roost.edge", "v1", "firewallpolicies")
def resumed(name: str | None, spec: kopf.Spec, **_: Any) -> None:
    _tell("resume", name, spec)


@kopf.on.delete("roost.edge", "v1", "firewallpolicies")
def deleted(name: str | None, spec: kopf.Spec, **_: Any) -> None:
    _tell("delete", name, spec)
