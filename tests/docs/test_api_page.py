"""The numbers and codes in the page about the API are those of the code."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from roost.api import admitting, app, bodies, compression, connection, gates, patching, reading, status
from roost.api import watching as watches
from roost.store import retention, store
from tests.docs.pages import pages

TEXT = pages()["docs/api.md"]
KIB, MIB = 1024, 1024 * 1024


def test_every_code_is_told_with_its_reason() -> None:
    told = defaultdict[int, set[str]](set)
    for code, reason in re.findall(r"^\| (\d{3}) \| (\w+) \|", TEXT, re.MULTILINE):
        told[int(code)].add(reason)
    reasons = {code: {reason} for code, reason in status.REASONS.items()}
    reasons[409].add("AlreadyExists")
    assert told == reasons


@pytest.mark.parametrize(
    "row",
    [
        f"reads at once; from one client | {gates.READS}; {gates.READS // 2}",
        f"writes at once; from one client | {gates.WRITES}; {gates.WRITES // 2}",
        f"watches; of one client | {watches.MOST:,}; {watches.MOST // 2:,}",
        f"lists of several pieces on their way | {reading.LONG_ANSWERS}",
        f"connections; from one address | {connection.CONNECTIONS:,}; "
        f"{connection.CONNECTIONS_OF_ONE_ADDRESS:,}",
        f"headers of a request | {connection.MOST_HEADERS}",
        f"body; depth of its nesting | {bodies.LARGEST // MIB} MiB; {bodies.DEEPEST}",
        f"URL; URL and headers together | {app.LONGEST_URL // KIB} KiB; {connection.LONGEST_HEAD // KIB} KiB",
        f"a page of a list | {reading.LARGEST_PAGE // MIB} MiB",
        f"steps of a JSON patch | {patching.MOST_STEPS:,}",
        f"annotations of a resource | {admitting.ANNOTATIONS // KIB} KiB",
        f"owners of a resource | {admitting.MOST_OWNERS}",
        f"| {bodies.READING:.0f} s; {connection.HEADERS_WITHIN:.0f} s; {connection.UNREAD_FOR:.0f} s",
    ],
)
def test_limits_are_those_of_the_code(row: str) -> None:
    assert row in TEXT


def test_other_numbers_are_those_of_the_code() -> None:
    text = " ".join(TEXT.split())
    assert f"Answers above {compression.THRESHOLD // KIB} KiB are compressed" in text
    limits = retention.Limits()
    kept = f"{store.HISTORY:,} changes, {limits.size // MIB} MiB"
    assert text.count(kept) == 2 and text.count("90 days") == 2 and limits.age == 90 * 86400
    assert watches.LONGEST == 3600 and "between half an hour and an hour" in text
    assert watches.BOOKMARKS == 60 and "a `BOOKMARK` a minute" in text
