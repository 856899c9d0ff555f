"""How a command ends: one line that says why, and its exit code."""

from __future__ import annotations

import os
import sys

import pytest

from agentstream.testing import Pause, Reply, text_chunks
from tests.kit.cli_runs import AGENT, queue

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_nobody_reads_on(cli, server):
    flood = Reply(*text_chunks(*["word\n"] * 3000), *[Pause(0.002)] * 2)
    queue(server, flood, flood)
    plain = cli.script("$A chat x | head -1", env={"PYTHONUNBUFFERED": ""})
    logged = cli.script("$A chat x --log $LOG | head -1")
    for command in (plain, logged):
        assert command.finish() == 0, command.err
        assert (command.out, command.err) == ("word\n", "")


def test_output_that_cannot_be_written(cli, server):
    server.default(*text_chunks("a", "b", "c"))
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        commands = [
            cli.start("chat", "x", *more, stdout=full)
            for more in ([], ["--jsonl"], ["--log", cli.log])
        ]
        for command in commands:
            assert command.finish() == 1
            assert command.line == "standard output: No space left on device"
    finally:
        os.close(full)
    closed = [cli.script("$A chat x >&-"), cli.script("$A chat x --log $LOG >&-")]
    for command in closed:
        assert command.finish() == 1
        assert command.line == "standard output is closed"
    blind = cli.script("$A chat x 2>&-")
    assert blind.finish() == 0
    assert blind.shown == "abc\n"


def test_failures_are_one_line(cli, here, server):
    server.reply_json(
        {"error": {"message": "no such model"}}, status=404, path="/a/v1/chat/completions"
    )
    queue(server, Reply(*text_chunks("Hello wor", finish_reason=None, usage=False, done=False)))
    refused = here("chat", "x", "--base-url", server.url + "/a", "--json", code=1)
    cut = cli.start("chat", "x", "--retries", "0")
    nobody = cli.start("chat", "x", "--retries", "0", env={"AGENTSTREAM_BASE_URL": ""})
    for command in (cut, nobody):
        assert command.finish() == 1, command.shown
    assert "no such model" in refused.line
    assert refused.out == ""
    assert cut.line.startswith("StreamTruncated: ")
    assert cut.line.endswith('; 9 characters had arrived: "Hello wor"')
    assert cut.out == "Hello wor\n"
    assert "start llama-server there" in nobody.line


def test_retries(cli, here, server):
    flow = cli.write("flow.toml", AGENT)
    busy = Reply.json({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "0"})
    run = ["run", flow, "--input", "x"]
    for words, retries, code in ((["chat", "x"], 1, 0), (run, 0, 1), (run, 1, 0)):
        before = len(server.requests)
        queue(server, busy, *[Reply.text("Fine.")] * retries)
        command = here(*words, "--retries", str(retries), code=code)
        assert len(server.requests) - before == retries + 1
        assert command.out == "Fine.\n" * retries
