"""The recipes of docs/embedding.rst, as they stand there: real servers, workers and a kernel."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import requests

from agentstream import StreamTruncated
from agentstream.testing import Cut, Gate, Reply, ScriptedServer
from tests.kit.programs import environment, settle
from tests.kit.recipes import (
    BEGUN,
    DOCUMENT,
    MODEL,
    WORDS,
    lines_of,
    recipes,
    source,
    started,
    write,
)
from tests.kit.support import free_port, wait_until

NO_SUCH_MODEL: Any = {"status": 404, "content_type": "application/json", "framing": "length"}

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")


def asleep(pid: int) -> None:
    """Return once the main thread of that process waits: see `Program.send`."""
    looks = 0
    while looks < 5:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        looks = looks + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0
        threading.Event().wait(0.002)


# --- the web --------------------------------------------------------------------------------


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Chat:
    """A POST to the view, and its events as they come."""

    def __init__(self, url: str) -> None:
        self.response = requests.post(
            f"{url}/chat", data={"prompt": "Tell me a joke"}, stream=True, timeout=60
        )
        assert self.response.status_code == 200, self.response.text
        assert self.response.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        assert self.response.headers["X-Accel-Buffering"] == "no"
        self.lines = self.response.iter_lines(chunk_size=None, decode_unicode=True)
        self.comments = 0

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()

    def events(self) -> Iterator[Dict[str, Any]]:
        kind = ""
        for line in self.lines:
            self.comments += line.startswith(":")
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                assert event["type"] == kind
                yield event

    def until(self, kind: str) -> Dict[str, Any]:
        return next(event for event in self.events() if event["type"] == kind)


def check_site(url: str, model: ScriptedServer, stop: Any) -> None:
    """A stream that is live and whole; a browser that goes stops its run; so does a shutdown."""
    gate = Gate()
    model.reply(*WORDS[:2], gate, *WORDS[2:])
    with Chat(url) as chat:
        assert chat.until("agent_llm_stream_chunk")["data"]["chunk"] == "Hello"  # at once
        wait_until(lambda: next(chat.lines).startswith(":"))
        gate.open()
        events = list(chat.events())
        assert events[-1]["type"] == "workflow_completed"
        assert events[-1]["data"]["output"] == "Hello world!"
    gone = sum(outcome == "client_gone" for outcome in model.outcomes.values())

    model.reply(*BEGUN)
    with Chat(url) as chat:
        chat.until("agent_llm_stream_chunk")
    assert model.wait_client_gone(count=gone + 1)

    model.reply(b'{"error": {"message": "no such model"}}', **NO_SUCH_MODEL)
    with Chat(url) as chat:
        assert "no such model" in chat.until("workflow_failed")["data"]["message"]

    model.reply(*BEGUN)
    with Chat(url) as chat:
        chat.until("agent_llm_stream_chunk")
        stop()
        events = list(chat.events())  # whole: a cut stream would raise here
        assert events[-1]["type"] == "workflow_cancelled"
        assert events[-1]["data"]["output"] == "Hello"


def write_runs(folder: pathlib.Path, model: ScriptedServer) -> None:
    write(folder, "runs.py", (MODEL, model.url), ("timeout=10", "timeout=0.1"))


def check_end(process: subprocess.Popen[str], folder: pathlib.Path, status: int = 0) -> None:
    assert process.wait(60) == status, (folder / "errors").read_text()
    assert "Traceback" not in (folder / "errors").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_flask_streams_a_run(server, tmp_path, number):
    port = free_port()
    write_runs(tmp_path, server)
    write(tmp_path, "flask_app.py", ("127.0.0.1:8000", f"127.0.0.1:{port}"))
    with started(tmp_path, "flask_app.py") as process:
        wait_until(lambda: listens(port), timeout=60.0)
        check_site(f"http://127.0.0.1:{port}", server, lambda: process.send_signal(number))
        check_end(process, tmp_path)


@needs_fork
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
def test_django_streams_a_run(server, tmp_path, options):
    port = free_port()
    write_runs(tmp_path, server)
    write(tmp_path, "django_app.py")
    write(tmp_path, "gunicorn.conf.py", ("127.0.0.1:8000", f"127.0.0.1:{port}"))
    with started(tmp_path, "-m", "gunicorn", *options) as process:
        wait_until(lambda: listens(port), timeout=60.0)
        check_site(f"http://127.0.0.1:{port}", server, process.terminate)
        check_end(process, tmp_path)


# --- a script -------------------------------------------------------------------------------


@contextlib.contextmanager
def nightly(folder: pathlib.Path, url: str, *changes: Tuple[str, str]) -> Iterator[Any]:
    write(folder, "nightly.py", (MODEL, url), *changes)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(folder, "nightly.py", **pipes) as process:
        assert process.stdin is not None
        process.stdin.write("The report.")
        process.stdin.close()
        process.stdin = None
        yield process


def test_script_logs_its_events_and_its_result(server, tmp_path):
    server.reply(*WORDS)
    with nightly(tmp_path, server.url) as process:
        assert process.communicate(timeout=60)[0] == "Hello world!\n"
        assert process.returncode == 0
    said = lines_of(tmp_path)
    lines = [line for line in said if line.startswith("INFO nightly: ")]
    # The library's own: one for the request, one for the step, one for the run.
    others = [line for line in said if line not in lines]
    assert [line.split()[1] for line in others] == ["agentstream.run:"] * 3, others
    assert lines[0].endswith(" 1 workflow_started")
    assert lines[-1].endswith(" workflow_completed")
    assert not [line for line in lines if "_chunk" in line]
    assert server.requests[0].json["messages"][-1]["content"] == "The report."


def test_script_says_why_it_failed(server, tmp_path):
    server.reply(*WORDS[:2], Cut())
    with nightly(tmp_path, server.url) as process:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 1
    (line,) = [line for line in lines_of(tmp_path) if line.startswith("ERROR")]
    assert "StreamTruncated" in line
    assert line.endswith("it had said: 'Hello'")


def test_script_out_of_time(server, tmp_path):
    server.reply(*BEGUN)
    with nightly(tmp_path, server.url, ("total=300", "total=0.3")) as process:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 124


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_script_stopped_by_a_signal(server, tmp_path, number, status):
    server.reply(*BEGUN)
    with nightly(tmp_path, server.url) as process:
        wait_until(lambda: [line for line in lines_of(tmp_path) if "request_started" in line])
        settle(process.pid)
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == status
    events = [line for line in lines_of(tmp_path) if line.startswith("INFO nightly: ")]
    assert events[-1].endswith(" workflow_cancelled")


# --- Jupyter --------------------------------------------------------------------------------


class Kernel:
    """A notebook's kernel: a process of its own, in which a loop runs."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(
            kernel_name="python3", startup_timeout=20, env=environment(), stderr=subprocess.DEVNULL
        )

    def run(self, code: str, on_text: Any = lambda text: None) -> Tuple[str, str]:
        """What the cell printed, and the name of what it raised or ""."""
        printed: List[str] = []

        def show(message: Any) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                on_text(printed[-1])

        reply = self.client.execute_interactive(code, timeout=10, output_hook=show)
        return "".join(printed), reply["content"].get("ename", "")

    def interrupt(self) -> None:
        pid = self.manager.provisioner.pid
        asleep(pid)
        os.kill(pid, signal.SIGINT)  # as its interrupt_kernel does, which cannot run in `show`

    def close(self) -> None:
        from jupyter_core.utils import ensure_event_loop

        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy(linger=0)
        self.client.context.destroy(linger=0)
        ensure_event_loop().close()


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # without it, older ones warn
    kernel = Kernel()
    try:
        yield kernel
    finally:
        kernel.close()


