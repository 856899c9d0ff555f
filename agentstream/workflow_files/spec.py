"""What a workflow file says, as values: its clients, servers, agents, tools, steps, itself.

Read by parts.py and steps.py, made live by building.py, told of by describing.py.
"""

from __future__ import annotations

import copy
import os
import pathlib
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from agentstream.agent.budget import Budget
from agentstream.workflow_files.conditions import Condition
from agentstream.workflow_files.problems import Path

__all__ = [
    "LATER",
    "AgentSpec",
    "ClientSpec",
    "FileSpec",
    "RunSpec",
    "ServerSpec",
    "StepSpec",
    "ToolSpec",
]


class ClientSpec(NamedTuple):
    """A client of a file.

    Attributes:
        settings: what its class takes; of an "embedded" one, what its `LlamaClient` does.
        server: what an "embedded" one's `LocalServer` takes.
        key_env: the variable that holds its key.
        header_envs: the variables that hold headers' values, by header.
        ca_file: a path as the file writes it.
        fallback: the clients that one without a provider is made of.
        rate_limit: the keywords of its `RateLimit`; {} for none.
    """

    name: str
    provider: str
    settings: Dict[str, Any]
    server: Dict[str, Any]
    key_env: Optional[str]
    header_envs: Dict[str, str]
    ca_file: Optional[str]
    fallback: Tuple[str, ...] = ()
    rate_limit: Dict[str, Any] = {}  # noqa: RUF012 - never written to

    @property
    def environment(self) -> Tuple[str, ...]:
        """The variables it needs."""
        return (*([self.key_env] if self.key_env else []), *self.header_envs.values())


class ServerSpec(NamedTuple):
    """An MCP server of a file.

    Attributes:
        settings: what `Server.stdio` or `Server.http` takes.
        timeouts: the clocks that the file sets.
        prefix: put before the names of its tools.
        envs: the variables of ours that hold its own, by its own.
        header_envs: the variables that hold headers' values, by header.
        ca_file, cwd: paths as the file writes them.
    """

    name: str
    settings: Dict[str, Any]
    timeouts: Dict[str, Any]
    prefix: str
    envs: Dict[str, str]
    header_envs: Dict[str, str]
    ca_file: Optional[str]
    cwd: Optional[str]

    @property
    def environment(self) -> Tuple[str, ...]:
        """The variables it needs."""
        return (*self.envs.values(), *self.header_envs.values())


#: `approve` of an agent each of whose calls waits for somebody's answer.
LATER = "later"


class AgentSpec(NamedTuple):
    """An agent of a file.

    Attributes:
        approve: where the function that is asked is imported from; `LATER`; or None.
        client: None for that of whoever runs the file.
        fallback: the clients that are asked, one after the other, where that fails.
        output: the JSON schema of its answer, or where its type is imported from; None
            for a text.
        served: tools of MCP servers: (the server, a tool's name or a pattern).
    """

    name: str
    client: Optional[str]
    tools: Tuple[str, ...]
    settings: Dict[str, Any]
    approve: Optional[str]
    output: Any = None
    served: Tuple[Tuple[str, str], ...] = ()
    fallback: Tuple[str, ...] = ()

    @property
    def clients(self) -> Tuple[str, ...]:
        """Its clients in the order in which they are asked."""
        return self.fallback if self.client is None else (self.client, *self.fallback)


class ToolSpec(NamedTuple):
    """A tool of a file: where it is imported from, and what the file says of it."""

    name: str
    source: str
    settings: Dict[str, Any]


class StepSpec(NamedTuple):
    """A step of a file.

    Attributes:
        kind: one of `STEP_KINDS`, or "sequence" for a list.
        what: the agent's name, the function's import path, or the `WorkflowFile` within.
        settings: timeout and retries, as `Step` takes them; and the shape's own.
        steps: those within it: by name in a parallel; "then" and "otherwise";
            "step"; "1", "2" ... in a list.
    """

    kind: str
    name: str
    settings: Dict[str, Any]
    what: Any = None
    steps: Tuple[Tuple[str, StepSpec], ...] = ()
    condition: Optional[Condition] = None

    @property
    def waits(self) -> bool:
        """True if it, or what is within it, waits for somebody."""
        if self.kind == "workflow":
            return bool(self.what.waits)
        return self.kind == "wait" or any(step.waits for _, step in self.steps)

    def size(self) -> int:
        """How many steps there are, those of the files within it too."""
        if self.kind == "workflow":
            return 1 + int(self.what.size)
        return 1 + sum(step.size() for _, step in self.steps)


class RunSpec(NamedTuple):
    """What the runs of a file begin with.

    Attributes:
        input: what they are given where nobody gives them another; None for nothing.
        files: paths of pictures and PDFs that go with it, as the file writes them.
        context: what their steps share.
        checkpoints: what `Checkpoints` is given, if they can be resumed; else None.
        budget: what each may spend; None for no bound.
    """

    input: Optional[str]
    files: Sequence[str]
    context: Dict[str, Any]
    checkpoints: Optional[Dict[str, Any]]
    budget: Optional[Budget]


