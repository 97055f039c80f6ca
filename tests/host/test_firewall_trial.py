"""The firewall aspect on a real kernel: trial, proof over a real connection, rollback, kill -9, removal."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from roost.host.aspect import AspectFacts, AspectOutcome, boottime
from roost.host.firewall.aspect import FirewallAspect
from roost.host.firewall.driver import FirewallDriver
from roost.host.firewall.planning import parse
from roost.host.trial import LinkProof
from roost.model.configuration import FirewallConfiguration, HostConfigurationSpec, NetworkFirewall
from roost.model.firewall import FirewallRule
from tests.support.namespaces import Namespace, World, namespaces, tcp_passes

pytestmark = pytest.mark.namespaces

HOST, CLOUD, LINK = "10.1.0.1", "10.1.0.2", 9443

GOOD = [FirewallRule(action="allow", protocol="tcp", ports=["443"])]
BETTER = [*GOOD, FirewallRule(action="allow", protocol="tcp", ports=["80"])]
SUICIDAL = [FirewallRule(action="deny", protocol="any", direction="egress")]

AGENT = """
import asyncio, os, signal, sys
from pathlib import Path
import msgspec
from roost.host.aspect import AspectFacts
from roost.host.firewall.aspect import FirewallAspect
from roost.host.firewall.driver import FirewallDriver
from roost.model.configuration import HostConfigurationSpec

moment = sys.argv[3]

