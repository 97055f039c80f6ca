"""What of a start is pure: how strangers' text is shown in the log."""

from __future__ import annotations

from roost.program.start import escape_controls


def test_strangers_text_neither_ends_a_line_nor_steers_a_terminal() -> None:
    shown = escape_controls(
        None, "info", {"resource": "/a\n\r\0\x1b[2J\u2028é", "code": 404, "exception": "a\nb"}
    )
    assert shown == {"resource": r"/a\n\r\x00\x1b[2J\u2028é", "code": 404, "exception": "a\nb"}
