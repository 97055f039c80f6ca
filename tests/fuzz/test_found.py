"""What the searches have found, in its smallest form."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz.grammar import as_json
from tests.fuzz.promises import keeps, logged
from tests.fuzz.serving import Server
from tests.fuzz.wire import Asked

MAPS = "/api/v1/namespaces/central/configmaps"
POLICIES = "/apis/roost.edge/v1/namespaces/central/firewallpolicies"
ALPHA = "/apis/roost.edge/v2alpha1/namespaces/central/firewallpolicies"
JSON = [("Content-Type", "application/json")]
APPLY = [("Content-Type", "application/apply-patch+yaml")]
MERGE = [("Content-Type", "application/merge-patch+json")]


def policy(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "roost.edge/v1",
        "kind": "FirewallPolicy",
        "metadata": {"name": name},
        "spec": {"networks": ["oam"], "rules": []},
    }


def configmap(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


@pytest.mark.parametrize(
    "spec", ["[]", "1", "x", "{rules: 1}", "{rules: [1]}", "{rules: [{ports: 1}]}", "{rules: {a: 1}}"]
)
def test_what_can_not_be_converted_is_refused_when_applied(server: Server, spec: str) -> None:
    """It was converted first, for who owns what in another version: 500."""
    name = "converted"
    server.administer("POST", POLICIES, policy(name))
    body = (
        f"apiVersion: roost.edge/v2alpha1\nkind: FirewallPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
    with server.line() as line:
        asked = Asked("PATCH", f"{ALPHA}/{name}?fieldManager=fuzz", APPLY, body.encode())
        answer = line.ask(asked)
    keeps(asked, answer)
    assert answer.code in (400, 422)


@pytest.mark.parametrize(
    ("method", "name", "headers", "body"),
    [
        ("POST", "", JSON, configmap("new")),
        ("PUT", "/formed", JSON, {**configmap("formed"), "data": {"a": "c"}}),
        ("PATCH", "/formed", MERGE, {"data": {"a": "d"}}),
        ("PATCH", "/applied", APPLY, configmap("applied")),
        ("DELETE", "/formed", JSON, {}),
    ],
)
@pytest.mark.parametrize(
    ("query", "accept", "code"),
    [("?includeObject=x", "*/*", 400), ("", "text/html", 406), ("", "application/json;as=Table;v=v9", 406)],
)
def test_a_write_whose_answer_is_refused_is_not_carried_out(
    server: Server, method: str, name: str, headers: Any, body: Any, query: str, accept: str, code: int
) -> None:
    """The form of the answer was looked at after the write."""
    server.administer("POST", MAPS, configmap("formed"))
    before = server.revision()
    with server.line() as line:
        asked = Asked(method, f"{MAPS}{name}{query}", [*headers, ("Accept", accept)], as_json(body))
        answer = line.ask(asked)
    keeps(asked, answer)
    assert answer.code == code
    assert server.revision() == before


@pytest.mark.parametrize("host", ["[", "a:b:c", "", "[::1]:x", "\xff", "x" * 5000])
def test_any_host_header(server: Server, host: str) -> None:
    with server.line() as line:
        for method, target in (
            ("GET", "/x"),
            ("PUT", "/api"),
            ("POST", "/healthz"),
            ("GET", "/openapi/v3/api/v1?hash=1"),
        ):
            asked = Asked(method, target, [("Host", host)])
            keeps(asked, line.ask(asked))
    logged(server)


def test_unsent_answers_go_with_their_connection(server: Server) -> None:
    """A timer kept what was not sent to a client that had gone: half a megabyte each, for two minutes."""

    def leave() -> int:
        for _ in range(150):
            with server.line() as line:
                line.open().sendall(Asked("GET", "/openapi/v2", line.headers).octets)
        server.alive()
        return server.memory

    leave()
    before = leave()
    leave()
    assert leave() - before < 16 * 1024 * 1024