class Driver(FirewallDriver):
    async def apply(self, commands):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().apply(commands)
        if moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    spec = msgspec.json.decode(sys.argv[1], type=HostConfigurationSpec)
    aspect = FirewallAspect(Path(sys.argv[2]), Driver())
    outcome = await aspect.reconcile(spec, 2, AspectFacts.gather(link_up=True, link_proof=None))
    print(outcome.status.state, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Agent:
    """What an agent's loop does, step by step, with a clock that can be moved on."""

    def __init__(self, host: Namespace, cloud: Namespace, state: Path) -> None:
        self._host, self._cloud, self._state = host, cloud, state
        self.later = 0.0
        self.proof: LinkProof | None = None
        self.link_up = True
        self.driver = FirewallDriver(host.prefix)
        self.restart()

    def restart(self) -> None:
        self.proof = None
        self.aspect = FirewallAspect(self._state, self.driver, self.clock)

    def clock(self) -> float:
        return boottime() + self.later

    def dial(self) -> None:
        """A new connection to the cloud, as the link would make it."""
        dialled = self.clock()
        if tcp_passes(self._host, self._cloud, CLOUD, LINK, expected=not self.link_is_cut):
            self.proof = LinkProof(dialled, self.clock())

    link_is_cut = False

    async def reconcile(self, generation: int, rules: list[FirewallRule] | None) -> AspectOutcome:
        facts = msgspec.structs.replace(
            AspectFacts.gather(link_up=self.link_up, link_proof=self.proof), boottime=self.clock()
        )
        return await self.aspect.reconcile(spec_of(rules), generation, facts)

    async def settle(self, generation: int, rules: list[FirewallRule]) -> None:
        await self.reconcile(generation, rules)
        self.dial()
        assert (await self.reconcile(generation, rules)).status.state == "applied"

    async def fingerprint(self) -> str:
        return parse(await self.driver.read()).fingerprint


def spec_of(rules: list[FirewallRule] | None) -> HostConfigurationSpec:
    if rules is None:
        return HostConfigurationSpec()
    network = NetworkFirewall(network="mgmt", ports=["eth0"], rules=rules)
    return HostConfigurationSpec(firewall=FirewallConfiguration(networks=[network], confirm_seconds=30))


@pytest.fixture
def world() -> Iterator[World]:
    with namespaces("host", "cloud") as made:
        made.join(
            "host", "eth0", [f"{HOST}/24", "fd01::1/64"], "cloud", "eth0", [f"{CLOUD}/24", "fd01::2/64"]
        )
        yield made


@pytest.fixture
def agent(world: World, tmp_path: Path) -> Agent:
    return Agent(world["host"], world["cloud"], tmp_path)


async def test_good_rules_are_tried_proven_and_kept(world: World, agent: Agent) -> None:
    outcome = await agent.reconcile(1, GOOD)
    assert outcome.status.state == "trial" and outcome.link_proof_wanted
    assert "add to mgmt: allow tcp 443 (ingress)" in outcome.status.plan
    agent.dial()
    assert (await agent.reconcile(1, GOOD)).status.state == "applied"
    agent.later += 1000
    assert (await agent.reconcile(1, GOOD)).status.state == "applied"
    assert tcp_passes(world["cloud"], world["host"], HOST, 443)
    assert not tcp_passes(world["cloud"], world["host"], HOST, 80, expected=False)


async def test_rules_that_cut_the_link_are_taken_back_exactly(world: World, agent: Agent) -> None:
    await agent.settle(1, GOOD)
    former = await agent.fingerprint()
    with (
        world["cloud"].socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        world["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as established,
    ):
        listener.bind((CLOUD, LINK + 1))
        listener.listen()
        established.connect((CLOUD, LINK + 1))
        accepted, _ = listener.accept()
        with accepted:
            assert (await agent.reconcile(2, SUICIDAL)).status.state == "trial"
            established.sendall(b"still here")
            assert accepted.recv(16) == b"still here", "which is why this proves nothing"
    agent.link_is_cut = True
    agent.dial()
    assert (await agent.reconcile(2, SUICIDAL)).status.state == "trial"
    agent.later += 30
    status = (await agent.reconcile(2, SUICIDAL)).status
    assert status.state == "rolled-back" and "30 seconds" in status.message
    assert await agent.fingerprint() == former
    agent.link_is_cut = False
    assert tcp_passes(world["host"], world["cloud"], CLOUD, LINK)
    agent.dial()
    assert (await agent.reconcile(2, SUICIDAL)).status.state == "rolled-back", "never again"
    await agent.settle(3, BETTER)
    assert tcp_passes(world["cloud"], world["host"], HOST, 80)


@pytest.mark.parametrize("moment", ["before", "after", "trial"])
async def test_kill_minus_9_during_the_change(
    world: World, agent: Agent, tmp_path: Path, moment: str
) -> None:
    await agent.settle(1, GOOD)
    former = await agent.fingerprint()
    spec = msgspec.json.encode(spec_of(SUICIDAL)).decode()
    process = world["host"].start(sys.executable, "-c", AGENT, spec, str(tmp_path), moment)
    if moment == "trial":
        assert process.stdout is not None and process.stdout.readline() == "trial\n"
        process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert (await agent.fingerprint() == former) == (moment == "before")

    agent.restart()
    if moment == "before":
        assert (await agent.reconcile(2, SUICIDAL)).status.state == "trial"
    agent.later += 31
    assert (await agent.reconcile(2, SUICIDAL)).status.state == "rolled-back"
    assert await agent.fingerprint() == former
    assert tcp_passes(world["host"], world["cloud"], CLOUD, LINK)


async def test_after_a_restart_of_the_host_the_proven_rules_are_back_without_a_link(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await agent.settle(1, GOOD)
    world.replace("host")
    world.join("host", "eth0", [f"{HOST}/24"], "cloud", "eth1", ["10.1.0.3/24"])
    again = Agent(world["host"], world["cloud"], tmp_path)
    again.link_up = False
    status = (await again.reconcile(2, BETTER)).status
    assert status.state == "pending" and "add to mgmt: allow tcp 80 (ingress)" in status.plan
    assert [r.text for r in parse(await again.driver.read()).networks["mgmt"].rules["ingress"]] == [
        "allow tcp 443 (ingress)"
    ]


async def test_another_hand_is_undone(world: World, agent: Agent) -> None:
    await agent.settle(1, GOOD)
    former = await agent.fingerprint()
    for tampering in ("flush chain inet roost_firewall ports-ingress-0", "delete table inet roost_firewall"):
        world["host"].run("nft", tampering)
        status = (await agent.reconcile(1, GOOD)).status
        assert status.state == "applied" and status.plan
        assert await agent.fingerprint() == former


async def test_a_rule_changed_under_its_old_comment_is_undone(world: World, agent: Agent) -> None:
    await agent.settle(1, GOOD)
    former = await agent.fingerprint()
    text = world["host"].run("nft", "-a", "list", "chain", "inet", "roost_firewall", "rules-ingress-mgmt")
    line = next(line for line in text.splitlines() if "dport 443" in line)
    place = f"inet roost_firewall rules-ingress-mgmt handle {line.rsplit(' ', 1)[1]}"
    comment = line.split('"')[1]
    world["host"].run("nft", f'replace rule {place} tcp dport 22 accept comment "{comment}"')
    status = (await agent.reconcile(1, GOOD)).status
    assert status.state == "applied" and status.plan[0].startswith("repair")
    assert await agent.fingerprint() == former


async def test_removed_intent_leaves_nothing(world: World, agent: Agent) -> None:
    await agent.settle(1, GOOD)
    agent.link_up = False
    status = (await agent.reconcile(2, None)).status
    assert status.state == "applied" and "remove from mgmt: allow tcp 443 (ingress)" in status.plan
    assert world["host"].run("nft", "list", "ruleset") == ""
    assert tcp_passes(world["cloud"], world["host"], HOST, 80)


async def test_intent_that_cannot_become_rules_changes_nothing(world: World, agent: Agent) -> None:
    await agent.settle(1, GOOD)
    former = await agent.fingerprint()
    bad = [FirewallRule(action="allow", protocol="any", ports=["1"])]
    status = (await agent.reconcile(2, bad)).status
    assert status.state == "failed" and "firewall.networks[0].rules[0].ports" in status.message
    assert await agent.fingerprint() == former
