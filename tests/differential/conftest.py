"""The two servers, started once for all that compares them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.servers import Pair, pair
from tests.support.kubernetes import NotHere


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Roost and a real Kubernetes API server. Tests empty both before they begin."""
    try:
        with pair(tmp_path_factory.mktemp("differential")) as both:
            yield both
    except NotHere as error:
        pytest.skip(str(error))
