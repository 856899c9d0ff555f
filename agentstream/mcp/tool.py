"""A server's tool as a Tool of the library's: its definition, read, and how it is called."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set

from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError, ToolError
from agentstream.mcp.headers import InvalidAnnotation, Place, annotated_arguments
from agentstream.mcp.results import CallResult
from agentstream.tools import RunContext, Tool

__all__ = ["Definition", "ServerTool", "tool_name"]

#: Calls a tool of a server: (its name there, the arguments, a token that ends the call, its
#: idempotency key or "").
Caller = Callable[[str, Mapping[str, Any], Optional[CancelToken], str], CallResult]

_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST = 64


class Definition:
    """One entry of `tools/list`.

    Attributes:
        name: the tool's, as the server calls it.
        description: what it does; its title where the server says no more; "" for nothing.
        schema: of its arguments, as given.
        read_only, destructive, idempotent: the server's hints; where it gives none,
            what MCP has them mean: not read-only, destructive, not idempotent.
        mirrored: the arguments that go into HTTP headers.

    Raises:
        ConfigError: it has no name.
        InvalidAnnotation: `mirrors`, and its `x-mcp-header` breaks a rule.
    """

    def __init__(self, entry: Mapping[str, Any], *, mirrors: bool) -> None:
        name, schema = entry.get("name"), entry.get("inputSchema")
        if not isinstance(name, str) or not name:
            raise ConfigError("it has no name")
        hints = entry.get("annotations")
        hints = hints if isinstance(hints, dict) else {}
        title = entry.get("title") or hints.get("title")
        self.name = name
        self.description = str(entry.get("description") or title or "")
        self.schema: Any = {} if schema is None else schema
        self.read_only = hints.get("readOnlyHint") is True
        self.destructive = not self.read_only and hints.get("destructiveHint") is not False
        self.idempotent = hints.get("idempotentHint") is True
        self.mirrored: Dict[Place, str] = annotated_arguments(self.schema) if mirrors else {}

    @property
    def repeatable(self) -> bool:
        """A call may be made twice: it changes nothing, or the second changes nothing more."""
        return self.read_only or self.idempotent


class ServerTool(Tool):
    """A tool of an MCP server, made by `Server.tools`.

    It runs alone unless the server says that it only reads.  Its `on_unknown` is "rerun"
    if the server says that a call may be made twice, else "suspend".

    Attributes:
        remote_name: its name at the server; `name` is what the model calls it.
        server: the server's name.
        read_only, destructive, idempotent: the server's hints.  They are as
            trustworthy as the server is.

    Raises (when called):
        ToolError: the tool reports that it failed; the text is for the model.
        AgentStreamError: see `Server.call`.
    """

    def __init__(
        self, definition: Definition, call: Caller, *, name: str, server: str = ""
    ) -> None:
        super().__init__(
            name,
            definition.description,
            definition.schema,
            self._with_keywords,
            alone=not definition.read_only,
            on_unknown="rerun" if definition.repeatable else "suspend",
        )
        self.remote_name = definition.name
        self.server = server
        self.read_only = definition.read_only
        self.destructive = definition.destructive
        self.idempotent = definition.idempotent
        self._call = call

    def _with_keywords(self, /, **arguments: Any) -> str:
        return self.call(arguments)

    def call(
        self,
        arguments: Mapping[str, Any],
        cancel: Optional[CancelToken] = None,
        context: Optional[object] = None,
    ) -> str:
        """Call the tool at the server; returns its result's text.  See `Tool.call`.

        Over HTTP the header Idempotency-Key has the context's `idempotency_key`.
        """
        key = ""
        if isinstance(context, RunContext):
            key = context.idempotency_key
            cancel = context.cancel if cancel is None else cancel
        result = self._call(self.remote_name, arguments, cancel, key)
        if result.is_error:
            raise ToolError(result.text or "the tool failed, and does not say why", tool=self.name)
        return result.text


def tool_name(name: str, prefix: str, taken: Iterable[str]) -> str:
    """The name under which a model calls a server's tool: letters, digits, "_", "-", 64 at most.

    What does not fit is made to: other characters become "_", and a name that is too
    long, or taken, ends in a mark made of the whole one.
    """
    wanted = prefix + _FOREIGN.sub("_", name)
    if len(wanted) <= _LONGEST and wanted not in set(taken):
        return wanted
    mark = "_" + hashlib.sha256(f"{prefix}{name}".encode("utf-8", "replace")).hexdigest()[:8]
    return wanted[: _LONGEST - len(mark)] + mark


def check_prefix(prefix: str) -> str:
    """Refuse a prefix that no tool's name can have; returns it."""
    if not isinstance(prefix, str) or _FOREIGN.search(prefix) or len(prefix) > 32:
        reason = "must be at most 32 letters, digits, '_' or '-'"
        raise ConfigError.about("prefix", reason)
    return prefix


def made_tools(
    definitions: Iterable[Definition],
    call: Caller,
    *,
    prefix: str,
    server: str,
    left_out: Callable[[str, str], object],
) -> List[ServerTool]:
    """A Tool for each definition; `left_out(name, why)` is told of those that can be none."""
    tools: List[ServerTool] = []
    taken: Set[str] = set()
    for definition in definitions:
        name = tool_name(definition.name, prefix, taken)
        try:
            tool = ServerTool(definition, call, name=name, server=server)
        except (ConfigError, InvalidAnnotation) as error:
            left_out(definition.name, str(error))
            continue
        taken.add(name)
        tools.append(tool)
    return tools
