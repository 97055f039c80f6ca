"""A webhook over real sockets: what arrives, signed; refusals, pauses, breaks, restarts."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from roost.cloud.outlets.trying import attempt
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


def test_it_holds_on_the_loop_of_a_cloud(tmp_path: Path) -> None:
    uvloop.run(test_tls_at_both_ends_and_each_step_of_a_test(tmp_path))
