"""Reaching a cloud: kubeconfigs, logging in, retries, and what refusals are made into."""

from __future__ import annotations

import base64
import http.server
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from roost.cli import kubeconfig, login
from roost.cli.client import Client
from roost.cli.kinds import HOST
from roost.cli.kubeconfig import Target
from roost.cli.problems import Denied, Expired, Failed, Misused, NotFound, Refused, Unreachable
from roost.cli.refusals import problem_of, retry_after
from roost.engine import credentials
from roost.model.access import User, UserSpec
from roost.model.meta import Metadata
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

CONFIG: dict[str, Any] = {
    "current-context": "central",
    "clusters": [
        {
            "name": "c",
            "cluster": {
                "server": "https://a:1/",
                "certificate-authority-data": base64.b64encode(b"CA").decode(),
            },
        }
    ],
    "users": [{"name": "u", "user": {"token": "t", "username": "kept"}}],
    "contexts": [
        {"name": "central", "context": {"cluster": "c", "user": "u", "namespace": "centre"}},
        {"name": "lost", "context": {"cluster": "none", "user": "u"}},
        {"name": "harbor", "context": {"cluster": "c", "user": "u", "namespace": None}},
    ],
}


def put(path: Path, raw: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(raw))
    return path


# -- kubeconfig


def test_where_it_is_looked_for(tmp_path: Path) -> None:
    home = {"ROOST_HOME": str(tmp_path / "home")}
    with pytest.raises(Misused):
        kubeconfig.locate("", home, tmp_path)
    default = put(tmp_path / "home" / "kubeconfig", CONFIG)
    assert kubeconfig.locate("", home, tmp_path) == default
    demo = put(tmp_path / ".demo" / "kubeconfig", CONFIG)
    assert kubeconfig.locate("", {}, tmp_path) == demo
    assert kubeconfig.locate("", home, tmp_path) == default, "a home that is named comes before the demo"
    kube, own = put(tmp_path / "kube", CONFIG), put(tmp_path / "own", CONFIG)
    assert kubeconfig.locate("", {**home, "KUBECONFIG": f"/nowhere:{kube}"}, tmp_path) == kube
    assert (
        kubeconfig.locate("", {**home, "KUBECONFIG": str(kube), "ROOST_KUBECONFIG": str(own)}, tmp_path)
        == own
    )
    with pytest.raises(Misused, match="--kubeconfig names"):
        kubeconfig.locate(str(tmp_path / "gone"), home, tmp_path)


def test_contexts_are_clouds(tmp_path: Path) -> None:
    path = put(tmp_path / "k", CONFIG)
    config, _ = kubeconfig.read(path)
    central = kubeconfig.choose(config, path, "")
    assert (central.name, central.server, central.namespace) == ("central", "https://a:1", "centre")
    assert (central.authority, central.token, central.derived) == ("CA", "t", False)
    assert kubeconfig.choose(config, path, "harbor").namespace == ""
    ridge = kubeconfig.choose(config, path, "ridge")
    assert (ridge.server, ridge.namespace, ridge.derived) == ("https://a:1/clouds/ridge", "ridge", True)
    with pytest.raises(Misused, match="names cluster 'none'"):
        kubeconfig.choose(config, path, "lost")
    bare = msgspec.structs.replace(config, current_context="")
    with pytest.raises(Misused, match="no current context"):
        kubeconfig.choose(bare, path, "")
    with pytest.raises(NotFound):
        kubeconfig.choose(bare, path, "ridge")


