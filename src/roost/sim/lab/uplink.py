"""How bad a site's wide-area link is: delay, loss and rate, and the commands that make it so. Pure.

    hosts - oam - [delay] - router - (loss) - [rate] - wan      what the site sends
    hosts - oam - [delay] - router - (loss) - wan - [rate]      what it is sent

The rate is a token bucket (tc's tbf) at the router's wide-area port and at the backbone's port towards it,
with a queue of QUEUE_SECONDS as a modem has one. Loss is nftables dropping packets at random. For delay this
kernel has nothing (netem is often not built in), so packets are led through a tunnel device for each
direction, whose other end is held by the laboratory: see `delaying`. All of it is per packet and in both
directions, so TCP at both ends sees a long, lossy, narrow path as it is: nothing in between answers for
anybody.

Packets on the inner side of the tunnels are not tracked: the router's address translation sees each packet
once, at the wide-area port, and connections that were open before stay open.
"""

from __future__ import annotations

import re

import msgspec

from roost.sim.lab.errors import LabError

UP, DOWN = "slow-up", "slow-down"
QUEUE_SECONDS = 0.4
_BURST = 16_000
_RATE = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)bit", re.IGNORECASE)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_LOWEST_RATE, _HIGHEST_RATE = 8_000, 10_000_000_000
_MOST_DELAY = 10_000
_TABLE = "table inet roost_uplink"
_LED = ((100, UP, "oam"), (101, DOWN, "wan"))
"""Routing tables, and which device they lead what comes in from which port into."""


class Impairment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a link suffers each way: `delay` in ms, `loss` in percent, `rate` in bit/s, 0 for any."""

    delay: int = 0
    loss: float = 0.0
    rate: int = 0

    def __str__(self) -> str:
        said = [f"{self.delay} ms of delay"] if self.delay else []
        said += [f"{self.loss:g} % of packets lost"] if self.loss else []
        said += [f"{self.rate / 1_000_000:g} Mbit/s"] if self.rate else []
        return ", ".join(said) + " each way" if said else "nothing"


def checked(impairment: Impairment) -> Impairment:
    """The same, or a LabError that says what can't be."""
    if not 0 <= impairment.delay <= _MOST_DELAY:
        raise LabError(f"a delay of {impairment.delay} ms", f"choose from 0 to {_MOST_DELAY} ms each way")
    if not 0 <= impairment.loss < 100:
        raise LabError(
            f"a loss of {impairment.loss:g} %", "choose less than 100; to lose everything, cut the link"
        )
    if impairment.rate and not _LOWEST_RATE <= impairment.rate <= _HIGHEST_RATE:
        raise LabError(f"a rate of {impairment.rate} bit/s", "choose from 8kbit to 10gbit")
    if impairment == Impairment():
        raise LabError("nothing that would slow the link", "give --delay, --loss or --rate")
    return impairment


def rate(text: str) -> int:
    """Bits a second of `1mbit`, `512kbit`; raises LabError."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise LabError(f"{text!r} is no rate", "write it as 512kbit, 1mbit or 1.5mbit")
    return round(float(found[1]) * _UNITS[found[2].lower()])


def rules(impairment: Impairment) -> str:
    """The router's rules; they replace those of an earlier impairment."""
    chains = ""
    if impairment.delay:
        chains += (
            "  chain prerouting {\n    type filter hook prerouting priority raw; policy accept;\n"
            f'    iifname {{ "oam", "{DOWN}" }} notrack\n  }}\n'
        )
    if impairment.loss:
        # Of 10,000: a hundredth of a percent is the least that can be asked for.
        drop = f"numgen random mod 10000 < {max(1, round(impairment.loss * 100))} drop"
        chains += (
            "  chain forward {\n    type filter hook forward priority filter - 9; policy accept;\n"
            f'    oifname "wan" {drop}\n    iifname "wan" {drop}\n  }}\n'
        )
    return f"{_TABLE}\ndelete {_TABLE}\n{_TABLE} {{\n{chains}}}\n"


def no_rules() -> str:
    """Takes them away, also when there are none."""
    return f"{_TABLE}\ndelete {_TABLE}\n"


def shaping(impairment: Impairment, port: str) -> str:
    """A line for `tc -batch` that gives a port its rate, or takes it away."""
    if not impairment.rate:
        return f"qdisc replace dev {port} root noqueue"
    burst = max(_BURST, impairment.rate // 400)
    queue = round(QUEUE_SECONDS * 1000)
    return f"qdisc replace dev {port} root tbf rate {impairment.rate}bit burst {burst} latency {queue}ms"


def whole_packets(port: str) -> str:
    """A line for `ip -batch`: bursts leave this port as packets, so that loss meets each by itself."""
    return f"link set {port} gso_max_segs 1"


def ways() -> list[str]:
    """Lines for `ip -4 -batch` and `ip -6 -batch` that lead packets through the two tunnels."""
    lines = []
    for table, device, port in _LED:
        lines.append(f"route replace default dev {device} table {table}")
        lines.append(f"rule add iif {port} lookup {table} priority {table}")
    return lines


def no_ways() -> list[str]:
    """Lines for the same that lead them the direct way again. The routes go with their devices."""
    return [f"rule del priority {table}" for table, _, _ in _LED]
