"""The examples of the pages about the API print what the pages say, on real clouds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.console import PAGES, Cloud, Typed, as_it_should_be, clouds, matches, run, steps
from tests.docs.pages import ROOT, blocks, pages
from tests.support import kubectl


@pytest.fixture
def central(tmp_path: Path) -> Iterator[Cloud]:
    if kubectl.program(kubectl.NEW) is None or kubectl.minor(kubectl.NEW) < 32:
        pytest.skip("the examples were recorded with kubectl 1.32; there is none, or an older one")
    with clouds(tmp_path) as made:
        yield made


@pytest.mark.parametrize("page", PAGES)
def test_examples_print_what_the_page_says(page: str, central: Cloud) -> None:
    for done in run(page, central):
        difference = as_it_should_be(*done)
        assert not difference, f"{page}\n{difference}"


@pytest.mark.parametrize("page", PAGES)
def test_there_are_examples(page: str) -> None:
    assert len([s for s in steps(pages()[page]) if isinstance(s, Typed)]) > 10


def test_the_informer_shown_is_the_one_that_is_tested() -> None:
    tested = (ROOT / "tests/clients/informer.mjs").read_text().splitlines()
    shown = [line for block in blocks("javascript") for line in block.text.splitlines()]
    assert shown and set(shown) <= set(tested)


def test_what_varies_matches_and_nothing_else() -> None:
    assert matches("web   3s\n", "web      41s\n")
    assert matches('uid: "..."\n', 'uid: "x"\n')
    assert matches("a\n...\nc\n", "a\nb\nb\nc\n")
    assert matches("a\n...\n", "a\n")
    assert not matches("a\n", "a\nb\n")
    assert not matches("order: 10\n", "order: 11\n")
    assert matches('"resourceVersion": "7"\n', '"resourceVersion": "19"\n')


def test_a_block_is_read_as_it_stands() -> None:
    text = "# P\n```yaml\n# a.yaml\nx: 1\n```\n```console\n$ one \\\n> more\nout\nput\n$ two\n```\n"
    written, first, second = steps(text)
    assert written.name == "a.yaml"  # type: ignore[union-attr]
    assert isinstance(first, Typed) and isinstance(second, Typed)
    assert (first.command, first.expected) == ("one \\\nmore", "out\nput\n")
    assert (second.command, second.expected) == ("two", "")
    assert text[first.start : first.end] == "out\nput\n"
