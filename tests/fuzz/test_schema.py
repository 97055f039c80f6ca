"""Every operation of the published OpenAPI v3 documents, with data that fits and data that does not.

The answers are checked by schemathesis against the documents: codes, content types, bodies.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from roost.api.discovery import SERVED
from roost.model.registry import SERVED as KINDS
from tests.fuzz import examples
from tests.fuzz.grammar import as_json, as_yaml
from tests.fuzz.promises import keeps
from tests.fuzz.serving import CLOUD, Server
from tests.fuzz.wire import Answer, Asked, Line

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
VERSIONS = sorted({(info.group, info.version) for info in KINDS} & set(SERVED))
ENDLESS = ("watch", "sendInitialEvents", "timeoutSeconds", "allowWatchBookmarks")


def asked_by(case: Any) -> Asked:
    """A case of schemathesis as a request. Streams are left out: they have tests of their own."""
    given = {name: str(value) for name, value in (case.path_parameters or {}).items()}
    path = case.path
    for name, value in given.items():
        known = {"namespace": CLOUD}.get(name, value)
        path = path.replace(f"{{{name}}}", quote(known if len(value) % 4 else value, safe="") or "x")
    query = urlencode({k: v for k, v in (case.query or {}).items() if k not in ENDLESS}, doseq=True)
    headers = [("Content-Type", case.media_type)] if case.media_type else []
    body = b""
    if case.media_type and not isinstance(case.body, schemathesis.core.NotSet):
        body = case.body if isinstance(case.body, bytes) else as_json(case.body)
        if "yaml" in case.media_type and not isinstance(case.body, bytes):
            body = as_yaml(case.body)
    return Asked(case.method, f"{path}?{query}" if query else path, headers, body)


def as_response(asked: Asked, answer: Answer) -> schemathesis.Response:
    """An answer as schemathesis wants it."""
    headers = {name.lower(): answer.headers.get_all(name, []) for name in set(answer.headers)}
    prepared = requests.Request(asked.method, f"https://localhost{asked.target}").prepare()
    return schemathesis.Response(answer.code, headers, answer.body, prepared, 0.1, False)


def document(server: Server, group: str, version: str) -> Any:
    """What the server publishes."""
    where = f"apis/{group}/{version}" if group else f"api/{version}"
    return json.loads(server.administer("GET", f"/openapi/v3/{where}").body)


def check(line: Line, server: Server, case: Any) -> int:
    """Ask, and hold the answer to the document."""
    asked = asked_by(case)
    answer = line.ask(asked)
    server.asked += 1
    keeps(asked, answer)
    if asked.method != "HEAD":
        case.validate_response(as_response(asked, answer), checks=CHECKS)
    return answer.code


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda m: m.name.lower()
)
@pytest.mark.parametrize(("group", "version"), VERSIONS, ids=lambda v: v or "core")
def test_operations(server: Server, group: str, version: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(document(server, group, version))
    schema.config.update(base_url="https://localhost")
    codes = set[int]()
    with server.line() as line:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()

            @settings(
                max_examples=examples(2),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(operation.as_strategy(generation_mode=mode))
            def search(case: Any) -> None:
                try:
                    codes.add(check(line, server, case))
                except BaseException:
                    line.close()
                    raise

            search()
    server.alive()
    assert codes
