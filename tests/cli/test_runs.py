"""agentstream runs: the runs in a log, also those whose process was killed."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from agentstream.testing import Hang, text_chunks
from tests.kit.cli_runs import FLOW, begin, listed
from tests.kit.cli_support import last_events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_the_runs_of_a_log(cli, here, server, monkeypatch):
    server.reply_text("Fine.")
    server.reply_json({"error": {"message": "no such model"}}, status=404)
    flow = cli.write("verse.toml", FLOW)
    log = {"AGENTSTREAM_LOG": cli.log}
    monkeypatch.setenv("AGENTSTREAM_LOG", cli.log)
    here("run", flow, "--input", "x", "--id", "good")
    here("run", flow, "--input", "x", "--id", "bad", code=1)
    table = cli("runs", env=log)
    assert table.err == ""
    head, bad, good = table.out.splitlines()
    assert head.split() == ["ID", "STATUS", "STARTED", "TOOK", "TOKENS", "WORKFLOW"]
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.match(rf"bad +failed +{when} +\d+\.\d s +0  verse: HTTP 404: no such model", bad)
    assert re.match(r"good +completed .* s +1  verse$", good)
    assert len(here("runs", "-n", "1").out.splitlines()) == 2
    assert len(here("runs", "--active").out.splitlines()) == 1
    first = cli.script("$A runs --log $LOG | head -1")
    assert first.finish() == 0
    assert first.err == ""
    failed = here("follow", "bad", code=1)
    assert failed.out == ""
    assert "step 'poet'" in failed.line
    assert "no such model" in failed.line
    assert set(last_events(cli.log)) == {"good", "bad"}


def test_a_run_whose_process_was_killed(cli, here, server):
    server.default(*text_chunks("text")[:2], Hang())
    run = begin(cli, server, "aa")
    follower = cli.start("follow", "aa", "--log", cli.log, "--jsonl")
    follower.expect("text")
    run.process.send_signal(signal.SIGKILL)
    run.finish()
    assert follower.finish() == 1
    assert follower.events[-1]["type"] == "workflow_failed"
    assert follower.line.startswith("run aa ")
    (state,) = listed(here, cli)
    assert state["status"] == "failed"
