"""The programs of docs/observability.rst, written and started as a reader would."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import textwrap

from agentstream.testing import ScriptedServer
from tests.kit.programs import PROJECT, environment

DOC = (PROJECT / "docs" / "observability.rst").read_text("utf-8")


def output_of(name: str, server: ScriptedServer, folder: pathlib.Path) -> str:
    """What a program of the page prints, with the server's URL in the place of its own."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", DOC, re.MULTILINE)
    (code,) = [text for text in map(textwrap.dedent, blocks) if text.startswith(f"# {name}\n")]
    assert "http://127.0.0.1:8080" in code
    (folder / name).write_text(code.replace("http://127.0.0.1:8080", server.url), "utf-8")
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.stdout.decode()


def test_the_console_has_the_spans_in_one_trace(server: ScriptedServer, tmp_path: pathlib.Path):
    server.reply_text("Waves")
    printed = output_of("traced.py", server, tmp_path)
    names = re.findall(r'^    "name": "(.*)",$', printed, re.MULTILINE)
    assert sorted(names) == [
        "chat default",
        "invoke_agent poet",
        "invoke_workflow poet",
        "request",
        "step poet",
    ]
    traces = re.findall(r'"trace_id": "(\w+)"', printed)
    assert len(traces) == 5
    assert len(set(traces)) == 1
    assert "A line about" not in printed


def test_the_log_has_a_line_for_each_thing(server: ScriptedServer, tmp_path: pathlib.Path):
    server.reply_text("Waves")
    printed = output_of("logged.py", server, tmp_path)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["event"] for line in lines] == ["request", "step", "run"]
