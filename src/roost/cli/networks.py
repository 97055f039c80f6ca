"""`roost network`: the networks that the platform itself uses."""

from __future__ import annotations

from cyclopts import App

from roost.cli import listing
from roost.cli.kinds import PLATFORM_NETWORK
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Show, opened

network = App(name="network", help="Networks that the platform itself uses.")


@network.command(name="list")
def list_networks(*, pick: Pick = PICK, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """List platform networks.

    For example:
        roost network list
    """
    with opened(connect) as session:
        return listing.show_list(session, PLATFORM_NETWORK, pick, show)
