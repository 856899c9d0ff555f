"""From a file's parts to a workflow: a live one, with clients and imported functions, or an inert.

The environment is the mapping that is handed in; nothing here is an edge.
"""

from __future__ import annotations

import contextlib
import copy
import os
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from agentstream.agent.agent import Agent
from agentstream.agent.approval import Approval
from agentstream.agent.settings import with_limits
from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError
from agentstream.llm.clients import ChatClient
from agentstream.llm.messages import ChatRequest, Delta
from agentstream.llm.secrets import NamedKey
from agentstream.llm.transport import place_of
from agentstream.providers import EMBEDDED, PROVIDERS, start_server
from agentstream.tools import Tool, tool
from agentstream.workflow.definition import Step, Workflow, takes_two
from agentstream.workflow.shapes import Branch, Map, Parallel, Repeat
from agentstream.workflow.waiting import Wait
from agentstream.workflow_files.budget import with_budget
from agentstream.workflow_files.conditions import Condition
from agentstream.workflow_files.fallback import Chains, make_fallback
from agentstream.workflow_files.importing import Importer
from agentstream.workflow_files.output import find_output
from agentstream.workflow_files.parts import inert_tool
from agentstream.workflow_files.problems import Path, Problems
from agentstream.workflow_files.rate_limit import make_rate_limit
from agentstream.workflow_files.servers import open_server, tools_of_server
from agentstream.workflow_files.spec import (
    LATER,
    AgentSpec,
    ClientSpec,
    FileSpec,
    ServerSpec,
    StepSpec,
    ToolSpec,
)
from agentstream.workflow_files.steps import stand_in

if TYPE_CHECKING:
    from agentstream.mcp import Server

__all__ = ["Builder", "DefaultClient", "Progress", "inert", "own_tools"]

#: Makes what stands in for a file's clients.
DefaultClient = Callable[[], ChatClient]
Progress = Callable[[int, int], object]


class _InertClient(ChatClient):
    model = "none"
    provider = "none"

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        raise RuntimeError("this is a stand-in, for looking at")


_INERT_CLIENT = _InertClient()


class Parts:
    """Where the parts of a file's steps come from; these here are stand-ins."""

    def agent(self, name: str) -> Agent:
        """The agent of that name."""
        return Agent(name, client=_INERT_CLIENT)

    def function(self, source: str) -> Callable[..., Any]:
        """What an import path names."""
        return stand_in

    def condition(self, condition: Condition) -> Callable[..., Any]:
        """A condition that can be called."""
        return condition

    def workflow(self, file: FileSpec) -> Workflow:
        """A workflow within."""
        return inert(file)


def inert(file: FileSpec) -> Workflow:
    """The workflow of a file with stand-ins for all that runs."""
    return Workflow(file.name, [assemble(step, Parts()) for step in file.steps])


def assemble(spec: StepSpec, parts: Parts) -> Step:
    """The step that `spec` describes, made of `parts`."""
    settings: Dict[str, Any] = {"name": spec.name, **spec.settings}
    inner = {label: assemble(step, parts) for label, step in spec.steps}
    if spec.kind == "agent":
        return Step(parts.agent(spec.what), **settings)
    if spec.kind == "function":
        return Step(parts.function(spec.what), **settings)
    if spec.kind == "workflow":
        return Step(parts.workflow(spec.what), **settings)
    if spec.kind == "wait":
        given = {key: settings[key] for key in ("timeout", "otherwise") if key in settings}
        return Wait(spec.what, **given)
    if spec.kind == "parallel":
        return Parallel(inner, **settings)
    if spec.kind == "map":
        return Map(inner["step"], **settings)
    condition = None if spec.condition is None else parts.condition(spec.condition)
    if spec.kind == "branch":
        assert condition is not None
        return Branch(condition, inner["then"], inner.get("otherwise"), **settings)
    if spec.kind == "repeat":
        return Repeat(inner["step"], condition, **settings)
    return Step(list(inner.values()), **settings)


