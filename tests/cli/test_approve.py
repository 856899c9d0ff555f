"""agentstream approve and signal: answers from other processes to runs that are suspended."""

from __future__ import annotations

import json
import sys

import pytest

from agentstream import SqliteStore
from tests.kit.cli_resting import ASKS_AND_WAITS, ORDER, clerk, paid, write
from tests.kit.cli_runs import listed, steps
from tests.kit.cli_support import last_events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def resumed(log, workflow_id):
    """What the run's latest `workflow_resumed` says of answers."""
    with SqliteStore(log) as store:
        events = store.read(workflow_id=workflow_id, limit=1000)
    last = [event for event in events if event.type.value == "workflow_resumed"][-1]
    return [
        (each["name"], each["answer"], each["reason"], each["by"]) for each in last.data["answers"]
    ]


def test_suspended_in_one_process_answered_in_others_and_watched_by_one_that_stays(
    cli, here, server
):
    clerk(server, "17")
    flow = write(cli, ASKS_AND_WAITS)
    run = cli("run", flow, "--input", "x", "--id", "r 1", "--log", cli.log, "--json", code=3)
    (data,) = run.events
    assert (data["status"], data["output"]) == ("suspended", "")
    (call,) = data["pending"]
    assert (call["kind"], call["name"], call["step"]) == ("approval", "pay", "0")
    assert json.loads(call["arguments"]) == {"invoice": "17", "cents": 900}
    head, what, about, answer, then = run.err.splitlines()
    assert head == "agentstream: run r 1 is suspended: it waits for an answer"
    assert (what.split()[0], call["id"] in about) == ("pay", True)
    assert answer.strip().startswith(f"agentstream approve 'r 1' --log {cli.log} ")
    assert then == f"then `agentstream resume 'r 1' --log {cli.log}` goes on"
    follower = cli.start("follow", "r 1", "--log", cli.log)
    follower.expect("it waits for an answer")
    yes = cli("approve", "r 1", "--log", cli.log, "--by", "ann")
    assert yes.err.endswith(f"`agentstream resume 'r 1' --log {cli.log}` goes on\n")
    assert (yes.out, paid(cli)) == ("", [])
    goods = here("resume", "r 1", "--log", cli.log, code=3)
    assert f"agentstream signal 'r 1' goods VALUE --log {cli.log}" in goods.err
    assert (goods.out, paid(cli)) == ("", ["17 900"])
    follower.expect("goes on; pay: yes, by ann")
    follower.expect("signal 'r 1' goods VALUE")
    here("signal", "r 1", "goods", "7 boxes", "--log", cli.log, "--quiet")
    done = cli("resume", "r 1", flow, "--log", cli.log)
    assert (done.out, done.err) == ("Shipped: 7 boxes\n", "")
    assert follower.finish() == 0
    assert follower.out == "Shipped: 7 boxes\n"
    assert last_events(cli.log)["r 1"]["type"] == "workflow_completed"
    assert (len(server.requests), paid(cli)) == (3, ["17 900"])


def test_a_workflow_within_rests_with_the_outer_one_and_is_followed_in_its_place(cli, here, server):
    clerk(server, "17")
    log = ("--log", cli.log)
    sides = 'parallel = {a = {agent = "clerk"}, b = {agent = "shipper"}, w = {wait = "goods"}}'
    write(cli, f"{ORDER}[[steps]]\n{sides}\n", "inner.toml")
    outer = cli.write(
        "outer.toml", "checkpoints = true\n" + steps('workflow = "inner.toml"', 'agent = "one"')
    )
    asked = here("run", outer, "--input", "x", "--id", "o", *log, code=3)
    assert (asked.out, asked.err.count("agentstream approve o --log")) == ("", 1)
    follower = cli.start("follow", "o", *log, "--json")
    follower.expect("it waits for 2 answers")
    (inner,) = (one for one in listed(here, cli) if one["parent_workflow_id"] is not None)
    here("approve", inner["workflow_id"], *log)  # the outermost one is meant
    assert "signal o goods" in here("resume", inner["workflow_id"], *log, code=3).err
    here("signal", "o", "goods", "5", *log)
    (run,) = here("resume", "o", *log, "--json").events
    assert follower.finish() == 0
    (told,) = follower.events
    assert shape(told) == shape(run)
    (within,) = run["steps"][0]["steps"]
    assert [each["output"] for each in within["steps"]] == ["900 are paid", "Shipped: x", 5]


def shape(run):
    return run["output"], run["usage"], [(s["step"], s["status"], shape(s)) for s in run["steps"]]


