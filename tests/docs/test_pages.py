"""The pages agree with the code, with one another, and with how we write."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from roost.cli import problems
from roost.engine import certificates, credentials, faults
from roost.link import gate, pki
from roost.model import reference
from roost.model.alarms import ALARMS
from roost.program import access
from roost.program.timing import TIMING
from roost.store import store
from tests.docs.commands import PAGE, with_table
from tests.docs.pages import ROOT, anchors, links, pages

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"


@pytest.mark.parametrize("page", pages())
def test_links_between_pages_resolve(page: str) -> None:
    for link in links(page):
        assert "://" not in link, f"{page} leads out of the checkout: {link}"
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        paths = (link.partition("#")[0] for link in links(str(page.relative_to(ROOT))))
        left += [(page.parent / path).resolve() for path in paths if path]
    assert {str(p.relative_to(ROOT)) for p in reached} == set(pages())


def test_the_reference_is_up_to_date() -> None:
    committed = {p.name: p.read_text() for p in REFERENCE.glob("*.md")}
    assert committed == reference.pages(), "run: python -m roost.model.reference docs/reference"


def test_the_table_of_commands_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert text == with_table(text), "run: python -m tests.docs.commands"


def test_exit_codes_are_told_as_they_are() -> None:
    section = PAGE.read_text().partition("## Exit codes")[2].partition("##")[0]
    told = {
        int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)
    }
    assert told == {
        problems.OK: "done",
        problems.FAILED: "refused or failed",
        problems.USAGE: "wrong usage",
        problems.UNREACHABLE: "no answer",
        problems.NOT_FOUND: "not found",
        problems.DENIED: "denied",
        problems.TIMED_OUT: "timed out waiting",
        problems.INTERRUPTED: "interrupted",
    }


def test_every_environment_variable_is_told() -> None:
    inside = re.compile(r'"(ROOST_[A-Z_]+)"')
    rooms = [ROOT / "src/roost/cli", ROOT / "src/roost/program"]
    used = {v for room in rooms for f in room.rglob("*.py") for v in inside.findall(f.read_text())}
    assert used >= {"ROOST_HOME", "ROOST_JOIN_TOKEN"}
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert told == used | {"KUBECONFIG", "NO_COLOR"}


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {re.split(r"[>\[=<]", d)[0] for d in (*project["dependencies"], *extras["dev"])}
    told = set(
        re.findall(r"^\| ([a-z0-9-]+)(?: \(.+?\))? \|", (DOCS / "dependencies.md").read_text(), re.MULTILINE)
    )
    assert wanted <= told
    for package in extras["postgresql"]:
        assert f"`{re.split(r'[>=<[]', package)[0]}`" in (DOCS / "dependencies.md").read_text()


def test_operations_say_what_to_do_for_every_alarm() -> None:
    text = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"\d{3}\.\d{3}", text)) == set(ALARMS)


def test_decisions_are_listed_short_and_whole() -> None:
    records = sorted((DOCS / "decisions").glob("0*.md"))
    index = (DOCS / "decisions/README.md").read_text()
    for number, record in enumerate(records, start=1):
        text = record.read_text()
        assert record.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number:04} ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert len(text.splitlines()) < 50, record.name
        assert f"]({record.name})" in index


def test_the_numbers_of_the_security_model_are_those_of_the_code() -> None:
    text = " ".join((DOCS / "security.md").read_text().split())
    day = 86400
    for told, value in (
        ("a certificate of its cloud's CA | made by the cloud, {} days", pki.SERVER_LIFETIME.days),
        ("`roost:subcloud/NAME` | enrolment, {} days", pki.NODE_LIFETIME.days),
        ("written at the first start, {} days", access.CERTIFICATE_LIFETIME.days),
        ("The token lives for {} hours", access.TOKEN_LIFETIME.total_seconds() // 3600),
        ("(60 seconds to {} days through the API)", access.LONGEST_TOKEN_LIFETIME.days),
        ("bounded: {} at once", gate.AT_ONCE),
        ("from one address, {} seconds each", gate.ENROL_WITHIN),
        ("500.200 comes {} days before", certificates.WARN_SECONDS // day),
        ("A user has at most {} in force", credentials.PER_SUBJECT),
    ):
        assert told.format(int(value)) in text, told


def test_the_numbers_of_the_concepts_are_those_of_the_code() -> None:
    text = " ".join((DOCS / "concepts.md").read_text().split())
    assert TIMING.heartbeat == 1
    assert TIMING.lost_after == 4
    assert "within about four seconds, because heartbeats (one a second) stop" in text
    assert f"({store.HISTORY:,} revisions are kept, or fewer large ones)" in text
    assert f"a cloud keeps {faults.KEPT:,} and counts" in text


@pytest.mark.parametrize("page", pages())
def test_a_page_is_plain(page: str) -> None:
    text = pages()[page]
    assert not re.search("[\u2013\u2014\u2026\u2190-\u21ff\u2600-\u27bf\U0001f300-\U0001faff]", text), (
        "plain characters"
    )
    boasts = (
        r"(?i)\b(seamless|robust|powerful|blazing|cutting-edge|world-class|effortless\w*|state-of-the-art)\b"
    )
    assert not re.search(boasts, text)
    assert not re.search(r"(?<![\w.])/(work|root|tmp)\b|pypi\.org|\b(issue|session) #?\d", text), (
        "no places of one machine"
    )
    assert text.startswith(("# ", reference.MADE))
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
