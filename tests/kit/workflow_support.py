"""What the tests of the workflow shapes share: a server that answers each agent by its name."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Deque, Dict, Iterator, List

import pytest

from agentstream import Agent, Runtime
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks
from agentstream.testing.request import Request
from tests.kit.support import client_of, events_of


class Cast:
    """Agents that one ScriptedServer plays, each asked by its name (its system prompt).

    `says` queues a whole answer, `plays` a Reply; the last one queued is repeated.
    Attributes: asked: what each agent was asked, in order.
    """

    def __init__(self, server: ScriptedServer, **settings: Any) -> None:
        self.server = server
        self.client = client_of(server, **settings)
        self.asked: Dict[str, List[Any]] = {}
        self._replies: Dict[str, Deque[Reply]] = {}
        self._lock = threading.Lock()
        server.route("/v1/chat/completions", self._answer)

    def _answer(self, request: Request) -> Reply:
        system, *_, user = request.json["messages"]
        with self._lock:
            self.asked.setdefault(system["content"], []).append(user["content"])
            replies = self._replies[system["content"]]
            return replies.popleft() if len(replies) > 1 else replies[0]

    def plays(self, name: str, *replies: Reply) -> Agent:
        self._replies.setdefault(name, deque()).extend(replies)
        return Agent(name, client=self.client, system_prompt=name)

    def says(self, name: str, *texts: str) -> Agent:
        """One that says these texts, in one answer."""
        return self.plays(name, Reply.text(*texts))

    def halts(self, name: str, gate: Gate, *texts: str) -> Agent:
        """One that says the first text, waits for the gate, and says the others."""
        chunks = text_chunks(*texts)
        return self.plays(name, Reply(*chunks[:2], gate, *chunks[2:]))

    def breaks(self, name: str, *texts: str) -> Agent:
        """One whose answer breaks off after these texts."""
        return self.plays(name, cut(*texts))

    def close(self) -> None:
        self.client.close()


def cut(*texts: str) -> Reply:
    return Reply(*text_chunks(*texts, finish_reason=None, usage=False, done=False))


def told(runtime: Runtime, workflow_id: str) -> List[str]:
    """A run's events in a word each, chunks and requests left out: "step_started 0.a"."""
    lines = []
    for event in events_of(runtime.event_stream, workflow_id):
        kind = event.type.value
        if kind.startswith("workflow_step_"):
            lines.append(f"{kind[len('workflow_step_') :]} {event.data['step']}")
        elif kind.startswith("workflow_"):
            lines.append(kind[len("workflow_") :])
        elif kind.startswith("system_"):
            lines.append(kind)
    return lines


def step_events(runtime: Runtime, workflow_id: str, step: str) -> List[Any]:
    """What the run's log says of one step: (kind without its prefix, data)."""
    return [
        (event.type.value[len("workflow_step_") :], event.data)
        for event in events_of(runtime.event_stream, workflow_id)
        if event.type.value.startswith("workflow_step_") and event.data["step"] == step
    ]


def tree(steps: Any) -> Any:
    """StepResults as nested (place, kind, status, output, [those within])."""
    return [(s.step, s.kind, s.status, s.output, tree(s.steps)) for s in steps]


@pytest.fixture
def cast(server: ScriptedServer) -> Iterator[Cast]:
    """Agents of that server."""
    cast = Cast(server)
    yield cast
    cast.close()
