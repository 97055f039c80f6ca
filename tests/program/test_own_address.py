"""By which address others are told to reach a cloud that listens at every address of one family."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roost.program.cloud import own_address
from tests.support.namespaces import World, namespaces

pytestmark = pytest.mark.namespaces


@pytest.fixture
def world() -> Iterator[World]:
    with namespaces("cloud", "router") as made:
        made.join(
            "cloud", "eth0", ["10.0.0.2/24", "fd00::2/64"], "router", "eth0", ["10.0.0.1/24", "fd00::1/64"]
        )
        yield made


def test_the_address_given_out_is_of_the_family_that_is_listened_at(world: World) -> None:
    cloud = world["cloud"]
    assert cloud.call(lambda: (own_address("0.0.0.0"), own_address("::"))) == ("127.0.0.1", "::1")
    cloud.run("ip", "route", "add", "default", "via", "fd00::1")
    assert cloud.call(lambda: (own_address("0.0.0.0"), own_address("::"))) == ("127.0.0.1", "fd00::2")
    cloud.run("ip", "route", "add", "default", "via", "10.0.0.1")
    assert cloud.call(lambda: (own_address("0.0.0.0"), own_address("::"))) == ("10.0.0.2", "fd00::2")
