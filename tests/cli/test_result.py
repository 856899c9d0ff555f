"""`--json` of a run and of its log: one shape, the same words."""

from __future__ import annotations

import sys

import pytest

from agentstream.testing import Reply, text_chunks
from tests.kit.cli_runs import cast, in_turn, steps
from tests.kit.workflow_support import cut

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")

#: What two processes cannot agree on: clocks.
_CLOCKS = ("duration_s", "duration_ms")


def without_clocks(value):
    if isinstance(value, list):
        return [without_clocks(item) for item in value]
    if not isinstance(value, dict):
        return value
    assert all(isinstance(value[key], float) for key in _CLOCKS if key in value)
    return {k: without_clocks(v) for k, v in value.items() if k not in _CLOCKS}


def test_run_and_follow_write_the_same(cli, here, server):
    short = Reply(*text_chunks("half an", finish_reason="length"))
    cast(server, one="First.", two=short, three=cut("Half of", " it"))
    cli.write("results_several.py", "def several(text):\n    return [str(n) for n in range(12)]\n")
    cli.write("inner.toml", in_turn("one", "two"))
    client = f'[clients.c]\nbase_url = "{server.url}"\nretries = {{attempts = 0}}\n'
    flow = steps(
        'parallel = {b = {agent = "one"}, a = {agent = "two"}}',
        'function = "results_several:several"',
        'map = {step = {agent = "one"}, at_most = 3}',
        'workflow = "inner.toml"',
        'repeat = {step = {agent = "two"}, at_most = 2, until = {contains = "never"}}',
        'agent = "one"\nname = "last"',
    )
    good = cli.write("good.toml", flow + client)
    flow = flow.replace('"one"\nname', '"three"\nname') + '[agents.three]\nsystem = "three"\n'
    bad = cli.write("bad.toml", flow + client)
    for number, (file, code) in enumerate(((good, 0), (bad, 1))):
        name = f"run{number}"
        words = ("--json", "--log", cli.log)
        ran = here("run", file, "--input", "x", "--id", name, *words, code=code)
        followed = here("follow", name, *words, code=code)
        (run,), (same,) = ran.events, followed.events
        assert same["data"]["output"] == same["output"]  # the event's own keys, until 0.3
        assert without_clocks(run) == {k: without_clocks(same[k]) for k in run if k not in _CLOCKS}
        assert set(run) <= set(same)
        assert run["warnings"][0] == "two: the answer was cut: finish_reason length" or code
        assert "the answer of 'two' was cut by a limit of tokens" in ran.err
    assert (run["error"], run["steps"][-1]["status"]) == ("StreamTruncated", "failed")
    assert run["text"] == run["output"] == "Half of it"
    assert run["message"].startswith("run run1 failed in step 'last': StreamTruncated: ")


def test_a_run_that_was_stopped_is_told_the_same(cli, here, server):
    cast(server, one="First.")
    cli.write("results_stop.py", "def stop(text, context):\n    context.cancel.cancel('enough')\n")
    flow = steps('agent = "one"', 'function = "results_stop:stop"')
    client = f'[clients.c]\nbase_url = "{server.url}"\n'
    words = ("--json", "--log", cli.log)
    flow = cli.write("flow.toml", flow + client)
    ran = here("run", flow, "--input", "x", "--id", "mine", *words, code=1)
    followed = here("follow", "mine", *words, code=1)
    (run,), (same,) = ran.events, followed.events
    assert without_clocks(run) == {k: without_clocks(same[k]) for k in run if k not in _CLOCKS}
    assert (same["status"], same["error"]) == ("cancelled", "Cancelled")
    assert same["message"] == "run mine was stopped: enough"
    assert [step["status"] for step in same["steps"]] == ["completed", "cancelled"]
