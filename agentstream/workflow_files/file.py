"""load_workflow and WorkflowFile: a workflow file, read and checked; no code is run for it.

What its parts mean is parts.py's and steps.py's; what it says, spec.py's; making a
live workflow of it, building.py's; saying what it would do, describing.py's.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from agentstream.errors import ConfigError
from agentstream.workflow.definition import Workflow
from agentstream.workflow_files.budget import read_budget
from agentstream.workflow_files.building import Builder, DefaultClient, Progress, inert
from agentstream.workflow_files.describing import describe
from agentstream.workflow_files.parts import (
    read_agent,
    read_checkpoints,
    read_client,
    read_tool,
)
from agentstream.workflow_files.problems import TABLE, TEXT, TEXTS, Path, Problems, Table, dotted
from agentstream.workflow_files.reading import Overrides, override, read_tables
from agentstream.workflow_files.servers import read_server
from agentstream.workflow_files.spec import FileSpec, RunSpec
from agentstream.workflow_files.steps import StepReader

__all__ = ["WorkflowFile", "load_workflow"]

_T = TypeVar("_T")
_MOST_NESTED = 10
_MOST_STEPS = 10_000


class WorkflowFile(FileSpec):
    """A workflow file that has been read and found right.  Made by `load_workflow`."""

    def describe(self) -> str:
        """What it would do, in words, for people; no secret among them."""
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


def load_workflow(path: Union[str, os.PathLike[str]], set: Overrides = ()) -> WorkflowFile:
    """Read and check a workflow file; see docs/workflow-files.rst for the format.

    Reads this file and the workflow files and schemas that it names, and nothing else: no
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
        file = self._read(label, Table(problems, (), tables), (*chain, label), overrides)
        if file.size > _MOST_STEPS:  # now: looking at them all would take for ever
            raise ConfigError(f"{label}: steps: there are more than {_MOST_STEPS} steps in it")
        if file.depth > _MOST_NESTED:
            raise ConfigError(f"{label}: files are nested more than {_MOST_NESTED} deep")
        return file

    def _read(
        self, label: str, table: Table, chain: Tuple[str, ...], overrides: Sequence[Path]
    ) -> WorkflowFile:
        problems = table.problems
        name = table.get("name", TEXT, pathlib.Path(label).stem)
        if not name:
            table.refuse("name", "must not be empty")
        runs = _runs(table)
        named = {key: table.table(key) for key in ("clients", "tools", "mcp", "agents")}
        given = {key: inner.values for key, inner in named.items()}
        clients = self._each(
            named["clients"], lambda inner, key: read_client(inner, key, given["clients"])
        )
        tools = self._each(named["tools"], read_tool)
        servers = self._each(named["mcp"], read_server)
        agents = self._each(
            named["agents"],
            lambda inner, key: read_agent(
                inner,
                key,
                given["clients"],
                given["tools"],
                os.path.dirname(label),
                servers=given["mcp"],
            ),
        )
        nested: Dict[str, WorkflowFile] = {}

        def within(where: Table, path: str) -> Optional[WorkflowFile]:
            inner = self._within(where, path, chain)
            if inner is not None:
                nested[inner.label] = inner
            return inner

        reader = StepReader(problems, given["agents"], within, outermost=len(chain) == 1)
        steps = reader.read_all(table.raw("steps"))
        self._functions = self._functions or bool(reader.imports)
        self._asked += [(problems, where, key) for where, key in reader.asked]
        table.done()
        file = WorkflowFile(
            label,
            name,
            runs=runs,
            clients=clients,
            tools=tools,
            servers=servers,
            agents=agents,
            steps=steps,
            used=tuple(reader.used),
            nested=tuple(nested.values()),
            functions=reader.imports,
            overrides=overrides,
        )
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


def _runs(table: Table) -> RunSpec:
    return RunSpec(
        table.get("input", TEXT),
        table.get("files", TEXTS, []),
        table.get("context", TABLE, {}),
        read_checkpoints(table),
        read_budget(table),
    )


def _warn_of_unused(file: WorkflowFile, problems: Problems) -> None:
    agents = file.agents.values()
    used: Dict[str, Set[Optional[str]]] = {
        "agents": set(file.used),
        "clients": set(file.clients_of(file.agents)),
        "tools": {name for agent in agents for name in agent.tools},
        "servers": {name for agent in agents for name, _ in agent.served},
    }
    of = {
        "agents": "no step uses it",
        "clients": "no agent uses it",
        "tools": "no agent has it",
        "servers": "no agent has a tool of it",
    }
    for section, names in used.items():
        for name in getattr(file, section):
            if name not in names:
                problems.warn(("mcp" if section == "servers" else section, name), of[section])
