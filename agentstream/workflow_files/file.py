"""load_workflow and WorkflowFile: a workflow file, read and checked; no code is run for it.

What its parts mean is parts.py's and steps.py's; making a live workflow of it,
building.py's; saying what it would do, describing.py's.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pathlib
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from agentstream.errors import ConfigError
from agentstream.workflow.definition import Workflow
from agentstream.workflow_files.building import Builder, DefaultClient, Progress, inert
from agentstream.workflow_files.parts import (
    AgentSpec,
    ClientSpec,
    ToolSpec,
    read_agent,
    read_client,
    read_tool,
)
from agentstream.workflow_files.problems import TABLE, TEXT, Path, Problems, Table, dotted
from agentstream.workflow_files.reading import Overrides, override, read_tables
from agentstream.workflow_files.steps import StepReader, StepSpec

__all__ = ["WorkflowFile", "load_workflow"]

_T = TypeVar("_T")
_MOST_NESTED = 10
_MOST_STEPS = 10_000


class WorkflowFile:
    """A workflow file that has been read and found right.  Made by `load_workflow`.

    Attributes:
        path: the file.
        name, input: its workflow's name; the input it gives, or None.
        warnings: what is odd about it, a text each.
        clients, agents, tools: what it describes, by name.
        steps: its steps.
        used: the agents that steps name.
        nested: the files within it, each once.
    """

    def __init__(self, label: str, name: str, input: Optional[str], context: Dict[str, Any]):
        self.label = label
        self.path = pathlib.Path(label)
        self.folder = os.path.dirname(os.path.abspath(label))
        self.name = name
        self.input = input
        self.overrides: Tuple[Path, ...] = ()
        self.warnings: Tuple[str, ...] = ()
        self.clients: Dict[str, ClientSpec] = {}
        self.agents: Dict[str, AgentSpec] = {}
        self.tools: Dict[str, ToolSpec] = {}
        self.steps: Tuple[StepSpec, ...] = ()
        self.used: Tuple[str, ...] = ()
        self.nested: Tuple[WorkflowFile, ...] = ()
        self.size = 0  # steps, those of nested files too
        self.depth = 1
        self._context = context
        self._functions: Tuple[Tuple[Path, str], ...] = ()

    def __repr__(self) -> str:
        return f"<WorkflowFile {self.label}: {self.name!r}>"

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
        for name in self._used_clients():
            found.update(dict.fromkeys(self.clients[name].environment))
        for file in self.nested:
            found.update(dict.fromkeys(file.environment))
        return tuple(found)

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
            if agent.approve is not None:
                found.append((("agents", agent.name, "approve"), agent.approve))
        found += self._functions
        return tuple({source: (where, source) for where, source in reversed(found)}.values())[::-1]

    def describe(self) -> str:
        """What it would do, in words, for people; no secret among them."""
        from agentstream.workflow_files.describing import describe  # noqa: PLC0415 - few ask for it

        return describe(self)

    def to_mermaid(self) -> str:
        """The workflow as Mermaid draws it; nothing is imported for it."""
        return inert(self).to_mermaid()

    @contextlib.contextmanager
    def build(
        self,
        *,
        environ: Mapping[str, str],
        default_client: Optional[DefaultClient] = None,
        progress: Optional[Progress] = None,
    ) -> Iterator[Workflow]:
        """The live `Workflow`, for a `with` block; its clients are closed when that is left.

        Runs code that the file names: its modules are imported, with the file's
        folder first on the import path until the block is left.

        Args:
            environ: the environment; no other is read.
            default_client: makes the client of agents in files without clients; called
                at most once, if there is such an agent; the client is the caller's to close.
            progress: called with (done, total) bytes while the embedded model is fetched.

        Raises:
            ConfigError: with a line for each module, name or variable that is not
                there; or the embedded model cannot be had.
        """
        with contextlib.ExitStack() as stack:
            yield Builder(stack, environ, default_client, progress).build(self)

    def _used_clients(self) -> Dict[str, None]:
        names = (self.agents[name].client for name in self.used)
        return dict.fromkeys(name for name in names if name is not None)


def load_workflow(path: Union[str, os.PathLike[str]], set: Overrides = ()) -> WorkflowFile:
    """Read and check a workflow file; see docs/workflow-files.rst for the format.

    Reads this file and the workflow files that it names, and nothing else: no
    module is imported, no variable of the environment read, no code run.

    Args:
        path: the file.
        set: changes, ("agents.greeter.temperature", "0"): a path of keys, and a
            value, which is TOML if it can be read as that and text otherwise.

    Raises:
        ConfigError: with a line for each problem, which names file, table and key.
    """
    label = os.fsdecode(path)
    loader = _Loader(Problems(label))
    file = loader.load(label, set, ())
    loader.check_context(file)
    loader.problems.raise_them()
    file.warnings = tuple(loader.problems.warnings)
    return file


class _Loader:
    """Reads a file and those within it, each once."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self._files: Dict[str, Optional[WorkflowFile]] = {}
        self._asked: List[Tuple[Problems, Path, str]] = []
        self._functions = False

    def load(self, label: str, changes: Overrides, chain: Tuple[str, ...]) -> WorkflowFile:
        """A file; what is wrong with it is among the problems."""
        tables = read_tables(label)
        try:
            overrides = override(tables, changes)
        except ConfigError as error:
            raise ConfigError(
                "\n".join(f"{label}: {line}" for line in str(error).split("\n"))
            ) from None
        problems = Problems(label, overrides, self.problems)
        file = self._read(label, Table(problems, (), tables), (*chain, label))
        file.overrides = tuple(overrides)
        if file.size > _MOST_STEPS:  # now: looking at them all would take for ever
            raise ConfigError(f"{label}: steps: there are more than {_MOST_STEPS} steps in it")
        if file.depth > _MOST_NESTED:
            raise ConfigError(f"{label}: files are nested more than {_MOST_NESTED} deep")
        return file

    def _read(self, label: str, table: Table, chain: Tuple[str, ...]) -> WorkflowFile:
        problems = table.problems
        name = table.get("name", TEXT, pathlib.Path(label).stem)
        if not name:
            table.refuse("name", "must not be empty")
        file = WorkflowFile(label, name, table.get("input", TEXT), table.get("context", TABLE, {}))
        named = {key: table.table(key) for key in ("clients", "tools", "agents")}
        file.clients = self._each(named["clients"], read_client)
        file.tools = self._each(named["tools"], read_tool)
        clients, tools = named["clients"].values, named["tools"].values
        file.agents = self._each(
            named["agents"], lambda inner, key: read_agent(inner, key, clients, tools)
        )
        nested: Dict[str, WorkflowFile] = {}

        def within(where: Table, given: str) -> Optional[WorkflowFile]:
            inner = self._within(where, given, chain)
            if inner is not None:
                nested[inner.label] = inner
            return inner

        steps = StepReader(problems, named["agents"].values, within, outermost=len(chain) == 1)
        file.steps = steps.read_all(table.raw("steps"))
        file.used = tuple(name for name in steps.used if name in file.agents)
        file.nested = tuple(nested.values())
        file.size = sum(step.size() for step in file.steps)
        file.depth = 1 + max((inner.depth for inner in file.nested), default=0)
        file._functions = tuple(steps.imports)
        self._functions = self._functions or bool(steps.imports)
        self._asked += [(problems, where, key) for where, key in steps.asked]
        table.done()
        _warn_of_unused(file, problems)
        return file

    @staticmethod
    def _each(table: Table, read: Callable[[Table, str], Optional[_T]]) -> Dict[str, _T]:
        found: Dict[str, _T] = {}
        for key, value in table.values.items():
            where = (*table.where, key)
            if not isinstance(value, dict):
                table.problems.add(where, f"must be a table, [{dotted(where)}]")
                continue
            made = read(Table(table.problems, where, value), key)
            if made is not None:
                found[key] = made
        return found

    def _within(self, table: Table, given: str, chain: Tuple[str, ...]) -> Optional[WorkflowFile]:
        label = os.path.normpath(os.path.join(os.path.dirname(chain[-1]), given))
        if not given or os.path.isabs(given) or "\0" in given:
            table.refuse("workflow", "must be the path of a workflow file, relative to this one")
            return None
        real = os.path.realpath(label)
        if real in map(os.path.realpath, chain):
            home = os.path.dirname(chain[0]) or os.curdir
            names = " -> ".join(os.path.relpath(path, home) for path in (*chain, label))
            table.refuse("workflow", f"a workflow cannot hold itself: {names}")
            return None
        if len(chain) > _MOST_NESTED:
            table.refuse("workflow", f"files are nested more than {_MOST_NESTED} deep")
            return None
        if real not in self._files:
            self._files[real] = None
            try:
                self._files[real] = self.load(label, (), chain)
            except ConfigError as error:
                table.refuse("workflow", str(error))
        return self._files[real]

    def check_context(self, file: WorkflowFile) -> None:
        """Report the context's keys that are named and never set."""
        known = file.context
        for problems, where, key in self._asked:
            if key in known:
                continue
            text = f"context.{key[:40]} is set nowhere: write it into [context]"
            if self._functions:
                problems.warn(where, f"{text}, if no function sets it")
            else:
                problems.add(where, text)


def _warn_of_unused(file: WorkflowFile, problems: Problems) -> None:
    agents = file.agents.values()
    used: Dict[str, Set[Optional[str]]] = {
        "agents": set(file.used),
        "clients": {agent.client for agent in agents},
        "tools": {name for agent in agents for name in agent.tools},
    }
    of = {"agents": "no step uses it", "clients": "no agent uses it", "tools": "no agent has it"}
    for section, names in used.items():
        for name in getattr(file, section):
            if name not in names:
                problems.warn((section, name), of[section])
