"""Standard input and standard output: pipes that are silent, any locale, any encoding."""

from __future__ import annotations

import sys

import pytest

from agentstream.testing import text_chunks
from tests.kit.cli_runs import AGENT, asked
from tests.kit.cli_support import OPEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_what_is_piped_in(cli, here, server):
    server.default(*text_chunks("Fine."))
    piped = cli.start("chat", stdin=b"\xef\xbb\xbfOnly this")  # with a BOM, as Windows writes it
    other = cli.start("chat", "Only that", "-", stdin=b" \n")
    closed = cli.script("$A chat 'No input' <&-")
    wrong = cli.start("chat", "x", "-", stdin=b"gr\xfcn")
    for command, said in ((piped, "Only this"), (other, "Only that"), (closed, "No input")):
        assert command.finish() == 0, command.err
        assert (command.out, command.err) == ("Fine.\n", "")
        assert [{"role": "user", "content": said}] in [r.json["messages"] for r in server.requests]
    assert len(server.requests) == 3
    assert wrong.finish() == 2
    assert wrong.line == "what was piped in is not UTF-8: invalid start byte at byte 2"
    asked_nothing = here("chat", code=2)
    assert asked_nothing.line.startswith("what is the question? `agentstream chat PROMPT`")


def test_an_idle_pipe_is_told_of_and_the_deadline_ends_it(cli, server):
    flow = cli.write("flow.toml", AGENT)
    commands = [
        cli.start(*words, "--deadline", "7", stdin=OPEN)
        for words in (["chat"], ["chat", " "], ["run", flow])
    ]
    for command in commands:
        assert command.finish() == 124
        told, why = command.err.splitlines()
        assert told == "agentstream: waiting for standard input to end; `< /dev/null` for none"
        assert why == "agentstream: the deadline of 7 s has passed"
        assert command.ended - command.began < 7 + 6.0
    assert not server.requests


def test_y08_a_silent_pipe_is_not_waited_for_where_there_is_a_question(cli, server):
    server.default(*text_chunks("Fine."))
    own = cli.write("own.toml", 'input = "from the file"\n' + AGENT)
    commands = [
        cli.start(*words, stdin=OPEN) for words in (["chat", "Q"], ["run", own], ["run", own, "-q"])
    ]
    for command in commands:
        assert command.finish() == 0, command.err
        assert command.out == "Fine.\n"
        assert command.ended - command.began < 15
    told = "agentstream: nothing comes on standard input: going on without it\n"
    assert [command.err for command in commands] == ["", told, ""]
    said = sorted(request.json["messages"][-1]["content"] for request in server.requests)
    assert said == ["Q", "from the file", "from the file"]


def test_y08_what_comes_late_but_comes_is_read(cli, server):
    server.default(*text_chunks("Fine."))
    slow = cli.script("(sleep 0.5; echo one; sleep 2.5; echo two) | $A chat Q -")
    assert slow.finish() == 0, slow.err
    assert asked(server)[0]["content"] == "Q\n\none\ntwo\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "latin-1", "cp437", "koi8-r"])
def test_y07_json_is_whole_on_any_stdout(cli, server, encoding):
    said = "grün \N{ROBOT FACE} ‘Käse’ \x85 \N{SNOWMAN}"
    server.default(*text_chunks(said))
    env = {"PYTHONIOENCODING": encoding}
    chat = cli.start("chat", "x", "--json", env=env)
    logged = cli.start("chat", "x", "--json", "--log", cli.log, env=env)
    lines = cli.start("chat", "x", "--jsonl", env=env)
    flow = cli.write("flow.toml", f'name = "größe {said[-1]}"\n' + AGENT)
    run = cli.start("run", flow, "--input", "x", "--json", "--log", cli.log, "--id", "r", env=env)
    for command in (chat, logged, lines, run):
        assert command.finish() == 0, command.err
    assert chat.events[0]["content"] == logged.events[0]["content"] == said
    assert "".join(e["data"]["chunk"] for e in lines.events if "chunk" in e["data"]) == said
    assert run.events[0]["output"] == said
    listed = cli("runs", "--json", "--log", cli.log, env=env)
    assert f"größe {said[-1]}" in [state["name"] for state in listed.events]
    followed = cli("follow", "r", "--json", "--log", cli.log, env=env)
    assert followed.events[0]["data"]["output"] == said


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_any_locale(cli, server, env):
    server.default(*text_chunks("h", "é", "\N{ROBOT FACE}", "!"))
    chat = cli.start("chat", "grün", "-", env=env, stdin="Käse".encode())
    assert chat.finish() == 0, chat.err
    assert chat.out in ("hé\N{ROBOT FACE}!\n", "h??!\n")
    assert chat.err == ""
    assert asked(server)[0]["content"] == "grün\n\nKäse"
