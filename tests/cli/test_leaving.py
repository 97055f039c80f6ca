"""`roost subcloud leave` and `rejoin`, against a real API with the rules of a cloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.cloud import leaving
from roost.model.cloud import Cloud, CloudSpec, CloudStatus
from roost.model.meta import Metadata
from tests.cli.conftest import Roost
from tests.support.api import ApiServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, cloud="central", rules={"Cloud": [leaving.rule("central")]}) as running:
        yield running


def _is(server: ApiServer, *, upper: str = "", alone: bool = False) -> None:
    cloud = Cloud(
        metadata=Metadata(name="central"),
        spec=CloudSpec(stands_alone=alone),
        status=CloudStatus(upper=upper),
    )
    server.do(server.store.transact(lambda tx: tx.save(cloud) and None))


def test_what_has_no_central_cloud_neither_leaves_nor_rejoins(server: ApiServer, roost: Roost) -> None:
    _is(server)
    for verb in ("leave", "rejoin"):
        said = roost("subcloud", verb)
        assert said.code == 1 and "no central cloud" in said.err, said
        assert f"roost --cloud NAME subcloud {verb}" in said.err and said.out == ""


def test_a_site_leaves_once_and_rejoins_once(server: ApiServer, roost: Roost) -> None:
    _is(server, upper="far")
    early = roost("subcloud", "rejoin")
    assert early.code == 1 and "has not left far" in early.err
    assert roost("subcloud", "leave").out == (
        "central leaves its central cloud; what came from there becomes its own.\n"
    )
    assert roost("subcloud", "leave").out == "central stands alone already.\n"
    back = roost("subcloud", "rejoin")
    assert back.code == 0 and "dials its central cloud again" in back.out and "beside" in back.err
