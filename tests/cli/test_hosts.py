"""The life of hosts from the command line: adding, locking with live progress, refusals, timeouts.

The cloud's controller is played by a thread that answers what it sees in the store, so that each
course of an operation can be chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from roost.cli import answers
from roost.cli.progress import Goal, Lines, Progress, Standing, picture
from roost.cli.watching import Change, Snapshot
from roost.engine.admission import Refused, Request
from roost.model.health import CheckReport, CheckResult, DegradedReason, RecoveryCount, RecoveryStatus
from roost.model.host import Host, HostSpec, HostStatus
from roost.model.meta import Condition, Metadata
from roost.model.operation import (
    Operation,
    OperationSpec,
    OperationState,
    OperationStatus,
    StepState,
    StepStatus,
)
from roost.store.transaction import Transaction
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

NOW = datetime(2026, 11, 23, 4, 0, 0, tzinfo=UTC)
Course = Callable[[Operation], list[OperationStatus]]


def status(state: OperationState, *steps: tuple[str, StepState, str]) -> OperationStatus:
    over = [s for s in steps if s[1] not in ("pending", "running")]
    return OperationStatus(
        state=state,
        message=next((m for _, s, m in reversed(steps) if s not in ("pending", "skipped")), ""),
        steps_done=len(over),
        steps_total=len(steps),
        started_at="2026-11-23T03:59:50.000Z",
        finished_at="2026-11-23T04:00:00.000Z" if state in ("succeeded", "failed") else "",
        steps=[StepStatus(name=n, state=s, attempt=1, message=m) for n, s, m in steps],
    )


def succeed(operation: Operation) -> list[OperationStatus]:
    return [
        status("running", ("check", "running", "Looking."), ("enable", "pending", "")),
        status("running", ("check", "succeeded", "The host answers."), ("enable", "running", "")),
        status("succeeded", ("check", "succeeded", "The host answers."), ("enable", "succeeded", "Done.")),
    ]


def fail(operation: Operation) -> list[OperationStatus]:
    return [status("failed", ("check", "failed", "worker-9 does not answer."), ("enable", "skipped", ""))]


@contextlib.contextmanager
def playing(server: ApiServer, course: Course) -> Iterator[None]:
    """A controller that makes an operation of each wish and moves it along its course."""

    async def play() -> None:
        started: set[str] = set()
        async for _ in server.store.watch(0):
            hosts = await server.store.read(lambda tx: tx.every(Host))
            for host in hosts:
                key = f"{host.metadata.name}-{host.metadata.generation}"
                wanted = host.spec.administrative_state
                if wanted == host.status.administrative or key in started:
                    continue
                started.add(key)
                await carry_out(host, "unlock" if wanted == "unlocked" else "lock")

    async def carry_out(host: Host, action: str) -> None:
        meta = Metadata(
            name=f"{action}-{host.metadata.name}-{host.metadata.generation}-1", namespace="central"
        )
        spec = OperationSpec(action=action, host=host.metadata.name)  # type: ignore[arg-type]
        operation = await server.store.save(Operation(metadata=meta, spec=spec))
        for step in course(operation):
            await server.store.save(msgspec.structs.replace(operation, status=step))

    task = asyncio.run_coroutine_threadsafe(play(), server.loop)
    try:
        yield
    finally:
        task.cancel()


def test_add_prints_a_token_and_what_to_do_with_it(roost: Roost, server: ApiServer) -> None:
    result = roost("host", "add", "worker-0", "-p", "worker", "--location", "rack 2")
    assert result.code == 0, result.err
    assert "Host worker-0 is added to cloud central, locked." in result.out
    assert "roost agent --join -" in result.out
    host = server.do(server.store.read(lambda tx: tx.load(Host, "central", "worker-0")))
    assert (host.spec.personalities, host.spec.location) == (["worker"], "rack 2")
    again = roost("host", "add", "worker-0")
    assert again.code == 1
    assert "already exists" in again.err
    token = roost("host", "token", "worker-0", "-o", "name")
    assert token.code == 0
    assert len(token.out.strip().split(".")) == 2


def test_unlock_shows_each_step_and_says_when_it_is_done(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    with playing(server, succeed):
        result = roost("host", "unlock", "controller-0", "--timeout", "30")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[-1] == "controller-0 is unlocked."
    assert "controller-0: check: succeeded: The host answers." in lines
    assert "controller-0: enable: succeeded: Done." in lines
    assert lines.index("controller-0: check: succeeded: The host answers.") < lines.index(
        "controller-0: enable: succeeded: Done."
    )


def test_a_failed_operation_is_one_and_names_the_step_and_the_next_move(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    with playing(server, fail):
        result = roost("host", "unlock", "controller-0", "--timeout", "30")
    assert result.code == 1
    assert "unlock of controller-0 failed: check: worker-9 does not answer." in result.err
    assert "roost operation show unlock-controller-0-2-1 -n central" in result.err


def test_several_hosts_the_refused_one_does_not_stop_the_others(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    with playing(server, succeed):
        result = roost("host", "unlock", "nobody", "controller-0", "--timeout", "30")
    assert result.code == 4
    assert '"nobody" not found' in result.err
    assert "controller-0 is unlocked." in result.out


def test_not_over_in_time_is_six_and_it_goes_on(roost: Roost, server: ApiServer, controller: Host) -> None:
    result = roost("host", "unlock", "controller-0", "--timeout", "0.5")
    assert result.code == 6
    assert "unlock of controller-0 is not over after 0.5 seconds" in result.err
    assert "it goes on; follow it with `roost operation list -n central --watch`" in result.err
    host = server.do(server.store.read(lambda tx: tx.load(Host, "central", "controller-0")))
    assert host.spec.administrative_state == "unlocked"


def test_no_wait_returns_at_once(roost: Roost, server: ApiServer, controller: Host) -> None:
    result = roost("host", "unlock", "controller-0", "--no-wait")
    assert (result.code, result.out) == (0, "unlock of controller-0 is under way.\n")


def test_a_host_that_is_as_wanted_needs_no_operation(roost: Roost, server: ApiServer) -> None:
    host = Host(metadata=Metadata(name="c-1", namespace="central"), status=HostStatus(observed_generation=1))
    server.do(server.store.save(host))
    result = roost("host", "lock", "c-1", "--timeout", "30")
    assert (result.code, result.out) == (0, "c-1 is locked.\n")


def test_interrupted_it_leaves_the_operation_running(
    roost: Roost, server: ApiServer, controller: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("roost.cli.watching.Watches.take", interrupt)
    result = roost("host", "unlock", "controller-0")
    assert result.code == 130
    assert "unlock of controller-0 goes on in the cloud; follow it with" in result.err
    assert "Traceback" not in result.err


def test_delete_and_list(roost: Roost, server: ApiServer, controller: Host) -> None:
    assert roost("host", "delete", "controller-0").out == "Host controller-0 is deleted.\n"
    result = roost("host", "list")
    assert (result.code, result.out) == (0, "")
    assert "No hosts; `roost host add NAME` adds one." in result.err
    assert "No hosts in central match." in roost("host", "list", "-l", "site=north").err


def test_documents_while_waiting_are_documents_alone(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    with playing(server, succeed):
        result = roost("host", "unlock", "controller-0", "--timeout", "30", "-o", "json")
    assert result.code == 0
    found = msgspec.json.decode(result.out, type=list[answers.Operation])
    assert [o.status.state for o in found] == ["succeeded"]


def test_operations_are_paused_resumed_aborted_and_shown(roost: Roost, server: ApiServer) -> None:
    meta = Metadata(name="unlock-c-1-1", namespace="central")
    spec = OperationSpec(action="unlock", host="c")
    running = status("running", ("check", "succeeded", "ok"), ("enable", "running", "Waiting."))
    server.do(server.store.save(Operation(metadata=meta, spec=spec, status=running)))
    for verb, field in (("pause", "paused"), ("abort", "aborted")):
        assert roost("operation", verb, "unlock-c-1-1").code == 0
        stored = server.do(server.store.read(lambda tx: tx.load(Operation, "central", "unlock-c-1-1")))
        assert getattr(stored.spec, field) is True
    assert roost("op", "resume", "unlock-c-1-1").out == "Operation unlock-c-1-1 goes on.\n"
    shown = roost("operation", "show", "unlock-c-1-1").out
    assert "  + check        succeeded  ok" in shown
    assert "  > enable       running    Waiting." in shown
    server.do(
        server.store.save(Operation(metadata=meta, spec=spec, status=succeed(Operation(spec=spec))[-1]))
    )
    watched = roost("operation", "watch", "unlock-c-1-1")
    assert (watched.code, watched.out.splitlines()[-1]) == (0, "unlock-c-1-1 succeeded.")


def refuse(tx: Transaction, request: Request) -> None:
    raise Refused("controller-0 is the active controller", "lock another host, or force it")


def test_a_rule_is_told_with_reason_and_remedy(
    tmp_path_factory: pytest.TempPathFactory, roost: Roost
) -> None:
    with ApiServer(tmp_path_factory.mktemp("api"), rules={"Host": [refuse]}) as server:
        server.do(server.store.save(Host(metadata=Metadata(name="controller-0", namespace="central"))))
        result = roost("host", "lock", "controller-0", "--force", "--kubeconfig", str(server.administrator))
    assert result.code == 1
    assert result.err.splitlines() == [
        "roost: can't change host controller-0: controller-0 is the active controller",
        "  lock another host, or force it",
    ]


# -- the pure part


def operation(
    name: str, state: str, host: str = "c", action: str = "lock", uid: str = ""
) -> answers.Operation:
    return answers.Operation(
        metadata=answers.Meta(
            name=name, uid=uid or name, creation_timestamp=f"2026-11-23T03:00:0{name[-1]}Z"
        ),
        spec=answers.OperationSpec(host=host, action=action),
        status=answers.OperationStatus(state=state, message="m"),
    )


def host(administrative: str, generation: int, task: str = "") -> answers.Host:
    state = answers.HostStatus(administrative=administrative, observed_generation=generation, task=task)
    return answers.Host(metadata=answers.Meta(name="c"), status=state)


GOAL = Goal(host="c", actions=("lock", "force-lock"), administrative="locked", generation=3)


def standing(
    *, hosts: list[answers.Host], operations: list[answers.Operation], past: tuple[str, ...] = ()
) -> str:
    progress = Progress([GOAL], past)
    progress.take("operations", Snapshot(list[answers.Item](operations)))
    progress.take("hosts", Snapshot(list[answers.Item](hosts)))
    return progress.standing(GOAL).outcome


def test_which_operation_counts() -> None:
    old, new = operation("lock-c-1", "succeeded"), operation("lock-c-2", "running")
    assert standing(hosts=[], operations=[old], past=("lock-c-1",)) == "waiting"
    assert standing(hosts=[], operations=[old, new], past=("lock-c-1",)) == "working"
    assert standing(hosts=[], operations=[operation("lock-c-1", "failed"), new]) == "working"
    assert standing(hosts=[], operations=[operation("lock-d-1", "failed", host="d")]) == "waiting"
    assert standing(hosts=[], operations=[operation("unlock-c-1", "failed", action="unlock")]) == "waiting"


def test_when_no_operation_is_needed() -> None:
    assert standing(hosts=[host("locked", 3)], operations=[]) == "succeeded"
    assert standing(hosts=[host("locked", 2)], operations=[]) == "waiting"
    assert standing(hosts=[host("locked", 3, "lock: disable")], operations=[]) == "waiting"
    assert standing(hosts=[host("unlocked", 3)], operations=[]) == "waiting"


def test_what_the_host_said_of_an_older_wish_is_not_repeated() -> None:
    settled = answers.Condition(type="Settled", status="True", message="The host is unlocked.")
    progress = Progress([GOAL])
    for generation, message in ((2, "Waiting for the cloud to start."), (3, "The host is unlocked.")):
        status = answers.HostStatus(
            administrative="unlocked", observed_generation=generation, conditions=[settled]
        )
        progress.take("hosts", Snapshot([answers.Host(metadata=answers.Meta(name="c"), status=status)]))
        assert progress.standing(GOAL).message == message


def test_lines_tell_each_move_once() -> None:
    progress, lines = Progress([GOAL]), Lines()
    progress.take("operations", Snapshot([]))
    assert lines.news(progress) == ["c: Waiting for the cloud's answer."]
    assert lines.news(progress) == []
    step = answers.Step(name="disable", state="running")
    moved = msgspec.structs.replace(
        operation("lock-c-1", "running"), status=answers.OperationStatus(state="running", steps=[step])
    )
    progress.take("operations", Change("ADDED", moved))
    assert lines.news(progress) == ["c: disable: running"]
    assert not progress.over()
    progress.take("operations", Change("MODIFIED", operation("lock-c-1", "succeeded")))
    assert progress.over()


def test_the_picture_of_work() -> None:
    work = msgspec.structs.replace(
        operation("lock-c-1", "running"),
        status=answers.OperationStatus(
            state="running",
            steps_done=1,
            steps_total=3,
            started_at="2026-11-23T03:59:18Z",
            steps=[
                answers.Step(name="check", state="succeeded", message="The host answers."),
                answers.Step(
                    name="configure",
                    state="running",
                    attempt=4,
                    message="Waiting.",
                    deadline="2026-11-23T04:00:40Z",
                ),
                answers.Step(name="enable"),
            ],
        ),
    )
    assert [line.plain for line in picture(GOAL, Standing("working", work, ""), NOW)] == [
        "c  lock  running  1/3  42s",
        "  + check        succeeded  The host answers.",
        "  > configure    running    Waiting. (attempt 4, 40s left)",
        "    enable       pending",
    ]
    waiting = picture(GOAL, Standing("waiting", None, "Waiting for the cloud to start."), NOW)
    assert [line.plain for line in waiting] == ["c  waiting  Waiting for the cloud to start."]


def test_hosts_with_several_roles_are_listed(roost: Roost, server: ApiServer) -> None:
    spec = HostSpec(personalities=["controller", "worker"])
    server.do(server.store.save(Host(metadata=Metadata(name="c-0", namespace="central"), spec=spec)))
    result = roost("host", "list", "--no-headers")
    assert result.out.split()[:5] == ["c-0", "controller,worker", "locked", "disabled", "offline"]
    assert roost("host", "list", "-o", "name").out == "host/c-0\n"
    assert "NAME" in roost("host", "list", "-A", "-o", "wide").out.splitlines()[0]
    assert roost("host", "show", "c-0").out.splitlines()[0].split() == ["Name:", "c-0"]


def test_a_rehearsal_shows_the_steps_and_changes_nothing(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    result = roost("host", "unlock", "controller-0", "--dry-run")
    assert result.code == 0, result.err
    heading, *steps = result.out.splitlines()
    assert heading == "controller-0  unlock would have these steps, and may begin now"
    assert [line.split()[1] for line in steps] == ["check", "configure", "test", "enable"]
    assert "run its health checks" in steps[2] and "(at most 18m)" in steps[2]
    host = server.do(server.store.read(lambda tx: tx.load(Host, "central", "controller-0")))
    assert host.spec.administrative_state == "locked" and host.metadata.generation == 1
    assert "is locked already" in roost("host", "lock", "controller-0", "--dry-run").out
    assert roost("host", "unlock", "nobody", "--dry-run").code == 4


def test_recover_begins_a_new_round(roost: Roost, server: ApiServer, controller: Host) -> None:
    for number in (1, 2):
        result = roost("host", "recover", "controller-0")
        assert result.code == 0 and "begins anew" in result.out, result.err
        host = server.do(server.store.read(lambda tx: tx.load(Host, "central", "controller-0")))
        assert host.spec.recovery_round == number
    assert roost("host", "recover", "nobody").code == 4


def test_a_host_says_what_it_waits_for_and_what_its_checks_found(roost: Roost, server: ApiServer) -> None:
    check = CheckResult(name="50-raid", state="failed", message="md0 is degraded", seconds=1.5)
    count = RecoveryCount(cause="health", tries=3, limit=3, off=True, message="Automatic recovery is off.")
    told = HostStatus(
        administrative="unlocked",
        availability="failed",
        health=CheckReport(request="r", state="failed", checks=[check]),
        degraded=[DegradedReason(reason="MemoryUse", alarm="host.c-1.100.103", message="memory is full")],
        recovery=RecoveryStatus(counts=[count]),
        conditions=[
            Condition(
                type="Healthy", status="False", reason="ChecksFailed", message="50-raid failed: mend it."
            )
        ],
    )
    spec = HostSpec(administrative_state="unlocked")
    made = Host(metadata=Metadata(name="c-1", namespace="central"), spec=spec, status=told)
    server.do(server.store.save(made))
    test: tuple[str, StepState, str] = ("test", "running", "3 of 4")
    steps = status("running", ("check", "succeeded", "Here."), test, ("enable", "pending", ""))
    work = Operation(
        metadata=Metadata(name="unlock-c-1-1-1", namespace="central"),
        spec=OperationSpec(action="unlock", host="c-1"),
        status=steps,
    )
    server.do(server.store.save(work))
    shown = " ".join(roost("host", "show", "c-1").out.split())
    for text in (
        "Now: unlock, test: 3 of 4",
        "Then: enable.",
        "Health: 50-raid failed: mend it.",
        "50-raid failed 1.5 s md0 is degraded",
        "MemoryUse memory is full",
        "health 3 of 3 0 off Automatic recovery is off.",
    ):
        assert text in shown, shown
