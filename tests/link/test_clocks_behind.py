"""Who looks at certificates with a clock that is behind, as a machine does that starts with an old date."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from roost.link import pki
from tests.link.test_pki import NOW

DAY = timedelta(days=1)


def said(
    place: Path, authority: pki.Authority, certificate: bytes, now: datetime, name: str = "cloud"
) -> str:
    """What OpenSSL, which judges for TLS too, says of a server's certificate at that time."""
    known, shown = place / "known.pem", place / "shown.pem"
    known.write_bytes(authority.certificate_pem)
    shown.write_bytes(certificate)
    command = ["openssl", "verify", "-attime", f"{now.timestamp():.0f}", "-purpose", "sslserver"]
    done = subprocess.run(
        [*command, "-verify_hostname", name, "-CAfile", str(known), str(shown)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("behind", [timedelta(0), 2 * DAY, NOW - pki.RELEASED - DAY], ids=str)
def test_a_host_whose_clock_is_behind_trusts_its_cloud(tmp_path: Path, behind: timedelta) -> None:
    authority, now = pki.Authority.create("central", NOW), NOW - behind
    served = authority.issue_server(["cloud"], NOW, 90 * DAY).certificate
    assert said(tmp_path, authority, served, now).strip().endswith(": OK")
    assert "hostname mismatch" in said(tmp_path, authority, served, now, "other")
    other = pki.Authority.create("central", NOW)
    assert "verification failed" in said(tmp_path, other, served, now)
    assert "not yet valid" in said(tmp_path, authority, served, pki.RELEASED - DAY)
