"""A store is put back to a snapshot older than its neighbours: what ran runs on, and both sides agree again.

Restored as an operator does it: `roost store snapshot` beside the running cloud; later the process is dead,
then `roost store restore --replace`, and it starts again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import checker, clock_demo
from tests.acceptance.checker import SITES, Raw
from tests.acceptance.running import ROOST, Answer, Demo, run
from tests.acceptance.test_cut import policy
from tests.acceptance.waiting import report, until
from tests.support import postgresql
from tests.support.pair import CloudProcess, Pair, linked

CENTRE = "centre"
POLICIES = "/apis/roost.edge/v1/namespaces/central/firewallpolicies"
EVERYWHERE: dict[str, Any] = {"subclouds": {}}


def store(demo: Demo, process: str, *arguments: str) -> Answer:
    """`roost store` on the home of a process."""
    return run([str(ROOST), "store", *arguments, "--home", str(demo.directory / process)])


class Restorable:
    """A process of the demo whose store can be put back to a snapshot."""

    def __init__(self, demo: Demo, process: str) -> None:
        self.demo, self.process = demo, process

    def snapshot(self) -> Path:
        """Beside the running process."""
        place = self.demo.directory.parent
        taken = len([*place.glob(f"{self.process}-*.roost")])
        file = place / f"{self.process}-{taken + 1}.roost"
        store(self.demo, self.process, "snapshot", str(file)).ok()
        return file

    def die(self) -> None:
        self.demo.verb("halt", self.process)
        until(f"{self.process} is dead", self._dead, 30)

    def _dead(self) -> None:
        assert self.demo.processes()[self.process]["state"] == "halted"

    def restore(self, file: Path) -> None:
        """In place of what there is; the process is dead."""
        done = store(self.demo, self.process, "restore", str(file), "--replace").ok()
        assert "as another store" in done.output, done
        sound = store(self.demo, self.process, "check").ok()
        assert "cloud: sound" in sound.output, sound

    def rise(self) -> None:
        before = self.demo.processes()[self.process]
        self.demo.verb("resume", self.process)
        self.demo.restarted(self.process, before)

    def put_back(self, file: Path) -> None:
        self.die()
        self.restore(file)
        self.rise()


class Lives:
    """Which processes run, and since when: nothing else than what was killed may have started anew."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._pids, self._incarnations = self._look()

    def _look(self) -> tuple[dict[str, int], dict[str, str]]:
        hosts = self._demo.kubectl("get", "hosts", "-A", "-o", "json").json()["items"]
        agents = {
            f"{h['metadata']['namespace']}-{h['metadata']['name']}": h["status"]["agent"]["incarnation"]
            + h["status"]["agent"]["bootId"]
            for h in hosts
        }
        return {name: p["pid"] for name, p in self._demo.processes().items()}, agents

    def but(self, killed: set[str]) -> tuple[dict[str, int], dict[str, str]]:
        """Processes and agents besides those that were killed."""
        hosts = {"central-controller-0" if name == CENTRE else name for name in killed}
        return (
            {name: pid for name, pid in self._pids.items() if name not in killed},
            {name: agent for name, agent in self._incarnations.items() if name not in hosts},
        )

    def went_on(self, but: str) -> None:
        assert Lives(self._demo).but({but}) == self.but({but}), "something was restarted that nobody killed"


@pytest.fixture(scope="module")
def whole(demo: Demo) -> Iterator[None]:
    """Restores begin when everything is well."""
    checker.converge(demo)
    yield


def at_centre(demo: Demo, *arguments: str, text: str | None = None) -> Raw:
    return demo.kubectl(*arguments, "-o", "json", text=text).json()


def specs(demo: Demo) -> dict[str, Raw]:
    """The intent of the centre that it shares."""
    return {p["metadata"]["name"]: p["spec"] for p in at_centre(demo, "get", "fwp", "-n", "central")["items"]}


def user(name: str) -> str:
    spec = {"role": "reader"}
    return json.dumps(
        {"apiVersion": "roost.edge/v1", "kind": "User", "metadata": {"name": name}, "spec": spec}
    )


def revision(demo: Demo) -> str:
    """The revision that the centre gives out now."""
    found: str = json.loads(demo.kubectl("get", "--raw", POLICIES).ok().output)["metadata"]["resourceVersion"]
    return found


def expired(demo: Demo, revision: str) -> None:
    """Who holds a revision of the lost future is told, and does not wait in silence."""
    path = f"{POLICIES}?watch=1&timeoutSeconds=5&resourceVersion={revision}"
    said = demo.kubectl("get", "--raw", path)
    assert '"code":410' in said.said or "Expired" in said.said, said


def entries(demo: Demo, namespace: str, event: str) -> list[str]:
    """What log entries of an event say, as the centre shows them."""
    log = at_centre(demo, "get", "logentries", "-n", namespace)["items"]
    return [e["status"]["text"] for e in log if e["status"]["event"] == event]


