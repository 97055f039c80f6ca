"""Single requests by chance: paths, queries, headers, bodies, credentials."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz import examples
from tests.fuzz.grammar import AUTHORIZATIONS, anything, as_json, fitting, logins
from tests.fuzz.promises import keeps, logged
from tests.fuzz.serving import PASSWORD, Server
from tests.fuzz.wire import Asked, Line

GROWTH = 64 * 1024 * 1024
"""Bytes that the server may grow by while it answers thousands of requests."""
STREAMS = ("watch=", "follow=")


def tried(server: Server, line: Line, asked: Asked) -> int:
    """Send it, hold the answer to what every answer keeps; a refusal must have changed nothing."""
    before = server.revision()
    answer = line.ask(asked, watching=any(word in asked.target for word in STREAMS))
    server.asked += 1
    keeps(asked, answer)
    if answer.code >= 400:
        assert server.revision() == before, (asked, answer)
    server.alive()
    return answer.code


def search(server: Server, among: SearchStrategy[Asked], usual: int) -> set[int]:
    """Try many over one connection; the codes that came back."""
    codes = set[int]()

    @settings(
        max_examples=examples(usual),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(among)
    def search(asked: Asked) -> None:
        try:
            codes.add(tried(server, line, asked))
        except BaseException:
            line.close()
            raise

    with server.line() as line:
        search()
    return codes


def test_any_request_is_answered(server: Server) -> None:
    before = server.memory
    assert {200, 400, 401, 404, 405, 415} <= search(server, anything, 700)
    assert server.memory - before < GROWTH
    logged(server)


def test_writes_that_come_far_are_answered(server: Server) -> None:
    before = server.memory
    assert {200, 201, 400, 404, 409, 422} <= search(server, fitting(), 700)
    assert server.memory - before < GROWTH
    logged(server)


def test_any_credential_is_answered(server: Server) -> None:
    paths = (
        "/version",
        "/livez",
        "/apis/roost.edge/v1/users",
        "/audit",
        "/logout",
        "/clouds/harbor/api",
        "/keys",
    )
    for path in paths:
        for shown in AUTHORIZATIONS:
            for method in ("GET", "POST"):
                for twice in (1, 2):
                    asked = Asked(method, path, [("Authorization", shown)] * twice)
                    with server.line("") as line:
                        tried(server, line, asked)
    logged(server)


def test_any_login_is_answered(server: Server) -> None:
    at = logins.map(
        lambda body: Asked("POST", "/login", [("Content-Type", "application/json")], as_json(body))
    )
    search(server, at, 100)
    with server.line("") as line:
        for name in ("ada", "nobody", "x" * 300, "a\x00b", "\u202e"):
            body = as_json({"name": name, "password": PASSWORD})
            tried(server, line, Asked("POST", "/login", [("Content-Type", "application/json")], body))
    logged(server)


def test_memory_does_not_grow_with_requests(server: Server) -> None:
    """The same again and again: what is remembered of names, sources and refusals has its bounds."""
    few = [f"/api/v1/namespaces/central/configmaps/{n}?limit={n}&labelSelector=a{n}=b" for n in range(200)]

    def ask_all(turn: int) -> int:
        for target in few:
            line.ask(
                Asked(
                    "GET",
                    f"{target}{turn}",
                    [("User-Agent", f"agent-{turn}"), ("If-None-Match", f'"{turn}"')],
                )
            )
            line.ask(Asked("PUT", f"{target}{turn}", [("Content-Type", f"application/x-{turn}")], b"{}"))
            server.asked += 2
        return server.memory

    with server.line() as line:
        ask_all(0)
        before = ask_all(1)
        after = max(ask_all(turn) for turn in range(2, 7))
    assert after - before < GROWTH / 4