@pytest.mark.parametrize("text", ["a: [", "[1]", "clusters: 5", "clusters: [{name: 1}]"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(Misused, match="is not a kubeconfig"):
        kubeconfig.read(path)


def test_certificate_data_that_is_no_base64(tmp_path: Path) -> None:
    raw = {
        **CONFIG,
        "clusters": [{"name": "c", "cluster": {"server": "https://a", "certificate-authority-data": "%"}}],
    }
    path = put(tmp_path / "k", raw)
    with pytest.raises(Misused, match="not base64"):
        kubeconfig.choose(kubeconfig.read(path)[0], path, "")


def test_remembering_keeps_everything_else(tmp_path: Path) -> None:
    new = kubeconfig.remember(CONFIG, "ridge", {"server": "https://r"}, {"token": "x"}, "ridge")
    assert new["users"][0] == CONFIG["users"][0]
    assert new["current-context"] == "ridge"
    assert [c["name"] for c in CONFIG["contexts"]] == ["central", "lost", "harbor"], (
        "the old one is not changed"
    )
    path = tmp_path / "deep" / "k"
    kubeconfig.write(path, new)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert kubeconfig.choose(kubeconfig.read(path)[0], path, "").token == "x"
    again = kubeconfig.remember(new, "ridge", {"server": "https://s"}, {"token": "y"}, "")
    assert len(again["contexts"]) == len(new["contexts"])


# -- logging in


@pytest.fixture
def token(server: ApiServer) -> str:
    from datetime import timedelta

    spec = UserSpec(role="administrator")
    server.do(server.store.save(User(metadata=Metadata(name="ada"), spec=spec)))
    return server.do(
        server.store.transact(lambda tx: credentials.issue(tx, "bearer", "ada", timedelta(hours=1)))
    )


def test_login_saves_a_context_that_works(
    roost: Roost, server: ApiServer, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved"
    monkeypatch.setenv("ROOST_KUBECONFIG", str(saved))
    monkeypatch.setenv("ROOST_TOKEN", token)
    result = roost("login", server.url, "--ca-file", str(server.authority.path))
    assert result.code == 0, result.err
    assert result.out == f"Logged in to central as ada; saved in {saved}.\n"
    assert token not in result.out + result.err
    monkeypatch.delenv("ROOST_TOKEN")
    assert roost("cloud", "list").code == 0


def test_login_with_a_wrong_token_saves_nothing(
    roost: Roost, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved"
    monkeypatch.setenv("ROOST_KUBECONFIG", str(saved))
    (tmp_path / "token").write_text("0123.wrong\n")
    token_file = str(tmp_path / "token")
    result = roost("login", server.url, "--ca-file", str(server.authority.path), "--token-file", token_file)
    assert result.code == 5
    assert not saved.exists()


def test_login_compares_the_fingerprint(
    roost: Roost, server: ApiServer, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_TOKEN", token)
    ca = str(server.authority.path)
    result = roost("login", server.url, "--ca-file", ca, "--ca-fingerprint", "sha256:00:11")
    assert result.code == 5
    assert "not 0011" in result.err
    unconfirmed = roost("login", server.url)
    assert unconfirmed.code == 5
    told = re.search(r"--ca-fingerprint ([0-9a-f]{64})", unconfirmed.err)
    assert told, unconfirmed.err
    kept = tmp_path / "kept"
    pinned = roost("login", server.url, "--ca-fingerprint", told[1], "--kubeconfig", str(kept))
    assert pinned.code == 0, pinned.err
    assert roost("cloud", "list", "--kubeconfig", str(kept)).code == 0


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("192.0.2.1", "https://192.0.2.1:7443"),
        ("https://edge.example/clouds/harbor/", "https://edge.example/clouds/harbor"),
        ("[2001:db8::1]:9", "https://[2001:db8::1]:9"),
    ],
)
def test_addresses_are_completed(given: str, whole: str) -> None:
    assert login.complete(given) == whole


@pytest.mark.parametrize("given", ["ftp://a", "https://", "a:99999"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(Misused):
        login.complete(given)


# -- retries, on a bare server that can misbehave

Answer = Callable[[int], tuple[int, dict[str, str], bytes] | None]


class Misbehaving:
    """Answers by number of request; None cuts the connection."""

    def __init__(self, answer: Answer) -> None:
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def respond(self) -> None:
                outer.requests += 1
                answered = answer(outer.requests)
                if answered is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                code, headers, body = answered
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = respond

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        self.client = Client(
            Target(name="t", server=f"http://127.0.0.1:{self._server.server_address[1]}"), 10
        )
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    pauses: list[float] = []
    monkeypatch.setattr("roost.cli.client.time.sleep", pauses.append)
    yield pauses


def test_reads_are_repeated_when_the_connection_breaks() -> None:
    broken = Misbehaving(lambda n: None if n < 3 else (200, {}, b'{"metadata": {"name": "h"}}'))
    with broken as client:
        assert client.get(HOST, "n", "h", dict)["metadata"]["name"] == "h"
    assert broken.requests == 3


def test_but_not_for_ever_and_writes_never() -> None:
    broken = Misbehaving(lambda n: None)
    with broken as client:
        with pytest.raises(Unreachable):
            client.get(HOST, "n", "h", dict)
        assert broken.requests == 3
        with pytest.raises(Unreachable):
            client.create(HOST, "n", {})
        assert broken.requests == 4


def test_a_busy_server_is_asked_again_when_it_says(quick: list[float]) -> None:
    busy = Misbehaving(lambda n: (429, {"Retry-After": "2"}, b"{}") if n == 1 else (201, {}, b"{}"))
    with busy as client:
        assert client.create(HOST, "n", {}) == {}
    assert quick == [2.0]


def test_an_answer_that_is_no_answer() -> None:
    with Misbehaving(lambda n: (200, {}, b"<html>")) as client, pytest.raises(Failed, match="not understood"):
        client.get(HOST, "n", "h", dict)


# -- refusals


def status(
    code: int, message: str = "m", reason: str = "", causes: list[dict[str, str]] | None = None
) -> bytes:
    details = {"causes": causes or []}
    return msgspec.json.encode(
        {"kind": "Status", "code": code, "message": message, "reason": reason, "details": details}
    )


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (400, Refused, 1),
        (401, Denied, 5),
        (403, Denied, 5),
        (404, NotFound, 4),
        (409, Refused, 1),
        (410, Expired, 1),
        (413, Refused, 1),
        (422, Refused, 1),
        (429, Refused, 1),
        (500, Refused, 1),
        (503, Unreachable, 3),
        (504, Unreachable, 3),
    ],
)
def test_each_code_has_its_problem(code: int, kind: type[Exception], exit_code: int) -> None:
    problem = problem_of(code, status(code, "Because."), "read host h")
    assert type(problem) is kind
    assert problem.code == exit_code
    assert "Because" in problem.reason


def test_causes_are_told_once() -> None:
    causes = [
        {"field": "spec.a", "message": "too large; make it small"},
        {"field": "spec.b", "message": "no"},
    ]
    told = problem_of(422, status(422, 'Host "h" is invalid', causes=causes), "change host h")
    assert told.details == ("spec.a: too large; make it small", "spec.b: no")
    whole = 'Host "h" is invalid: [spec.a: too large; make it small, spec.b: no]'
    assert problem_of(422, status(422, whole, causes=causes), "change host h").details == ()


def test_a_rule_is_no_lack_of_rights() -> None:
    causes = [
        {"reason": "Refused", "message": "it is unlocked"},
        {"reason": "Remedy", "message": "lock it first"},
    ]
    told = problem_of(403, status(403, causes=causes), "delete host h")
    assert type(told) is Refused
    assert (told.reason, told.remedy) == ("can't delete host h: it is unlocked", "lock it first")


def test_what_is_no_status_is_shown_in_part() -> None:
    told = problem_of(502, b"<html>\nlong" + b"x" * 1000, "list hosts")
    assert "<html>" in told.reason
    assert len(told.reason) < 300


def test_when_to_come_back() -> None:
    assert retry_after(429, b"", "") == 1.0
    assert retry_after(503, b"", "") is None
    assert retry_after(503, b"", "7") == 7.0
    assert retry_after(503, msgspec.json.encode({"details": {"retryAfterSeconds": 3}}), "") == 3.0
    assert retry_after(500, b"", "7") is None
