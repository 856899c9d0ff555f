"""Every program of examples/ runs as a program, against a server, and shows what it is about."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any, Dict

import pytest

from agentstream.testing import Cut, Hang, ScriptedServer, text_chunks

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("[0-9]*.py"))

#: What each prints.
SHOWN: Dict[str, str] = {
    "01_stream": "Hello world!\n3 tokens, stop\n",
    "02_stop": "Hello world!\nstopped after 12 characters: ",
    "03_agents": "summarizer: Hello world!\nworkflow_completed: 9 tokens\n",
    "04_parallel": "pro: Hello world!\ncontra: Hello world!\n",
    "05_tools": "Hello world! (1 tool call)\n",
    "06_conversation": "Hello world!\nHello world!\n4 messages\n",
    "07_log": " workflow_completed \n",
    "08_callback": "3 chunks: Hello world!\n",
    "09_errors": "the connection broke after: Hello world!\n",
    "10_nightly": "Hello world!\n",
    "11_types": "{'title': 'Pan'}\n",
}


def test_there_is_a_line_for_each() -> None:
    assert [path.stem for path in PROGRAMS] == sorted(SHOWN)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_runs(server: ScriptedServer, tmp_path: pathlib.Path, path: pathlib.Path) -> None:
    words: Any = text_chunks("Hello", " world", "!")
    if path.stem == "02_stop":
        server.default(*words[:4], Hang())
    elif path.stem == "09_errors":
        server.default(*words[:4], Cut())
    elif path.stem == "11_types":
        server.default(*text_chunks('{"title": "Pan', 'cakes", "minutes": 20', ', "steps": []}'))
    else:
        if path.stem == "05_tools":
            server.reply_tool_calls(("get_weather", '{"city": "Paris"}'))
        server.default(*words)
    program = tmp_path / path.name
    text = path.read_text("utf-8")
    assert "http://127.0.0.1:8080" in text
    program.write_text(text.replace("http://127.0.0.1:8080", server.url), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        input="what is to be summarized",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SHOWN[path.stem] in done.stdout, done.stdout
    assert done.stderr == ""
