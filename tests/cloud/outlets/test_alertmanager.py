"""Alertmanager, the real one: what stands is there, what was cleared goes, what a lost sender left ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from roost.cloud.outlets.alertmanager import alerts_of
from roost.cloud.outlets.messages import AlarmFacts, Message
from tests.cloud.outlets import programs
from tests.cloud.outlets.receivers import site, until

NOW = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)


def test_another_severity_is_another_alert_and_the_former_ends() -> None:
    alarm = AlarmFacts(name="a", alarm_id="100.101", severity="critical", former_severity="major")
    message = Message(id="s-1", what="changed", time="t", cloud="harbor", revision=1, alarm=alarm)
    former, present = alerts_of(message, NOW, 60)
    assert (former["labels"]["severity"], present["labels"]["severity"]) == ("major", "critical")
    assert former["endsAt"] == "2026-11-23T01:00:00.000Z"
    assert present["endsAt"] == "2026-11-23T01:04:00.000Z"


async def test_alertmanager_shows_what_stands(tmp_path: Path) -> None:
    alertmanager = programs.program("prometheus-alertmanager", "prometheus-alertmanager")
    port, file = programs.free_port(), tmp_path / "alertmanager.yml"
    file.write_text("route:\n  receiver: none\nreceivers:\n  - name: none\n")
    command = [
        alertmanager, f"--config.file={file}", f"--storage.path={tmp_path / 'am'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip

    async def standing() -> set[tuple[str, str]]:
        async with httpx.AsyncClient(trust_env=False) as asking:
            found: list[dict[str, Any]] = (await asking.get(f"http://127.0.0.1:{port}/api/v2/alerts")).json()
        return {(a["labels"]["entity"], a["labels"]["severity"]) for a in found}

    async def shows(*wanted: tuple[str, str]) -> bool:
        return await standing() == set(wanted)

    async with programs.running(command, tmp_path / "log") as there, site(tmp_path) as here:
        await there.listens(port)
        await here.faults("h1", "100.101")
        await here.declare(
            "alertmanager",
            f"http://127.0.0.1:{port}",
            resendSeconds=5,
            limits={"longestPauseSeconds": 1},
        )
        await until(lambda: shows(("host=h1", "major")))
        await here.faults("h2", "100.103")
        await until(lambda: shows(("host=h1", "major"), ("host=h2", "major")))
        await here.faults("h1", "100.101", severity="critical")
        await here.faults("h2")
        await until(lambda: shows(("host=h1", "critical")))
        # It forgets everything: what stands is told again.
        await there.kill()
        for left in (tmp_path / "am").glob("*"):
            left.unlink(missing_ok=True)
        await here.faults("h3", "100.101")
        await there.start()
        await there.listens(port)
        await until(lambda: shows(("host=h1", "critical"), ("host=h3", "major")))
        # The sender is gone: what it told ends by itself.
        await here.rest()
        await until(lambda: shows(), within=60.0)
