"""Rules, plans and the aspect of the platform firewall without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.host.aspect import AspectFacts
from roost.host.firewall.aspect import FirewallAspect
from roost.host.firewall.driver import FirewallDriver
from roost.host.firewall.planning import ABSENT, MAX_LINES, Change, parse, plan
from roost.host.firewall.rules import (
    FAMILY,
    TABLE,
    Json,
    Ruleset,
    RulesetError,
    installation,
    objects_of,
    render,
    rule_text,
)
from roost.model.configuration import FirewallConfiguration, HostConfigurationSpec, NetworkFirewall
from roost.model.firewall import FirewallRule


def rule(action: str = "allow", protocol: str = "tcp", **more: Any) -> FirewallRule:
    return msgspec.convert({"action": action, "protocol": protocol, **more}, FirewallRule)


def network(*rules: FirewallRule, name: str = "oam", ports: tuple[str, ...] = ("eth0",), **more: Any) -> Any:
    return NetworkFirewall(network=name, ports=list(ports), rules=list(rules), **more)


def configuration(*networks: NetworkFirewall) -> FirewallConfiguration:
    return FirewallConfiguration(networks=list(networks))


def expressions(ruleset: Ruleset, chain: str) -> list[list[Json]]:
    found = [item["rule"] for item in objects_of(ruleset.commands) if "rule" in item]
    return [item["expr"] for item in found if item["chain"] == chain]


def elements(ruleset: Ruleset, name: str) -> dict[str, str]:
    maps = {
        item["map"]["name"]: item["map"].get("elem", [])
        for item in objects_of(ruleset.commands)
        if "map" in item
    }
    return {port: verdict["jump"]["target"] for port, verdict in maps[name]}


def operands(match: Json) -> Any:
    return match["match"]["right"]


@pytest.mark.parametrize(
    ("given_rule", "rendered"),
    [
        (rule(ports=["443"]), [443]),
        (rule(ports=["8000-8010"]), [{"range": [8000, 8010]}]),
        (rule(ports=["5-9", "1", "8-12", "13"]), [{"set": [1, {"range": [5, 13]}]}]),
        (rule(protocol="icmp"), ["ipv4", 1]),
        (rule(protocol="icmpv6"), ["ipv6", 58]),
        (rule(protocol="udp"), [17]),
        (rule(protocol="any"), []),
        (rule(protocol="any", peers=["0.0.0.0/0"]), ["ipv4"]),
        (rule(protocol="any", peers=["::/0", "fd00::/8"]), ["ipv6"]),
        (rule(protocol="any", peers=["192.0.2.1/32"]), ["192.0.2.1"]),
        (
            rule(protocol="any", peers=["10.0.0.0/9", "10.128.0.0/9"]),
            [{"prefix": {"addr": "10.0.0.0", "len": 8}}],
        ),
        (rule(protocol="sctp", ports=["5"], peers=["fd00::1/128"]), ["fd00::1", 5]),
    ],
)
def test_what_a_rule_matches(given_rule: FirewallRule, rendered: list[Any]) -> None:
    (found,) = expressions(render(configuration(network(given_rule))), "rules-ingress-oam")
    *matches, counter, verdict = found
    assert [operands(match) for match in matches] == rendered
    assert "counter" in counter and verdict == {"accept": None}


def test_peers_of_both_versions_become_two_rules_with_their_side() -> None:
    peers = ["10.0.0.0/8", "fd00::/8"]
    ruleset = render(configuration(network(rule("deny", peers=peers), rule(direction="egress", peers=peers))))
    for direction, field, verdict in (("ingress", "saddr", "drop"), ("egress", "daddr", "accept")):
        found = expressions(ruleset, f"rules-{direction}-oam")
        sides = [e[0]["match"]["left"]["payload"] for e in found]
        assert sides == [{"protocol": "ip", "field": field}, {"protocol": "ip6", "field": field}]
        assert all(verdict in e[-1] for e in found)


def test_a_port_finds_its_chain_by_one_look_up_and_loopback_is_left_alone() -> None:
    ruleset = render(
        configuration(
            network(ports=("eth0", "eth1", "lo")), network(name="mgmt", ports=("eth1", "eth2", "lo"))
        )
    )
    chains = elements(ruleset, "ingress-ports")
    assert sorted(chains) == ["eth0", "eth1", "eth2"] and len(set(chains.values())) == 3
    targets = [e[0]["jump"]["target"] for e in expressions(ruleset, chains["eth1"])[:-1]]
    assert targets == ["common-ingress", "rules-ingress-oam", "rules-ingress-mgmt"]
    assert len(expressions(ruleset, "input")) == 1


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [("allow", "allow", "accept"), ("allow", "deny", "drop"), ("deny", "allow", "drop")],
)
def test_a_shared_port_denies_when_any_network_does(first: Any, second: Any, verdict: str) -> None:
    networks = (network(default_egress=first), network(name="mgmt", default_egress=second))
    ruleset = render(configuration(*networks))
    last = expressions(ruleset, elements(ruleset, "egress-ports")["eth0"])[-1]
    assert verdict in last[-1] and "counter" in last[0]


def test_only_loopback_makes_an_empty_map() -> None:
    ruleset = render(configuration(network(ports=("lo",))))
    assert elements(ruleset, "ingress-ports") == elements(ruleset, "egress-ports") == {}


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (network(name="oam; flush"), "networks[0].network"),
        (network(name="a" * 64), "networks[0].network"),
        *(
            (network(ports=(p,)), "networks[0].ports[0]")
            for p in ("", "eth*", "@oam", 'e"', "a b", "-x", "a/b", "..")
        ),
        (network(ports=("eth0", "a" * 16)), "networks[0].ports[1]"),
        (network(ports=("eth0\n",)), "networks[0].ports[0]"),
        (network(rule(ports=["0"])), "networks[0].rules[0].ports[0]"),
        (network(rule(), rule(peers=["10.0.0.1/8"])), "networks[0].rules[1].peers[0]"),
        (network(rule(protocol="icmp", peers=["fd00::/8"])), "networks[0].rules[0].peers[0]"),
        (network(rule(protocol="any", ports=["1"])), "networks[0].rules[0].ports"),
    ],
)
def test_what_cannot_become_rules_is_refused_with_its_place(bad: NetworkFirewall, field: str) -> None:
    with pytest.raises(RulesetError) as refused:
        render(configuration(bad))
    assert refused.value.field == f"firewall.{field}"
    assert refused.value.reason and refused.value.remedy


def test_a_network_listed_twice_and_too_much_are_refused() -> None:
    with pytest.raises(RulesetError, match="twice"):
        render(configuration(network(), network()))
    crowd = [rule(protocol="any", peers=[f"10.{n // 256}.{n % 256}.0/24" for n in range(1024)])] * 100
    with pytest.raises(RulesetError, match="more than"):
        render(configuration(network(*crowd)))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=255))
def test_a_description_is_only_ever_a_short_plain_comment(text: str) -> None:
    ruleset = render(configuration(network(rule(description=text))))
    for item in objects_of(ruleset.commands):
        comment = item.get("rule", {}).get("comment", "")
        assert len(comment) <= 120 and comment.isascii() and (comment.isprintable() or not comment)
        assert '"' not in comment and "\\" not in comment


def test_every_command_adds_to_our_table_only() -> None:
    batch = installation(render(configuration(network(rule()), network(name="mgmt"))).commands)["nftables"]
    assert [next(iter(command)) for command in batch[:3]] == ["add", "delete", "add"]
    for command in batch:
        ((kind, body),) = next(iter(command.values())).items()
        assert body["family"] == FAMILY and body["name" if kind == "table" else "table"] == TABLE


_RULES = st.builds(
    rule,
    action=st.sampled_from(["allow", "deny"]),
    direction=st.sampled_from(["ingress", "egress"]),
    ports=st.lists(st.integers(1, 4).map(str), max_size=2),
    peers=st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "::/0"]), max_size=2),
)
_CONFIGURATIONS = st.builds(
    configuration,
    st.builds(network, _RULES, _RULES, _RULES),
    st.builds(lambda r: network(r, name="mgmt"), _RULES),
)


@settings(max_examples=60, deadline=None)
@given(one=_CONFIGURATIONS, other=_CONFIGURATIONS)
def test_a_plan_is_empty_exactly_when_nothing_changes(
    one: FirewallConfiguration, other: FirewallConfiguration
) -> None:
    current = parse(objects_of(render(one).commands))
    assert plan(current, one).change is Change.NOTHING and not plan(current, one).lines
    change = plan(current, other)
    assert (change.change is Change.NOTHING) == (render(one).digest == render(other).digest)
    assert bool(change.lines) == (change.change is not Change.NOTHING)


def test_the_order_of_ports_is_no_change() -> None:
    one, other = (
        render(configuration(network(ports=p))) for p in (("eth0", "eth1"), ("eth1", "eth0", "eth1"))
    )
    assert one == other


HTTPS = rule(ports=["443"], peers=["198.51.100.0/24"])
SSH = rule(ports=["22"], description="from anywhere")
NTP = rule("deny", "udp", ports=["123"], peers=["192.0.2.1/32"], direction="egress")


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (network(), network(HTTPS), ["add to oam: allow tcp 443 from 198.51.100.0/24 (ingress)"]),
        (network(SSH), network(), ["remove from oam: allow tcp 22 (ingress): from anywhere"]),
        (network(SSH), network(SSH, NTP), ["add to oam: deny udp 123 to 192.0.2.1/32 (egress)"]),
        (network(HTTPS, SSH), network(SSH, HTTPS), ["move in oam: allow tcp 22 (ingress): from anywhere"]),
        (network(), network(default_ingress="allow"), ["default of oam: allow (ingress)"]),
        (
            network(),
            network(ports=("eth1",)),
            ["stop filtering port eth0 for oam", "filter port eth1 for oam"],
        ),
        (network(SSH), network(SSH, SSH), ["add to oam: allow tcp 22 (ingress): from anywhere"]),
    ],
)
def test_a_plan_in_words(before: NetworkFirewall, after: NetworkFirewall, lines: list[str]) -> None:
    current = parse(objects_of(render(configuration(before)).commands))
    found = plan(current, configuration(after))
    assert found.change is Change.REPLACE
    assert list(found.lines) == lines


def test_plans_that_make_and_remove_the_table() -> None:
    wanted = configuration(network(SSH))
    made = plan(ABSENT, wanted)
    assert made.change is Change.INSTALL
    assert made.lines[:2] == ("make the table", "filter port eth0 for oam")
    current = parse(objects_of(render(wanted).commands))
    gone = plan(current, None)
    assert gone.change is Change.REMOVE and gone.wanted is None
    assert "remove from oam: allow tcp 22 (ingress): from anywhere" in gone.lines
    assert plan(ABSENT, None).change is Change.NOTHING


def test_a_long_plan_says_how_much_it_leaves_out() -> None:
    crowd = [rule(ports=[str(n)]) for n in range(1, 500)]
    lines = plan(ABSENT, configuration(network(*crowd))).lines
    assert len(lines) == MAX_LINES and lines[-1] == "and 304 more changes"


@pytest.mark.parametrize(
    "listing",
    [
        [],
        [{"table": {"family": "inet", "name": TABLE}}],
        [{"rule": {"chain": "digest", "comment": "roost digest=x"}}],
        [
            {"map": {"name": "ingress-ports", "elem": ["x", ["eth0"], ["eth0", {"drop": None}]]}},
            {"strange": {}},
        ],
        [{"rule": {"chain": "rules-", "comment": "1 2", "expr": ["x", {"jump": None}]}}],
    ],
)
def test_a_table_that_is_not_ours_is_drift(listing: list[Json]) -> None:
    state = parse(listing)
    assert state.drifted
    assert plan(state, configuration(network(SSH))).change is Change.REPAIR


def test_many_peers_are_told_short() -> None:
    text = rule_text(rule(peers=[f"10.{n}.0.0/16" for n in range(9)]))
    assert text == "allow tcp from 10.0.0.0/16,10.1.0.0/16,10.2.0.0/16 and 6 more (ingress)"


def facts() -> AspectFacts:
    return AspectFacts.gather(link_up=True, link_proof=None)


async def test_a_host_without_nft_fails_with_the_remedy(tmp_path: Path) -> None:
    aspect = FirewallAspect(tmp_path, FirewallDriver(nft="no-such-nft"))
    spec = HostConfigurationSpec(firewall=configuration(network(SSH)))
    for outcome in (await aspect.reconcile(spec, 3, facts()), await aspect.hold(facts())):
        assert outcome.status.aspect == "firewall" and outcome.status.state == "failed"
        assert "install nftables" in outcome.status.message and outcome.again_seconds


@pytest.mark.parametrize("script", ["sleep 60", "cat >/dev/null; echo broken", "yes"])
async def test_an_nft_that_misbehaves_fails_within_the_deadline(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.host.firewall.driver.MAX_OUTPUT", 1_000_000)
    driver = FirewallDriver(("sh", "-c", script), deadline_seconds=5.0 if "sleep" not in script else 0.1)
    outcome = await FirewallAspect(tmp_path, driver).reconcile(HostConfigurationSpec(), 1, facts())
    assert outcome.status.state == "failed" and "Next:" in outcome.status.message


TURNS = 30
"""Of the loop, in which nft is started and fed."""


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_is_cancelled_while_nft_runs_leaves_the_loop_no_error(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        for turns in range(TURNS):
            asking = asyncio.ensure_future(FirewallDriver(("sh", "-c", "exec sleep 60")).check([]))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert not told
