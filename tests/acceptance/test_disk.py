"""No room is left for one process: its writes are refused in words, its reads go on, nothing is lost."""

from __future__ import annotations

import json

import pytest

from tests.acceptance import checker
from tests.acceptance.running import Demo, run
from tests.acceptance.test_cut import Ledger, policy
from tests.acceptance.waiting import report, until


@pytest.mark.parametrize(("process", "cloud"), [("valley-controller-0", "valley"), ("centre", "central")])
def test_without_room_writes_are_refused_reads_go_on_and_nothing_is_lost(
    demo: Demo, process: str, cloud: str
) -> None:
    ledger = Ledger(demo)
    checker.converge(demo)
    made = demo.kubectl("create", "-f", "-", "-o", "json", cloud=cloud, text=policy("kept", ["80"])).json()
    ledger.keep(cloud, made)
    pid = demo.processes()[process]["pid"]
    run(["prlimit", f"--pid={pid}", "--fsize=1:"]).ok()
    try:

        def refused() -> None:
            write = demo.kubectl("label", "fwp", "kept", "full=yes", "--overwrite", cloud=cloud)
            if write.code == 0:
                ledger.keep(cloud, demo.kubectl("get", "fwp", "kept", "-o", "json", cloud=cloud).json())
            assert write.code != 0, f"a write was accepted: {write}"
            assert "ServiceUnavailable" in write.error, write
            assert "disk" in write.error, f"the reason is not said: {write}"
            report(write.error.strip())

        until("writes are refused for want of room", refused, 30)
        patch = json.dumps({"spec": {"order": 1}})
        lost = demo.kubectl("patch", "fwp", "kept", "--type=merge", "-p", patch, cloud=cloud)
        assert lost.code != 0, lost
        for _ in range(5):
            seen = demo.kubectl("get", "fwp", "kept", "-o", "json", cloud=cloud).json()
            assert seen["spec"] == made["spec"], seen
            assert demo.kubectl("get", "hosts", cloud=cloud).ok()
        if process != "centre":
            assert demo.local("valley", "get", "hosts").ok()
        assert demo.processes()[process]["pid"] == pid, "it died of a full disk"
    finally:
        run(["prlimit", f"--pid={pid}", "--fsize=unlimited:"])
    checker.converge(demo, writes=ledger.writes)
    assert demo.processes()[process]["pid"] == pid, "it was restarted"
    demo.kubectl("label", "fwp", "kept", "full=no", "--overwrite", cloud=cloud).ok()
    demo.kubectl("delete", "fwp", "kept", cloud=cloud).ok()
    checker.converge(demo)
