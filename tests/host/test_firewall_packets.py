"""The platform firewall against a real kernel: packets between namespaces pass and drop by the rules.

near (10.1.0.2, fd01::2) --- eth0 host eth1 --- far (10.2.0.2, fd02::2)
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from roost.host.firewall.driver import FirewallDriver, NftDenied, NftMissing, NftRefused
from roost.host.firewall.planning import ABSENT, Change, parse, plan, restorable
from roost.host.firewall.rules import DIRECTIONS, Ruleset, render
from roost.model.configuration import FirewallConfiguration, NetworkFirewall
from roost.model.firewall import Action, FirewallRule
from tests.support.namespaces import World, echo_passes, namespaces, tcp_passes, udp_passes

pytestmark = pytest.mark.namespaces

HOST4, NEAR4, HOST6, NEAR6 = "10.1.0.1", "10.1.0.2", "fd01::1", "fd01::2"
FAR_HOST4, FAR4, FAR_HOST6, FAR6 = "10.2.0.1", "10.2.0.2", "fd02::1", "fd02::2"

FOREIGN = """
table inet somebody_else {
    comment "not ours"
    set addresses { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.7 } }
    chain input {
        type filter hook input priority 10; policy accept;
        ip saddr @addresses drop comment "theirs"
    }
}
table ip roost_firewall {
    chain input { type filter hook input priority 5; policy accept; }
}
"""


@pytest.fixture
def world() -> Iterator[World]:
    with namespaces("host", "near", "far") as made:
        made.join(
            "host", "eth0", [f"{HOST4}/24", f"{HOST6}/64"], "near", "eth0", [f"{NEAR4}/24", f"{NEAR6}/64"]
        )
        made.join(
            "host",
            "eth1",
            [f"{FAR_HOST4}/24", f"{FAR_HOST6}/64"],
            "far",
            "eth0",
            [f"{FAR4}/24", f"{FAR6}/64"],
        )
        yield made


@pytest.fixture
def driver(world: World) -> FirewallDriver:
    return FirewallDriver(world["host"].prefix)


def oam(
    *rules: FirewallRule,
    default_ingress: Action = "deny",
    default_egress: Action = "allow",
    port: str = "eth0",
) -> FirewallConfiguration:
    network = NetworkFirewall(
        network="oam",
        ports=[port],
        rules=list(rules),
        default_ingress=default_ingress,
        default_egress=default_egress,
    )
    return FirewallConfiguration(networks=[network])


def allow(protocol: str, *ports: str, **more: Any) -> FirewallRule:
    return FirewallRule(action="allow", protocol=protocol, ports=list(ports), **more)  # type: ignore[arg-type]


def deny(protocol: str, *ports: str, **more: Any) -> FirewallRule:
    return FirewallRule(action="deny", protocol=protocol, ports=list(ports), **more)  # type: ignore[arg-type]


async def put(driver: FirewallDriver, configuration: FirewallConfiguration) -> Ruleset:
    ruleset = render(configuration)
    await driver.check(ruleset.commands)
    await driver.apply(ruleset.commands)
    return ruleset


@pytest.mark.parametrize("address", [HOST4, HOST6])
async def test_default_deny_drops_everything_but_what_is_allowed(
    world: World, driver: FirewallDriver, address: str
) -> None:
    host, near = world["host"], world["near"]
    assert tcp_passes(near, host, address, 443)
    assert udp_passes(near, host, address, 123)
    assert echo_passes(near, address)
    await put(driver, oam(allow("tcp", "443"), allow("udp", "100-200")))
    assert tcp_passes(near, host, address, 443)
    assert not tcp_passes(near, host, address, 444, expected=False)
    assert udp_passes(near, host, address, 123)
    assert not udp_passes(near, host, address, 201, expected=False)
    assert not udp_passes(near, host, address, 443, expected=False)
    assert not echo_passes(near, address, expected=False)


@pytest.mark.parametrize("address", [HOST4, HOST6])
async def test_peers_decide(world: World, driver: FirewallDriver, address: str) -> None:
    host, near = world["host"], world["near"]
    near.run("ip", "address", "add", "10.1.0.3/24", "dev", "eth0")
    near.run("ip", "address", "add", "fd01::3/64", "dev", "eth0", "nodad")
    await put(driver, oam(allow("tcp", "443", peers=[f"{NEAR4}/32", f"{NEAR6}/128", "203.0.113.0/24"])))
    one, other = (NEAR6, "fd01::3") if ":" in address else (NEAR4, "10.1.0.3")
    assert tcp_passes(near, host, address, 443, source=one)
    assert not tcp_passes(near, host, address, 443, source=other, expected=False)
    await put(driver, oam(deny("tcp", peers=[f"{one}/{128 if ':' in one else 32}"]), default_ingress="allow"))
    assert not tcp_passes(near, host, address, 443, source=one, expected=False)
    assert tcp_passes(near, host, address, 443, source=other)


@pytest.mark.parametrize("address", [HOST4, HOST6])
async def test_the_first_match_decides(world: World, driver: FirewallDriver, address: str) -> None:
    host, near = world["host"], world["near"]
    both = ["10.1.0.0/24", "fd01::/64"]
    await put(driver, oam(deny("tcp", "443", peers=both), allow("tcp", "440-450"), allow("tcp", "443")))
    assert not tcp_passes(near, host, address, 443, expected=False)
    assert tcp_passes(near, host, address, 444)
    await put(driver, oam(allow("tcp", "443"), deny("tcp", "443", peers=both)))
    assert tcp_passes(near, host, address, 443)


async def test_icmp_of_each_version_is_its_own_protocol(world: World, driver: FirewallDriver) -> None:
    near = world["near"]
    await put(driver, oam(allow("icmp")))
    assert echo_passes(near, HOST4)
    assert not echo_passes(near, HOST6, expected=False)
    await put(driver, oam(deny("icmp"), allow("icmpv6"), default_ingress="allow"))
    assert not echo_passes(near, HOST4, expected=False)
    assert echo_passes(near, HOST6)


@pytest.mark.parametrize("address", [NEAR4, NEAR6])
async def test_egress_is_denied_and_allowed(world: World, driver: FirewallDriver, address: str) -> None:
    host, near = world["host"], world["near"]
    await put(driver, oam(deny("tcp", "80", direction="egress")))
    assert not tcp_passes(host, near, address, 80, expected=False)
    assert tcp_passes(host, near, address, 81)
    peers = ["10.1.0.0/24", "fd01::/64"]
    await put(driver, oam(allow("tcp", "80", peers=peers, direction="egress"), default_egress="deny"))
    assert tcp_passes(host, near, address, 80)
    assert not tcp_passes(host, near, address, 81, expected=False)
    assert not udp_passes(host, near, address, 80, expected=False)


async def test_neighbour_discovery_works_under_default_deny_both_ways(
    world: World, driver: FirewallDriver
) -> None:
    host, near = world["host"], world["near"]
    await put(driver, oam(allow("tcp", "443"), default_egress="deny"))
    for member in (host, near):
        member.run("ip", "neighbour", "flush", "dev", "eth0")
        assert "lladdr" not in member.run("ip", "-6", "neighbour", "show", "dev", "eth0")
    assert tcp_passes(near, host, HOST6, 443)
    assert "lladdr" in near.run("ip", "-6", "neighbour", "show", HOST6, "dev", "eth0")


async def test_ports_that_are_not_listed_are_not_filtered(world: World, driver: FirewallDriver) -> None:
    await put(driver, oam(default_egress="deny"))
    for address in (FAR_HOST4, FAR_HOST6):
        assert tcp_passes(world["far"], world["host"], address, 22)
        assert echo_passes(world["far"], address)
    assert tcp_passes(world["host"], world["host"], HOST4, 22), "loopback"


async def test_forwarded_traffic_is_left_alone(world: World, driver: FirewallDriver) -> None:
    host, near, far = world["host"], world["near"], world["far"]
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    near.run("ip", "route", "add", "default", "via", HOST4)
    far.run("ip", "route", "add", "default", "via", FAR_HOST4)
    await put(driver, oam(default_egress="deny"))
    assert tcp_passes(near, far, FAR4, 22)
    assert not tcp_passes(near, host, HOST4, 22, expected=False)


async def test_networks_keep_apart_and_share_a_port(world: World, driver: FirewallDriver) -> None:
    host, near, far = world["host"], world["near"], world["far"]
    first = NetworkFirewall(network="oam", ports=["eth0", "eth1"], rules=[allow("tcp", "443")])
    second = NetworkFirewall(network="mgmt", ports=["eth1"], rules=[allow("tcp", "6443")])
    await put(driver, FirewallConfiguration(networks=[first, second]))
    assert tcp_passes(near, host, HOST4, 443)
    assert not tcp_passes(near, host, HOST4, 6443, expected=False)
    assert tcp_passes(far, host, FAR_HOST4, 443)
    assert tcp_passes(far, host, FAR_HOST4, 6443)
    assert not tcp_passes(far, host, FAR_HOST4, 22, expected=False)


@pytest.mark.parametrize("address", [HOST4, HOST6])
async def test_established_flows_survive_an_apply(world: World, driver: FirewallDriver, address: str) -> None:
    host, near = world["host"], world["near"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.socket(family, socket.SOCK_STREAM) as listener, near.socket(family, socket.SOCK_STREAM) as out:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 443))
        listener.listen()
        await put(driver, oam(allow("tcp", "443")))
        out.connect((address, 443))
        accepted, _ = listener.accept()
        with accepted:
            for configuration in (oam(allow("tcp", "1")), oam(deny("any"), default_egress="deny")):
                await put(driver, configuration)
                accepted.settimeout(20)
                out.sendall(b"up")
                assert accepted.recv(8) == b"up"
                accepted.sendall(b"down")
                assert out.recv(8) == b"down"
    assert not tcp_passes(near, host, address, 443, expected=False), "a new flow meets the new rules"


async def test_many_peers_and_ports(world: World, driver: FirewallDriver) -> None:
    host, near = world["host"], world["near"]
    peers = [f"172.16.{n // 250}.{n % 250 * 1}/32" for n in range(1000)] + ["10.1.0.0/24", "10.1.0.0/16"]
    ports = [str(2 * n + 1) for n in range(100)] + ["440-450", "445-460"]
    await put(driver, oam(*(allow("tcp", *ports, peers=peers) for _ in range(5))))
    assert tcp_passes(near, host, HOST4, 443)
    assert not tcp_passes(near, host, HOST4, 461, expected=False)


async def test_foreign_tables_stay_byte_for_byte(world: World, driver: FirewallDriver) -> None:
    host = world["host"]
    host.run("nft", "-f", "-", data=FOREIGN)

    def foreign() -> str:
        listings = (("inet", "somebody_else"), ("ip", "roost_firewall"))
        return "".join(host.run("nft", "-j", "list", "table", *place) for place in listings)

    before = foreign()
    await put(driver, oam(allow("tcp", "443")))
    assert foreign() == before
    await put(driver, oam(deny("tcp", "443")))
    assert foreign() == before
    await driver.remove()
    assert foreign() == before
    assert await driver.read() is None


async def test_removal_leaves_nothing_and_may_be_repeated(world: World, driver: FirewallDriver) -> None:
    empty = world["host"].run("nft", "list", "ruleset")
    await put(driver, oam(allow("tcp", "443")))
    await driver.remove()
    await driver.remove()
    assert world["host"].run("nft", "list", "ruleset") == empty == ""
    assert tcp_passes(world["near"], world["host"], HOST4, 22)


async def test_bad_rules_leave_the_old_ones(world: World, driver: FirewallDriver) -> None:
    await put(driver, oam(allow("tcp", "443")))
    before = await driver.read()
    bad = render(oam(allow("tcp", "444"))).commands
    bad.append(
        {"add": {"rule": {"family": "inet", "table": "roost_firewall", "chain": "no-such", "expr": []}}}
    )
    for attempt in (driver.check, driver.apply):
        with pytest.raises(NftRefused) as refused:
            await attempt(bad)
        assert refused.value.said and refused.value.remedy
    assert await driver.read() == before
    assert tcp_passes(world["near"], world["host"], HOST4, 443)


async def test_what_nft_lists_is_what_was_rendered(driver: FirewallDriver) -> None:
    assert parse(await driver.read()) == ABSENT
    wanted = oam(
        allow("tcp", "443", peers=["10.0.0.0/8", "fd00::/8"], description='say "hi"; drop \\ \n table é'),
        deny("any", direction="egress", peers=["0.0.0.0/0"]),
        allow("sctp", "1-5", "7"),
    )
    ruleset = await put(driver, wanted)
    state = parse(await driver.read())
    assert state.digest == ruleset.digest and not state.drifted
    assert plan(state, wanted).change is Change.NOTHING
    view = state.networks["oam"]
    assert view.ports == ("eth0",) and view.defaults == {"ingress": "deny", "egress": "allow"}
    assert [len(view.rules[d]) for d in DIRECTIONS] == [2, 1]


async def test_a_listing_makes_the_same_table_again(driver: FirewallDriver) -> None:
    await put(driver, oam(allow("tcp", "443", "80-90", peers=["10.1.0.0/24", "fd00::/8"]), allow("icmpv6")))
    first = await driver.read()
    assert first is not None
    await driver.remove()
    await driver.apply(restorable(first))
    assert parse(await driver.read()) == parse(first)


@pytest.mark.parametrize(
    "tampering",
    [
        "insert rule inet roost_firewall input accept",
        "flush chain inet roost_firewall rules-ingress-oam",
        "flush chain inet roost_firewall digest",
        "delete element inet roost_firewall ingress-ports { eth0 }",
        "add chain inet roost_firewall extra",
    ],
)
async def test_tampering_shows_as_drift(world: World, driver: FirewallDriver, tampering: str) -> None:
    wanted = oam(allow("tcp", "443"))
    await put(driver, wanted)
    world["host"].run("nft", tampering)
    state = parse(await driver.read())
    assert state.drifted
    repair = plan(state, wanted)
    assert repair.change is Change.REPAIR and repair.wanted is not None
    await driver.apply(repair.wanted.commands)
    assert plan(parse(await driver.read()), wanted).change is Change.NOTHING


async def test_a_changed_verdict_shows_in_the_fingerprint(world: World, driver: FirewallDriver) -> None:
    await put(driver, oam(allow("tcp", "443")))
    before = parse(await driver.read())
    text = world["host"].run("nft", "-a", "list", "chain", "inet", "roost_firewall", "rules-ingress-oam")
    line = next(line for line in text.splitlines() if "dport 443" in line)
    handle, comment = line.rsplit(" ", 1)[1], line.split('"')[1]
    place = f"inet roost_firewall rules-ingress-oam handle {handle}"
    world["host"].run("nft", f'replace rule {place} tcp dport 444 accept comment "{comment}"')
    after = parse(await driver.read())
    assert after.digest == before.digest and after.fingerprint != before.fingerprint


async def test_traffic_does_not_change_the_fingerprint(world: World, driver: FirewallDriver) -> None:
    await put(driver, oam(allow("tcp", "443")))
    before = await driver.read()
    assert tcp_passes(world["near"], world["host"], HOST4, 443)
    after = await driver.read()
    assert before != after, "counters count"
    assert parse(before).fingerprint == parse(after).fingerprint


async def test_missing_nft_and_missing_right_are_told_apart(world: World) -> None:
    host = world["host"]
    for missing in (FirewallDriver(nft="no-such-nft"), FirewallDriver(host.prefix, nft="no-such-nft")):
        with pytest.raises(NftMissing) as absent:
            await missing.read()
        assert absent.value.remedy == "install nftables"
    powerless = FirewallDriver(
        (*host.prefix, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    )
    for attempt in (powerless.read(), powerless.check(render(oam()).commands), powerless.remove()):
        with pytest.raises(NftDenied) as denied:
            await attempt
        assert "CAP_NET_ADMIN" in denied.value.remedy