class Builder:
    """Builds one file, and the files within it, once each; `stack` closes what it opened.

    First comes all that can fail at once, and is told at once: the imports, the
    environment.  Then the clients, of which an "embedded" one starts a server.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        environ: Mapping[str, str],
        default_client: Optional[DefaultClient],
        progress: Optional[Progress],
    ) -> None:
        self.stack = stack
        self.environ = environ
        self._default = default_client
        self._default_made: Optional[ChatClient] = None
        self._progress = progress
        self._built: Dict[int, Workflow] = {}
        self._files: List[Tuple[FileSpec, _LiveParts]] = []
        self._servers: Dict[str, Any] = {}

    def build(self, file: FileSpec) -> Workflow:
        """The workflow, live.

        Raises:
            ConfigError: with a line for each import, variable or client that there is not.
        """
        problems = Problems(file.label)
        self._prepare(file, problems, set())
        problems.raise_them()
        for one, parts in self._files:  # those within come first
            parts.make_clients()
            made = [assemble(s, parts) for s in one.steps]
            self._built[id(one)] = Workflow(one.name, made, budget=one.budget)
        return self._built[id(file)]

    def _prepare(self, file: FileSpec, root: Problems, seen: Set[int]) -> None:
        if id(file) in seen:
            return
        seen.add(id(file))
        for inner in file.nested:
            self._prepare(inner, root, seen)
        parts = _LiveParts(self, file)
        parts.prepare(Problems(file.label, file.overrides, root))
        self._files.append((file, parts))

    def workflow(self, file: FileSpec) -> Workflow:
        """One that has been built."""
        return self._built[id(file)]

    def check_default(self) -> Optional[str]:
        """Why an agent without a client has none; None if it has."""
        if self._default is not None:
            return None
        return "has no client: the file needs a [clients.NAME]"

    def default_client(self) -> ChatClient:
        """The client of agents whose file has none."""
        if self._default_made is None:
            assert self._default is not None
            self._default_made = self._default()
        return self._default_made

    def client(self, spec: ClientSpec, folder: str) -> ChatClient:
        """A client, closed with the stack."""
        settings = dict(spec.settings)
        provider = PROVIDERS[spec.provider]
        if spec.rate_limit:
            limit = make_rate_limit(spec.rate_limit, folder)
            settings["rate_limit"] = self.stack.enter_context(limit)
        if spec.provider == EMBEDDED:
            server = self._server(spec, folder)
            settings.update(base_url=server.url, model=server.model)
            settings.setdefault("tool_mode", "auto")  # the small model's template knows no tools
            return self.stack.enter_context(provider.make(**settings))
        # No key and no URL but those: else the process's own environment would be asked.
        if provider.url_env is not None:
            url = self.environ.get(provider.url_env) or provider.base_url
            settings.setdefault("base_url", url)
        variable = self._key_env(spec, settings) or ""
        settings["api_key"] = NamedKey.of(self.environ.get(variable), variable) or ""
        if spec.header_envs:
            headers = {name: self.environ[env] for name, env in spec.header_envs.items()}
            settings["headers"] = {**settings.get("headers", {}), **headers}
        if spec.ca_file is not None:
            settings["verify"] = os.path.join(folder, spec.ca_file)
        if provider.key_env is None:
            settings["api_key"] = settings["api_key"] or None
        return self.stack.enter_context(provider.make(**settings))

    def mcp_server(self, spec: ServerSpec, file: FileSpec) -> Server:
        """An MCP server, closed with the stack."""
        return self.stack.enter_context(open_server(spec, self.environ, file.folder))

    def _key_env(self, spec: ClientSpec, settings: Mapping[str, Any]) -> Optional[str]:
        """The variable that holds a client's key.

        The provider's own, where the file names none, is for the provider's host, and
        for the one that the environment puts in its place.
        """
        provider = PROVIDERS[spec.provider]
        if spec.key_env is not None or provider.url_env is None:
            return spec.key_env
        own = (provider.base_url, self.environ.get(provider.url_env) or "")
        asked = place_of(settings["base_url"])
        return provider.key_env if asked in map(place_of, filter(None, own)) else None

    def _server(self, spec: ClientSpec, folder: str) -> Any:
        """The embedded server of a client; those that want the same share it."""
        settings = dict(spec.server)
        if "model" in settings:
            settings["model"] = os.path.join(folder, settings["model"])
        key = repr(sorted(settings.items()))
        if key not in self._servers:
            self._servers[key] = self.stack.enter_context(start_server(self._progress, **settings))
        return self._servers[key]


class _LiveParts(Parts):
    """The parts of one file."""

    def __init__(self, builder: Builder, file: FileSpec) -> None:
        self._builder = builder
        self._file = file
        self._found: Dict[str, Any] = {}
        self._tools: Dict[str, Tool] = {}
        self._clients: Dict[str, ChatClient] = {}
        self._chains = Chains()
        self._agents: Dict[str, Agent] = {}
        self._servers: Dict[str, Server] = {}

    def prepare(self, problems: Problems) -> None:
        """Import what is named, and look whether the environment has what is needed."""
        file = self._file
        used = [file.agents[name] for name in file.used]
        sources = file.sources()
        if sources:
            importer = self._builder.stack.enter_context(Importer(file.folder))
            for where, source in sources:
                self._import(importer, problems, where, source)
        for agent in used:
            for name in agent.tools:
                self._make_tool(problems, file.tools[name])
            self._check_client(problems, agent)
        for client in file.used_clients():
            where = ("clients", client)
            self._check_environment(problems, where, file.clients[client].environment)
        for name in file.used_servers():
            self._check_environment(problems, ("mcp", name), file.servers[name].environment)

    def _import(self, importer: Importer, problems: Problems, where: Path, source: str) -> None:
        try:
            is_type = where[-1] == "output"
            found = find_output(importer, source) if is_type else importer.find(source)
        except ConfigError as error:
            problems.add(where, error.reason if error.setting == "output" else str(error))
            return
        self._found[source] = found

    def _make_tool(self, problems: Problems, spec: ToolSpec) -> None:
        if spec.name in self._tools or spec.source not in self._found:
            return
        try:
            self._tools[spec.name] = _as_tool(spec, self._found[spec.source])
        except ConfigError as error:
            problems.add(("tools", spec.name, "import"), str(error))

    def _check_client(self, problems: Problems, agent: AgentSpec) -> None:
        if agent.client is None:
            why = self._builder.check_default()
            if why is not None:
                problems.add(("agents", agent.name), why)

    def _check_environment(self, problems: Problems, where: Path, names: Sequence[str]) -> None:
        for env in names:
            if not self._builder.environ.get(env):
                problems.add(where, f"the environment has no {env}, which it needs")

    def make_clients(self) -> None:
        """Make the clients that agents use, and the agents; MCP servers are asked for tools."""
        for name in self._file.used_servers():
            with self._of("mcp", name):
                self._servers[name] = self._builder.mcp_server(self._file.servers[name], self._file)
        for name in self._file.used_clients():
            spec = self._file.clients[name]
            with self._of("clients", name):  # there may be no embedded model, say
                self._clients[name] = (
                    make_fallback(spec, self._clients)
                    if spec.fallback
                    else self._builder.client(spec, self._file.folder)
                )
        for name in self._file.used:
            agent = self._file.agents[name]
            client = (
                self._chains.client(agent.clients, self._clients)
                if agent.clients
                else self._builder.default_client()
            )
            approve = {} if agent.approve is None else {"approve": self._approve(agent.approve)}
            output = agent.output
            with self._of("agents", name):
                self._agents[name] = Agent(
                    name,
                    client=client,
                    tools=[*(self._tools[t] for t in agent.tools), *self._served(agent)],
                    output=self._found[output] if isinstance(output, str) else output,
                    **with_limits(with_budget(agent.settings)),
                    **approve,
                )

    def _approve(self, said: str) -> Any:
        return (lambda call: Approval.later()) if said == LATER else self._found[said]

    @contextlib.contextmanager
    def _of(self, section: str, name: str) -> Iterator[None]:
        """Say of a ConfigError which part of which file it is about."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self._file.label}: [{section}.{name}]: {error}") from error

    def _served(self, agent: AgentSpec) -> List[Tool]:
        """The tools that MCP servers offer to an agent."""
        found: List[Tool] = []
        for name in dict.fromkeys(server for server, _ in agent.served):
            found += tools_of_server(self._servers[name], self._file.servers[name], agent.served)
        return found

    def agent(self, name: str) -> Agent:
        return self._agents[name]

    def function(self, source: str) -> Callable[..., Any]:
        found: Callable[..., Any] = self._found[source]
        return found

    def condition(self, condition: Condition) -> Callable[..., Any]:
        if condition.kind != "call":
            return condition
        return condition.with_function(_with_context(self._found[condition.wanted]))

    def workflow(self, file: FileSpec) -> Workflow:
        return self._builder.workflow(file)


def _with_context(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return function if takes_two(function) else lambda value, _: function(value)


def own_tools(file: FileSpec, stack: contextlib.ExitStack) -> Dict[str, Tool]:
    """The tools that a file itself describes, imported; `stack` ends that.

    Raises:
        ConfigError: with a line for each that there is not.
    """
    problems = Problems(file.label)
    found: Dict[str, Tool] = {}
    importer = stack.enter_context(Importer(file.folder)) if file.tools else None
    for name, spec in file.tools.items():
        try:
            assert importer is not None
            found[name] = _as_tool(spec, importer.find(spec.source))
        except ConfigError as error:
            problems.add(("tools", name, "import"), str(error))
    problems.raise_them()
    return found


def _as_tool(spec: ToolSpec, found: Any) -> Tool:
    """What was found as the tool that the file describes, under the file's name for it."""
    if not isinstance(found, Tool):
        plain: Tool = tool(found, name=spec.name, **spec.settings)
        return plain
    made = copy.copy(found)  # the module's own stays as it is
    made.name = inert_tool(spec.name).name
    for key, value in spec.settings.items():
        setattr(made, key, value)
    return made
