"""Operations over subclouds at the command line, at a real API with the fleet's controller at work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from roost.cli import answers, fleetwork
from roost.cli.fleetwork import Counts, Error, Stage, Status, SubcloudOperation
from roost.cli.subcloud_errors import of_subcloud
from roost.engine.controller import Runner
from roost.fleet.admission import rules
from roost.fleet.operations.controller import SubcloudOperationController
from roost.model import subcloud_operation as model
from roost.model.cloud import Cloud, CloudStatus, Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.fault import Alarm, AlarmStatus
from roost.model.incident import Incident, IncidentStatus
from roost.model.meta import Condition, Metadata
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.cli.test_terminal import Terminal
from tests.support.api import ApiServer

pytestmark = pytest.mark.usefixtures("server")
NAMES = ("harbor", "ridge", "valley")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, cloud="central", rules=rules("central")) as running:

        def declare(tx: Transaction) -> None:
            for name in NAMES:
                status = SubcloudStatus(enrolled=True, availability="online")
                spec = SubcloudSpec(group="coast" if name == "harbor" else "")
                tx.save(
                    Subcloud(metadata=Metadata(name=name, labels={"site": name}), spec=spec, status=status)
                )

        running.do(running.store.transact(declare))
        yield running


@contextlib.contextmanager
def working(server: ApiServer, *answering: str) -> Iterator[None]:
    """The controller at work, and sites that say at once what they are told."""

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(Runner(server.store, SubcloudOperationController("central")).run())
            async for batch in server.store.watch(0):
                for change in batch.changes:
                    if change.kind == "Subcloud" and change.name in answering:
                        told = change.stored().typed(Subcloud).spec.management_state
                        copy = Cloud(
                            metadata=Metadata(name=change.name), status=CloudStatus(management_state=told)
                        )
                        await server.store.save(copy)

    task = asyncio.run_coroutine_threadsafe(work(), server.loop)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(BaseException):
            task.result(30)


def test_one_is_started_followed_and_shown(roost: Roost, server: ApiServer) -> None:
    with working(server, *NAMES):
        started = roost(
            "subcloud", "operation", "start", "manage", "--all", "--max-parallel", "2", "--name", "m"
        )
        assert (started.code, started.out.split(";")[0]) == (0, "Operation m has begun"), started
        followed = roost("subcloud", "operation", "watch", "m", "--timeout", "50")
        assert followed.code == 0, followed
        assert followed.out.splitlines()[-2:] == ["m done: 3/3 (3 done)", "m is done."]
        shown = roost("subcloud", "operation", "show", "m").out
        assert "m  manage  done" in shown and "3/3" in shown and "3 done" in shown
        listed = roost("subcloud", "operation", "list").out.splitlines()
        assert listed[0].split()[:4] == ["NAME", "ACTION", "PHASE", "STEPS"]
        assert listed[1].split()[:4] == ["m", "manage", "done", "3"]
        again = roost("subcloud", "op", "start", "manage", "harbor", "--watch", "-o", "name")
        assert again.code == 0 and again.out.startswith("subcloudoperation/manage-"), again
        assert "(1 skipped)" in again.out


def test_what_fails_is_told_and_tried_again(roost: Roost, server: ApiServer) -> None:
    with working(server, "harbor"):
        arguments = ("--all", "--max-parallel", "9", "--deadline", "1s", "--name", "m", "--watch")
        done = roost("subcloud", "operation", "start", "manage", *arguments)
        assert done.code == 1 and "m is failed: 2 of 3 failed, 0 may" in done.err, done
        assert "roost subcloud operation retry m" in done.err
        steps = roost("subcloud", "operation", "steps", "m", "--state", "failed")
        assert [line.split()[0] for line in steps.out.splitlines()] == ["SUBCLOUD", "ridge", "valley"]
        assert "not within 1 seconds: it has not said what it is" in steps.out
        raw = json.loads(
            roost("subcloud", "operation", "steps", "m", "--subcloud", "ridge", "-o", "json").out
        )
        assert [(s["subcloud"], s["reason"]) for s in raw["items"]] == [("ridge", "NotObserved")]
        first = roost("subcloud", "operation", "steps", "m", "--limit", "2", "-o", "name")
        assert first.out.split() == ["subcloud/harbor", "subcloud/ridge"] and "There are more" in first.err
        found = roost("subcloud", "errors", "ridge")
        assert "manage (m)" in found.out and "roost subcloud operation retry m" in found.out, found
    with working(server, *NAMES):
        retried = roost("subcloud", "operation", "retry", "m")
        assert retried.out == "Operation m tries 2 failed steps again.\n"
        assert roost("subcloud", "operation", "watch", "m", "--timeout", "50").code == 0
        assert roost("subcloud", "operation", "retry", "m").out == "No step of m has failed.\n"


def test_it_is_paused_resumed_and_aborted(roost: Roost, server: ApiServer) -> None:
    spec = model.SubcloudOperationSpec(action="manage")
    server.do(server.store.save(model.SubcloudOperation(metadata=Metadata(name="m"), spec=spec)))

    def said() -> tuple[bool, bool]:
        found = server.do(server.store.load(model.SubcloudOperation, "", "m")).spec
        return found.paused, found.aborted

    assert roost("subcloud", "operation", "pause", "m").out == "Operation m starts no further step.\n"
    assert said() == (True, False)
    with working(server):
        followed = roost("subcloud", "operation", "watch", "m", "--timeout", "50")
        assert followed.code == 1 and "roost subcloud operation resume m" in followed.err, followed
    assert roost("subcloud", "operation", "resume", "m").code == 0 and said() == (False, False)
    assert roost("subcloud", "operation", "abort", "m").code == 0 and said() == (False, True)
    with working(server):
        followed = roost("subcloud", "operation", "watch", "m", "--timeout", "50")
        assert followed.code == 1 and "m is aborted" in followed.err, followed
    assert roost("subcloud", "operation", "retry", "m").code == 2
    assert roost("subcloud", "operation", "watch", "n").code == 4


def test_ctrl_c_leaves_it_running_and_says_so(server: ApiServer) -> None:
    with working(server, "harbor"):
        arguments = ("subcloud", "operation", "start", "manage", "--all", "--max-parallel", "3", "--watch")
        # The code under test, wherever the tests took it from.
        terminal = Terminal(server, *arguments, columns=120, PYTHONPATH=os.pathsep.join(sys.path))
        terminal.read_until(lambda text: "1 done" in text and "2 running" in text)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        assert "goes on in the cloud" in " ".join(terminal.text.split())
        assert "Traceback" not in terminal.text
    (operation,) = server.do(server.store.every(model.SubcloudOperation))
    assert not operation.spec.aborted and not operation.spec.paused


@pytest.mark.parametrize(
    ("arguments", "selection"),
    [
        (("harbor", "ridge", "harbor"), {"names": ["harbor", "ridge"]}),
        (("-l", "site=harbor,region=north"), {"labels": {"site": "harbor", "region": "north"}}),
        (("--in-group", "coast", "--in-group", "hill"), {"groups": ["coast", "hill"]}),
        (("--all",), {}),
    ],
)
def test_subclouds_are_chosen(roost: Roost, arguments: tuple[str, ...], selection: dict[str, object]) -> None:
    made = json.loads(roost("subcloud", "operation", "start", "unmanage", *arguments, "-o", "json").out)
    chosen = {k: v for k, v in made["spec"].get("subclouds", {}).items() if v}
    assert chosen == selection and made["metadata"]["name"].startswith("unmanage-")


def test_all_that_can_be_said_of_how_it_goes(roost: Roost) -> None:
    arguments = ("--label", "rollout=a", "--order", "canary", "--order", "north", "--serial")
    limits = ("--failure-budget", "2%", "--deadline", "1h", "--retries", "2")
    done = roost("subcloud", "operation", "start", "label", "--all", *arguments, *limits, "-o", "json")
    spec = json.loads(done.out)["spec"]
    assert (spec["labels"], spec["order"], spec["applyType"]) == (
        {"rollout": "a"},
        ["canary", "north"],
        "serial",
    )
    assert (spec["failureBudget"], spec["deadlineSeconds"], spec["retries"]) == ("2%", 3600, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("manage",), 2, "no subcloud is named"),
        (("manage", "harbor", "--all"), 2, "exclude each other"),
        (("manage", "-l", "a!=b"), 2, "is no label and its value"),
        (("manage", "--all", "--deadline", "soon"), 2, "is no span"),
        (("label", "--all", "--label", "x"), 2, "sets nothing"),
        (("label", "--all"), 1, "nothing to set"),
        (("manage", "--all", "--failure-budget", "many"), 1, "failureBudget"),
    ],
)
def test_what_makes_no_sense_is_said(roost: Roost, arguments: tuple[str, ...], code: int, why: str) -> None:
    done = roost("subcloud", "operation", "start", *arguments)
    assert done.code == code and why in done.err, done


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def operation(phase: str, **counts: int) -> SubcloudOperation:
    status = Status(
        phase=phase,
        steps=Counts(total=sum(counts.values()), **counts),
        stages=[Stage(group="canary", total=2), Stage(total=98)],
        stage=1,
        window=50,
        budget=2,
        rate=12.5,
        started_at="2026-11-23T11:50:00Z",
        errors=[Error(reason="Offline", count=1, subcloud="harbor", message="its link is down")],
    )
    meta = answers.Meta(name="m")
    return SubcloudOperation(metadata=meta, spec=fleetwork.Spec(action="manage"), status=status)


def test_a_picture_says_how_far_it_is() -> None:
    lines = [
        str(line) for line in fleetwork.picture(operation("running", done=48, running=50, failed=2), NOW)
    ]
    assert lines[0] == "m  manage  running  stage 2/2  10m"
    assert lines[1].startswith("  [###############...............] 50/100  12.5 a minute")
    assert lines[2] == "  48 done  2 failed  50 running  (window 50, 2 may fail)"
    assert lines[3] == "  1 Offline, first harbor: its link is down"
    assert fleetwork.picture(SubcloudOperation(), NOW), "nothing is known yet"


@pytest.mark.parametrize(
    ("phase", "counts", "rests", "problem"),
    [
        ("planned", {}, False, ""),
        ("running", {"waiting": 1}, False, ""),
        ("paused", {"running": 1, "waiting": 1}, False, ""),
        ("paused", {"waiting": 1}, True, "resume m"),
        ("halted", {"running": 1, "failed": 3}, False, ""),
        ("halted", {"waiting": 1, "failed": 3}, True, "retry m"),
        ("done", {"done": 3}, True, ""),
        ("done", {"done": 3, "failed": 1}, True, "retry m"),
        ("aborted", {"aborted": 3}, True, "steps m"),
    ],
)
def test_when_it_rests(phase: str, counts: dict[str, int], rests: bool, problem: str) -> None:  # noqa: FBT001
    one = operation(phase, **counts)
    assert fleetwork.rests(one) is rests
    if rests:
        verdict = fleetwork.verdict(one)
        assert problem in verdict.remedy if verdict else not problem


def test_errors_name_the_cause_first(roost: Roost, server: ApiServer) -> None:
    assert roost("subcloud", "errors").err == "Nothing is known to fail.\n"

    def fail(tx: Transaction) -> None:
        harbor = tx.load(Subcloud, "", "harbor")
        down = Condition(type="Online", status="False", reason="LinkDown", message="The link is down.")
        late = Condition(
            type="InSync", status="False", reason="NotInForce", message="Not in force there: ssh."
        )
        status = msgspec.structs.replace(
            harbor.status, availability="offline", sync="out-of-sync", conditions=[down, late]
        )
        tx.save(msgspec.structs.replace(harbor, status=status))
        incident = IncidentStatus(
            cause="Uplink", name="router-a", reason="Lost together.", concerned=["harbor"]
        )
        tx.save(Incident(metadata=Metadata(name="uplink.router-a"), status=incident))
        for place, name, entity, severity in (
            ("harbor", "h.1", "host=controller-0.filesystem=/var", "critical"),
            ("harbor", "h.2", "host=worker-1", "minor"),
            ("central", "s.1", "subcloud=harbor", "critical"),
            ("central", "c.1", "host=centre-0", "critical"),
        ):
            told = AlarmStatus(
                alarm_id="100.104",
                entity=entity,
                severity=severity,  # type: ignore[arg-type]
                reason=f"at {entity}",
                repair="Free some.",
            )
            tx.save(Alarm(metadata=Metadata(name=name, namespace=place), status=told))

    server.do(server.store.transact(fail))
    found = json.loads(roost("subcloud", "errors", "harbor", "-o", "json").out)
    assert [f["where"] for f in found] == [
        "incident Uplink router-a",
        "link",
        "alarm 100.104 critical",
        "alarm 100.104 critical",
        "shared intent",
        "alarm 100.104 minor",
    ]
    assert [f.get("host", "") for f in found] == ["", "", "controller-0", "", "", "worker-1"]
    everywhere = json.loads(roost("subcloud", "errors", "-o", "json").out)
    assert {f["subcloud"] for f in everywhere} == {"harbor"} and len(everywhere) == 4
    table = roost("subcloud", "errors").out.splitlines()
    assert table[0].split() == ["SUBCLOUD", "WHERE", "HOST", "SINCE", "REASON", "REPAIR"]
    assert roost("subcloud", "errors", "-o", "name").out == "subcloud/harbor\n"
    assert "There is more" in roost("subcloud", "errors", "--limit", "1").err
    assert roost("subcloud", "errors", "nobody").code == 4


def test_a_subcloud_that_never_came_is_told() -> None:
    never = answers.Subcloud(metadata=answers.Meta(name="s"))
    (found,) = of_subcloud(never)
    assert found.where == "enrolment" and "roost subcloud token s" in found.remedy
