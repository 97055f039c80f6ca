"""Looking at things: get, describe, explain, status, alarms, logs, watches, users, subclouds, firewall."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import yaml

from roost.cli import answers
from roost.cli.client import Client
from roost.cli.kinds import ALARM, HOST, LOG_ENTRY
from roost.cli.kubeconfig import Target
from roost.cli.listing import TableWatch
from roost.cli.login import own_cloud
from roost.cli.logs import Search
from roost.cli.problems import Misused
from roost.cli.session import Connect, target_of
from roost.cli.spans import before
from roost.cli.status import Scene, by_state, picture, put, summary
from roost.cli.watching import Change, Snapshot, Watches, follow
from roost.model.cloud import AlarmCounts, Cloud, CloudSpec, CloudStatus, HostCounts, Subcloud, SubcloudStatus
from roost.model.configuration import AspectStatus, HostConfiguration, HostConfigurationStatus
from roost.model.fault import Alarm, AlarmSpec, AlarmStatus, LogEntry, LogEntryStatus
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.host import Disk, Host, HostStatus, Inventory, Port, Processors, Unknown
from roost.model.meta import Metadata
from tests.cli.conftest import Roost
from tests.support.api import ApiServer

NOW = datetime(2026, 11, 23, 4, 0, 0, tzinfo=UTC)


def alarm(name: str, severity: str, reason: str, namespace: str = "central") -> Alarm:
    status = AlarmStatus(
        alarm_id=name[:7],
        entity="host=controller-0",
        severity=severity,  # type: ignore[arg-type]
        reason=reason,
        repair="Mend it.",
        raised_at="2026-11-23T03:00:00.000Z",
    )
    return Alarm(metadata=Metadata(name=name, namespace=namespace), status=status)


def entry(number: int, severity: str, text: str) -> LogEntry:
    status = LogEntryStatus(
        time=f"2026-11-23T03:0{number}:00.000Z",
        source="central",
        sequence=number,
        severity=severity,  # type: ignore[arg-type]
        event="alarm-set",
        entity="host=controller-0",
        text=text,
    )
    return LogEntry(metadata=Metadata(name=f"l-{number}", namespace="central"), status=status)


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    with Client(target_of(Connect(kubeconfig=str(server.administrator)))) as open_client:
        yield open_client


def test_get_in_every_form(roost: Roost, server: ApiServer, controller: Host) -> None:
    assert roost("get", "ho").out.splitlines()[1].startswith("controller-0")
    assert roost("get", "Host", "controller-0", "-o", "name").out == "host/controller-0\n"
    assert roost("get", "host/controller-0").out.splitlines()[1].startswith("controller-0")
    one = json.loads(roost("get", "host", "controller-0", "-o", "json").out)
    assert one["kind"] == "Host"
    listed = yaml.safe_load(roost("get", "hosts", "-o", "yaml").out)
    assert (listed["kind"], len(listed["items"])) == ("HostList", 1)
    assert roost("get", "hosts", "-l", "site=none").out == ""
    assert roost("get", "hosts", "--field-selector", "status.availability=offline", "-o", "name").out
    assert roost("get", "namespaces", "-o", "name").out.startswith("namespace/central")


def test_a_bad_selector_is_refused_in_one_sentence(roost: Roost, server: ApiServer) -> None:
    result = roost("get", "hosts", "--field-selector", "status.colour=red")
    assert result.code == 1
    assert "can't list hosts" in result.err
    assert "status.colour" in result.err


def test_describe(roost: Roost, server: ApiServer, controller: Host) -> None:
    lines = roost("describe", "host", "controller-0").out.splitlines()
    assert lines[0] == "Host controller-0"
    assert "Administrative state: locked" in lines


def test_explain(roost: Roost, server: ApiServer) -> None:
    told = roost("explain", "host.spec.administrativeState").out
    assert "Locked: out of service, safe to work on." in told
    assert "locked, unlocked" in told
    kind = roost("explain", "fwp").out
    assert kind.splitlines()[0].split() == ["Kind:", "FirewallPolicy"]
    assert "spec" in kind
    deep = roost("explain", "host", "--recursive").out
    assert "administrativeState" in deep
    wrong = roost("explain", "host.spec.colour")
    assert wrong.code == 4
    assert "host.spec has no field 'colour'" in wrong.err
    assert "personalities" in wrong.err


def test_alarms_are_listed_shown_and_acknowledged(roost: Roost, server: ApiServer) -> None:
    server.do(server.store.save(alarm("200.001.c", "warning", "controller-0 was locked.")))
    server.do(server.store.save(alarm("200.004.c", "critical", "controller-0 has failed.")))
    lines = roost("alarm", "list").out.splitlines()
    assert lines[0].split() == ["SEVERITY", "ID", "ENTITY", "REASON", "UPDATES", "AGE"]
    assert [line.split()[1] for line in lines[1:]] == ["200.004", "200.001"]
    assert len(roost("alarm", "list", "--severity", "major", "--no-headers").out.splitlines()) == 1
    assert "Mend it." in roost("alarm", "show", "200.004").out
    done = roost("alarm", "acknowledge", "200.004", "--comment", "on my way")
    assert done.out == "200.004 host=controller-0 is acknowledged by admin.\n"
    stored = server.do(server.store.read(lambda tx: tx.load(Alarm, "central", "200.004.c")))
    assert (stored.spec.acknowledged_by, stored.spec.comment) == ("admin", "on my way")
    assert stored.spec.acknowledged_severity == "critical"
    assert roost("alarm", "unacknowledge", "200.004").code == 0
    stored = server.do(server.store.read(lambda tx: tx.load(Alarm, "central", "200.004.c")))
    assert stored.spec == AlarmSpec()
    server.do(server.store.save(alarm("200.004.d", "critical", "another")))
    unclear = roost("alarm", "show", "200.004")
    assert unclear.code == 2
    assert "200.004.c, 200.004.d" in unclear.err
    assert roost("alarm", "show", "999.999").code == 4


def test_the_log(roost: Roost, server: ApiServer) -> None:
    for one in (entry(2, "info", "second"), entry(1, "major", "first"), entry(3, "warning", "third")):
        server.do(server.store.save(one))
    rows = [line.split()[-1] for line in roost("log", "list", "--no-headers").out.splitlines()]
    assert rows == ["first", "second", "third"]
    bad = roost("log", "list", "--severity", "major", "--no-headers").out
    assert bad.split()[-1] == "first"
    late = roost("log", "list", "--since", "2026-11-23T03:02:30Z", "--no-headers").out
    assert late.split()[-1] == "third"
    assert len(roost("log", "list", "--last", "1", "--no-headers").out.splitlines()) == 1
    assert roost("log", "list", "--last", "-1").code == 2


def test_the_log_is_searched_by_time_entity_alarm_and_words(roost: Roost, server: ApiServer) -> None:
    for number, changes in enumerate(
        [
            {"entity": "host=worker-1", "alarm_id": "200.005", "text": "worker-1 is Silent"},
            {"entity": "host=worker-1.port=eth0", "alarm_id": "100.106", "text": "eth0, down"},
            {"entity": "host=worker-2", "alarm_id": "200.005", "text": "worker-2 is silent", "event": "e,=x"},
        ],
        1,
    ):
        one = entry(number, "major", "")
        made = msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, **changes))
        server.do(server.store.save(made))

    def numbers(*options: str) -> str:
        found = json.loads(roost("log", "list", "-o", "json", *options).out)["items"]
        lines = roost("log", "list", "--no-headers", *options).out.splitlines()
        texts = [i["status"]["text"] for i in found]
        assert [line.endswith(text) for line, text in zip(lines, texts, strict=True)] == [True] * len(texts)
        return "".join(str(i["status"]["sequence"]) for i in found)

    assert numbers() == "123"
    assert numbers("--entity", "host=worker-1") == "12", "with what lies in it"
    assert numbers("--entity", "host=worker") == "", "no part of a name"
    assert "entities like host=worker-1," in roost("log", "list", "--entity", "worker-1").err
    assert "has alarms as 200.005" in roost("log", "list", "--alarm", "999.999").err
    wrong = roost("log", "list", "--since", "1m", "--until", "2m")
    assert wrong.code == 2 and "is not before" in wrong.err
    assert numbers("--entity", "host=worker-1*") == "12"
    assert numbers("--alarm", "200.005") == "13"
    assert numbers("--alarm", "100.*") == "2"
    assert numbers("--event", "e,=x") == "3"
    assert numbers("--text", "SILENT") == "13"
    assert numbers("--since", "2026-11-23T03:02:00Z") == "23"
    assert numbers("--until", "2026-11-23T03:02:00Z") == "1"
    assert numbers("--severity", "critical") == ""
    assert numbers("--severity", "major", "--field-selector", "status.entity=host=worker-2") == "3"
    assert numbers("--last", "1") == "3"
    assert roost("log", "list", "--until", "soon").code == 2


def test_what_since_means() -> None:
    assert before("--since", "90m", NOW) == NOW - timedelta(minutes=90)
    assert before("--since", "", NOW) is None
    for bad in ("2026", "tomorrow", "25:00", "999999999d", "-3h"):
        with pytest.raises(Misused):
            before("--since", bad, NOW)
    early = answers.LogEntry(status=answers.LogStatus(time="2026-11-23T03:00:00Z", severity="info"))
    assert not Search(start=NOW).fits(early)
    assert not Search(severity="major").fits(early)
    assert Search(end=NOW).fits(early)
    assert Search(start=NOW).fits(answers.LogEntry()), "one without a time is shown rather than lost"


def test_status_on_one_screen(roost: Roost, server: ApiServer, controller: Host) -> None:
    store = server.store
    unlocked = HostStatus(administrative="unlocked", operational="enabled", availability="available")
    server.do(store.save(msgspec.structs.replace(controller, status=unlocked)))
    server.do(store.save(alarm("280.001.h", "critical", "harbor is offline.")))
    counts = CloudStatus(
        version="0.1.0", upper="central", hosts=HostCounts(total=1, available=1), alarms=AlarmCounts(major=2)
    )
    server.do(store.save(Cloud(metadata=Metadata(name="harbor"), spec=CloudSpec(), status=counts)))
    harbor = SubcloudStatus(availability="online", sync="in-sync", enrolled=True)
    server.do(store.save(Subcloud(metadata=Metadata(name="harbor"), status=harbor)))
    ridge = SubcloudStatus(availability="offline", availability_changed_at="2026-11-23T03:00:00Z")
    server.do(store.save(Subcloud(metadata=Metadata(name="ridge"), status=ridge)))
    result = roost("status")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].startswith("central  simplex central cloud")
    assert lines[1] == "Hosts:        1   1 available"
    assert lines[2] == "Alarms:       1   1 critical"
    assert lines[3] == "Subclouds:    2   1 online   1 offline   1 in-sync   2 unmanaged"
    subclouds = [line.split()[0] for line in lines if line.startswith(("ridge", "harbor"))]
    assert subclouds == ["ridge", "harbor"], "what needs attention comes first"
    told = json.loads(roost("status", "-o", "json").out)
    assert told["hosts"] == {"available": 1}
    assert told["subclouds"]["offline"] == 1


def test_the_processes_of_a_cloud_that_has_several() -> None:
    one = answers.CloudProcess(
        name="a/1",
        roles=["api", "links"],
        active=True,
        links=20,
        address="192.0.2.1:7444",
        since="2026-11-23T04:00:00Z",
    )
    status = answers.CloudStatus(processes=[one, answers.CloudProcess(name="b/2", roles=["api"])])
    cloud = answers.Cloud(metadata=answers.Meta(name="c"), status=status)
    scene = Scene("c", clouds={"c": cloud})
    lines = [line.plain for line in picture(scene, NOW, 100)]
    heads = next(line for line in lines if line.startswith("PROCESS"))
    assert heads.split() == ["PROCESS", "ROLES", "ACTIVE", "LINKS", "ADDRESS", "AGE"]
    shown = next(line for line in lines if line.startswith("a/1"))
    assert shown.split()[:5] == ["a/1", "api,links", "yes", "20", "192.0.2.1:7444"]
    told = summary(scene)["processes"]
    assert isinstance(told, list) and [one["links"] for one in told] == [20, 0]


def test_the_scene_follows_changes() -> None:
    scene = Scene("c")
    host = answers.Host(metadata=answers.Meta(name="h"), status=answers.HostStatus(availability="strange"))
    put(scene, "hosts", Snapshot([host]))
    assert by_state(list(scene.hosts.values())) == [("strange", 1)]
    put(scene, "hosts", Change("DELETED", host))
    assert scene.hosts == {}
    assert picture(scene, NOW, 80)[0].plain == "c  has not described itself yet"


def test_a_host_with_everything(roost: Roost, server: ApiServer) -> None:
    inventory = Inventory(
        processors=Processors(model="CPU", sockets=2, cores=8, threads=16),
        disks=[Disk(name="sda", size=1000)],
        ports=[Port(name="eth0", carrier=True, speed=10000, addresses=["192.0.2.1/24"])],
        unknown=[Unknown(path="product", reason="permission denied")],
    )
    host = Host(metadata=Metadata(name="c-0", namespace="central"), status=HostStatus(inventory=inventory))
    server.do(server.store.save(host))
    told = roost("host", "inventory", "c-0").out
    assert "CPU: 2 sockets, 8 cores, 16 threads" in told
    assert "Product:    unknown: permission denied" in told
    assert "permission denied" in told
    assert json.loads(roost("host", "inventory", "c-0", "-o", "json").out)["disks"][0]["name"] == "sda"
    server.do(server.store.save(alarm("200.001.c", "warning", "c-0 was locked.")))
    assert "c-0 was locked." not in roost("host", "show", "c-0").out, "that one is another host's"


def test_firewall_policy_and_plan(roost: Roost, server: ApiServer) -> None:
    rule = FirewallRule(action="allow", protocol="tcp", ports=["22"], description="for people")
    spec = FirewallPolicySpec(networks=["oam"], rules=[rule])
    server.do(server.store.save(FirewallPolicy(metadata=Metadata(name="p", namespace="central"), spec=spec)))
    shown = roost("firewall", "show", "p").out
    assert "allow" in shown
    assert "for people" in shown
    assert "No host has a configuration yet." in roost("firewall", "plan").err
    aspect = AspectStatus(
        aspect="firewall", state="rolled-back", message="The link did not return.", plan=["+ add chain oam"]
    )
    configuration = HostConfiguration(
        metadata=Metadata(name="c-0", namespace="central"), status=HostConfigurationStatus(aspects=[aspect])
    )
    server.do(server.store.save(configuration))
    lines = roost("firewall", "plan", "c-0").out.splitlines()
    assert lines[0] == "c-0  generation 0 of 1 in force"
    assert lines[1:4] == ["  firewall  rolled-back", "    The link did not return.", "    + add chain oam"]
    assert roost("firewall", "plan", "nobody").code == 4


def test_users_and_their_tokens(roost: Roost, server: ApiServer) -> None:
    added = roost("user", "add", "ada", "--role", "administrator", "--token")
    assert added.code == 0, added.err
    assert f"roost login {server.url}" in added.out
    token = roost("user", "token", "ada", "--hours", "8", "-o", "name").out.strip()
    as_ada = server.kubeconfig(token)
    assert "ada" in roost("user", "list", "--kubeconfig", str(as_ada)).out
    assert roost("user", "delete", "ada").out == "User ada is deleted.\n"
    assert roost("user", "list", "--kubeconfig", str(as_ada)).code == 5


def test_subclouds_are_added_managed_and_deleted(roost: Roost, server: ApiServer) -> None:
    added = roost("subcloud", "add", "harbor", "--location", "pier 4", "--mode", "duplex")
    assert added.code == 0, added.err
    assert "roost up --name harbor --mode duplex --join -" in added.out
    assert roost("sc", "manage", "harbor").out == "Subcloud harbor is managed.\n"
    shown = roost("subcloud", "show", "harbor").out
    assert "managed" in shown
    assert "no; `roost subcloud token harbor` makes a token" in shown
    assert roost("subcloud", "unmanage", "harbor", "nobody").code == 4
    assert roost("subcloud", "delete", "harbor").code == 0
    assert "No subclouds" in roost("subcloud", "list").err


def test_clouds_and_networks_and_versions(roost: Roost, server: ApiServer) -> None:
    assert roost("cloud", "list").out.splitlines()[1].startswith("central")
    assert "* central" in roost("cloud", "contexts").out
    assert roost("cloud", "use", "central").out == "Commands now go to central.\n"
    assert roost("cloud", "use", "nowhere").code == 4
    assert "No platformnetworks in central." in roost("network", "list").err
    told = roost("version").out.splitlines()
    assert told[0].split()[1] == told[1].split()[1]
    assert roost("--cloud", "nowhere", "host", "list").code != 0


# -- watching


def test_follow_lists_then_tells_changes(client: Client, server: ApiServer, controller: Host) -> None:
    events = follow(client, HOST, "central", answers.Host)
    first = next(events)
    assert isinstance(first, Snapshot)
    assert [h.metadata.name for h in first.items] == ["controller-0"]
    status = msgspec.structs.replace(controller.status, task="unlock: check")
    server.do(server.store.save(msgspec.structs.replace(controller, status=status)))
    second = next(events)
    assert isinstance(second, Change)
    assert (second.type, second.item.status.task) == ("MODIFIED", "unlock: check")


def test_a_watch_goes_on_after_its_connection_broke(
    client: Client, server: ApiServer, controller: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = follow(client, HOST, "central", answers.Host, pause=lambda _: None)
    next(events)
    whole = Client.lines
    broken = itertools.count()

    def breaking(*arguments: object, **options: object) -> Iterator[bytes]:
        if next(broken) == 0:
            from roost.cli.problems import Unreachable

            raise Unreachable("connection reset")
        yield from whole(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "lines", breaking)
    server.do(server.store.save(Host(metadata=Metadata(name="worker-0", namespace="central"))))
    change = next(events)
    assert isinstance(change, Change)
    assert change.item.metadata.name == "worker-0"
    assert next(broken) == 2


def test_tables_are_watched_as_rows(client: Client, server: ApiServer, controller: Host) -> None:
    events = iter(TableWatch(client, HOST, "central", {}).events())
    rows, _, anew = next(events)
    assert (list(rows), anew) == (["central/controller-0"], True)
    server.do(server.store.save(Host(metadata=Metadata(name="worker-0", namespace="central"))))
    rows, gone, anew = next(events)
    assert (list(rows), gone, anew) == (["central/worker-0"], [], False)
    assert rows["central/worker-0"][0] == "worker-0"
    server.do(server.store.transact(lambda tx: tx.remove("Host", "central", "worker-0")))
    assert next(events) == ({}, ["central/worker-0"], False)


def test_several_watches_at_once_with_a_deadline(client: Client, server: ApiServer, controller: Host) -> None:
    with Watches(client) as watches:
        watches.add("hosts", HOST, "central", answers.Host)
        watches.add("alarms", ALARM, "central", answers.Alarm)
        names = set()
        for _ in range(2):
            taken = watches.take(30)
            assert taken is not None
            names.add(taken[0])
        assert names == {"hosts", "alarms"}
        assert watches.take(0.05) is None


def test_a_failing_watch_tells_the_one_who_waits(server: ApiServer) -> None:
    target = msgspec.structs.replace(
        target_of(Connect(kubeconfig=str(server.reader))), certificate="", key="", token="nobody.here"
    )
    assert isinstance(target, Target)
    from roost.cli.problems import Denied

    with Client(target) as stranger, Watches(stranger) as watches:
        watches.add("log", LOG_ENTRY, "central", answers.LogEntry)
        with pytest.raises(Denied):
            watches.take(30)


def test_which_cloud_answered() -> None:
    def cloud(name: str, upper: str) -> answers.Cloud:
        return answers.Cloud(metadata=answers.Meta(name=name), status=answers.CloudStatus(upper=upper))

    fleet = [cloud("central", ""), cloud("harbor", "central"), cloud("ridge", "central")]
    assert own_cloud(fleet, "https://a:1") == "central"
    assert own_cloud(fleet, "https://a:1/clouds/ridge") == "ridge"
    assert own_cloud([cloud("harbor", "central")], "https://b:1") == "harbor"
    assert own_cloud([], "https://b:1") == ""
