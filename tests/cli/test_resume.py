"""agentstream resume, run --resume and --checkpoints: runs that outlive their process."""

from __future__ import annotations

import signal
import sys

import pytest

from agentstream.testing import Gate
from tests.kit.cli_resting import ASKS, clerk, paid, write
from tests.kit.cli_runs import cast, halted, in_turn, listed, steps
from tests.kit.cli_support import last_events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def two(cli, server, second="Second."):
    """A file of two agents, the second of which says that."""
    asked = cast(server, one="First.", two=second)
    return cli.write("flow.toml", 'input = "tea"\n' + in_turn("one", "two")), asked


def test_killed_in_the_middle_it_goes_on_after_what_is_done(cli, here, server):
    flow, asked = two(cli, server, halted("Sec"))
    run = cli.start("run", flow, "--id", "k", "--log", cli.log, "--checkpoints", "--jsonl")
    run.expect("Sec")
    follower = cli.start("follow", "k", "--log", cli.log, "--json")
    run.process.send_signal(signal.SIGKILL)
    run.finish()
    follower.expect("run k is interrupted: its process died; `agentstream resume k --log")
    (state,) = listed(here, cli)
    assert (state["status"], state["pending"]) == ("interrupted", [])
    assert here("runs", "--log", cli.log).out.endswith("flow: its process died\n")
    cast(server, one="No.", two="Second.")
    done = cli("resume", "k", "--log", cli.log)
    assert (done.out, done.err) == ("Second.\n", "")
    assert follower.finish() == 0
    (told,) = follower.events
    assert [step["output"] for step in told["steps"]] == ["First.", "Second."]
    assert [name for name, _ in asked] == ["one", "two"]
    again = here("resume", "k", "--log", cli.log)
    assert (again.out, again.err) == ("Second.\n", "")
    assert len(server.requests) == 3


def test_what_kills_more_processes_than_it_may_is_not_begun_anew(cli, here, server):
    flow, _ = two(cli, server, halted("Sec"))
    cli.write("flow.toml", (cli.folder / "flow.toml").read_text() + "[checkpoints]\n")
    words = ("run", flow, "--set", "checkpoints.recover=1", "--resume", "k", "--log", cli.log)
    for _ in range(2):
        run = cli.start(*words, "--jsonl")
        run.expect("Sec")
        run.process.send_signal(signal.SIGKILL)
        run.finish()
    assert "run 'k' has failed, and is not begun anew: " in here(*words, code=1).line
    assert here("resume", "k", "--log", cli.log, code=1).line.endswith("it is failed")
    assert [one["status"] for one in listed(here, cli)] == ["failed"]


def test_interrupted_by_signals_and_deadlines_it_says_what_goes_on(cli, here, server):
    flow, _ = two(cli, server, halted("Sec"))
    ends = (
        ("int", signal.SIGINT, 130, "stopped by Ctrl-C"),
        ("term", signal.SIGTERM, 143, "stopped by SIGTERM"),
        ("late", None, 124, "the deadline of 2 s has passed"),
    )
    runs = []
    for name, number, *_ in ends:
        more = ["--deadline", "2"] if number is None else []
        words = ("run", flow, "--id", name, "--log", cli.log, "--checkpoints", "--jsonl", *more)
        runs.append(cli.start(*words))
    bare = cli.start("run", flow, "--id", "bare", "--log", cli.log, "--jsonl")
    for run in (*runs, bare):
        run.expect("Sec")
    for run, (name, number, code, why) in zip(runs, ends):
        if number is not None:
            run.send(number)
        assert run.finish() == code
        then = f"; `agentstream resume {name} --log {cli.log}` goes on"
        assert run.line == (
            f"{why} in run {name}, step 'two'; 3 characters had arrived: \"Sec\"{then}"
        )
        assert run.events[-1]["type"] == "workflow_suspended"
        assert run.events[-1]["data"]["reason"] == why
    bare.send(signal.SIGTERM)
    assert bare.finish() == 143
    assert bare.line.endswith('"Sec"')
    assert bare.events[-1]["type"] == "workflow_cancelled"
    asked = cast(server, one="No.", two="Second.")
    for name in ("int", "term", "late"):
        assert here("resume", name, "--log", cli.log).out == "Second.\n"
    assert asked == [("two", "First.")] * 3
    assert here("resume", "bare", "--log", cli.log, code=1).line.endswith("it is cancelled")


def test_resume_begins_a_run_or_goes_on_or_gives_its_result(cli, here, server):
    clerk(server, "17")
    flow, log = write(cli), ("--log", cli.log)
    assert "--log FILE" in here("run", flow, "--resume", "a", "--input", "x", code=2).line
    here("run", flow, "--resume", "a", "--input", "x", *log, code=3)
    here("run", flow, "--resume", "a", *log, code=3)  # it has its input
    assert len(server.requests) == 1
    here("approve", "a", *log)
    first = here("run", flow, "--resume", "a", *log)
    again = here("run", flow, "--resume", "a", *log)
    assert (first.out, again.out, paid(cli)) == ("900 are paid\n", "900 are paid\n", ["17 900"])
    words = ("run", flow, "--id", "b", "--once", "--input", "x", *log)
    assert "agentstream approve b" in here(*words, code=3).err
    assert "agentstream approve b" in here(*words, code=3).err
    here("approve", "b", *log)
    assert here(*words).out == here(*words).out == "900 are paid\n"
    assert len(server.requests) == 4


