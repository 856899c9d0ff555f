"""Terminals: what a text may not do to one, and encodings without emoji."""

from __future__ import annotations

import io

from agentstream.console import Console
from tests.kit.screens import Feed, Terminal, pty_only


def test_an_encoding_without_emoji() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    feed = Feed(Console(file))
    feed.parallel("ü")
    feed.say("0.ü", "ü", "Grüße")
    assert file.buffer.getvalue() == b"? ? >\n   Gr??e"  # type: ignore[attr-defined]


@pty_only
def test_text_on_a_terminal_cannot_steer_it(terminal: Terminal) -> None:
    feed = Feed(Console(terminal.files[0]))
    feed.parallel("a\x1b[1m")
    feed.say("0.a\x1b[1m", "a\x1b[1m", "x\x1b[2J\x9b3A\x07\r\ny\tz")
    assert terminal.screen().lines[:3] == ["🤖 a[1m >", "   x[2J3A", "   y\tz"]
