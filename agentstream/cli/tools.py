"""agentstream tools: what the MCP servers of a file offer, its own tools, and a try of one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Tuple

from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.output import Output, note, say
from agentstream.errors import AgentStreamError, ConfigError, ToolError
from agentstream.text import strip_controls

if TYPE_CHECKING:
    import argparse

    from agentstream.mcp import Server
    from agentstream.tools import Tool
    from agentstream.workflow_files import WorkflowFile

__all__ = ["tell_offers", "tools"]

#: Characters of a description that a list shows.
_ABOUT = 100


def tools(given: argparse.Namespace) -> int:
    """List the tools of a file, or call one; returns the exit code."""
    output = Output(sys.stdout)
    with contextlib.ExitStack() as stack:
        own, servers = _opened(given.file, given.set, stack)
        if given.tool is None:
            for name, tool in own.items():
                output.write(_line(name, tool))
            return DONE if _list(output, servers) else FAILED
        tool = _chosen(given.tool, own, servers)
        return _try(tool, _arguments(given.arguments), output)


def tell_offers(file: WorkflowFile, output: Output) -> bool:
    """List what the MCP servers of a file and of those within it offer; False if one is silent."""
    with contextlib.ExitStack() as stack:
        servers = _servers(file, stack)
        fine = _list(output, servers)
    return fine


def _list(output: Output, servers: Mapping[str, Server]) -> bool:
    """A line for each tool of each server, and notes of what cannot be used."""
    fine = True
    for name, server in servers.items():
        try:
            offered = server.tools()
        except AgentStreamError as error:
            say(f"[mcp.{name}]: {strip_controls(str(error))}")
            fine = False
            continue
        for tool in offered:
            output.write(_line(f"{name}:{tool.remote_name}", tool))
        if not offered:
            note(f"agentstream: [mcp.{name}] offers no tools")
        for left_out, why in server.left_out.items():
            note(f"agentstream: warning: {name}:{left_out} cannot be used: {why}")
    return fine


def _line(name: str, tool: Tool) -> str:
    about = " ".join(tool.description.split())
    about = about if len(about) <= _ABOUT else about[: _ABOUT - 1] + "…"
    return strip_controls(f"{name}  {about}").rstrip() + "\n"


# --- where they come from -------------------------------------------------------------------


def _opened(
    path: str, changes: List[Tuple[str, str]], stack: contextlib.ExitStack
) -> Tuple[Dict[str, Tool], Dict[str, Server]]:
    """A file's own tools by name, and its servers, none of which has been asked yet."""
    if path.endswith(".json"):
        from agentstream.mcp import load_servers  # noqa: PLC0415

        if changes:
            raise ConfigError("--set is for workflow files")
        return {}, dict(stack.enter_context(load_servers(path, environ=os.environ)))
    from agentstream.workflow_files import load_workflow  # noqa: PLC0415
    from agentstream.workflow_files.building import own_tools  # noqa: PLC0415

    file = load_workflow(path, set=changes)
    return own_tools(file, stack), _servers(file, stack)


def _servers(file: WorkflowFile, stack: contextlib.ExitStack) -> Dict[str, Server]:
    from agentstream.workflow_files.servers import open_server  # noqa: PLC0415

    found: Dict[str, Server] = {}
    for one in _files(file):
        for name, spec in one.servers.items():
            missing = [env for env in spec.environment if not os.environ.get(env)]
            if missing:
                raise ConfigError(
                    f"{one.label}: [mcp.{name}]: the environment has no {missing[0]}, which it"
                    " needs"
                )
            server = open_server(spec, os.environ, one.folder)
            found.setdefault(name, server)
            stack.callback(server.close, hurry=True)
    return found


def _files(file: Any) -> Iterator[Any]:
    yield file
    for inner in file.nested:
        yield from _files(inner)


# --- one of them ----------------------------------------------------------------------------


def _chosen(wanted: str, own: Mapping[str, Tool], servers: Mapping[str, Server]) -> Tool:
    """The tool of that name: a file's own, "server:tool", or one that only one server has.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if wanted in own:
        return own[wanted]
    server, colon, name = wanted.partition(":")
    asked = {server: servers[server]} if colon and server in servers else dict(servers)
    name = name if len(asked) == 1 and colon else wanted
    offered = {
        f"{label}:{tool.remote_name}": tool for label, one in asked.items() for tool in one.tools()
    }
    found = [label for label in offered if label.partition(":")[2] == name]
    if len(found) == 1:
        return offered[found[0]]
    if found:
        raise ConfigError(f"which {wanted}? There is {', '.join(found)}")
    from agentstream.workflow_files.problems import missing  # noqa: PLC0415

    raise ConfigError(missing("tool", wanted, [*own, *offered]))


def _arguments(given: List[str]) -> str:
    """The arguments as JSON: given so, or as KEY=VALUE."""
    if len(given) == 1 and given[0].lstrip()[:1] == "{":
        return given[0]
    found: Dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"arguments are a JSON object, or KEY=VALUE, not {text[:40]!r}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return json.dumps(found)


def _try(tool: Tool, arguments: str, output: Output) -> int:
    """Call it as an agent would; returns the exit code."""
    from agentstream.tools import to_text  # noqa: PLC0415

    try:
        bound = tool.bind(arguments)
    except ToolError as error:
        raise ConfigError(str(error)) from None
    try:
        result = tool.call(bound)
    except ToolError as error:
        say(f"{tool.name} failed: {error}")
        return FAILED
    output.write(to_text(result, 2**40))
    output.end_line()
    return DONE
