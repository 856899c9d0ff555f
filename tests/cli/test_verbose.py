"""-v: what happens is told, a line for each thing."""

from __future__ import annotations

import sys

import pytest

from agentstream.testing import text_chunks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_verbose_tells_what_happens_and_a_cut_answer_is_told_of(cli, here, server):
    server.default(*text_chunks("Hello ", "there", finish_reason="length"))
    told = here("chat", "x", "-v", "--max-tokens", "2", "--temperature", "0.5", "--effort", "low")
    assert told.out == "Hello there\n"
    assert [line[9:] for line in told.err.splitlines()[:2]] == [
        "workflow 'chat' begins",
        "agent 'chat' (0) begins",
    ]
    assert told.err.endswith("agentstream: the answer of 'chat' was cut by a limit of tokens\n")
    sent = server.requests[0].json
    assert (sent["max_tokens"], sent["temperature"]) == (2, 0.5)
    assert sent["reasoning_effort"] == "low"
    assert here("chat", "x", "--max-tokens", "2").err == ""  # nobody watches
    assert server.requests[1].json["max_tokens"] == 2
    watched = cli.start("chat", "x", terminal="stdin stdout stderr")
    assert watched.finish() == 0
    assert "was cut by a limit of tokens" in watched.screen