def test_a_central_cloud_older_than_its_sites(demo: Demo, whole: None) -> None:
    centre, lives = Restorable(demo, CENTRE), Lives(demo)
    for name, port in (("changed", "8081"), ("deleted", "8082")):
        at_centre(demo, "create", "-f", "-", text=policy(name, [port], **EVERYWHERE))
    checker.converge(demo)
    before = specs(demo)
    file = centre.snapshot()

    patch = json.dumps({"spec": {"order": 7}})
    at_centre(demo, "patch", "fwp", "changed", "--type=merge", "-p", patch)
    demo.kubectl("delete", "fwp", "deleted").ok()
    at_centre(demo, "create", "-f", "-", text=policy("later", ["8443"], **EVERYWHERE))
    demo.roost("--cloud", "valley", "host", "lock", "worker-0").ok()
    at_centre(demo, "create", "-f", "-", text=user("later"))
    demo.roost("secrets", "rotate").ok()
    checker.converge(demo)
    override = ("override", "set", "FirewallPolicy/changed.central", "--reason", "printer moved")
    demo.local_roost("ridge", *override, "--patch", '{"order": 3}').ok()
    future = revision(demo)

    centre.put_back(file)

    def drifts() -> None:
        found = at_centre(demo, "get", "localoverrides", "-n", "ridge")["items"]
        assert [o["status"]["conflicts"] for o in found] == [1], found

    until("both sides of what both changed are shown", drifts, 120)
    demo.local_roost("ridge", "override", "remove", "FirewallPolicy/changed.central").ok()
    checker.converge(demo, 180)
    assert specs(demo) == before, "the intent of the centre is that of the snapshot"
    lives.went_on(but=CENTRE)
    assert demo.kubectl("get", "user", "later").code != 0
    expired(demo, future)
    (told,) = entries(demo, "central", "store-restored")
    report(told)
    for site in SITES:
        (told,) = entries(demo, site, "link-other-store")
        assert "FirewallPolicy" in told and "later.central gone" in told, told
    report(told)
    demo.roost("--cloud", "valley", "host", "unlock", "worker-0").ok()


def generations(demo: Demo, site: str) -> dict[str, int]:
    found = demo.local(site, "get", "hostconfigurations", "-o", "json").json()["items"]
    return {c["metadata"]["name"]: c["metadata"]["generation"] for c in found}


def test_a_subcloud_older_than_its_centre_and_its_hosts(demo: Demo) -> None:
    checker.converge(demo, 180)
    site, lives = Restorable(demo, "valley-controller-0"), Lives(demo)
    file = site.snapshot()

    demo.kubectl("delete", "fwp", "deleted").ok()
    at_centre(demo, "create", "-f", "-", text=policy("after", ["7444"], **EVERYWHERE))
    demo.local("valley", "create", "-f", "-", text=policy("own", ["7443"])).ok()
    demo.roost("--cloud", "valley", "host", "lock", "worker-0").ok()
    checker.converge(demo)
    demo.local("valley", "delete", "fwp", "own").ok()
    demo.local("valley", "create", "-f", "-", text=policy("own-2", ["80"])).ok()
    checker.converge(demo)
    given = generations(demo, "valley")

    site.put_back(file)
    checker.converge(demo, 180)
    lives.went_on(but="valley-controller-0")
    now = generations(demo, "valley")
    assert all(now[host] > given[host] for host in given), f"{given} were given out, and now {now}"
    assert demo.local("valley", "get", "fwp", "own-2").code != 0, "it came after the snapshot"
    assert len(entries(demo, "valley", "store-restored")) == 1
    (told,) = [t for t in entries(demo, "central", "link-other-store") if "valley" in t]
    assert "FirewallPolicy valley/own-2 gone" in told, told
    report(told)


def test_both_ends_older_each_by_its_own_age_while_they_are_cut_and_once_more(demo: Demo) -> None:
    lives = Lives(demo)
    centre, site = Restorable(demo, CENTRE), Restorable(demo, "harbor-controller-0")
    below = site.snapshot()
    at_centre(demo, "create", "-f", "-", text=policy("between", ["8080"], **EVERYWHERE))
    checker.converge(demo)
    above = centre.snapshot()
    demo.kubectl("delete", "fwp", "between").ok()
    demo.local("harbor", "create", "-f", "-", text=policy("lost", ["80"])).ok()
    checker.converge(demo)
    demo.verb("cut", "harbor")
    for _ in range(2):
        for end, file in ((centre, above), (site, below)):
            end.put_back(file)
    demo.local("harbor", "create", "-f", "-", text=policy("alone", ["443"])).ok()
    at_centre(demo, "create", "-f", "-", text=policy("meanwhile", ["8443"], **EVERYWHERE))
    demo.verb("mend", "harbor")
    checker.converge(demo, 180)
    names = {p["metadata"]["name"] for p in at_centre(demo, "get", "fwp", "-n", "harbor")["items"]}
    assert {"between.central", "meanwhile.central", "alone"} <= names and "lost" not in names, names
    running = Lives(demo)
    killed = {CENTRE, "harbor-controller-0"}
    assert running.but(killed) == lives.but(killed), "something was restarted that nobody killed"


