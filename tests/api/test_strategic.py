"""Strategic merge patches, as Kubernetes' own clients write them."""

from __future__ import annotations

from typing import Any

import pytest

from roost.api.status import ApiError
from roost.api.strategic import merge

OWNERS = [{"uid": "1", "name": "a"}, {"uid": "2", "name": "b"}]


@pytest.mark.parametrize(
    ("current", "patch", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}}, {"b": {"c": 2, "d": 3}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$retainKeys": ["c", "d"], "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({"rules": [1, 2]}, {"rules": [3]}, {"rules": [3]}),
        ({"finalizers": ["a"]}, {"finalizers": ["b", "a"]}, {"finalizers": ["a", "b"]}),
        (
            {"finalizers": ["a", "b"]},
            {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"],
            },
            {"finalizers": ["c", "b"]},
        ),
        (
            {"ownerReferences": OWNERS},
            {"ownerReferences": [{"uid": "2", "name": "c"}, {"uid": "3"}, {"uid": "1", "$patch": "delete"}]},
            {"ownerReferences": [{"uid": "2", "name": "c"}, {"uid": "3"}]},
        ),
        (
            {"ownerReferences": OWNERS},
            {"ownerReferences": [{"$patch": "replace"}, {"uid": "9"}]},
            {"ownerReferences": [{"uid": "9"}]},
        ),
        (
            {"ownerReferences": OWNERS},
            {"$setElementOrder/ownerReferences": [{"uid": "2"}, {"uid": "1"}]},
            {"ownerReferences": OWNERS[::-1]},
        ),
    ],
)
def test_merging(current: Any, patch: Any, expected: Any) -> None:
    before = repr(current)
    assert merge(current, patch) == expected
    assert repr(current) == before


@pytest.mark.parametrize(
    "patch",
    [
        {"$patch": "delete"},
        {"$patch": "nonsense"},
        {"$retainKeys": "a"},
        {"ownerReferences": [{"name": "a"}]},
        {"ownerReferences": ["a"]},
        {"$deleteFromPrimitiveList/finalizers": [1]},
    ],
)
def test_what_makes_no_sense_is_refused(patch: Any) -> None:
    with pytest.raises(ApiError) as error:
        merge({"ownerReferences": OWNERS}, patch)
    assert error.value.code == 400