def test_checkpoints_are_asked_for_by_flag_environment_file_and_settings(
    cli, here, server, monkeypatch
):
    two(cli, server)
    log = ("--log", cli.log)
    wait = steps('wait = "it"')
    said = cli.write("said.toml", "checkpoints = true\n" + wait)
    table = cli.write("table.toml", wait + '[checkpoints]\nkeep = "10m"\nrecover = 1\n')
    bare = cli.write("bare.toml", wait)
    later = cli.write(
        "later.toml", '[agents.a]\napprove = "later"\n[[steps]]\nagent = "a"\n[agents.b]\n'
    )
    nested = cli.write("nested.toml", steps('workflow = "later.toml"'))
    off = cli.write("off.toml", "checkpoints = false\n" + wait)
    words = ("--input", "x", *log)
    for flow in (said, table):
        here("run", flow, *words, code=3)
        assert "kept in a log" in here("run", flow, "--input", "x", code=2).line
    for flow in (bare, off):
        assert (
            "takes checkpoints: --checkpoints --log FILE" in here("run", flow, *words, code=2).line
        )
        here("run", flow, "--checkpoints", *words, code=3)
    for flow in (later, nested):
        assert "takes checkpoints" in here("run", flow, *words, code=2).line
    monkeypatch.setenv("AGENTSTREAM_CHECKPOINTS", "0")
    here("run", said, *words, code=2)
    monkeypatch.setenv("AGENTSTREAM_CHECKPOINTS", "1")
    here("run", bare, *words, code=3)
    assert "resumed" in here("check", said).out
    wrong = cli.write("wrong.toml", wait + "[checkpoints]\nkepe = 1\nrecover = -1\n")
    problems = here("check", wrong, code=2).err
    assert "checkpoints.kepe: unknown key; did you mean 'keep'?" in problems
    assert "checkpoints.recover: " in problems
    worse = cli.write("worse.toml", 'checkpoints = "yes"\n' + wait)
    assert "must be true, false or a table, not a text" in here("check", worse, code=2).err


def test_what_cannot_be_resumed(cli, here, server, monkeypatch):
    clerk(server, "17")
    flow, log = write(cli), ("--log", cli.log)
    here("run", flow, "--input", "x", "--id", "a", *log, code=3)
    changed = write(cli, ASKS + '[[steps]]\nwait = "goods"\n', "changed.toml")
    refused = here("resume", "a", changed, *log, code=2)
    assert "--force" in refused.line
    here("approve", "a", *log)
    assert "signal a goods" in here("resume", "a", changed, "--force", *log, code=3).err
    here("signal", "a", "goods", "box", *log)
    assert here("resume", "a", *log).out == "box\n"  # with the file it was last gone on with
    monkeypatch.setenv("AGENTSTREAM_BASE_URL", "")
    secret = server.url.replace("//", "//ann:word@")
    failed = here("run", flow, "--input", "x", "--id", "s", "--base-url", secret, *log, code=3)
    assert "`agentstream resume s FILE --log" in failed.err
    assert (
        "which workflow file? `agentstream resume s FILE`" in here("resume", "s", *log, code=2).line
    )
    here("run", flow, "--input", "x", "--id", "t", "--base-url", server.url, *log, code=3)
    here("approve", "t", *log)
    assert here("resume", "t", *log).out == "900 are paid\n"  # at that server


def test_a_further_try_has_the_keys_of_the_first(cli, here, server):
    module = f"steps_of_{cli.folder.name}"
    cli.write(f"{module}.py", FAILS_ONCE)
    flow = cli.write("once.toml", f'input = "x"\n[[steps]]\nfunction = "{module}:work"\n')
    for number, words in enumerate((["--id", "a", "--once"], ["--resume", "b"])):
        here("run", flow, *words, "--log", cli.log, code=1)
        assert here("run", flow, *words, "--log", cli.log).out == "done\n"
        keys = (cli.folder / "keys.txt").read_text().split()[2 * number :]
        assert keys[0] == keys[1]
    assert {one["workflow_id"] for one in listed(here, cli)} == {"a", "a~2", "b", "b~2"}


FAILS_ONCE = """
from agentstream import RunContext

def work(text, context: RunContext):
    with open("keys.txt", "a+") as file:
        file.write(context.idempotency_key + "\\n")
        file.seek(0)
        if len(file.readlines()) % 2:
            raise RuntimeError("not yet")
    return "done"
"""


def test_a_run_under_way_is_busy(cli, here, server):
    gate = Gate()
    flow, _ = two(cli, server, halted("Sec", "ond.", gate=gate))
    words = ("run", flow, "--resume", "r", "--log", cli.log)
    run = cli.start(*words, "--jsonl")
    run.expect("ond.")
    for more in (words, ("resume", "r", "--log", cli.log), ("resume", "r", flow, "--log", cli.log)):
        assert "is under way" in here(*more, code=75).line
    gate.open()
    assert run.finish() == 0


def test_a_watch_resumes_what_is_ready(cli, here, server):
    clerk(server, "17")
    flow, log = write(cli), ("--log", cli.log)
    watch = cli.start("resume", "--watch", flow, *log)
    watch.expect(f"runs of order in {cli.log} are resumed")
    for name in ("a", "b"):
        here("run", flow, "--input", "x", "--id", name, *log, code=3)
    here("approve", "b", *log, "--by", "ann")
    watch.expect("run b goes on; pay: yes, by ann")
    watch.expect("run b completed")
    watch.send(signal.SIGTERM)
    assert watch.finish() == 0
    ends = {name: event["type"] for name, event in last_events(cli.log).items()}
    assert ends == {"a": "workflow_suspended", "b": "workflow_completed"}
    assert paid(cli) == ["17 900"]
