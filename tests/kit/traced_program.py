"""A process that resumes the run of tests/otel/test_instrumentation.py, and prints its spans as JSON.

python -m tests.kit.traced_program LOG URL ID
"""

from __future__ import annotations

import json
import sys
from typing import Iterator

from agentstream import (
    Agent,
    Delta,
    EventStream,
    FallbackClient,
    Parallel,
    Runtime,
    SqliteStore,
    Wait,
    Workflow,
    tool,
)
from agentstream.errors import ServerError
from agentstream.llm.clients import ChatClient, LlamaClient
from agentstream.llm.settings import Retries
from agentstream.testing import Reply
from agentstream.testing.request import Request
from tests.kit.support import FunctionClient
from tests.kit.traces import Telemetry


@tool
def look(at: str) -> str:
    """Look at something."""
    if at == "b":
        raise ValueError("it is dark")
    return f"seen {at}"


def workflow(client: LlamaClient) -> Workflow:
    """Branches with tools and a retry, a workflow within with a fallback, a wait, an agent."""
    broken = FunctionClient(_refuse)

    def agent(name: str, client: ChatClient = client, **settings: object) -> Agent:
        return Agent(name, client=client, system_prompt=name, **settings)  # type: ignore[arg-type]

    return Workflow(
        "report",
        [
            Parallel(agent("facts", tools=[look]), agent("style")),
            Workflow("inner", [agent("summary", FallbackClient([broken, client]))]),
            Wait("go"),
            agent("writer"),
        ],
    )


def _refuse(request: object, cancel: object) -> Iterator[Delta]:
    raise ServerError("down")


def client_of(url: str) -> LlamaClient:
    return LlamaClient(url, model="m-1", retries=Retries(2, backoff=0.01))


class Model:
    """What the server plays: "facts" calls tools first, "style" is refused once."""

    def __init__(self) -> None:
        self.refused = False

    def __call__(self, request: Request) -> Reply:
        messages = request.json["messages"]
        name = messages[0]["content"]
        if name == "style" and not self.refused:
            self.refused = True
            return Reply.json({"error": {"message": "busy"}}, status=503)
        if name == "facts" and len(messages) == 2:
            return Reply.tool_calls(("look", {"at": "a"}), ("look", {"at": "b"}))
        return Reply.text(name, " said")


def main() -> None:
    path, url, name = sys.argv[1:]
    with Telemetry() as telemetry, client_of(url) as client:
        with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True) as runtime:
            with telemetry.instrument(runtime.event_stream):
                runtime.signal(name, "go", "now")
                print(runtime.resume(workflow(client), name).result(30).status, file=sys.stderr)
        print(json.dumps(telemetry.spans()))


if __name__ == "__main__":
    main()
