"""What a day's web workers and Celery workers import (see stress/day.py): the jobs, their tasks.

Each step that a run executes is noted in the file `ledger`, a line as it begins and one as it
ends, so that whoever reads it can tell whether a run was ever executed twice at once.

`python -m stress.day_shop PORT` is a web worker.
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import sys
import threading
import time
from typing import Any, Iterator

import celery
from celery.signals import worker_process_shutdown, worker_ready

from agentstream import (
    Agent,
    Cancelled,
    CancelToken,
    ChatClient,
    ChatRequest,
    EventStream,
    RedisStore,
    RunContext,
    Runtime,
    Workflow,
)
from agentstream.jobs import Jobs
from agentstream.llm.messages import Delta
from agentstream.web import create_app
from agentstream.web.server import Server, listen

FOLDER = pathlib.Path(os.environ["DAY_FOLDER"])
URL = os.environ["DAY_REDIS"]
LEASE = 3.0


def note(what: str, run: str, step: str) -> None:
    """Add a line to the ledger; no process can lose it once it is written."""
    line = f"{time.monotonic():.6f} {os.getpid()} {what} {run} {step}\n"
    file = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Paced(ChatClient):
    """A model that says a few words over some tenths of a second."""

    model = "paced"

    def stream_deltas(self, request: ChatRequest, *, cancel: Any = None) -> Iterator[Delta]:
        token = cancel or CancelToken()
        for word in ("a ", "line ", "about ", "tea"):
            if token.wait(random.uniform(0.02, 0.15)):
                raise Cancelled(token.reason or "stopped")
            yield Delta(word)
        yield Delta(finish_reason="stop")


def step(name: str) -> Any:
    """A step that notes when it begins and ends, and takes some tenths of a second."""

    def work(given: str, context: RunContext) -> str:
        run = context.workflow_id
        note("begin", run, name)
        try:
            threading.Event().wait(random.uniform(0.05, 0.3))
            return f"{given} {name}"
        finally:
            note("end", run, name)

    work.__name__ = name
    return work


writer = Agent("writer", client=Paced())
shop = Workflow("order", [step("one"), step("two"), writer, step("three"), step("four")])
store = RedisStore(URL, "day", lease=LEASE)
jobs = Jobs(Runtime(event_stream=EventStream(store)), [shop], recover=50, resend=5.0)

app = celery.Celery("day", broker=URL.replace("/0", "/1"))
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True


@app.task(name="run", ignore_result=True)
def run(workflow_id: str) -> None:
    jobs.run(workflow_id)


jobs.send = run.delay


@worker_ready.connect
def watch(**_: Any) -> None:
    jobs.watch()


@worker_process_shutdown.connect
def leave(**_: Any) -> None:
    jobs.runtime.shutdown(cancel=True)


def serve(port: int) -> None:
    """Serve the endpoint until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    application = create_app(jobs, max_streams=64)
    with Server(application, listen("127.0.0.1", port)):
        ended.wait()
    jobs.runtime.shutdown(cancel=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
