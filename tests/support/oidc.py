"""A real OpenID Connect provider (the npm package oidc-provider, certified by its foundation) for tests.

It is installed once into a cache; where node or npm or the package can't be had, `unavailable` says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from joserfc.jwk import ECKey, RSAKey

PACKAGE = "oidc-provider@9"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
CLIENT, SECRET = "roost", "a-secret-of-the-tests-alone"
PATIENCE = 60.0


@cache
def unavailable() -> str:
    """Why there is no provider on this machine; empty when there is one."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "no OIDC provider: node and npm are not on the PATH"
    directory = _directory()
    if not (directory / "node_modules" / "oidc-provider").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", PACKAGE]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, timeout=100, check=False)
        except subprocess.TimeoutExpired:
            return f"no OIDC provider: npm did not install {PACKAGE} in time"
        if done.returncode:
            return f"no OIDC provider: npm can't install {PACKAGE}"
    return ""


def _directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "roost-tests" / "oidc-provider"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def new_key(name: str, algorithm: str) -> dict[str, Any]:
    """A private signing key as a JWK."""
    parameters: Any = {"kid": name, "use": "sig", "alg": algorithm}
    if algorithm.startswith("ES"):
        return dict(ECKey.generate_key("P-256", parameters).as_dict(private=True))
    return dict(RSAKey.generate_key(2048, parameters).as_dict(private=True))


@contextlib.contextmanager
def provider(
    port: int, accounts: dict[str, Any], keys: list[dict[str, Any]], *, seconds: int = 600
) -> Iterator[str]:
    """A running provider; its issuer URL."""
    script = _directory() / SCRIPT.name
    script.write_text(SCRIPT.read_text())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(_directory()),
        "PORT": str(port),
        "ACCOUNTS": json.dumps(accounts),
        "JWKS": json.dumps({"keys": keys}),
        "ALGORITHM": keys[0]["alg"],
        "SECONDS": str(seconds),
    }
    running = subprocess.Popen(
        ["node", str(script)],
        cwd=_directory(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if "ready" in line:
                break
        else:
            raise RuntimeError("the OIDC provider ended before it was ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(PATIENCE)
        if running.stdout is not None:
            running.stdout.close()


def id_token(issuer: str, login: str) -> str:
    """Log in as a person would, with a browser's cookies, and trade the code for an ID token."""
    with httpx.Client(timeout=PATIENCE, trust_env=False) as browser:
        query = {
            "client_id": CLIENT,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": "http://127.0.0.1/done",
        }
        answer = browser.get(f"{issuer}/auth", params=query)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if urlsplit(target).path == "/done":
                    return _traded(browser, issuer, parse_qs(urlsplit(target).query)["code"][0])
                answer = browser.get(target)
                continue
            form = re.search(r'action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)
            assert form and prompt, answer.text[:2000]
            data = {"prompt": prompt[1], "login": login, "password": "any"}
            answer = browser.post(urljoin(str(answer.url), form[1]), data=data)
    raise RuntimeError("the OIDC provider asks without end")


def _traded(browser: httpx.Client, issuer: str, code: str) -> str:
    answer = browser.post(
        f"{issuer}/token",
        data={"grant_type": "authorization_code", "code": code, "redirect_uri": "http://127.0.0.1/done"},
        auth=(CLIENT, SECRET),
    )
    answer.raise_for_status()
    return str(answer.json()["id_token"])