# Sites that came and went after the snapshot, on either database


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A central cloud on a database of this kind, with one subcloud."""
    place = Path(tempfile.mkdtemp(prefix="roost-"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, place)
        options: list[str] = []
        if request.param == "postgresql":
            server = postgresql.Server({})
            ends.callback(server.close)
            (file := place / "database").touch(mode=0o600)
            file.write_text(server.url(server.new_database()) + "\n")
            options = ["--database", str(file)]
        yield ends.enter_context(linked(place, options=options))


def on(cloud: CloudProcess, *arguments: str, environment: dict[str, str] | None = None) -> Answer:
    argv = [str(ROOST), "store", *arguments, "--home", str(cloud.home)]
    return run(argv, environment=environment)


def behind() -> dict[str, str]:
    """The environment of a program whose wall clock is two days behind, where that can be had."""
    faked = clock_demo.library()
    return {"LD_PRELOAD": str(faked), "FAKETIME": "-2d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"} if faked else {}


def join(pair: Pair, name: str) -> CloudProcess:
    """A further subcloud that joins the central cloud."""
    made = CloudProcess(name, pair.centre.home.parent)
    token = pair.centre.roost("subcloud", "add", name, "--managed", "-o", "name").ok().output.strip()
    (file := made.home.parent / f"{name}.token").touch(mode=0o600)
    file.write_text(token.splitlines()[-1] + "\n")
    made.start("--join", str(file))
    until(f"{name} is online", lambda: availability(pair, name, "online"), 120)
    return made


def availability(pair: Pair, name: str, wanted: str) -> None:
    status = pair.centre.get("subcloud", name)["status"]
    assert status["availability"] == wanted, status


def test_sites_that_came_and_went_after_the_snapshot(pair: Pair) -> None:
    centre, harbor = pair.centre, pair.site
    place = centre.home.parent
    file, others = place / "a.roost", place / "b.roost"
    assert "rows at revision" in on(centre, "snapshot", str(file)).ok().output
    on(harbor, "snapshot", str(others)).ok()
    refused(centre, file, others)

    coast = join(pair, "coast")
    try:
        for verb in ("unmanage", "delete"):
            centre.roost("subcloud", verb, "harbor").ok()
        centre.kill()
        torn = place / "torn.roost"
        torn.write_bytes(file.read_bytes()[:-20])
        said = on(centre, "restore", str(torn), "--replace")
        assert said.code == 1 and "no whole snapshot" in said.error, said
        done = until("it is restored", lambda: on_its_own(centre, file), 60)
        report(done.output.strip())
        centre.start()

        def told() -> None:
            said = [e["status"]["text"] for e in centre.items("logentries", "central")]
            assert any("subcloud/coast" in t and "roost subcloud readmit coast" in t for t in said), said

        until("the log tells of the site that is not known, and of what to do", told, 120)
        centre.roost("subcloud", "readmit", "coast", "--managed").ok()
        until("it is back, as it is", lambda: availability(pair, "coast", "online"), 180)
        until("so is the one that was deleted", lambda: availability(pair, "harbor", "online"), 180)
        assert coast.process is not None and coast.process.poll() is None
        assert harbor.process is not None and harbor.process.poll() is None
        centre.kubectl("create", "-f", "-", text=policy("both", ["443"], **EVERYWHERE)).ok()
        for site in (coast, harbor):
            until("intent comes", functools.partial(site.get, "fwp", "both.central"), 60)
    finally:
        coast.kill()


def on_its_own(centre: CloudProcess, file: Path) -> Answer:
    """Restored by a machine whose clock is behind. PostgreSQL may see the dead process for a moment yet."""
    done = on(centre, "restore", str(file), "--replace", environment=behind())
    assert done.code == 0 and "as another store" in done.output, done
    return done


def refused(centre: CloudProcess, file: Path, others: Path) -> None:
    """What can't be restored is refused in words, and changes nothing."""
    said = on(centre, "restore", str(file), "--replace")
    assert said.code == 1 and "already runs on" in said.error and "stop it first" in said.error, said
    centre.kill()
    said = on(centre, "restore", str(others), "--replace")
    assert said.code == 1 and "is of cloud harbor, and this home is of cloud central" in said.error, said
    said = on(centre, "restore", str(file))
    assert said.code == 1 and "say --replace" in said.error, said
    centre.start()