class FileSpec:
    """A workflow file that has been read and found right.

    Attributes:
        label: its path, as it was given.
        path: the same as a `pathlib.Path`.
        folder: the absolute path of the folder it is in.
        name, input: its workflow's name; the input it gives, or None.
        files: paths of pictures and PDFs that go with the input, as they can be opened.
        checkpoints: what `Checkpoints` is given, if its runs can be resumed; else None.
        budget: what its runs may spend; None for no bound.
        clients, agents, tools, servers: what it describes, by name.
        steps: its steps.
        used: the agents that steps name.
        nested: the files within it, each once.
        functions: what steps and conditions import, with their places.
        overrides: the places that were changed when it was loaded.
        warnings: what is odd about it, a text each.
        size: how many steps it has, those of nested files too.
        depth: 1, and one more for each level of nested files.
    """

    def __init__(
        self,
        label: str,
        name: str,
        *,
        runs: RunSpec,
        clients: Dict[str, ClientSpec],
        tools: Dict[str, ToolSpec],
        servers: Dict[str, ServerSpec],
        agents: Dict[str, AgentSpec],
        steps: Tuple[StepSpec, ...],
        used: Sequence[str],
        nested: Sequence[FileSpec],
        functions: Sequence[Tuple[Path, str]],
        overrides: Sequence[Path] = (),
    ) -> None:
        self.label = label
        self.path = pathlib.Path(label)
        self.folder = os.path.dirname(os.path.abspath(label))
        self.name = name
        self.input = runs.input
        self.files = tuple(os.path.join(self.folder, path) for path in runs.files)
        self.checkpoints = runs.checkpoints
        self.budget = runs.budget
        self.clients = clients
        self.tools = tools
        self.servers = servers
        self.agents = agents
        self.steps = steps
        self.used = tuple(name for name in used if name in agents)
        self.nested = tuple(nested)
        self.functions = tuple(functions)
        self.overrides = tuple(overrides)
        self.warnings: Tuple[str, ...] = ()
        self.size = sum(step.size() for step in steps)
        self.depth: int = 1 + max((inner.depth for inner in nested), default=0)
        self._context = runs.context

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}: {self.name!r}>"

    @property
    def context(self) -> Dict[str, Any]:
        """The context to run it with, a new one each time; keys of files within it are in it."""
        found: Dict[str, Any] = {}
        for file in reversed(self.nested):
            found.update(file.context)
        found.update(copy.deepcopy(self._context))
        return found

    @property
    def environment(self) -> Tuple[str, ...]:
        """The names of the environment's variables that it needs."""
        found: Dict[str, None] = {}
        for name in self.used_clients():
            found.update(dict.fromkeys(self.clients[name].environment))
        for name in self.used_servers():
            found.update(dict.fromkeys(self.servers[name].environment))
        for file in self.nested:
            found.update(dict.fromkeys(file.environment))
        return tuple(found)

    @property
    def waits(self) -> bool:
        """True if its runs wait for somebody: for a value, or for an answer to a tool call."""
        asks = any(self.agents[name].approve == LATER for name in self.used)
        return asks or any(step.waits for step in self.steps)

    @property
    def needs_client(self) -> bool:
        """True if an agent of it has no client, so that `build` needs `default_client`."""
        own = any(self.agents[name].client is None for name in self.used)
        return own or any(file.needs_client for file in self.nested)

    def sources(self) -> Tuple[Tuple[Path, str], ...]:
        """What building it imports, "module:name", each with its place in the file."""
        found: List[Tuple[Path, str]] = []
        for agent in (self.agents[name] for name in self.used):
            found += [(("tools", t, "import"), self.tools[t].source) for t in agent.tools]
            if agent.approve not in (None, LATER):
                found.append((("agents", agent.name, "approve"), agent.approve))
            if isinstance(agent.output, str):
                found.append((("agents", agent.name, "output"), agent.output))
        found += self.functions
        return tuple({source: (where, source) for where, source in reversed(found)}.values())[::-1]

    def used_servers(self) -> Tuple[str, ...]:
        """The names of the MCP servers that its agents have tools of."""
        agents = (self.agents[name] for name in self.used)
        named = dict.fromkeys(server for agent in agents for server, _ in agent.served)
        return tuple(name for name in named if name in self.servers)

    def used_clients(self) -> Tuple[str, ...]:
        """The clients that its steps' agents need, each behind those that it is made of."""
        return self.clients_of(self.used)

    def clients_of(self, agents: Iterable[str]) -> Tuple[str, ...]:
        """The clients that these agents need, each behind those that it is made of."""
        found: Dict[str, None] = {}
        for name in agents:
            for client in self.agents[name].clients:
                self._add_client(client, found)
        return tuple(found)

    def _add_client(self, name: str, found: Dict[str, None]) -> None:
        spec = self.clients.get(name)
        if name in found or spec is None:
            return
        for inner in spec.fallback:
            self._add_client(inner, found)
        found[name] = None
