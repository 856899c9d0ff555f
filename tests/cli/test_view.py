"""What is shown: text above a status line, colours or none, and words that steer no terminal."""

from __future__ import annotations

import sys

import pytest

from agentstream.testing import Gate, Reply, text_chunks
from tests.kit.cli_runs import halted, queue

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_on_a_terminal_text_streams_above_a_status_line(cli, server):
    gate = Gate()
    queue(server, halted("Hello ", "there", gate=gate))
    chat = cli.start("chat", "x", terminal="stdin stdout stderr")
    chat.expect("Hello ")
    chat.expect("there")
    chat.expect("token")  # of the status line
    assert chat.process.poll() is None
    gate.open()
    assert chat.finish() == 0
    assert "\x1b[" in chat.screen
    assert chat.screen.count("Hello") == 1
    assert "chat >" not in chat.screen  # one agent needs no heading


def test_no_color_quiet_and_a_terminal_for_one_stream_only(cli, server):
    server.default(*text_chunks("Hello ", "there"))
    plain = cli.start("chat", "x", terminal="stdin stdout stderr", env={"NO_COLOR": "1"})
    quiet = cli.start("chat", "x", "-q", terminal="stdin stdout stderr")
    piped = cli.start("chat", "x", terminal="stdin stderr")
    for command in (plain, quiet, piped):
        assert command.finish() == 0
    assert "\x1b[2m" not in plain.screen
    assert "Hello" in plain.screen
    assert "there" in plain.screen
    assert quiet.screen == "Hello there\r\n"
    assert piped.out == "Hello there\n"


def test_what_a_model_says_steers_no_terminal(cli, server):
    said = "a\x1b]0;title\x07b\x9b2Jc\rd"
    queue(server, Reply.text(said), Reply.text(said))
    queue(server, Reply(*text_chunks(said, finish_reason=None, usage=False, done=False)))
    quiet = cli("chat", "x", "-q", terminal="stdin stdout stderr")
    assert quiet.screen == "a]0;titleb2Jcd\r\n"
    assert cli("chat", "x").out == said + "\n"  # a file gets what was said
    broken = cli("chat", "x", "--retries", "0", code=1)
    assert broken.line.endswith('"a]0;titleb2Jc d"')
