"""A webhook over real sockets: what arrives, signed; refusals, pauses, breaks, restarts."""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roost.cloud.outlets.trying import attempt
from roost.engine.authorities import trusting
from roost.model.meta import condition_is
from roost.model.outlet import AlarmOutletStatus
from tests.cloud.outlets.receivers import Site, receiver, site, until
from tests.support.certificates import Authority


def whats(messages: list[dict[str, object]]) -> list[object]:
    return [m["what"] for m in messages]


async def test_what_happens_arrives_in_order_and_signed(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.faults("h1", "100.101")
        await here.secret(hmac_key="sesame", token="open")
        await here.declare(
            "webhook", f"http://127.0.0.1:{there.port}/in", secret="noc", sends=["alarms", "log"]
        )
        await until(lambda: "snapshot-end" in whats(there.messages))
        assert whats(there.messages) == ["snapshot-begin", "present", "snapshot-end"]
        await here.faults("h1", "100.101", "100.103")
        await here.faults("h1", "100.103", severity="critical")
        await here.log("the door is open")
        await until(lambda: len(there.messages) == 7)
        told = there.messages[3:]
        assert [(m["what"], m.get("alarm", {}).get("alarmId")) for m in told] == [
            ("set", "100.103"),
            ("clear", "100.101"),
            ("changed", "100.103"),
            ("log", None),
        ]
        assert told[2]["alarm"]["formerSeverity"] == "major"
        assert told[3]["log"]["text"] == "the door is open"
        assert len({m["id"] for m in there.messages}) == 7
        assert not any(m.get("again") for m in there.messages)
        headers = there.posts[-1][0]
        seconds, digest = headers["roost-signature"].removeprefix("t=").split(",v1=")
        signed = hmac.new(b"sesame", f"{seconds}.".encode() + there.bodies[-1], hashlib.sha256).hexdigest()
        assert digest == signed
        assert headers["authorization"] == "bearer open" or headers["authorization"] == "Bearer open"


async def test_a_receiver_that_was_away_is_told_the_rest(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.declare("webhook", f"http://127.0.0.1:{there.port}/", limits={"longestPauseSeconds": 1})
        await until(lambda: "snapshot-end" in whats(there.messages))
        await there.stop()
        for n in range(20):
            await here.faults(f"h{n}", "100.101")
        status = await until(lambda: _failing(here))
        assert "can't be reached" in status.last_error and status.next_attempt_at
        assert not condition_is(status.conditions, "Delivering")
        await there.start()
        await until(lambda: len(there.messages) == 22)
        assert [m["alarm"]["name"] for m in there.messages[2:]] == [f"host.h{n}.100.101" for n in range(20)]
        await until(lambda: _delivering(here))


async def _failing(here: Site) -> AlarmOutletStatus | None:
    status = await here.status()
    return status if status.state == "retrying" else None


async def _delivering(here: Site) -> AlarmOutletStatus | None:
    status = await here.status()
    return status if status.state == "delivering" else None


async def test_tls_at_both_ends_and_each_step_of_a_test(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    pair, client = authority.server(), authority.client("noc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    async with receiver(context) as there, site(tmp_path) as here:
        await here.secret(tls__crt=client.certificate.read_bytes(), tls__key=client.key.read_bytes())
        told = {"secret": "noc", "caBundle": authority.path.read_text()}
        outlet = await here.declare("webhook", f"https://localhost:{there.port}/", **told)
        await until(lambda: "snapshot-end" in whats(there.messages))
        clock = lambda: datetime.now(UTC)  # noqa: E731
        steps = await attempt(here.store, outlet, here.vault, clock)
        assert [(s.name, s.ok) for s in steps][2:] == [("connect", True), ("tls", True), ("answer", True)]
        assert "TLSv1" in steps[3].message and there.messages[-1]["what"] == "test"
        told["caBundle"] = other.path.read_text()
        outlet = await here.declare("webhook", f"https://localhost:{there.port}/", **told)
        steps = await attempt(here.store, outlet, here.vault, clock)
        assert (steps[-1].name, steps[-1].ok) == ("tls", False)
        assert "does not verify" in steps[-1].message and "spec.caBundle" in steps[-1].remedy


def sealed_key() -> bytes:
    """A private key with a pass phrase."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"sesame"),
    )


async def test_a_key_with_a_pass_phrase_is_told(tmp_path: Path) -> None:
    client, sealed = Authority(tmp_path).client("noc"), sealed_key()
    async with site(tmp_path) as here:
        await here.secret(tls__crt=client.certificate.read_bytes(), tls__key=sealed)
        await here.declare("webhook", "https://localhost:1/", secret="noc")

        async def told() -> bool:
            return "without a pass phrase" in (await here.status()).last_error

        await until(told)


def test_nobody_is_asked_for_a_pass_phrase_at_the_terminal(tmp_path: Path) -> None:
    # OpenSSL would ask there, and the whole cloud would wait.
    client = Authority(tmp_path).client("noc")
    script = (
        "import fcntl, sys, termios\n"
        "from roost.cloud.outlets.tls import context_of\n"
        "from roost.cloud.outlets.pausing import Failed\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "pair = {n: open(p, 'rb').read() for n, p in zip(('tls.crt', 'tls.key'), sys.argv[1:])}\n"
        "try: context_of('', pair)\n"
        "except Failed as failed: print(failed.code)\n"
    )
    (tmp_path / "sealed.pem").write_bytes(sealed_key())
    controller, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script, str(client.certificate), str(tmp_path / "sealed.pem")],
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    os.close(controller)
    os.close(terminal)
    assert done.stdout.strip() == "BadCertificate", done.stderr


async def test_a_token_is_sent_as_the_bytes_that_it_is(tmp_path: Path) -> None:
    async with receiver() as there, site(tmp_path) as here:
        await here.secret(token="sésame".encode())
        await here.declare("webhook", f"http://127.0.0.1:{there.port}/", secret="noc")
        await until(lambda: "snapshot-end" in whats(there.messages))
        assert there.posts[-1][0]["authorization"].lower() == "bearer sésame"
        await here.secret(token=b"a\r\nx-forged: yes")

        async def told() -> bool:
            return "can't be sent" in (await here.status()).last_error

        await here.faults("h1", "100.101")
        await until(told)


def test_authorities_with_words_around_them_are_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert len(trusting(f"# für alle\n{authority.path.read_text()}\n# übrig").get_ca_certs()) == 1
    for none in ("-----BEGIN CERTIFICATE-----\né\n-----END CERTIFICATE-----\n", "nothing\0"):
        with pytest.raises(ssl.SSLError):
            trusting(none)


def test_it_holds_on_the_loop_of_a_cloud(tmp_path: Path) -> None:
    uvloop.run(test_tls_at_both_ends_and_each_step_of_a_test(tmp_path))
