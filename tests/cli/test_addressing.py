"""Hints name the cloud that was chosen."""

from __future__ import annotations

import pytest
from rich.text import Text

from roost.cli.addressing import Aim, addressed, addressed_text
from roost.model.host import Host
from tests.cli.conftest import Roost
from tests.support.api import ApiServer


@pytest.mark.parametrize(
    ("told", "hint", "wanted"),
    [
        (Aim(), "see: roost host list", "see: roost host list"),
        (Aim(cloud="valley"), "roost host lock --force a", "roost --cloud valley host lock --force a"),
        (
            Aim(cloud="valley"),
            "`roost host list`; or roost override list",
            "`roost --cloud valley host list`; or roost --cloud valley override list",
        ),
        (Aim(namespace="v"), "`roost alarm list --suppressed`", "`roost -n v alarm list --suppressed`"),
        (Aim(namespace="v"), "`roost operation list -n v --watch`", "`roost operation list -n v --watch`"),
        (Aim(cloud="v"), "roost operation list -n v", "roost --cloud v operation list -n v"),
        (Aim(cloud="v", kubeconfig="a b"), "roost log list", "roost --kubeconfig 'a b' --cloud v log list"),
        (Aim(cloud="v"), "roost --cloud NAME host list", "roost --cloud NAME host list"),
        (Aim(cloud="v"), "roost subcloud unmanage v", "roost subcloud unmanage v"),
        (Aim(cloud="v"), "log in again with `roost login`", "log in again with `roost login`"),
        (Aim(cloud="v"), "a roost hostile to roosts", "a roost hostile to roosts"),
    ],
)
def test_a_command_in_a_hint_gets_the_options_that_it_lacks(told: Aim, hint: str, wanted: str) -> None:
    assert addressed(hint, told) == wanted
    assert addressed(wanted, told) == wanted, "twice is as once"
    styled = addressed_text(Text(hint, "dim"), told)
    assert styled.plain == wanted


def test_a_hint_that_is_pasted_reaches_the_cloud_that_was_named(
    roost: Roost, server: ApiServer, controller: Host
) -> None:
    said = roost("--cloud", "central", "host", "inventory", "controller-0")
    assert "`roost --cloud central host show controller-0`" in said.err, said
    assert "`roost host show controller-0`" in roost("host", "inventory", "controller-0").err
