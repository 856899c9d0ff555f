"""The programs of docs/mcp.rst, and the README's, as they stand there; with the real llama.cpp."""

from __future__ import annotations

import json
import pathlib
import re
import textwrap
from typing import Any

import pytest

from agentstream.local import LocalServer
from agentstream.testing import ScriptedMCP
from tests.kit.mcp_support import ROOT, everything_command

COMMAND = '["npx", "-y", "@modelcontextprotocol/server-everything"]'
LLAMA = "http://127.0.0.1:8080"


def programs(document: str) -> Any:
    """The Python blocks of a document that are about MCP."""
    text = (ROOT / document).read_text("utf-8") + "\n"
    found = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found if "mcp" in block]


def program(title: str) -> str:
    (found,) = [text for text in programs("docs/mcp.rst") if text.startswith(f"# {title}\n")]
    return found


def run(source: str, *changes: Any) -> None:
    for old, new in changes:
        assert old in source, f"the program no longer has {old!r}"
        source = source.replace(old, new)
    exec(compile(source, "docs/mcp.rst", "exec"), {"__name__": "program"})


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.real_llama
@pytest.mark.real_mcp
@pytest.mark.parametrize("document", ["README.rst", "docs/mcp.rst"])
def test_an_agent_on_the_real_llama_uses_a_tool_of_a_real_server(
    document: str, llama_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    source = programs(document)[0]
    run(source, (COMMAND, repr(everything_command())), (LLAMA, llama_server.url))
    said = capsys.readouterr().out
    assert "New York" in said
    assert "33" in said  # degrees, which only the tool knows


def test_a_server_is_used_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedMCP(add, resources={"note://1": "a note"}) as script:
        run(program("without a model"), ("http://127.0.0.1:8000/mcp", script.url))
    assert capsys.readouterr().out == "scripted ['add']\n3 None False\na note\n"


def test_servers_come_from_a_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with ScriptedMCP(add) as script:
        servers = {"web": {"url": script.url}, "off": {"command": "x", "disabled": True}}
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
        run(program("servers from a file"))
    assert capsys.readouterr().out == "['web'] ['web_add']\n"


def test_a_server_made_of_functions() -> None:
    run(program("a server made of functions"))
