"""`roost audit` over a real socket: list, export that can be resumed, and verification of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.model.host import Host
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

pytestmark = pytest.mark.usefixtures("controller")


def change(roost: Roost, server: ApiServer, *places: str) -> None:
    """Writes of an administrator."""
    for place in places:
        patch = json.dumps({"spec": {"location": place}})
        done = server.kubectl("patch", "host", "controller-0", "--type=merge", "-p", patch)
        assert done.returncode == 0, done.stderr


def test_list_tells_who_did_what(roost: Roost, server: ApiServer, controller: Host) -> None:
    change(roost, server, "rack 1", "rack 2")
    server.kubectl("delete", "host", "controller-0", kubeconfig=server.reader)
    server.do(server.app.close())
    listed = roost("audit", "list")
    assert listed.code == 0, listed.err
    assert "admin" in listed.out and "patch" in listed.out and "spec.location" in listed.out
    denied = roost("audit", "list", "--denied")
    assert "rita" in denied.out and "admin " not in denied.out and "403" in denied.out
    assert "rita" not in roost("audit", "list", "--user", "admin", "--verb", "patch").out
    assert "spec.location" in roost("audit", "list", "--kind", "Host", "--name", "controller-0").out
    assert "No records" in roost("audit", "list", "--name", "nobody").err
    assert "No records" in roost("audit", "list", "--since", "2099-01-01T00:00:00Z").err
    first = json.loads(roost("audit", "list", "--verb", "patch", "--last", "1", "-o", "json").out)
    assert first["changes"][0] == {"path": "spec.location", "old": "rack 1", "new": "rack 2"}
    assert roost("audit", "list", "--last", "0").code == 2


def test_readers_do_not_see_it(roost: Roost, server: ApiServer) -> None:
    refused = roost("audit", "list", "--kubeconfig", str(server.reader))
    assert refused.code == 5 and "/audit" in refused.err


def test_an_export_goes_on_where_it_ended_and_verifies_by_itself(
    roost: Roost, server: ApiServer, tmp_path: Path
) -> None:
    change(roost, server, "a", "b")
    file = tmp_path / "audit.jsonl"
    assert roost("audit", "export", str(file)).code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    head = roost("audit", "head").out.strip()
    with file.open("ab") as torn:
        torn.write(b'{"sequence":3,"dig')
    change(roost, server, "c", "d")
    assert roost("audit", "export", str(file)).code == 0
    verified = roost("audit", "verify", "--file", str(file), "--head", head)
    assert verified.code == 0, verified.err
    names = [json.loads(line)["record"]["verb"] for line in file.read_text().splitlines()[1:]]
    assert names.count("patch") == 4
    assert roost("audit", "verify", "--head", head).code == 0
    assert "already" not in roost("audit", "export", "-", "--after", "2").err


def test_separators_inside_a_text_end_no_line(roost: Roost, server: ApiServer) -> None:
    change(roost, server, "rack\u2028one", "rack\x85two")
    verified = roost("audit", "verify")
    assert verified.code == 0, verified.err


def test_a_changed_export_is_found_with_the_record_that_does_not_fit(
    roost: Roost, server: ApiServer, tmp_path: Path
) -> None:
    change(roost, server, "a", "b", "c")
    file = tmp_path / "audit.jsonl"
    roost("audit", "export", str(file))
    head = roost("audit", "head").out.strip()
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line.replace('"b"', '"x"') for line in lines))
    changed = roost("audit", "verify", "--file", str(file))
    assert changed.code == 1 and "record 2" in changed.err and "does not fit" in changed.err
    broken = file.read_bytes()
    refused = roost("audit", "export", str(file))
    assert refused.code == 1 and "record 2" in refused.err and "--force" in refused.err
    assert file.read_bytes() == broken
    assert roost("audit", "export", str(file), "--force").code == 0
    file.write_text("".join([*lines[:2], *lines[3:]]))
    removed = roost("audit", "verify", "--file", str(file))
    assert removed.code == 1 and "record 2" in removed.err and "missing" in removed.err
    file.write_text("".join(lines[:3]))
    short = roost("audit", "verify", "--file", str(file), "--head", head)
    assert short.code == 1 and "missing" in short.err
    assert roost("audit", "verify", "--file", str(file), "--head", "nonsense").code == 2
    file.write_text("nonsense\n")
    assert roost("audit", "verify", "--file", str(file)).code == 1
    assert roost("audit", "verify", "--file", str(tmp_path / "none")).code == 2


def test_a_rewritten_store_is_found_with_a_head_noted_earlier(roost: Roost, server: ApiServer) -> None:
    from sqlalchemy import delete

    from roost.store.schema import audit as table
    from roost.store.transaction import Transaction

    change(roost, server, "a", "b")
    head = roost("audit", "head").out.strip()

    def rewrite(tx: Transaction) -> None:
        tx.set_property("touched", "yes")
        tx.connection.execute(delete(table))

    server.do(server.store.transact(rewrite))
    change(roost, server, "c", "d", "e")
    assert roost("audit", "verify").code == 0
    found = roost("audit", "verify", "--head", head)
    assert found.code == 1 and "noted" in found.err
