"""Every snippet of README.rst is run, pasted alone, and its commands are those that CI runs."""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import pathlib
import re
import sys
import textwrap

import pytest
from packaging.requirements import Requirement

from agentstream import LlamaClient
from agentstream.testing import Cut, Hang, ScriptedServer, ollama_chunks, text_chunks

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.rst").read_text("utf-8")


def snippets(language):
    blocks = re.findall(
        rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README, re.MULTILINE
    )
    return [textwrap.dedent(block).strip() for block in blocks]


def _play_for(server: ScriptedServer, snippet: str) -> None:
    """Let the server do what the snippet is about."""
    words = [f"word{n} " for n in range(30)]
    if "stop_after_20" in snippet:
        server.default(*text_chunks(*words)[:31], Hang())
    elif "except RateLimited" in snippet:
        server.default(*text_chunks(*words)[:5], Cut())
    elif "tools=[get_weather, add]" in snippet:
        server.reply_tool_calls(("get_weather", '{"city": "Paris"}'))
        server.default(*text_chunks("Sunny", " in", " Paris", "."))
    elif "output=Recipe" in snippet:
        text = '{"title": "Pancakes", "minutes": 20, "steps": ["Mix.", "Fry."]}'
        server.reply(*text_chunks(*(text[at : at + 8] for at in range(0, len(text), 8))))
        server.reply_text('{"value": 3}')
    elif "except WorkflowFailed" in snippet:
        server.default(
            b'{"error": {"message": "no such model"}}',
            status=404,
            content_type="application/json",
            framing="length",
        )
    else:
        server.default(*text_chunks("Hello", " world", "!"))


EXPECTED = {
    'for text in client.chat_stream("Tell me a joke"):\n    print': "Hello world!",
    "ScriptedClient(": "2 requests",
    "tools=[get_weather, add]": "Sunny in Paris.",
    "SqliteStore(": "demo completed",
    "output=Recipe": "Recipe(title='Pancakes', minutes=20, steps=['Mix.', 'Fry.'])\n4",
    "The capital of France?": "Hello world! stop",
    "def show(event)": "Hello world!Hello world!",
    "runtime.stream(workflow": "workflow_completed",
    "stop_after_20": "stopped; it had said: word0 word1",
    "response.usage.completion_tokens": "tokens,",
    "Timeouts(connect=5": "Hello world!",
    "Cut()": "",
    "except RateLimited": "cut after: word0 word1",
    "Parallel(facts=facts": "flowchart TD",
    "except WorkflowFailed": "failed in step 'greeter': BadRequest: HTTP 404: no such model",
}


def test_every_python_snippet_runs_when_it_is_pasted_alone(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them writes a log
    shown = set()
    for snippet in snippets("python"):
        if "mcp." in snippet:
            continue  # with a real server, and a real model: test_mcp.py
        _play_for(server, snippet)
        out = io.StringIO()
        code = snippet.replace("http://127.0.0.1:8080", server.url)
        with made_clients() as clients, contextlib.redirect_stdout(out):
            exec(compile(code, "README.rst", "exec", dont_inherit=True), {"__name__": "readme"})
        for client in clients:
            client.close()
        for mark, text in EXPECTED.items():
            if mark in snippet:
                assert text in out.getvalue(), snippet
                shown.add(mark)
        assert shown & {mark for mark in EXPECTED if mark in snippet}, f"not looked for: {snippet}"
    results = [m for r in server.requests for m in r.json["messages"] if m["role"] == "tool"]
    assert results[0]["content"] == "18 degrees and sunny in Paris"
    assert shown == set(EXPECTED), "a snippet that the test looks for is gone"


@contextlib.contextmanager
def made_clients():
    """The clients that are made meanwhile: a snippet leaves closing them to the program's end."""
    made, original = [], LlamaClient.__init__

    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.append(self)

    LlamaClient.__init__ = __init__
    try:
        yield made
    finally:
        LlamaClient.__init__ = original


@pytest.mark.skipif(sys.platform == "win32", reason="the snippets are a POSIX shell's")
def test_the_shells_snippets_run_too(cli, server, tmp_path):
    server.default(*text_chunks("Hello", " world", "!"))
    server.default(*ollama_chunks("A receipt."), path="/api/chat")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "agentstream").write_text(f'#!/bin/sh\nexec {sys.executable} -m agentstream "$@"\n')
    (tools / "git").write_text("#!/bin/sh\necho +a line\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    (cli.folder / "receipt.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(64))
    (toml,) = snippets("toml")
    cli.write("greet.toml", toml.replace("http://127.0.0.1:8080", server.url))
    ran = []
    for block in snippets("sh"):
        lines = [line for line in block.splitlines() if "agentstream" in line]
        for line in lines:
            if not line.startswith(("agentstream", "git diff")) or " serve" in line:
                continue  # installing; what is tried elsewhere, and goes on for ever
            if line.startswith("agentstream model"):
                continue  # tests/cli/test_model.py
            done = cli.script(line, env={"PATH": path})
            is_gone = "agentstream stop 3f2a" in line
            assert done.finish() == (2 if is_gone else 0), (line, done.err)
            ran.append(line)
    assert len(ran) == 8
    assert (cli.folder / "message.txt").read_text() == "Hello world!\n"


def test_its_extras_are_those_there_are():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for extras in re.findall(r"agentstream\[([\w,]+)\]", README):
        assert set(extras.split(",")) <= set(config["options.extras_require"])
    assert f"@ git+{config['metadata']['url']}" in README


def test_two_commands_and_ci_runs_the_second():
    demo, tests = snippets("sh")[:2]
    assert demo.endswith("demo.py") and "-m venv" in demo
    assert tests in (ROOT / ".ci" / "run").read_text("utf-8")


def test_its_links_work_on_a_package_index_too():
    targets = re.findall(r"<([^>\s]+)>`_|\.\. (?:image|figure):: (\S+)", README)
    relative = [link or image for link, image in targets if "://" not in (link or image)]
    assert relative == []
    for link, image in targets:
        _, ours, path = (link or image).partition("/agentstream/agentstream/")
        path = path.replace("blob/", "").partition("main/")[2]
        assert not ours or (ROOT / path).exists(), path


def test_a_newcomer_finds_his_way_in_two_steps():
    """From README by its links: an odd chunk, an event's key, one test, a word."""
    way = README[README.index("Find your way\n") : README.index("Measured\n")]
    linked = {
        path: (ROOT / path).read_text("utf-8") for path in re.findall(r"/main/(\S+rst)>", way)
    }
    contributing = linked["CONTRIBUTING.rst"]
    for page, told in (
        ("CONTRIBUTING.rst", "pytest tests/llm/chat/test_chunks.py -k surrogate"),
        ("CONTRIBUTING.rst", "odd chunk means"),
        ("CONTRIBUTING.rst", "agentstream/events/payloads.py"),
        ("docs/glossary.rst", "\n   position\n      An event's number within the whole log"),
        ("docs/events.rst", "- ``chunk``: the text."),
        ("docs/http.rst", "``POST /workflows/ID/stop``"),
    ):
        assert told in linked[page], told
    named = re.findall(r"``((?:agentstream|tests|docs)/[\w/.]+)``", contributing + way)
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), path
    surrogate = (ROOT / "tests/llm/chat/test_chunks.py").read_text("utf-8")
    assert re.search(r"def test_\w*surrogate", surrogate)
    assert Requirement(re.findall(r"pip install '(agentstream\[.*? @ .*?)'", README)[0]).url
