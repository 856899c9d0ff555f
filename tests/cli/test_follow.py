"""agentstream follow: a run that others run, from its log or over HTTP."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from agentstream.events.model import TERMINAL, Event, EventType
from agentstream.llm.sse import encode_event
from agentstream.testing import Gate, Reply, text_chunks
from tests.kit.cli_runs import begin, listed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")
TOKEN = "token-MARKEDKEY-0123456789abcdefgh"


def halting(server, *texts):
    """The next answer says these texts and waits; returns its gate."""
    gate = Gate()
    chunks = text_chunks(*texts, "the end.")
    server.reply(*chunks[: len(texts) + 1], gate, *chunks[len(texts) + 1 :])
    return gate


def bare(events):
    """Without their place among other runs' events, which a stream of one run does not tell."""
    return [{**event, "position": None} for event in events]


def test_followed_by_others_and_stopped_by_another(cli, here, server):
    halting(server, "Some ", "text ")
    served = cli.start("serve", "--log", cli.log, "--port", "0", env={"AGENTSTREAM_TOKEN": TOKEN})
    run = begin(cli, server, "aa11")
    served.expect("http://")
    url = re.search(r"http://\S+", served.out)[0]
    followers = [
        cli.start("follow", "aa", "--log", cli.log, "--jsonl"),
        cli.start("follow", "--url", url, "--jsonl", env={"AGENTSTREAM_TOKEN": TOKEN}),
        cli.start("follow", "--log", cli.log, terminal="stdout stderr"),
    ]
    for follower in followers:
        follower.expect("text ")  # while it goes on
    assert run.process.poll() is None
    (state,) = listed(here, cli)
    assert (state["workflow_id"], state["status"], state["name"]) == ("aa11", "running", "verse")
    stop = cli("stop", "aa", "--log", cli.log, "--reason", "enough")
    assert (stop.out, stop.err) == ("", "run aa11 was stopped\n")
    assert run.finish() == 1
    assert "enough" in run.line
    assert "10 characters had arrived" in run.line
    for follower in followers:
        assert follower.finish() == 1, follower.shown
        assert "agentstream: run aa11 was stopped: enough" in follower.err + follower.screen
    assert bare(followers[0].events) == bare(followers[1].events) == bare(run.events)
    assert [Event.from_dict(data) for data in run.events][-1].data["reason"] == "enough"
    assert server.wait_client_gone()
    again = here("stop", "aa", "--log", cli.log, code=1)
    assert again.line == "run aa11 is not under way: cancelled"
    assert "no run 'bb'" in here("stop", "bb", "--log", cli.log, code=2).line
    refused = here("follow", "aa11", "--url", url, code=1)
    assert "401" in refused.line
    served.send(signal.SIGTERM)
    assert served.finish() == 0


def test_a_follower_that_leaves_stops_nobody(cli, here, server):
    gate = halting(server, "text")
    run = begin(cli, server, "aa")
    late = cli.start("follow", "--log", cli.log, "--deadline", "1.2")
    left = cli.start("follow", "--log", cli.log, "--jsonl")
    left.expect("text")
    left.send(signal.SIGINT)
    assert left.finish() == 130
    assert late.finish() == 124
    assert left.line == "stopped by Ctrl-C; the run goes on"
    assert late.line == "the deadline of 1.2 s has passed; the run goes on"
    gate.open()
    assert run.finish() == 0
    done = here("follow", "--log", cli.log)
    assert (done.out, done.err) == ("textthe end.\n", "")
    data = here("follow", "aa", "--log", cli.log, "--json")
    assert data.events[0]["output"] == "textthe end."
    assert listed(here, cli)[0]["status"] == "completed"


@pytest.mark.parametrize("data", [{}, {"chunk": 5, "usage": 7, "duration_ms": "x", "kind": None}])
def test_b03_events_of_another_version_are_followed(cli, server, data):
    """What an event's data does not hold is not shown; no traceback tells of it."""
    kinds = [kind for kind in EventType if kind is not EventType.WORKFLOW_COMPLETED]
    kinds = [kind for kind in kinds if kind not in TERMINAL and kind is not EventType.EVENTS_MISSED]
    events = [
        Event(f"run:{n}", n, n, kind, "run", None, 1.0, data)
        for n, kind in enumerate([*kinds, EventType.WORKFLOW_COMPLETED], 1)
    ]
    stream = b"".join(encode_event(event.to_json(), id=event.offset) for event in events)
    state = {
        "workflow_id": "run",
        "parent_workflow_id": None,
        "name": "w",
        "status": "running",
        "started_at": None,
        "ended_at": None,
        "last_offset": 1,
        "usage": None,
    }
    server.route("/workflows", lambda _: Reply.json({"workflows": [state]}))
    server.route("/workflows/run/stream", lambda _: Reply(stream))
    url = ["follow", "--url", server.url]
    commands = [cli.start(*url, *more) for more in (["-v"], ["--json"], ["--jsonl"], ["run"])]
    commands.append(cli.start(*url, terminal="stdout stderr"))
    for command in commands:
        assert command.finish() == 0, command.shown
    assert len(commands[2].events) == len(events)


@pytest.mark.parametrize("code", [302, 307, 500, 404])
def test_b03_a_server_that_refuses_is_one_line(cli, server, code):
    server.default(status=code, headers={"Location": "http://127.0.0.1:1/"})
    for words in (["--url", server.url], ["--url", server.url, "some"]):
        if code == 500 and words[-1] == "some":
            continue  # it is asked again
        refused = cli("follow", *words, code=1, env={"AGENTSTREAM_TOKEN": TOKEN})
        assert str(code) in refused.line
