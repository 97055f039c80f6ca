"""Roost's API beside a real Kubernetes API server: the same requests, the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from roost.model.registry import BY_KIND
from tests.differential.corpus import CORPUS
from tests.differential.definitions import definition, structural, with_defaults
from tests.differential.differences import DIFFERENCES, Seen, Unexplained, excuse, page
from tests.differential.normal import Normal
from tests.differential.sequences import random_changes, random_ends
from tests.differential.servers import KINDS, Pair, Server, Step

EXAMPLES = 60
PAGE = Path(__file__).resolve().parents[2] / "docs" / "kubernetes-differences.md"
RANDOM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def met() -> set[str]:
    """Names of the differences that were met."""
    return set()


@pytest.mark.parametrize("name", CORPUS)
def test_each_feature_is_answered_alike(name: str, servers: Pair, met: set[str]) -> None:
    compared(servers, CORPUS[name], met)


def test_every_difference_that_is_told_exists(servers: Pair, met: set[str]) -> None:
    if not met:
        pytest.skip("tells only after the features")
    assert {d.name for d in DIFFERENCES} <= met


@RANDOM
@given(steps=random_changes)
def test_random_changes_are_answered_alike(steps: list[Step], servers: Pair) -> None:
    compared(servers, steps)


@RANDOM
@given(steps=random_ends)
def test_random_ends_are_answered_alike(steps: list[Step], servers: Pair) -> None:
    compared(servers, steps)


def test_the_page_tells_the_list_that_the_tests_go_by() -> None:
    assert PAGE.read_text() == page(), (
        "python -m tests.differential.differences > docs/kubernetes-differences.md"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_has_what_a_structural_schema_needs(kind: str) -> None:
    made = definition(BY_KIND[kind])
    version = made["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    assert "$ref" not in str(schema)
    assert set(schema["properties"]) == {"metadata", "spec", "status"}
    assert version["subresources"] == {"status": {}}
    assert all(column["jsonPath"].startswith(".") for column in version["additionalPrinterColumns"])


def test_defaults_are_filled_in_at_every_depth() -> None:
    shape = structural(BY_KIND["FirewallPolicy"])
    filled = with_defaults(
        shape, {"spec": {"networks": ["oam"], "rules": [{"action": "allow"}], "subclouds": None}}
    )
    assert filled["spec"]["order"] == 1000
    assert filled["spec"]["rules"][0]["direction"] == "ingress"
    assert "subclouds" not in filled["spec"]


def compared(servers: Pair, steps: Sequence[Step], met: set[str] | None = None) -> None:
    """Run a sequence on both and note the differences that are met; raises Unexplained for any other."""
    servers.empty()
    ours, theirs = _seen(servers.ours, steps), _seen(servers.theirs, steps)
    unexplained: list[Unexplained] = []
    for step, our, their in zip(steps, ours, theirs, strict=True):
        try:
            name = excuse(step, our, their)
        except Unexplained as error:
            unexplained.append(error)
        else:
            if name and met is not None:
                met.add(name)
    if unexplained:
        raise unexplained[0]


def _seen(server: Server, steps: Sequence[Step]) -> list[Seen]:
    answers = [server.ask(step) for step in steps]
    normal = Normal(answers)
    return [Seen(answer, normal.answer(answer)) for answer in answers]
