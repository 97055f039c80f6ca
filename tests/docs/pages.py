"""The documentation as tests read it: pages, their fenced blocks, links and headings."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`", re.DOTALL)


class Block(msgspec.Struct, frozen=True):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


@cache
def pages() -> dict[str, str]:
    """Text of every page by its path in the checkout."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(f.relative_to(ROOT)): f.read_text() for f in files}


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", pages()[page])


def blocks(*languages: str) -> list[Block]:
    """Every fenced block in one of these languages."""
    found = [Block(p, m[1], m[2]) for p, text in pages().items() for m in _FENCE.finditer(text)]
    return [b for b in found if b.language in languages]


def links(page: str) -> list[str]:
    """Where a page's links lead."""
    return _LINK.findall(_INLINE.sub("", prose(page)))


def anchors(text: str) -> set[str]:
    """Names by which the headings of a page can be linked to."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in kept}


def typed() -> list[tuple[str, str]]:
    """Every command line that a page tells people to type, with its page."""
    found = [(b.page, line) for b in blocks("sh") for line in _lines(b.text)]
    return found + [
        (b.page, line.removeprefix("$ "))
        for b in blocks("text")
        for line in b.text.splitlines()
        if line.startswith("$ ")
    ]


def mentioned() -> list[tuple[str, str]]:
    """Every command of `roost` in running text, with its page."""
    spans = [(page, " ".join(m.split())) for page in pages() for m in _INLINE.findall(prose(page))]
    return [(page, span) for page, span in spans if re.match(r"roost [a-z]", span)]


def words(line: str) -> list[str]:
    """The words of a command line up to a pipe or redirection, without sudo and without a path to roost."""
    found = shlex.split(line, comments=True)
    end = next((n for n, word in enumerate(found) if word in ("|", ">", "&&")), len(found))
    found = found[:end]
    if found[:1] == ["sudo"]:
        found = found[1:]
    if found and found[0].endswith("/roost"):
        found[0] = "roost"
    return found


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
