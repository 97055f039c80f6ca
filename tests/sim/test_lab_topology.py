"""The pure parts: addresses, the commands of the network, and when a process is started again."""

from __future__ import annotations

import ipaddress
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.sim.lab.network import batches, fault_rules, mend_rules
from roost.sim.lab.notices import parse
from roost.sim.lab.restarts import (
    EARLY_ENDS,
    LONGEST_PAUSE,
    REBOOT,
    Again,
    End,
    GiveUp,
    History,
    after_end,
    describe,
)
from roost.sim.lab.topology import DEMO, MAXIMUM_SITES, Host, Site, Topology, plan

CRASH_WHEN_READY = End(-signal.SIGKILL, lived=5.0, was_ready=True)
CRASH_AT_START = End(1, lived=0.1, was_ready=False)


def test_the_demo_has_its_sites_and_hosts() -> None:
    demo = plan(DEMO)
    assert [(site.name, site.mode, len(site.hosts)) for site in demo.sites] == [
        ("harbor", "simplex", 1),
        ("ridge", "duplex", 2),
        ("valley", "standard", 3),
    ]
    assert demo.host("harbor-controller-0").personalities == ("controller", "worker")
    assert demo.host("valley-controller-1").personalities == ("controller",)
    assert demo.host("valley-worker-0").personalities == ("worker",)
    assert demo.host("ridge-controller-1").oam.addresses == ("10.2.0.12/24", "fd00:2::12/64")
    assert demo.host("ridge-controller-1").mgmt.ipv4 == "192.168.204.12"
    assert demo.site("ridge").wan.ipv4 == "198.18.0.2"
    assert demo.site("ridge").gateway.ipv6 == "fd00:2::1"
    assert len(demo.namespaces) == 2 + 3 + 6


def _sites(counts: list[int]) -> Topology:
    return Topology(
        tuple(
            Site(f"site-{number}", "standard", tuple(Host(f"controller-{index}") for index in range(count)))
            for number, count in enumerate(counts)
        )
    )


@given(st.lists(st.integers(1, 64), min_size=1, max_size=MAXIMUM_SITES))
def test_every_address_is_its_own_and_in_its_subnet(counts: list[int]) -> None:
    whole = plan(_sites(counts))
    oam = [host.oam for host in whole.hosts]
    wan = [whole.centre, *(site.wan for site in whole.sites)]
    gateways = [site.gateway for site in whole.sites]
    wide = [address for port in (*oam, *wan, *gateways) for address in port.addresses]
    assert len(set(wide)) == len(wide)
    macs = [port.mac for port in (*oam, *wan, *gateways, *(host.mgmt for host in whole.hosts))]
    assert len(set(macs)) == len(macs)
    for site in whole.sites:
        for network, ports in (
            (site.oam_subnets, [site.gateway, *(host.oam for host in site.hosts)]),
            (site.mgmt_subnets, [host.mgmt for host in site.hosts]),
        ):
            for port in ports:
                for subnet, address in zip(network, port.addresses, strict=True):
                    assert ipaddress.ip_interface(address).network == ipaddress.ip_network(subnet)
        taken = {port.ipv4 for port in (site.gateway, *(host.oam for host in site.hosts))}
        assert site.floating[0] not in taken


@given(st.lists(st.integers(1, 8), min_size=1, max_size=MAXIMUM_SITES))
def test_a_stage_refers_only_to_namespaces_of_later_stages(counts: list[int]) -> None:
    whole = plan(_sites(counts))
    stages = batches(whole)
    names = [{batch.namespace for batch in stage} for stage in stages]
    assert set().union(*names) == set(whole.namespaces)
    for number, stage in enumerate(stages):
        later = set().union(*names[number + 1 :])
        assert all(set(batch.peers) <= later for batch in stage)
        # A port's name has at most 15 characters, as the kernel has it.
        ports = [line.split()[2] for batch in stage for line in batch.lines if line.startswith("link add")]
        assert all(len(port) <= 15 for port in ports)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Site("centre", "simplex", (Host("controller-0"),)),
        lambda: Site("a-name-too-long-for-a-port", "simplex", (Host("controller-0"),)),
        lambda: Site("harbor", "simplex", ()),
        lambda: Site("harbor", "duplex", (Host("controller-0"), Host("controller-0"))),
        lambda: Site("harbor", "simplex", (Host("router"),)),
        lambda: Site("Harbor; rm", "simplex", (Host("controller-0"),)),
    ],
)
def test_a_topology_that_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"site|host|namespace"):
        Topology((make(),))  # type: ignore[operator]


def test_a_one_way_fault_names_one_way() -> None:
    assert 'oifname "wan" drop' in fault_rules("up")
    assert 'iifname "wan" drop' not in fault_rules("up")
    assert 'oifname "wan" drop' not in fault_rules("down")
    assert fault_rules("both").count("drop") == 2
    assert "drop" not in mend_rules()


def test_a_wish_to_reboot_is_granted_at_once_and_not_counted_as_a_restart() -> None:
    history = History(restarts=2, in_a_row=2)
    decision = after_end(history, End(REBOOT, lived=3.0, was_ready=True), now=10.0)
    assert decision == Again(0.0, History(restarts=2, reboots=1))


def test_a_reboot_before_readiness_is_a_crash() -> None:
    decision = after_end(History(), End(REBOOT, lived=0.1, was_ready=False), now=10.0)
    assert isinstance(decision, Again)
    assert decision.pause > 0
    assert decision.history.reboots == 0


def test_five_ends_before_readiness_within_a_minute_are_given_up() -> None:
    history, now = History(), 100.0
    for _ in range(EARLY_ENDS - 1):
        decision = after_end(history, CRASH_AT_START, now)
        assert isinstance(decision, Again)
        history, now = decision.history, now + 1
    assert isinstance(after_end(history, CRASH_AT_START, now), GiveUp)
    # Spread over a longer time, or with one good start between, they are not.
    assert isinstance(after_end(history, CRASH_AT_START, now + 60), Again)
    assert isinstance(after_end(history, CRASH_WHEN_READY, now), Again)


@given(st.lists(st.sampled_from([CRASH_WHEN_READY, End(0, 90.0, True)]), max_size=60))
def test_pauses_are_bounded_and_forgotten_after_a_good_life(ends: list[End]) -> None:
    history = History()
    for number, end in enumerate(ends):
        decision = after_end(history, end, now=float(number))
        assert isinstance(decision, Again)
        assert 0 < decision.pause <= LONGEST_PAUSE
        if end.lived >= 60:
            assert decision.pause == pytest.approx(0.2)
        history = decision.history
    assert history.restarts == len(ends)


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "ended by SIGKILL"), (1, "ended with exit code 1"), (75, "asked to be started again")],
)
def test_ends_are_told_in_words(code: int, words: str) -> None:
    assert describe(code) == words


@given(st.binary(max_size=4096))
def test_any_datagram_is_survived(datagram: bytes) -> None:
    assert all(len(value) <= 160 for value in parse(datagram).values())
