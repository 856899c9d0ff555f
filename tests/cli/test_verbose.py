"""-v: what happens is told, a line for each thing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agentstream.llm.secrets import mask
from agentstream.testing import text_chunks
from tests.kit.support import KEY, hunt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def test_verbose_tells_what_happens_and_a_cut_answer_is_told_of(cli, here, server):
    server.default(*text_chunks("Hello ", "there", finish_reason="length"))
    told = here("chat", "x", "-v", "--max-tokens", "2", "--temperature", "0.5", "--effort", "low")
    assert told.out == "Hello there\n"
    assert [line[9:] for line in told.err.splitlines()[:2]] == [
        "workflow 'chat' begins",
        "agent 'chat' (0) begins",
    ]
    assert told.err.endswith("agentstream: the answer was cut by a limit of tokens\n")
    assert "agentstream.run: " not in told.err  # the same again, for log files
    sent = server.requests[0].json
    assert (sent["max_tokens"], sent["temperature"]) == (2, 0.5)
    assert sent["reasoning_effort"] == "low"
    cut = "agentstream: the answer was cut by a limit of tokens (max_tokens is 2)\n"
    assert here("chat", "x", "--max-tokens", "2").err == cut  # in a pipe, too
    assert here("chat", "x", "--max-tokens", "2", "-q").err == ""
    assert server.requests[1].json["max_tokens"] == 2
    watched = cli.start("chat", "x", terminal="stdin stdout stderr")
    assert watched.finish() == 0
    assert "was cut by a limit of tokens" in watched.screen


# --- -vv and --show-requests ------------------------------------------------------------------

TOOLS = '''
def check(text, context):
    raise_it(text)

def raise_it(text):
    raise LookupError("a function's own trouble")

def weather(city: str) -> str:
    """The weather."""
    return {}[city]
'''
FLOW = """
[tools.weather]
import = "mytools:weather"
[agents.scout]
system = "Look."
tools = ["weather"]
[[steps]]
agent = "scout"
[[steps]]
function = "mytools:check"
"""


def test_vv_shows_where_functions_and_tools_failed(cli, server):
    cli.write("mytools.py", TOOLS)
    flow = cli.write("flow.toml", FLOW)
    for flags, shown in (([], False), (["-v"], False), (["-vv"], True)):
        server.reply_tool_calls(("weather", '{"city": "Atlantis"}'))
        server.reply_text("It sank.")
        done = subprocess.run(
            [sys.executable, "-m", "agentstream", "run", flow, "--input", "Where?", *flags],
            env=cli.environment(),
            cwd=cli.folder,
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 1
        told = done.stderr.decode()
        assert "LookupError: a function's own trouble" in told
        for place in ("Traceback", "in raise_it", "in weather", "\nKeyError: 'Atlantis'"):
            assert (place in told) == shown, told
        hunt(told)


def test_show_requests_shows_what_is_sent_and_only_then(cli, here, server):
    server.default(*text_chunks("Fine."))
    cli.write("dot.png", "")
    (cli.folder / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000))
    flow = cli.write("flow.toml", '[agents.a]\nsystem = "A secret wish."\n[[steps]]\nagent = "a"\n')
    for words in (
        ("chat", "A secret wish.", "-a", "dot.png"),
        ("chat", "A secret wish.", "-a", "dot.png", "--log", cli.log),
        ("run", flow, "--input", "x"),
    ):
        for flags in ((), ("-vv",)):
            assert "A secret wish." not in here(*words, *flags).err
        shown = here(*words, "--show-requests")
        assert shown.out == "Fine.\n"
        lines = shown.err.splitlines()
        assert lines[0] == f"> POST {server.url}/v1/chat/completions"
        assert all(line.startswith("> ") for line in lines)
        sent = json.loads("\n".join(line[2:] for line in lines[1:]).replace("... (", "").strip())
        assert sent["stream"] is True
        assert "A secret wish." in shown.err
        assert "KEY" not in shown.err
        if "dot.png" in words:
            assert " characters)" in shown.err
            assert len(shown.err) < 1500


def test_show_requests_takes_keys_out_of_bodies(cli, server):
    server.default(*text_chunks("Fine."))
    flow = cli.write(
        "flow.toml",
        f'[clients.c]\nbase_url = "{server.url}"\napi_key_env = "MINE"\nbody = {{who = "{KEY}"}}\n'
        '[agents.a]\nclient = "c"\n[[steps]]\nagent = "a"\n',
    )
    shown = cli("run", flow, "--input", "x", "--show-requests", env={"MINE": KEY})
    assert f'"who": "{mask(KEY)}"' in shown.err
