"""agentstream run: workflow files, run by real processes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time

import pytest

from agentstream import Runtime, SqliteStore, Workflow
from agentstream.cli import execute, view
from agentstream.events.model import TERMINAL, Event
from agentstream.testing import Gate, Hang, Reply, text_chunks
from tests.kit.cli_runs import cast, in_turn, steps
from tests.kit.cli_support import PROJECT, last_events
from tests.kit.support import KEY, wait_until
from tests.kit.workflow_support import cut

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


# --- results --------------------------------------------------------------------------------


def test_three_agents_leave_the_last_ones_answer(cli, here, server):
    asked = cast(server, one="First.", two="Second.", three="Third.")
    flow = cli.write("flow.toml", 'input = "from the file"\n' + in_turn("one", "two", "three"))
    ways = [
        (cli("run", flow, stdin="grün\n".encode()), "grün\n"),
        (here("run", flow, "--input", "from a flag"), "from a flag"),
        (here("run", flow), "from the file"),
    ]
    for done, given in ways:
        assert (done.out, done.err) == ("Third.\n", "")
        assert ("one", given) in asked
    assert asked.count(("two", "First.")) == asked.count(("three", "Second.")) == 3
    bare = cli.write("bare.toml", in_turn("one"))
    assert here("run", bare, code=2).line.startswith("what is the input? use --input TEXT")


def test_results_side_by_side(cli, here, server):
    cast(server, one="First.", two="Second.")
    flow = cli.write("flow.toml", steps('parallel = {a = {agent = "one"}, b = {agent = "two"}}'))
    text = here("run", flow, "--input", "x")
    data = here("run", flow, "--input", "x", "--json")
    assert text.out == "## a\n\nFirst.\n\n## b\n\nSecond.\n"
    (run,) = data.events
    assert (run["status"], run["output"]) == ("completed", {"a": "First.", "b": "Second."})
    assert {step["step"] for step in run["steps"][0]["steps"]} == {"0.a", "0.b"}
    assert text.err == data.err == ""


def test_jsonl_has_the_runs_within_and_no_other_process_run(cli, here, server):
    gate = Gate()
    cast(
        server,
        one=Reply(*text_chunks("Slow", "ly.")[:2], gate, *text_chunks("", "ly.")[2:]),
        two="Second.",
    )
    cli.write("inner.toml", in_turn("one"))
    outer = cli.write("outer.toml", steps('workflow = "inner.toml"', 'agent = "two"'))
    other = cli.write("other.toml", in_turn("two"))
    run = cli.start("run", outer, "--input", "x", "--jsonl", "--log", cli.log, "--id", "mine")
    run.expect("Slow")  # while it goes on
    between = cli("run", other, "--input", "x", "--jsonl", "--log", cli.log, "--id", "theirs")
    again = here("run", other, "--input", "x", "--log", cli.log, "--id", "theirs", code=1)
    assert "theirs" in again.line
    gate.open()
    assert run.finish() == 0
    assert run.err == ""
    events = [Event.from_dict(data) for data in run.events]
    ids = {event.workflow_id for event in events}
    (inner,) = ids - {"mine"}
    ends = [event.workflow_id for event in events if event.type in TERMINAL]
    assert ends == [inner, "mine"]
    assert events[-1].workflow_id == "mine"
    for workflow_id in ids:
        offsets = [event.offset for event in events if event.workflow_id == workflow_id]
        assert offsets == list(range(1, len(offsets) + 1))
    assert {data["workflow_id"] for data in between.events} == {"theirs"}
    assert set(last_events(cli.log)) == {"mine", "theirs", inner}


def test_a_failure_names_step_and_cause_and_what_had_arrived(cli, here, server):
    cast(server, one="First.", two=cut("Half of", " it"))
    flow = cli.write(
        "flow.toml",
        steps('agent = "one"', 'agent = "two"\nname = "rewrite"')
        + (f'[clients.c]\nbase_url = "{server.url}"\nretries = {{attempts = 0}}\n'),
    )
    plain = cli("run", flow, "--input", "x", "--id", "r1", code=1)
    data = here("run", flow, "--input", "x", "--json", code=1)
    lines = here("run", flow, "--input", "x", "--jsonl", code=1)
    for command in (plain, data, lines):
        assert "step 'rewrite'" in command.line
        assert "StreamTruncated" in command.line
        assert command.line.endswith('; 10 characters had arrived: "Half of it"')
    assert plain.line.startswith("run r1 ")
    assert plain.out == ""
    (run,) = data.events
    assert (run["status"], run["error"]) == ("failed", "StreamTruncated")
    assert [step["output"] for step in run["steps"]] == ["First.", "Half of it"]
    assert lines.events[-1]["type"] == "workflow_failed"


# --- settings of the file -------------------------------------------------------------------


def test_set_overrules_the_file(cli, here, server):
    asked = cast(server, one="Fine.")
    flow = cli.write(
        "flow.toml",
        steps('agent = "one"\nprompt = "{context.tone}: {input}"')
        + '[context]\ntone = "dry"\n'
        + f'[clients.c]\nbase_url = "{server.url}"\n',
    )
    here(
        "run",
        flow,
        "--input",
        "x",
        "--set",
        "agents.one.temperature=0",
        "--set",
        "context.tone=grün und laut",
    )
    assert asked == [("one", "grün und laut: x")]
    assert server.requests[0].json["temperature"] == 0
    wrong = here("run", flow, "--input", "x", "--set", "agents.one.temprature=0", code=2)
    assert "temperature" in wrong.line
    secret = here("run", flow, "--input", "x", "--set", f"clients.c.api_key={KEY}", code=2)
    assert "api_key_env" in secret.err  # and it shows nowhere
    idle = here("run", flow, "--input", "x", "--model", "m", "--insecure", code=2)
    assert idle.line.startswith(f"--model, --insecure: {flow} has clients of its own; use --set")
    assert len(server.requests) == 1


def test_keys_come_from_the_environment_and_show_nowhere(cli, here, server, monkeypatch):
    cast(server, one="Fine.")
    flow = cli.write(
        "flow.toml",
        in_turn("one") + (f'[clients.c]\nbase_url = "{server.url}"\napi_key_env = "OTHER_KEY"\n'),
    )
    missing = here("run", flow, "--input", "x", code=2)
    assert "OTHER_KEY" in missing.line
    monkeypatch.setenv("OTHER_KEY", KEY + "2")
    run = here("run", flow, "--input", "x", "-vv", "--log", cli.log)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}2"
    assert run.out == "Fine.\n"
    assert "agentstream stop" in run.err
    last_events(cli.log)  # which hunts


# --- code of the user's ---------------------------------------------------------------------


def test_functions_of_a_module_beside_the_file(cli, here, server):
    cli.write(
        "mine.py",
        (
            "import pathlib, threading\n"
            "pathlib.Path('imported').touch()\n"
            "def shout(text): return text.upper()\n"
            "def boom(text): raise ValueError('no such thing')\n"
            "def block(text): threading.Event().wait(60)\n"
        ),
    )
    flows = {
        name: cli.write(f"{name}.toml", steps(f'function = "mine:{name}"'))
        for name in ("shout", "boom", "block", "nothing")
    }
    check = here("check", flows["shout"])
    assert check.err == ""
    assert "mine:shout" in check.out
    assert "flowchart" in check.out
    assert not (cli.folder / "imported").exists()
    assert here("run", flows["shout"], "--input", "grün").out == "GRÜN\n"
    failed = here("run", flows["boom"], "--input", "x", code=1)
    assert "step 'boom'" in failed.line
    assert "ValueError: no such thing" in failed.line
    assert "mine has no 'nothing'" in here("run", flows["nothing"], "--input", "x", code=2).line
    late = cli.start("run", flows["block"], "--input", "x", "--deadline", "2.5", "--log", cli.log)
    assert late.finish() == 124
    assert "step 'block'" in late.line
    assert time.monotonic() - late.began < 10.0
    (end,) = last_events(cli.log).values()
    assert end["type"] == "workflow_cancelled"


# --- terminals and other ends ---------------------------------------------------------------


def test_on_a_terminal_each_agent_has_its_heading(cli, server):
    gate = Gate()
    chunks = text_chunks("Begin", "ning.")
    cast(server, one=Reply(*chunks[:2], gate, *chunks[2:]), two="Second.")
    flow = cli.write("flow.toml", in_turn("one", "two"))
    run = cli.start("run", flow, "--input", "x", terminal="stdin stdout stderr")
    split = cli.start("run", flow, "--input", "x", terminal="stdin stderr")
    quiet = cli.start("run", flow, "--input", "x", "-q", terminal="stdin stdout stderr")
    run.expect("Begin")
    run.expect("token")
    split.expect("token")  # its status is told where somebody sees it
    assert run.process.poll() is None
    gate.open()
    for command in (run, quiet, split):
        assert command.finish() == 0
    assert "one >" in run.screen
    assert "two >" in run.screen
    assert run.screen.count("Second.") == 1
    assert quiet.screen == "Second.\r\n"
    assert split.out == "Second.\n"
    assert "Second." not in split.screen


def test_nobody_reads_on_and_a_full_disk(cli, server):
    cast(server, one=Reply(*text_chunks(*["word "] * 2000)), two="Second.")
    flow = cli.write("flow.toml", in_turn("one", "two"))
    head = cli.script("$A run flow.toml --input x --jsonl --log $LOG | head -1")
    assert head.finish() == 0
    assert head.err == ""
    assert json.loads(head.out)["type"] == "workflow_started"
    (end,) = last_events(cli.log).values()
    assert end["data"]["reason"] == "nobody reads its output any more"
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        runs = [
            cli.start("run", flow, "--input", "x", *more, stdout=full) for more in ([], ["--jsonl"])
        ]
        for run in runs:
            assert run.finish() == 1
            assert run.line == "standard output: No space left on device"
    finally:
        os.close(full)


@pytest.mark.real_llama
def test_the_example_on_the_embedded_llama(cli, llama_server):
    # llama_server makes sure that the model is here; the command starts a server of its own.
    cache = os.environ.get("AGENTSTREAM_CACHE", "")
    home = {} if cache else {"HOME": os.environ["HOME"]}
    flow = str(PROJECT / "docs" / "examples" / "demo.toml")
    run = cli.start(
        "run", flow, "--json", "--deadline", "60", env={"AGENTSTREAM_CACHE": cache, **home}
    )
    assert run.finish() == 0, run.err
    (result,) = run.events
    assert [step["name"] for step in result["steps"]] == ["greeter", "analyzer", "summarizer"]
    assert all(len(step["output"].split()) >= 8 for step in result["steps"])
    assert result["output"] == result["steps"][-1]["output"]
    assert run.err == ""


def test_a_run_is_stopped_if_nobody_reads_its_first_event(monkeypatch):
    """Its output may be closed before `submit` has come back."""
    read, write = os.pipe()
    os.close(read)
    closed = threading.Event()
    submit, write_out = Runtime.submit, view.View._closed

    def late(self, *args, **settings):
        handle = submit(self, *args, **settings)
        assert closed.wait(10)
        return handle

    def seen(self):
        write_out(self)
        closed.set()

    monkeypatch.setattr(Runtime, "submit", late)
    monkeypatch.setattr(view.View, "_closed", seen)
    given = argparse.Namespace(json=False, jsonl=True, quiet=True, verbose=0, log_days=1.0)
    stopped = []

    def wait(text, context):
        stopped.append(context.cancel.wait(10))

    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert execute.execute(given, Workflow("w", [wait]), "x", log=None) == 0
    assert stopped in ([], [True])


# --- --once ---------------------------------------------------------------------------------


def test_once_makes_a_run_once_and_what_failed_again(cli, here, server):
    asked = cast(server, one=cut("Half"))
    flow = cli.write("flow.toml", in_turn("one"))
    log = str(cli.folder / "log.db")
    words = ("run", flow, "--input", "x", "--log", log, "--id", "night", "--once")
    here(*words, code=1)
    server.route("/v1/chat/completions", lambda request: asked.append(1) or Reply.text("Whole."))
    for _ in range(2):
        done = here(*words)
        assert done.out == "Whole.\n"
    assert here(*words, "-q").err == ""
    (run,) = here(*words, "--json").events
    assert (run["workflow_id"], run["status"], run["output"]) == ("night~2", "completed", "Whole.")
    assert asked.count(1) == 1
    with SqliteStore(log) as store:
        assert [state.workflow_id for state in store.runs()] == ["night~2", "night"]
    assert here("run", flow, "--input", "x", "--once", code=2).line.startswith("--once needs --id")


def test_once_while_it_is_under_way_leaves_with_75(cli, here, server):
    cast(server, one=Reply(*text_chunks("Begun")[:2], Hang()))
    flow = cli.write("flow.toml", in_turn("one"))
    log = str(cli.folder / "log.db")
    words = ("run", flow, "--input", "x", "--log", log, "--id", "n", "--once")
    first = cli.start(*words)
    wait_until(lambda: bool(server.requests))
    assert here(*words, code=75).line == "run 'n' is under way"
    first.send(signal.SIGTERM)
    assert first.finish() == 143


def test_an_answer_with_a_type_is_json(cli, here, server):
    output = 'output = { type = "object", properties = { city = { type = "string" } } }'
    flow = cli.write("flow.toml", f'[agents.one]\n{output}\n[[steps]]\nagent = "one"\n')
    server.reply_text("It is Oslo.")
    server.reply_text('{"city": ', '"Oslo"}')
    told = here("run", flow, "--input", "x", "-v")
    assert told.out == '{"city": "Oslo"}\n'
    assert "one: the answer is wrong: the answer holds no JSON; asked again\n" in told.err
    server.default(*text_chunks('{"city": ', '"Oslo"}'))
    assert json.loads(here("run", flow, "--input", "x", "--json").out)["output"] == {"city": "Oslo"}
    watched = cli.start("run", flow, "--input", "x", terminal="stdin stdout stderr")
    assert watched.finish() == 0
    assert watched.screen.count('"Oslo"') == 1  # it stands there already