def test_other_answers_than_yes(cli, here, server):
    flow, log = write(cli), ("--log", cli.log)
    for name, words, told, answer, was_paid in (
        ("no", ["--no", "too much"], ": no\n", ("no", "too much"), []),
        (
            "less",
            ["pay", "--arguments", '{"invoice": "17", "cents": 9}'],
            ": yes, with these arguments\n",
            ("change", ""),
            ["17 9"],
        ),
    ):
        clerk(server, "17")
        here("run", flow, "--input", "x", "--id", name, *log, "--quiet", code=3)
        assert told in here("approve", name, *words, *log, "--by", "ann").err
        assert "has its answer" in here("approve", name, *log, code=1).line
        out = here("resume", name, *log).out
        assert paid(cli) == was_paid
        assert ("too much" in out) == (name == "no")
        assert resumed(cli.log, name) == [("pay", *answer, "ann")]
        assert "is completed, and asks nothing" in here("approve", name, *log, code=1).line


def test_of_several_calls_one_is_named(cli, here, server):
    clerk(server, "17", "18", "19")
    flow, log = write(cli), ("--log", cli.log)
    asked = here("run", flow, "--input", "x", "--id", "many", *log, code=3).err
    assert "it waits for 3 answers" in asked
    (state,) = listed(here, cli)
    first, second, third = (each["id"] for each in state["pending"])
    assert all(f"agentstream approve many {id} --log" in asked for id in (first, second, third))
    which = here("approve", "many", *log, code=2).err
    assert "asks about 3 calls: which of them?" in which
    assert all(f"agentstream approve many {id} --log" in which for id in (first, second, third))
    assert "asks about 3 calls" in here("approve", "many", "pay", *log, code=2).err
    other = here("approve", "many", "sell", *log, code=1).line
    assert "asks about no call 'sell': it waits for pay {" in other
    left = here("approve", "many", second, *log).err
    assert "it waits for pay {" in left
    here("approve", "man", first[:-1], "--no", "", *log)  # beginnings will do
    assert here("resume", "many", *log, code=3).err.count("agentstream approve many ") == 1
    assert paid(cli) == ["18 900"]
    here("approve", "many", "pay", *log)  # the only one left of that tool
    assert "19" not in here("resume", "many", *log).out
    assert sorted(paid(cli)) == ["18 900", "19 900"]


def test_values_are_json_or_text_and_may_come_before_they_are_waited_for(cli, here, server):
    clerk(server)
    log = ("--log", cli.log)
    flow = cli.write("wait.toml", 'checkpoints = true\n[[steps]]\nwait = "it"\n')
    for name, words, output in (
        ("number", ["-3"], "-3"),
        ("object", ['{"a": [1, null]}'], "## a\n\n[1, null]"),
        ("text", ["yes, do"], "yes, do"),
        ("quoted", ['"3"'], "3"),
        ("nan", ["NaN"], "NaN"),
        ("none", [], ""),
    ):
        here("run", flow, "--input", "x", "--id", name, *log, code=3)
        here("signal", name, "it", *words, *log)
        assert here("resume", name, *log).out.strip() == output
    here("run", flow, "--input", "x", "--id", "slip", *log, code=3)
    slip = here("signal", "slip", "ti", "3", *log).err
    assert "does not wait for it now, but for the value 'it'" in slip
    assert "which is not used yet" in here("signal", "slip", "ti", "3", *log, code=1).line
    assert (
        "asks about no call: it waits for the value 'it'"
        in here("approve", "slip", *log, code=1).line
    )
    assert "there is no run 'nobody'" in here("signal", "nobody", "it", *log, code=2).line
    assert "there is no run 'nobody'" in here("approve", "nobody", *log, code=2).line


def test_runs_that_rest_are_listed_with_what_they_wait_for_and_can_be_stopped(cli, here, server):
    clerk(server, "17")
    flow, log = write(cli), ("--log", cli.log)
    here("run", flow, "--input", "x", "--id", "open", *log, code=3)
    clerk(server)
    here("run", flow, "--input", "x", "--id", "done", *log)
    _, line = here("runs", "--waiting", *log).out.splitlines()
    assert line.split()[:2] == ["open", "suspended"]
    assert line.endswith('order: waits for pay {"invoice": "17", "cents": 900}')
    by_id = {state["workflow_id"]: state for state in listed(here, cli)}
    assert by_id["done"]["pending"] == []
    assert by_id["open"]["pending"][0]["name"] == "pay"
    assert here("stop", "op", *log).err == "run open was stopped\n"
    assert here("runs", "--waiting", *log).out.count("\n") == 1
    assert (
        here("resume", "open", *log, code=1).line == "run open cannot be resumed: it is cancelled"
    )
    assert "is cancelled, and asks nothing" in here("approve", "open", *log, code=1).line
