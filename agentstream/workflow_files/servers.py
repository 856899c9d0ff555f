"""MCP servers as a file describes them: read and checked; and opened, when it is run.

What is not run pays nothing: `agentstream.mcp` is imported where a server is opened.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Tuple

from agentstream import checks
from agentstream.errors import ConfigError
from agentstream.llm.transport import check_url
from agentstream.workflow_files.parts import (
    TIMEOUTS,
    read_headers,
    read_verification,
    variable_of,
)
from agentstream.workflow_files.problems import TEXT, TEXTS, WHOLE, Table
from agentstream.workflow_files.spec import ServerSpec

if TYPE_CHECKING:
    from agentstream.mcp import Server, ServerTool

__all__ = ["open_server", "read_server", "tools_of_server"]

_PREFIX = re.compile(r"[a-zA-Z0-9_-]{0,32}")


def read_server(table: Table, name: str) -> ServerSpec:
    """The server of a table: `command` or `url`, and what belongs to it."""
    if not name or ":" in name:
        table.problems.add(table.where, "an MCP server needs a name, without a colon")
    command = table.get("command", TEXTS)
    url = table.get("url", TEXT)
    settings: Dict[str, Any] = {}
    envs: Dict[str, str] = {}
    header_envs: Dict[str, str] = {}
    ca_file = cwd = None
    if (command is None) == (url is None):
        there = {key for key in ("command", "url") if key in table.values}
        if len(there) != 1:  # else what is wrong with it has been told
            table.refuse("command", 'or url is needed, one of them: command = ["program", "arg"]')
    if command is not None and url is None:
        if not command or not command[0]:
            table.refuse("command", "must begin with a program")
        settings["command"] = command
        envs = _variables(table, settings)
        cwd = table.get("cwd", TEXT)
        settings.update(table.settings({"restarts": WHOLE}, _check_restarts))
    elif url is not None:
        if table.accepted("url", lambda: check_url(url)):
            settings["url"] = url
        header_envs = read_headers(table, settings)
        ca_file = read_verification(table, settings)
    prefix = table.get("prefix", TEXT, "")
    if not _PREFIX.fullmatch(prefix):
        table.refuse("prefix", "must be at most 32 letters, digits, '_' or '-'")
    inner = table.table("timeouts")
    timeouts = inner.settings(TIMEOUTS, _check_timeouts)
    inner.done()
    table.done({"args": "belongs into command, a list", "tools": "is an agent's"})
    return ServerSpec(name, settings, timeouts, prefix, envs, header_envs, ca_file, cwd)


def _check_restarts(restarts: int) -> None:
    checks.whole("restarts", restarts)


def _check_timeouts(**given: Any) -> None:
    for name, value in given.items():
        checks.seconds(name, value, optional=True)


def _variables(table: Table, settings: Dict[str, Any]) -> Dict[str, str]:
    """The server's variables that the environment holds; the others go into the settings."""
    inner = table.table("env")
    literal: Dict[str, str] = {}
    envs: Dict[str, str] = {}
    for name, value in inner.values.items():
        env = variable_of(value)
        if env is not None:
            envs[name] = env
        elif isinstance(value, str):
            literal[name] = value
        else:
            inner.refuse(name, 'must be a text, or {env = "NAME"} for one from the environment')
    settings["env"] = literal
    return envs


# --- live -----------------------------------------------------------------------------------


def open_server(spec: ServerSpec, environ: Mapping[str, str], folder: str) -> Server:
    """A server that a file describes, not started yet; the caller closes it.

    Args:
        environ: the environment, in which all of `spec.environment` is.
        folder: the file's, from which its paths go on.

    Raises:
        ConfigError: it cannot be used.
    """
    from agentstream.mcp import Server  # noqa: PLC0415 - it costs who uses it
    from agentstream.mcp.server import HTTP_TIMEOUTS, STDIO_TIMEOUTS  # noqa: PLC0415

    settings = dict(spec.settings)
    if "url" in settings:
        headers = {name: environ[env] for name, env in spec.header_envs.items()}
        settings["headers"] = {**settings.get("headers", {}), **headers}
        if spec.ca_file is not None:
            settings["verify"] = os.path.join(folder, spec.ca_file)
        timeouts = HTTP_TIMEOUTS.replace(**spec.timeouts)
        return Server.http(settings.pop("url"), name=spec.name, timeouts=timeouts, **settings)
    own = {name: environ[env] for name, env in spec.envs.items()}
    settings["env"] = {**settings["env"], **own}
    settings["cwd"] = os.path.join(folder, spec.cwd or "")
    timeouts = STDIO_TIMEOUTS.replace(**spec.timeouts)
    return Server.stdio(settings.pop("command"), name=spec.name, timeouts=timeouts, **settings)


def tools_of_server(
    server: Server, spec: ServerSpec, wanted: Sequence[Tuple[str, str]]
) -> List[ServerTool]:
    """The tools of one server that an agent names.

    Raises:
        ConfigError: there is none of a name.
        AgentStreamError: the server could not be asked.
    """
    patterns = [pattern for name, pattern in wanted if name == spec.name]
    try:
        return server.tools(spec.prefix, only=patterns)
    except ConfigError as error:
        raise ConfigError(error.reason if error.setting == "only" else str(error)) from error
