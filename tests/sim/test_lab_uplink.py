"""What makes a link bad, as text: rates, bounds, and commands that say what was asked."""

from __future__ import annotations

import pytest

from roost.sim.lab.errors import LabError
from roost.sim.lab.network import fault_rules
from roost.sim.lab.uplink import Impairment, checked, no_ways, rate, rules, shaping, ways


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1mbit", 1_000_000),
        ("512kbit", 512_000),
        ("1.5Mbit", 1_500_000),
        ("2gbit", 2 * 10**9),
        ("9600bit", 9600),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, bits: int) -> None:
    assert rate(text) == bits


@pytest.mark.parametrize("text", ["", "1", "1mb", "mbit", "-1mbit", "1 mbit", "1e3bit", "1mbit/s"])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(LabError) as refused:
        rate(text)
    assert "512kbit" in refused.value.remedy


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (Impairment(), "nothing that would slow"),
        (Impairment(delay=-1), "a delay of -1 ms"),
        (Impairment(delay=10_001), "a delay of 10001 ms"),
        (Impairment(loss=100), "a loss of 100 %"),
        (Impairment(loss=-0.5), "a loss of -0.5 %"),
        (Impairment(rate=7_999), "a rate of 7999 bit/s"),
        (Impairment(rate=20_000_000_000), "a rate of"),
    ],
)
def test_what_can_not_be_is_refused(bad: Impairment, what: str) -> None:
    with pytest.raises(LabError, match=what):
        checked(bad)


def test_an_impairment_says_what_it_is() -> None:
    everything = checked(Impairment(delay=300, loss=5, rate=1_000_000))
    assert str(everything) == "300 ms of delay, 5 % of packets lost, 1 Mbit/s each way"


def test_commands_say_what_was_asked() -> None:
    lossy = rules(Impairment(loss=5))
    assert lossy.count("numgen random mod 10000 < 500 drop") == 2, "both ways"
    assert "notrack" not in lossy, "nothing is delayed"
    assert "< 1 drop" in rules(Impairment(loss=0.001)), "the least there is"
    assert "drop" not in rules(Impairment(delay=300))
    assert shaping(Impairment(rate=1_000_000), "wan") == (
        "qdisc replace dev wan root tbf rate 1000000bit burst 16000 latency 400ms"
    )
    assert shaping(Impairment(delay=5), "wan") == "qdisc replace dev wan root noqueue"
    assert len([line for line in ways() if line.startswith("rule add")]) == len(no_ways())


def test_a_cut_with_resets_drops_what_can_not_be_reset() -> None:
    text = fault_rules("up", "reset")
    assert text.index("reject with tcp reset") < text.index('oifname "wan" drop')
    assert "reject" not in fault_rules("up") and "iifname" not in text
