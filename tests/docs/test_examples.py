"""What the pages tell people to type and to write is understood by the program."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from roost.cli.main import hoist
from roost.model import codec
from roost.model.registry import BY_KIND, KINDS
from tests.docs.commands import application, commands, groups
from tests.docs.pages import ROOT, Block, blocks, mentioned, typed, words

KUBECTL = {"get", "describe", "explain", "apply", "patch", "label", "delete", "wait", "diff", "edit"}
KUBECTL_OPTIONS = {"--context", "--kubeconfig", "-n", "--namespace"}
RESOURCES = {n for k in KINDS if k.served for n in (k.plural, k.singular, *k.short_names)}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def lines_of(program: str) -> list[tuple[str, str]]:
    return [(page, line) for page, line in typed() if words(line)[:1] == [program]]


@pytest.mark.parametrize(("page", "line"), lines_of("roost"))
def test_a_roost_command_line_is_understood(page: str, line: str) -> None:
    arguments = hoist(words(line)[1:])
    command, bound, _ = application().parse_args(arguments, print_error=False, exit_on_error=False)
    assert callable(command), f"{page}: {line}"
    assert bound is not None


@pytest.mark.parametrize(("page", "span"), mentioned())
def test_a_command_in_running_text_exists(page: str, span: str) -> None:
    found = words(span.partition(" -- ")[0])[1:]
    path = tuple(w for w in found if re.fullmatch(r"[a-z]+", w))
    paths = commands()
    known = next((path[:n] for n in (1, 2, 3) if path[:n] in paths), path[:2])
    if known not in paths:
        assert path[:1] and path[0] in groups() | {"demo"} and len(found) == 1, f"{page}: {span}"
        return
    options = {w for w in found if w.startswith("--")}
    assert options <= {*paths[known].options, "--help"}, f"{page}: {span}"


@pytest.mark.parametrize(("page", "line"), lines_of("kubectl"))
def test_a_kubectl_line_names_a_verb_and_a_kind_that_are_served(page: str, line: str) -> None:
    found = words(line)[1:]
    while found and found[0] in KUBECTL_OPTIONS:
        found = found[2:]
    verb, *rest = found
    assert verb in KUBECTL, f"{page}: {line}"
    resource = next((w for w in rest if not w.startswith("-")), "")
    assert resource.split(".")[0].split("/")[0] in RESOURCES, f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), lines_of("make"))
def test_a_make_target_exists(page: str, line: str) -> None:
    assert set(words(line)[1:]) <= TARGETS, f"{page}: {line}"


def documents() -> Iterator[tuple[str, dict[str, object]]]:
    for block in blocks("yaml"):
        for document in yaml.safe_load_all(block.text):
            # Others are parts of manifests, or scripts.
            if isinstance(document, dict) and "kind" in document:
                yield block.page, document


@pytest.mark.parametrize(("page", "document"), list(documents()))
def test_a_manifest_fits_the_model(page: str, document: dict[str, object]) -> None:
    info = BY_KIND[str(document["kind"])]
    assert document["apiVersion"] == info.api_version
    resource, problems = codec.check(info, document)
    assert problems == [], page
    assert resource is not None
    assert codec.unknown_fields(info, document) == [], page
    assert re.fullmatch(info.name_pattern, resource.metadata.name)


def test_there_is_something_to_look_at() -> None:
    assert len(lines_of("roost")) > 25
    assert len(lines_of("kubectl")) > 5
    assert len(mentioned()) > 30
    assert len(list(documents())) >= 3


@pytest.mark.parametrize("block", blocks(""), ids=lambda block: block.page)
def test_a_block_without_a_language_is_a_picture(block: Block) -> None:
    """Examples say what they are, so that they are tested."""
    assert not re.search(r"^\s*(\$ |roost |kubectl )", block.text, re.MULTILINE)