def test_jupyter_cells_stream_and_are_interrupted(server, kernel):
    def cell(number):
        return source(f"cell {number}").replace(MODEL, server.url)

    is_running = "import asyncio; print(asyncio.get_running_loop().is_running(), end='')"
    assert kernel.run(is_running) == ("True", "")
    server.default(*WORDS)
    assert kernel.run(cell(1)) == ("Hello world!", "")
    assert kernel.run(cell(2)) == ("Hello world!Hello world!", "")
    for number in (1, 2):
        server.reply(*BEGUN)
        interrupted = kernel.run(cell(number), on_text=lambda text: kernel.interrupt())
        assert interrupted == ("Hello", "KeyboardInterrupt")
        assert server.wait_client_gone(count=number)
        assert kernel.run(cell(number)) == ("Hello world!" * number, "")


# --- an executor ----------------------------------------------------------------------------


@pytest.fixture
def summaries(server):
    """The recipe as a module, on a model that answers as it is asked."""

    def answer(request: Any) -> Reply:
        asked = request.json["messages"][-1]["content"]
        if asked == "cut":
            return Reply(*WORDS[:2], Cut())
        return Reply(*WORDS) if asked == "good" else Reply(*BEGUN)

    server.route("/v1/chat/completions", answer)
    module: Dict[str, Any] = {"__name__": "summaries"}
    code = source("summaries.py", (MODEL, server.url))
    exec(compile(code, "embedding.rst", "exec"), module)
    yield types.SimpleNamespace(**module)
    module["client"].close()


