"""Texts of others reach the terminal without anything that it obeys."""

from __future__ import annotations

import pytest
from rich.text import Text

from roost.cli import output, tables

EVIL = "a\x1b[2J\x9b31mb\rc\x07"


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(EVIL)
    output.print_lines([Text(EVIL, "bold")])
    output.note(EVIL)
    output.print_grid(tables.Grid([tables.Column("NAME")], [[EVIL]]))
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "b\N{REPLACEMENT CHARACTER}c" in text
        assert not {c for c in text if ord(c) < 0x20 and c != "\n"} and "\x9b" not in text


def test_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("one\ntwo")
    assert capsys.readouterr().out == "one\ntwo\n"
