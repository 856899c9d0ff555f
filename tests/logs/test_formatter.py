"""JsonFormatter: whatever a record holds, one line of JSON comes out, and no key."""

from __future__ import annotations

import datetime
import json
import logging
import logging.config
import pathlib
import subprocess
import sys
import time
from typing import Any, Dict

import pytest

from agentstream.logs import JsonFormatter
from agentstream.testing import ScriptedServer

PROJECT = pathlib.Path(__file__).parents[2]


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


def line(message: Any = "hello", *args: Any, error: Any = None, **extra: Any) -> Dict[str, Any]:
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, message, args, None)
    vars(record).update(extra)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    text = JsonFormatter(secrets=["hunter2-hunter2"], static={"service": "s"}).format(record)
    assert "\n" not in text
    assert text.isascii()
    return dict(json.loads(text, parse_constant=pytest.fail))


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_line_has_time_level_logger_and_message():
    told = line("%s is %d", "x", 3)
    at = datetime.datetime.fromisoformat(told["time"].replace("Z", "+00:00"))
    assert abs((datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()) < 5
    assert {k: told[k] for k in told if k != "time"} == {
        "level": "WARNING",
        "logger": "a.b",
        "message": "x is 3",
        "service": "s",
    }


def test_extras_of_all_kinds_are_written():
    knot: Dict[str, Any] = {}
    knot["self"] = knot
    extras: Dict[str, Any] = {
        "number": 1.5,
        "nan": float("nan"),
        "many": {1, 2},
        "raw": b"\x00",
        "path": pathlib.PurePosixPath("/x"),
        "knot": knot,
        "hostile": Hostile(),
        "half": "\ud800",
        "level": "mine",
        "deep": {"a": [datetime.date(2026, 1, 2)]},
    }
    told = line(**extras)
    assert set(told) >= set(extras) - {"level"} | {"level_"}
    assert (told["nan"], told["deep"], told["level_"]) == (None, {"a": ["2026-01-02"]}, "mine")
    assert told["level"] == "WARNING"


@pytest.mark.parametrize("args", [("%d", "x"), ("%s %s", "x"), (Hostile(),), ("%s", Hostile())])
def test_a_message_that_cannot_be_made_is_told_all_the_same(args):
    assert line(*args)["message"]


def test_what_is_named_as_a_key_is_masked_however_it_looks():
    headers = {"x-api-key": "abcd-1234", "Cookie": ("a=1", "b=2"), "accept": "text/plain"}
    told = line(api_key="abcd-1234", OPENAI_API_KEY="abcd", prompt_tokens=7, headers=headers)
    assert told["api_key"] == told["OPENAI_API_KEY"] == "…"
    masked = {"x-api-key": "…", "Cookie": ["…", "…"], "accept": "text/plain"}
    assert (told["headers"], told["prompt_tokens"]) == (masked, 7)


def test_an_exception_is_there_without_its_secrets():
    for secret in ("sk-abcdefgh12345678", "Bearer abcdefgh12345678", "hunter2-hunter2"):
        extra = {"deep": {"a": [f"x {secret}"]}, "plain": f"token={secret}"}
        told = line(
            f"with {secret}",
            **extra,
            error=raised(ValueError(f"refused {secret}: api_key={secret}")),
        )
        assert told["exception"]["type"] == "ValueError"
        assert "raised" in told["exception"]["traceback"]
        assert secret not in json.dumps(told)
    began = time.monotonic()
    line("a-" * 40_000 + " sk-" * 10_000, x="token" * 20_000)
    assert time.monotonic() - began < 5
    hostile = line(error=raised(type("Odd", (Exception,), {"__str__": Hostile.__repr__})()))
    assert hostile["exception"]["type"] == "Odd"


# --- in processes of their own --------------------------------------------------------------

_PROGRAM = """
import logging, logging.config, sys
from agentstream import Agent, LlamaClient, Runtime, Workflow, tool

@tool
def look(at: str) -> str:
    "Look."
    return "MARKEDRESULT"

{configure}
with LlamaClient({url!r}, model="m-1") as client, Runtime() as runtime:
    agent = Agent("writer", client=client, system_prompt="MARKEDPROMPT", tools=[look])
    runtime.run(Workflow("letters", [agent]), "MARKEDPROMPT", workflow_id="r1")
    try:
        runtime.run(Workflow("bad", [agent]), "x", workflow_id="r2")
    except Exception:
        pass
"""
_DICT = """
logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": %r,
    "formatters": {"json": {%r: "agentstream.logs.JsonFormatter"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout",
                         "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["out"]},
})
"""


def output_of(server: ScriptedServer, configure: str) -> str:
    server.reply_tool_calls(("look", {"at": "MARKEDARGUMENT"}))
    server.reply_text("MARKED", "ANSWER")
    server.reply_json({"error": {"message": "MARKEDWORDS"}}, status=400)
    code = _PROGRAM.format(configure=configure, url=server.url)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.stdout.decode()


def test_a_program_that_configures_no_logging_prints_nothing(server: ScriptedServer):
    assert output_of(server, "") == ""


@pytest.mark.parametrize("way", ["()", "class", "flask"])
def test_a_program_with_a_dictconfig_has_a_line_a_request_step_and_run(server, way):
    configure = _DICT % (way == "()", "()" if way == "flask" else way)
    if way == "flask":  # as its documentation has it
        configure = configure.replace("sys.stdout", "flask.logging.wsgi_errors_stream")
    printed = output_of(server, configure)
    lines = [json.loads(text) for text in printed.splitlines()]
    lines = [each for each in lines if each["logger"] == "agentstream.run"]
    told = [(each["event"], each["outcome"], each["workflow_id"]) for each in lines]
    assert told == [
        ("request", "completed", "r1"),
        ("request", "completed", "r1"),
        ("step", "completed", "r1"),
        ("run", "completed", "r1"),
        ("request", "failed", "r2"),
        ("step", "failed", "r2"),
        ("run", "failed", "r2"),
    ]
    first, run, failed = lines[0], lines[3], lines[4]
    assert (first["agent"], first["step"], first["round"]) == ("writer", "0", 1)
    assert (first["prompt_tokens"], run["prompt_tokens"]) == (10, 20)
    assert run["duration_s"] > 0
    assert (failed["error"], failed["model"]) == ("BadRequest", "m-1")
    assert "MARKED" not in printed


def test_lines_for_people_are_readable_and_hold_no_content(server):
    printed = output_of(server, "logging.basicConfig(level=logging.INFO, stream=sys.stdout)")
    lines = [text for text in printed.splitlines() if text.startswith("INFO:agentstream.run:")]
    assert lines[3].startswith("INFO:agentstream.run:run outcome=completed workflow_id=r1 ")
    assert "MARKED" not in printed
