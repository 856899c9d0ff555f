"""The pages for who comes from openai, langchain and llm: both sides of each pair run, and agree."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import sys
import textwrap

import pytest

import agentstream
from agentstream.testing import text_chunks
from tests.recipes.test_readme import made_clients

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PAGES = ("openai", "langchain", "llm")
#: What the other side of a page's pairs needs.
NEEDS = {"openai": "openai", "langchain": "langchain_openai", "llm": "llm"}


def blocks(page, language="python"):
    text = (DOCS / f"from-{page}.rst").read_text("utf-8")
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found]


def pairs(page):
    """(theirs, ours) of a page's pairs."""
    found = blocks(page)
    assert [block.split("\n")[0] for block in found[::2]] == [f"# {page}"] * (len(found) // 2)
    assert [block.split("\n")[0] for block in found[1::2]] == ["# agentstream"] * (len(found) // 2)
    return list(zip(found[::2], found[1::2]))


def run(code, server):
    """What a block prints, with `server` in the place of llama.cpp's."""
    out = io.StringIO()
    with made_clients() as clients, contextlib.redirect_stdout(out):
        exec(compile(code.replace("http://127.0.0.1:8080", server.url), "page", "exec"), {})
    for client in clients:
        client.close()
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_our_side_runs(page, server):
    server.default(*text_chunks("Hello", " there."))
    for _, ours in pairs(page):
        if "get_weather" in ours:
            server.reply_tool_calls(("get_weather", '{"city": "Paris"}'))
        assert "Hello there." in run(ours, server), ours
    results = [m for r in server.requests for m in r.json["messages"] if m["role"] == "tool"]
    assert all(m["content"] == "18 degrees and sunny in Paris" for m in results)
    assert len(results) == (page != "llm")


def whole(message):
    """A completion that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return json.dumps(answer).encode()


CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
MESSAGES = (
    {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": CALL}]},
    {"content": "Hello there."},
)
JSON = {"content_type": "application/json", "framing": "length"}


@pytest.mark.parametrize("page", ["openai", "langchain"])
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.leak_exempt  # so are the connections that stay open
def test_their_side_says_the_same(page, server):
    if importlib.util.find_spec(NEEDS[page]) is None:
        pytest.skip(f"{NEEDS[page]} is not installed: pip install {NEEDS[page].replace('_', '-')}")
    for theirs, _ in pairs(page):
        if "stream=True" in theirs or ".stream(" in theirs:
            server.reply(*text_chunks("Hello", " there."))
        else:
            asks = 2 if "Parallel" in theirs else 1
            for message in MESSAGES if "get_weather" in theirs else MESSAGES[1:] * asks:
                server.reply(whole(message), **JSON)
        assert "Hello there." in run(theirs, server), theirs


def test_the_shells_lines_run(cli, here, server, monkeypatch):
    server.default(*text_chunks("Hello", " there."))
    notes = cli.write("notes.txt", "Some notes.")
    (cli.folder / "receipt.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(64))
    (block,) = blocks("llm", "sh")
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    for line in lines:
        piped, _, command = line.rpartition("cat notes.txt | ")
        assert not piped
        with open(notes if command != line else os.devnull, encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            name, *words = shlex.split(command)
            done = here(*words)
        assert name == "agentstream"
        assert ("Hello there.\n" if words[0] == "chat" else " completed ") in done.out
    asked = [request.json["messages"][-1]["content"] for request in server.requests]
    assert asked[1:3] == ["Some notes.", "What is missing here?\n\nSome notes."]
    assert len(lines) == 7


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_name_what_there_is(page):
    text = (DOCS / f"from-{page}.rst").read_text("utf-8")
    rows = re.findall(r"^.{44}  (\S.*)$", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"``([A-Z]\w+)", row)}
    own = {name for name in named if not name.isupper()}  # and no variable of the environment
    assert own
    assert own <= {*agentstream.__all__, "TimeoutError", "Future"}
