"""A workflow for runs that are killed and resumed, and the model that it asks.

Five steps: a function with an effect, a Parallel of two agents of which one has tools, a nested
Workflow, a Repeat, an agent of three rounds with tools.  The model has no memory: what it says
depends on the conversation that it is sent alone, and names a digest of it.  So a resumed run
comes to the output of an uninterrupted one only if its every conversation was the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple

from agentstream import Agent, OpenAIClient, Repeat, RunContext, Workflow, tool
from agentstream.testing import Reply, ScriptedServer
from agentstream.testing.request import Request
from agentstream.workflow.shapes import Parallel

INPUT = "a lamp"
#: The calls that an agent's model wants in each round but the last; no agent: a text at once.
ROUNDS = {"facts": [["look"]], "writer": [["look", "pay"], ["pay"], ["look"]]}


class Call(NamedTuple):
    """A line of the ledger: an effect, made by a tool or by the workflow's function.

    Attributes:
        name: the tool's, or "prepare".
        of: its argument, which no other call has.
        key: its idempotency key.
        pid: the process that made it.
    """

    name: str
    of: str
    key: str
    pid: int


class Ledger:
    """A file of effects, a line each, which no process can lose once it is written.

    Args:
        path: the file.
        on_effect: called after each one, before its tool returns.
    """

    def __init__(self, path: str, on_effect: Callable[[], object] = lambda: None) -> None:
        self.path = path
        self._on_effect = on_effect

    def add(self, name: str, of: str, context: RunContext) -> str:
        """Note an effect; returns what the tool tells the model."""
        line = json.dumps([name, of, getattr(context, "idempotency_key", ""), os.getpid()])
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)
        self._on_effect()
        return f"{name} {of}: done"

    def calls(self) -> List[Call]:
        """All effects so far."""
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            return [Call(*json.loads(line)) for line in file]


def workflow(client: OpenAIClient, ledger: Ledger) -> Workflow:
    """The five steps."""

    @tool(on_unknown="rerun")
    def look(of: str, context: RunContext) -> str:
        """Look at a thing; it may be done again."""
        return ledger.add("look", of, context)

    @tool
    def pay(of: str, context: RunContext) -> str:
        """Pay for a thing; nobody may do it again without being told to."""
        return ledger.add("pay", of, context)

    def prepare(given: str, context: RunContext) -> str:
        ledger.add("prepare", given, context)
        return f"{given}, prepared"

    def join(given: Dict[str, Any]) -> str:
        return " and ".join(map(str, given.values()))

    def agent(name: str, tools: Any = ()) -> Agent:
        return Agent(name, client=client, system_prompt=name, tools=list(tools))

    return Workflow(
        "durable",
        [
            prepare,
            Parallel(facts=agent("facts", [look]), tone=agent("tone")),
            Workflow("inner", [join, agent("critic")]),
            Repeat(agent("editor"), at_most=3),
            agent("writer", [look, pay]),
        ],
    )


def client_of(url: str) -> OpenAIClient:
    """A client of the model at `url`."""
    return OpenAIClient("m", api_key="sk-scripted", base_url=f"{url}/v1", api="chat")


def play(server: ScriptedServer, *, fickle: bool = False) -> None:
    """Have a server be the model; a fickle one never wants the same call twice."""
    asked = itertools.count()
    server.route(
        "/v1/chat/completions",
        lambda request: answer(request, f"-{next(asked)}" if fickle else ""),
    )


def answer(request: Request, mood: str = "") -> Reply:
    """What the model says to a conversation."""
    messages = request.json["messages"]
    agent = messages[0]["content"]
    told = digest(messages)
    rounds: List[List[str]] = ROUNDS.get(agent, [])
    number = sum(message["role"] == "assistant" for message in messages)
    if number < len(rounds):
        calls = [
            (name, {"of": f"{told}{place}{mood}"}) for place, name in enumerate(rounds[number])
        ]
        return Reply.tool_calls(*calls)
    return Reply.text(f"{agent} ", told, ".")


def digest(messages: List[Dict[str, Any]]) -> str:
    """Eight letters that differ where a conversation differs in what it says."""
    said: List[Any] = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        asked = [(call["name"], json.loads(call["arguments"])) for call in calls]
        said.append((message["role"], message.get("content") or "", asked))
    found = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return re.sub(r"\d", lambda figure: "ghijklmnop"[int(figure[0])], found[:8])
