"""One owner: processes that want one run at once, and one that lost its run while it was frozen."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Approval,
    EventStream,
    MemoryStore,
    RunContext,
    Runtime,
    SqliteStore,
    Step,
    ToolCall,
    Workflow,
    WorkflowFailed,
)
from agentstream.events.model import TERMINAL
from agentstream.testing import Gate, Reply, ScriptedClient, text_chunks, tool_call_chunks
from tests.kit.programs import PROJECT, Program, environment, run as program
from tests.kit.support import wait_until

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
unix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@needs_fork
def test_of_ten_processes_that_resume_a_run_at_once_one_does():
    # 1,000 of them: python -m stress.resumes
    done = subprocess.run(
        [sys.executable, "-m", "stress.resumes", "10"],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"10 runs, .* 0 wrong", done.stdout)


# --- frozen ---------------------------------------------------------------------------------

# Two branches: an agent that talks, and one whose tool waits until it is told to stop.
FROZEN = """
url, path, role = arguments
stopped = threading.Event()

@tool(on_unknown="rerun")
def wait(context: RunContext) -> str:
    "Wait."
    if role == "second":
        return "waited"
    say("waiting")
    context.cancel.wait(30)
    say("tool stopped:", context.cancel.reason)
    stopped.set()
    return "late"

client = LlamaClient(url, retries=Retries(0))
talker = Agent("talker", client=client)
waiter = Agent("waiter", client=client, tools=[wait])
both = Workflow("both", [Parallel({
    "talk": Step(talker, prompt="talk"), "wait": Step(waiter, prompt="wait")
})])
runtime = Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True)
if role == "first":
    handle = runtime.submit(both, "go", workflow_id="run")
else:
    handle = runtime.resume(both, "run")
try:
    say("output", handle.result(30).output)
except AgentStreamError as error:
    say(type(error).__name__, error.run.status, "/", error)
if role == "first":
    stopped.wait(30)
runtime.shutdown()
"""


def lose_lease(path: pathlib.Path) -> None:
    """Have nobody find the process that writes the log: its lock file has gone, its pid is another's."""
    for lock in path.parent.glob(f"{path.name}-owner-*"):
        lock.unlink()
    with sqlite3.connect(path) as log:
        log.execute("UPDATE owners SET started = 'long ago'")
    log.close()


@unix_only
def test_a_frozen_process_whose_run_was_taken_over_stops_and_adds_nothing(server, tmp_path):
    path = tmp_path / "runs.db"
    gate = Gate()
    answers = {
        "talk": [
            [*text_chunks("Early")[:2], gate, *text_chunks(" late", "!")[1:]],
            text_chunks("Hi"),
        ],
        "wait": [tool_call_chunks(("wait", {})), text_chunks("Done")],
    }

    def answer(request: Any) -> Any:
        return Reply(*answers[request.json["messages"][0]["content"]].pop(0))

    server.route("/v1/chat/completions", answer)
    with Program(FROZEN, server.url, str(path), "first") as first:
        first.expect("waiting")
        with SqliteStore(path, read_only=True) as log:
            wait_until(lambda: "agent_llm_stream_chunk" in kinds_of(log))
        first.process.send_signal(signal.SIGSTOP)
        lose_lease(path)
        with Program(FROZEN, server.url, str(path), "second") as second:
            assert second.finish() == 0, second.errors
        gate.open()
        first.process.send_signal(signal.SIGCONT)
        assert first.finish() == 0, first.errors
    assert second.lines == ["output {'talk': 'Hi', 'wait': 'Done'}"]
    end, stopped, _ = sorted(first.lines)  # the run does not wait for its tools
    assert stopped.startswith("tool stopped: "), first.lines
    assert end.startswith("WorkflowFailed failed"), first.lines
    check_taken_over(path)


def kinds_of(log: SqliteStore) -> List[str]:
    return [event.type.value for event in log.read(workflow_id="run", limit=1000)]