def test_executor_brings_what_is_done_in_time(server, summaries):
    texts = {"a": "good", "b": "cut", **dict.fromkeys("cdefg", "slow")}
    before = time.monotonic()
    results = summaries.summarize(texts, 1.5, max_workers=4)
    assert time.monotonic() - before < 10.0  # it waited for none of the slow ones
    assert results.pop("a") == "Hello world!"
    (error,) = results.values()
    assert isinstance(error, StreamTruncated)
    assert error.partial.content == "Hello"
    assert server.wait_idle()
    assert len(server.requests) == 6  # the one that was queued was never sent


def test_executor_all_in_time(server, summaries):
    results = summaries.summarize({"a": "good", "b": "good"}, 10)
    assert results == {"a": "Hello world!", "b": "Hello world!"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_executor_interrupted(server, tmp_path):
    write(tmp_path, "summaries.py", (MODEL, server.url))
    server.default(*BEGUN)
    script = "import summaries; summaries.summarize(dict.fromkeys('abc', 'slow'), 60, 2)"
    with started(tmp_path, "-c", script) as process:
        assert server.wait_requests(2)
        asleep(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
    assert lines_of(tmp_path)[-1] == "KeyboardInterrupt"
    assert len(server.requests) == 2


# --- conversations --------------------------------------------------------------------------

DJANGO = """
import django
from django.conf import settings
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "chats.sqlite3"}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[])
django.setup()
from chats_django import Turn, chats
from django.db import connection
if sys.argv[1] == "run":
    with connection.schema_editor() as editor:
        editor.create_model(Turn)
"""
SQLALCHEMY = """
import os
os.environ["DATABASE_URL"] = "sqlite:///chats.sqlite3"
from chats_sqlalchemy import chats
"""
#: What each process does with the recipe's store: a run with a tool, many turns, or a look.
TRIAL = """
import json
from agentstream import Agent, ChatMessage, Runtime, ToolCall
from agentstream.testing import ScriptedClient

def add(a: int, b: int) -> int:
    "Add two integers."
    return a + b

what, name = sys.argv[1:]
ada = chats.get("ada")
if what == "run":
    client = ScriptedClient([ToolCall("call_1", "add", '{"a": 1, "b": 2}')], "It is 3.", "So.")
    agent = Agent("adder", client=client, tools=[add])
    with Runtime() as runtime:
        runtime.run(agent, "1 + 2?", conversation=ada)
        runtime.run(agent, "Sure?", conversation=ada)
    told = [message.role for message in client.requests[-1].messages]
    assert told == ["user", "assistant", "tool", "assistant", "user"], told
elif what == "write":
    for number in range(10):
        state = {"provider": "acme", "items": ["\\ud83d\\0", {"z": 1, "a": number}]}
        answer = ChatMessage.assistant(f"{name} {number}", provider_state=state)
        ada.add(ChatMessage.user(f"{name} {number}"), answer)
else:
    print(json.dumps([[m.role, m.content, m.provider_state] for m in ada.messages]))
    assert len(type(chats).get(chats, "ada").messages) == len(ada) > 0
    ada.clear()
    assert len(ada) == 0 and not chats.delete("ada")
"""


@pytest.mark.parametrize(
    ("name", "setup"), [("chats_django.py", DJANGO), ("chats_sqlalchemy.py", SQLALCHEMY)]
)
def test_conversations_are_kept_in_a_database_of_ones_own(tmp_path, name, setup):
    write(tmp_path, name)
    (tmp_path / "trial.py").write_text("import sys\n" + setup + TRIAL)
    with started(tmp_path, "trial.py", "run", "x") as process:
        assert process.wait(20) == 0, lines_of(tmp_path)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(started(tmp_path, "trial.py", "write", name)) for name in "ab"
        ]
        for process in writers:
            assert process.wait(20) == 0, lines_of(tmp_path)
    with started(tmp_path, "trial.py", "look", "x", stdout=subprocess.PIPE) as process:
        found = json.loads(process.communicate(timeout=20)[0])
        assert process.returncode == 0, lines_of(tmp_path)
    assert [role for role, _, _ in found[:6]] == [
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant"),
    ]
    turns = list(zip(found[6::2], found[7::2]))
    assert all(question[1] == answer[1] for question, answer in turns)
    written = sorted(question[1] for question, _ in turns)
    assert written == sorted(f"{name} {number}" for name in "ab" for number in range(10))
    assert found[7][2] == {"provider": "acme", "items": ["\ud83d\0", {"z": 1, "a": 0}]}
    assert lines_of(tmp_path) == []


def test_every_recipe_is_run():
    """A block that no test here asks for would be a promise nobody keeps."""
    here = pathlib.Path(__file__)
    ours = here.read_text("utf-8") + here.with_name("test_celery.py").read_text("utf-8")
    numbered = {"cell 1", "cell 2"}
    for name in set(recipes()) - numbered:
        assert f'"{name}"' in ours, name
    assert numbered < set(recipes())
    assert len(recipes()) == DOCUMENT.count(".. code-block:: python")
