"""Syslog over TLS: to a real rsyslogd, killed in the middle; what a message looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from roost.cloud.outlets.messages import AlarmFacts, Message
from roost.cloud.outlets.syslog import encode, frame
from tests.cloud.outlets import programs
from tests.cloud.outlets.receivers import site, until
from tests.support.certificates import Authority

ALARM = AlarmFacts(
    name="host.h.100.101",
    alarm_id="100.101",
    severity="critical",
    entity='host=h.filesystem="/a]\\b',
    reason="füll",
    type="operational-violation",
    cause="threshold-crossed",
)


def test_an_alarm_is_written_as_the_rfcs_say() -> None:
    message = Message(
        id="s-7", what="set", time="2026-11-23T01:02:03.004Z", cloud="harbor", revision=7, alarm=ALARM
    )
    line = encode(message, 16)
    text = line.decode()
    # local0 (16) * 8 + alert (1), for critical (RFC 5674, table 1).
    assert text.startswith("<129>1 2026-11-23T01:02:03.004Z harbor roost - set [alarm ")
    assert 'perceivedSeverity="critical"' in text and 'probableCause="thresholdCrossed"' in text
    assert 'eventType="operationalViolation"' in text
    assert r'resource="host=h.filesystem=\"/a\]\\b"' in text
    assert "\ufeff100.101" in text, "text that is not ASCII begins with a mark (RFC 5424, 6.4)"
    assert frame(line).startswith(str(len(line)).encode() + b" <")


def test_a_clear_is_a_notice() -> None:
    message = Message(id="s-8", what="clear", time="t", cloud="harbor", revision=8, alarm=ALARM, again=True)
    text = encode(message, 16).decode()
    assert text.startswith("<133>1 ") and 'perceivedSeverity="cleared"' in text and 'again="true"' in text


def test_what_a_cloud_below_tells_forges_no_other_line() -> None:
    forged = msgspec.structs.replace(ALARM, reason="full\r\n<11>1 - forged\x1b[2J", raised_at="2026 x y")
    message = Message(
        id="s-9", what="set", time="2026\n<0>1 x host app", cloud="harbor", revision=9, alarm=forged
    )
    text = encode(message, 16).decode()
    assert text.startswith("<129>1 - harbor roost - set [")
    assert text.isprintable() and "full  <11>1 - forged [2J" in text


def _configuration(directory: Path, port: int, authority: Authority, out: Path) -> Path:
    server = authority.server("rsyslog")
    file = directory / "rsyslog.conf"
    file.write_text(
        f"""
global(
    workDirectory="{directory}"
    defaultNetstreamDriver="ossl"
    defaultNetstreamDriverCAFile="{authority.path}"
    defaultNetstreamDriverCertFile="{server.certificate}"
    defaultNetstreamDriverKeyFile="{server.key}"
)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="told" type="list" option.jsonf="on") {{
    property(outname="sd" name="structured-data" format="jsonf")
    property(outname="severity" name="syslogseverity" format="jsonf")
    property(outname="id" name="msgid" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
}}
action(type="omfile" file="{out}" template="told" flushOnTXEnd="on" asyncWriting="off")
"""
    )
    return file


def _written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _alarm(message: dict[str, Any]) -> str:
    found: str = message["sd"].split(' alarm="')[1].split('"')[0]
    return found


async def test_rsyslogd_has_every_message_although_it_was_killed(tmp_path: Path) -> None:
    """Mutual TLS; each message is there once, or its doubles say so."""
    rsyslogd = programs.program("rsyslogd", "rsyslog, rsyslog-openssl")
    authority, port, out = Authority(tmp_path), programs.free_port(), tmp_path / "out.json"
    file = _configuration(tmp_path, port, authority, out)
    command = [rsyslogd, "-n", "-f", str(file), "-i", str(tmp_path / "rsyslog.pid")]
    client = authority.client("noc")
    async with programs.running(command, tmp_path / "rsyslog.log") as receiver, site(tmp_path) as here:
        await receiver.listens(port)
        await here.secret(tls__crt=client.certificate.read_bytes(), tls__key=client.key.read_bytes())
        await here.declare(
            "syslog",
            f"tls://127.0.0.1:{port}",
            secret="noc",
            caBundle=authority.path.read_text(),
            limits={"longestPauseSeconds": 1},
        )
        await until(lambda: any(m["id"] == "snapshot-end" for m in _written(out)))
        for n in range(120):
            await here.faults(f"h{n}", "100.101")
            if n == 60:
                await receiver.kill()
            if n == 100:
                await receiver.start()
        await until(lambda: len({_alarm(m) for m in _written(out) if m["id"] == "set"}) >= 120)
        told = [m for m in _written(out) if m["id"] == "set"]
        names = [_alarm(m) for m in told]
        assert set(names) == {f"host.h{n}.100.101" for n in range(120)}
        doubled = [m for n, m in enumerate(told) if names[n] in names[:n]]
        assert all('again="true"' in m["sd"] for m in doubled), doubled
        assert told[0]["host"] == "harbor" and told[0]["severity"] == "2"
        assert 'perceivedSeverity="major"' in told[0]["sd"]
        status = await here.status()
        assert status.retries > 0


def test_it_holds_on_the_loop_of_a_cloud(tmp_path: Path) -> None:
    uvloop.run(test_rsyslogd_has_every_message_although_it_was_killed(tmp_path))


async def test_a_receiver_whose_certificate_does_not_verify_is_told_nothing(tmp_path: Path) -> None:
    rsyslogd = programs.program("rsyslogd", "rsyslog, rsyslog-openssl")
    authority, port, out = Authority(tmp_path), programs.free_port(), tmp_path / "out.json"
    file = _configuration(tmp_path, port, authority, out)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    command = [rsyslogd, "-n", "-f", str(file), "-i", str(tmp_path / "rsyslog.pid")]
    async with programs.running(command, tmp_path / "rsyslog.log") as receiver, site(tmp_path) as here:
        await receiver.listens(port)
        await here.declare("syslog", f"tls://127.0.0.1:{port}", caBundle=other.path.read_text())

        async def failing() -> bool:
            status = await here.status()
            return "does not verify" in status.last_error and "spec.caBundle" in status.last_error

        await until(failing)
        assert _written(out) == []