def check_taken_over(path: pathlib.Path) -> None:
    with SqliteStore(path) as log:
        events = log.read(workflow_id="run", limit=1000)
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events if event.type in TERMINAL] == [events[-1].type]
    assert events[-1].type == "workflow_completed"
    chunks = [event.data["chunk"] for event in events if event.type == "agent_llm_stream_chunk"]
    assert sorted(chunks) == ["Done", "Early", "Hi"]
    made = [event for event in events if event.type == "tool_call_completed"]
    assert [event.data["result"] for event in made] == ["waited"]


# --- the keys of calls ----------------------------------------------------------------------


class Payments:
    """A workflow that pays once and then fails, as often as it is told to; and the keys it used."""

    def __init__(self, *answers: object, fails: int = 0) -> None:
        self.keys: List[str] = []
        self._answers = list(answers)
        self._fails = fails
        self.stream = EventStream(MemoryStore())

    def runtime(self) -> Runtime:
        return Runtime(event_stream=self.stream, checkpoints=True)

    def workflow(self) -> Workflow:
        def pay(cents: int, context: RunContext) -> str:
            """Pay."""
            self.keys.append(context.idempotency_key)
            return "paid"

        def then(text: str) -> str:
            self._fails -= 1
            if self._fails >= 0:
                raise ValueError("not this time")
            return text

        client = ScriptedClient([ToolCall("call_1", "pay", '{"cents": 900}')], "It is paid.")
        approve = (lambda call: self._answers.pop(0)) if self._answers else None
        agent = Agent("payer", client=client, tools=[pay], approve=approve)
        return Workflow("pay", [agent, Step(then, name="then")])


def test_ids_of_ones_own_that_look_like_further_tries_have_keys_of_their_own():
    payments = Payments()
    with payments.runtime() as runtime:
        for name in ("invoice~17", "invoice~18"):
            runtime.run(payments.workflow(), "pay", workflow_id=name, once=True)
    assert len(set(payments.keys)) == 2


@pytest.mark.parametrize("how", ["once", "resume"])
def test_a_further_try_has_the_keys_of_the_first_in_whichever_process(how: str):
    payments = Payments(True, Approval.later(), fails=1)
    with payments.runtime() as runtime:
        with pytest.raises(WorkflowFailed):
            runtime.run(payments.workflow(), "pay", workflow_id="invoice", **{how: True})
        workflow = payments.workflow()
        run = runtime.run(workflow, "pay", workflow_id="invoice", **{how: True})
        assert (run.workflow_id, run.status) == ("invoice~2", "suspended")
        (call,) = run.pending
        assert (
            runtime.resume(workflow, "invoice~2", {call.id: True}).result(5).status == "completed"
        )
    assert len(payments.keys) == 2
    assert len(set(payments.keys)) == 1


# --- too many deaths ------------------------------------------------------------------------

KILLED = """
path, recover = arguments

def die(input):
    runtime.event_stream.store.flush()
    os.kill(os.getpid(), signal.SIGKILL)

runtime = Runtime(
    event_stream=EventStream(SqliteStore(path)), checkpoints=Checkpoints(recover=int(recover))
)
try:
    runtime.run(Workflow("w", [die]), "in", workflow_id="run", resume=True)
except Exception as error:
    say(type(error).__name__, error)
"""


@unix_only
def test_a_run_that_kills_each_of_its_processes_is_not_begun_anew(tmp_path):
    path = tmp_path / "runs.db"
    for _ in range(2):
        assert program(KILLED, str(path), "1").process.returncode == -signal.SIGKILL
    for _ in range(2):
        done = program(KILLED, str(path), "1")
        assert done.lines and done.lines[0].startswith("LogError "), (done.lines, done.errors)
    with SqliteStore(path) as log:
        (state,) = log.runs()
        assert (state.workflow_id, state.status) == ("run", "failed")


@unix_only
def test_a_run_that_may_not_be_recovered_is_made_again_under_an_id_of_its_own(tmp_path):
    path = tmp_path / "runs.db"
    for _ in range(2):
        assert program(KILLED, str(path), "0").process.returncode == -signal.SIGKILL
    with SqliteStore(path) as log:
        assert [state.workflow_id for state in log.runs()] == ["run~2", "run"]
