"""agentstream chat: one question, its answer as it arrives, as text and as JSON."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentstream.events.model import Event
from agentstream.testing import Gate, text_chunks
from tests.kit.cli_runs import asked, halted, queue
from tests.kit.support import KEY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_a_pipe_gets_the_answer_as_it_arrives_and_nothing_else(cli, server):
    gate = Gate()
    queue(server, halted("Hel", "lo\nthe", gate=gate))
    chat = cli.start(
        "chat",
        "A question",
        "-",
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


# --- standard input ---------------------------------------------------------------------------


def test_in_a_loop_it_does_not_eat_the_list(cli, server):
    server.default(*text_chunks("Fine."))
    cli.write("list", "one\ntwo\nthree\n")
    loop = 'while read x; do $A chat "About $x" || exit 9; done'
    for line in (f"{loop} < list", f"cat list | {loop}"):
        done = cli.script(line)
        assert done.finish() == 0, done.err
        assert (done.out, done.err) == ("Fine.\n" * 3, "")
        asked_for = [request.json["messages"][-1]["content"] for request in server.requests[-3:]]
        assert asked_for == ["About one", "About two", "About three"]


def test_standard_input_is_read_without_a_prompt_and_where_a_dash_says_so(cli, server):
    server.default(*text_chunks("Fine."))
    for words, said in (
        (["chat"], "piped"),
        (["chat", "-"], "piped"),
        (["chat", "Q", "-"], "Q\n\npiped"),
        (["chat", "-", "Q"], "Q\n\npiped"),
        (["chat", "Q", "-q", "-"], "Q\n\npiped"),
        (["chat", "-", "--model", "m", "Q"], "Q\n\npiped"),
    ):
        done = cli(*words, stdin=b"piped")
        assert asked(server)[0]["content"] == said, words
        assert done.err == ""
    typed = cli.start("chat", "-", terminal="stdin stderr")
    typed.expect("Ctrl-D ends it")
    typed.type(b"typed\n\x04")
    assert typed.finish() == 0
    assert asked(server)[0]["content"] == "typed\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells whose standard input it is")
def test_what_was_piped_in_for_nothing_is_told(cli, server):
    server.default(*text_chunks("Fine."))
    cli.write("notes", "what to explain")
    told = "agentstream: standard input was not read: `agentstream chat PROMPT -` adds it\n"
    for line in ("echo some | $A chat Q", "$A chat Q < notes"):
        done = cli.script(line)
        assert done.finish() == 0, done.err
        assert (done.out, done.err) == ("Fine.\n", told)
    for line in ("echo some | $A chat Q -q", "$A chat Q < /dev/null", "$A chat Q <&-"):
        done = cli.script(line)
        assert done.finish() == 0, done.err
        assert done.err == ""
    assert all(request.json["messages"][0]["content"] == "Q" for request in server.requests)


def test_a_401_names_the_variable_the_key_came_from(here, server, monkeypatch):
    server.default(b"no", status=401, content_type="text/plain")
    refused = here("chat", "x", code=1)
    assert "the key that was sent is that of AGENTSTREAM_API_KEY)" in refused.line
    monkeypatch.delenv("AGENTSTREAM_API_KEY")
    refused = here("chat", "x", code=1)
    assert "no key was sent: api_key= takes one); set AGENTSTREAM_API_KEY" in refused.line


# --- what it costs ----------------------------------------------------------------------------


def test_a_plain_answer_imports_neither_agents_nor_workflows_nor_the_bus(cli, server):
    server.default(*text_chunks("Fine."))
    program = (
        "import sys; from agentstream.cli import main; main(['chat', 'x']);"
        "print(*sorted(name for name in sys.modules if name.startswith('agentstream.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=cli.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    said, imported = done.stdout.splitlines()
    assert said == "Fine."
    rooms = {name.split(".")[1] for name in imported.split()}
    assert not rooms & {"agent", "workflow", "runtime", "tools", "web", "local", "mcp"}
    assert "agentstream.events.stream" not in imported.split()
    assert "difflib" not in imported
