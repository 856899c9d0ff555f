"""agentstream chat: one question, its answer as it arrives, as text and as JSON."""

from __future__ import annotations

import sys

import pytest

from agentstream.events.model import Event
from agentstream.testing import Gate, Hang, Reply, text_chunks
from tests.kit.support import KEY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def asked(server, number=-1):
    """The messages of a request."""
    return server.requests[number].json["messages"]


def halted(*texts, gate=None):
    """A reply that says these texts, and then waits; for ever, if there is no gate."""
    chunks = text_chunks(*texts)
    end = len(texts) + 1
    return Reply(*chunks[:end], gate or Hang(), *chunks[end:])


def queue(server, *replies):
    for reply in replies:
        server._add(reply, None, False)


def test_a_pipe_gets_the_answer_as_it_arrives_and_nothing_else(cli, server):
    gate = Gate()
    queue(server, halted("Hel", "lo\nthe", gate=gate))
    chat = cli.start(
        "chat",
        "A question",
        "--system",
        "Be kind.",
        "--model",
        "m1",
        stdin="From a pipe, grün.\n".encode(),
    )
    chat.expect("the")  # before the answer has ended
    assert chat.process.poll() is None
    gate.open()
    assert chat.finish() == 0
    assert (chat.out, chat.err) == ("Hello\nthe\n", "")
    assert asked(server) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "A question\n\nFrom a pipe, grün.\n"},
    ]
    assert server.requests[0].json["model"] == "m1"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_json_and_jsonl(cli, here, server):
    server.default(*text_chunks("one ", "two"))
    whole = here("chat", "x", "--json")
    logged = here("chat", "x", "--json", "--log", cli.log)
    assert list(logged.events[0]) == list(whole.events[0])  # the same with a log
    assert {**logged.events[0], "duration_s": 0, "first_token_s": 0, "tokens_per_second": 0} == {
        **whole.events[0],
        "duration_s": 0,
        "first_token_s": 0,
        "tokens_per_second": 0,
    }
    lines = here("chat", "x", "--jsonl", "--system", "s")
    (answer,) = whole.events
    assert answer["content"] == "one two"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["tool_calls"] == []
    assert whole.err == ""
    assert lines.err == ""
    events = [Event.from_dict(data) for data in lines.events]
    kinds = [str(event.type) for event in events]
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert kinds[0] == "workflow_started"
    assert kinds[-1] == "workflow_completed"
    assert kinds.count("agent_llm_stream_chunk") == 2


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--json",), ("--jsonl",)])
def test_files_go_with_the_question(here, cli, server, how):
    server.default(*text_chunks("A dot."))
    (cli.folder / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n")
    (cli.folder / "b").write_bytes(b"%PDF-1.7")
    done = here("chat", "What is it?", "-a", "a.txt", "--attach", "b", *how)
    assert "A dot." in done.out
    content = asked(server)[-1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "file"]


def test_a_file_that_is_none_is_told_before_anything_is_sent(here, cli, server):
    (cli.folder / "words").write_bytes(b"words")
    done = here("chat", "What is it?", "-a", "words", code=2)
    assert "words is no picture" in done.err
    assert server.requests == []
