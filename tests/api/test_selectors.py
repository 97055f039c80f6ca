"""Label and field selectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.model.selector import (
    LABEL_KEY,
    LABEL_VALUE,
    FieldRequirement,
    Operator,
    Requirement,
    Selector,
    SelectorError,
    parse_fields,
    parse_labels,
    text_at,
)

LABELS = [
    ("", {}, True),
    ("a", {"a": ""}, True),
    ("a", {"b": ""}, False),
    ("!a", {"b": ""}, True),
    ("! a", {"a": "1"}, False),
    ("a=1", {"a": "1"}, True),
    ("a==1", {"a": "2"}, False),
    ("a = 1 , b=2", {"a": "1", "b": "2"}, True),
    ("a=1,b=2", {"a": "1"}, False),
    ("a!=1", {}, True),
    ("a!=1", {"a": "1"}, False),
    ("a in (1,2)", {"a": "2"}, True),
    ("a in (1, 2)", {}, False),
    ("a notin (1,2)", {}, True),
    ("a notin (1,2)", {"a": "1"}, False),
    ("a=", {"a": ""}, True),
    ("a in ()", {"a": ""}, True),
    ("a in (,x)", {"a": ""}, True),
    ("roost.edge/rack in (r1),!gone", {"roost.edge/rack": "r1"}, True),
    ("a>1", {"a": "2"}, True),
    ("a > 1", {"a": "1"}, False),
    ("a<1", {"a": "0"}, True),
    ("a<-1", {"a": "0"}, False),
    ("a>1,a<3", {"a": "2"}, True),
    ("a>1", {}, False),
    ("a>1", {"a": "x"}, False),
    ("a<1", {"a": "99999999999999999999"}, False),
    ("in in (notin)", {"in": "notin"}, True),
]


@pytest.mark.parametrize(("text", "labels", "expected"), LABELS)
def test_labels(text: str, labels: dict[str, str], expected: object) -> None:
    assert Selector(parse_labels(text)).matches({"metadata": {"labels": labels}}) is expected


@pytest.mark.parametrize(
    "text",
    [
        "=a",
        "a b",
        "a in 1",
        "a in (1",
        "a=1,",
        "a,,b",
        "a=-1-",
        "a>b",
        "a>",
        "a<1.5",
        "a>99999999999999999999",
        "-a",
        "a/b/c",
        "a in (b c)",
        "(",
        "é",
        "a" * 9000,
    ],
)
def test_labels_that_can_not_be_read(text: str) -> None:
    if text == "a=1,":
        assert len(parse_labels(text)) == 1
        return
    with pytest.raises(SelectorError):
        parse_labels(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_labels, lambda t: parse_fields(t, ["metadata.name"])):
        try:
            parse(text)
        except SelectorError as error:
            assert str(error)


_names = st.from_regex(r"\A[a-z]([-a-z0-9.]{0,8}[a-z0-9])?\Z")
_requirements = st.one_of(
    st.builds(lambda k: Requirement(k, Operator.EXISTS), _names),
    st.builds(lambda k: Requirement(k, Operator.ABSENT), _names),
    st.builds(
        lambda k, v: Requirement(k, Operator.IN, v), _names, st.frozensets(_names, min_size=1, max_size=3)
    ),
    st.builds(
        lambda k, v: Requirement(k, Operator.NOT_IN, v), _names, st.frozensets(_names, min_size=1, max_size=3)
    ),
)


def written(requirement: Requirement) -> str:
    match requirement.operator:
        case Operator.EXISTS:
            return requirement.key
        case Operator.ABSENT:
            return f"!{requirement.key}"
        case operator:
            return f"{requirement.key} {operator.value} ({', '.join(sorted(requirement.values))})"


@given(st.lists(_requirements, max_size=4))
def test_what_is_written_is_read(requirements: list[Requirement]) -> None:
    assert list(parse_labels(",".join(written(r) for r in requirements))) == requirements


@given(_requirements, st.dictionaries(_names, _names, max_size=4))
def test_in_and_notin_are_opposites(requirement: Requirement, labels: dict[str, str]) -> None:
    opposite = {
        Operator.IN: Operator.NOT_IN,
        Operator.NOT_IN: Operator.IN,
        Operator.EXISTS: Operator.ABSENT,
        Operator.ABSENT: Operator.EXISTS,
    }[requirement.operator]
    other = Requirement(requirement.key, opposite, requirement.values)
    assert requirement.holds(labels) is not other.holds(labels)


KNOWN = ["metadata.name", "spec.on", "spec.size", "spec.text"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metadata.name=a", True),
        ("metadata.name!=a", False),
        ("spec.on=true", True),
        ("spec.size==3", True),
        ("spec.text=", True),
        ("metadata.name=a,spec.size!=3", False),
        ("", True),
        (" metadata.name =a", True),
    ],
)
def test_fields(text: str, expected: object) -> None:
    raw = {"metadata": {"name": "a"}, "spec": {"on": True, "size": 3}}
    assert Selector((), parse_fields(text, KNOWN)).matches(raw) is expected


def test_fields_with_escapes_and_refusals() -> None:
    found = parse_fields(r"spec.text=a\,b\=c\\", KNOWN)
    assert found == (FieldRequirement("spec.text", "a,b=c\\"),)
    with pytest.raises(SelectorError, match=r"field label not supported: spec\.other"):
        parse_fields("spec.other=1", KNOWN)
    with pytest.raises(SelectorError, match="is not PATH=VALUE"):
        parse_fields("spec.text", KNOWN)
    assert Selector((), found).exactly("spec.text") == "a,b=c\\"
    assert text_at({"a": {"b": False}}, "a.b") == "false" and text_at({}, "a.b") == ""


def test_reading_a_selector_takes_time_in_proportion_to_its_length() -> None:
    # Cubic time would be minutes here, on the event loop; the time limit of a test would end it.
    for hostile in (" " * 4000 + "a" + " " * 4000, "metadata.name" + " " * 8000, "a" * 8000 + "!"):
        with pytest.raises(SelectorError):
            parse_fields(hostile, ["metadata.name"])
        with pytest.raises(SelectorError):
            parse_labels(hostile + "=!")


def test_a_label_ends_where_its_last_character_stands() -> None:
    assert LABEL_KEY.match("roost.edge/rack") and LABEL_VALUE.match("r1") and LABEL_VALUE.match("")
    assert not LABEL_KEY.match("rack\n") and not LABEL_VALUE.match("r1\n")
