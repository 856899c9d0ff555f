"""Every snippet of README.rst is run, and its commands are those that CI runs."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import textwrap

import pytest

from agentstream.testing import Cut, Hang, ScriptedServer, text_chunks

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
    "except RateLimited": "cut after: word0 word1",
    "Parallel(facts=facts": "flowchart TD",
    "except WorkflowFailed": "failed in step 'greeter': BadRequest: HTTP 404: no such model",
}


@pytest.mark.filterwarnings("ignore::agentstream.InsecureWarning")
def test_every_python_snippet_runs_and_shows_what_it_is_about(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them writes a log
    namespace = {"__name__": "readme"}
    shown = set()
    for snippet in snippets("python"):
        if "mcp." in snippet:
            continue  # with a real server, and a real model: test_mcp.py
        _play_for(server, snippet)
        out = io.StringIO()
        code = snippet.replace("http://127.0.0.1:8080", server.url)
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README.rst", "exec", dont_inherit=True), namespace)
        for mark, text in EXPECTED.items():
            if mark in snippet:
                assert text in out.getvalue(), snippet
                shown.add(mark)
        client = namespace["helper"].client if "helper = " in snippet else namespace.get("client")
        if "LlamaClient(" in snippet and client is not None:
            namespace.setdefault("clients", []).append(client)
    for client in namespace["clients"]:
        client.close()
    results = [m for r in server.requests for m in r.json["messages"] if m["role"] == "tool"]
    assert results[0]["content"] == "18 degrees and sunny in Paris"
    assert shown == set(EXPECTED), "a snippet that the test looks for is gone"


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
