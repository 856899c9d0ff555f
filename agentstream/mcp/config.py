"""load_servers: the JSON file in which programs keep their MCP servers::

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "some-server"], "env": {}},
                    "search": {"url": "https://example.com/mcp", "headers": {}}}}

Written by many programs, each with keys of its own: those that are not known are
passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from types import TracebackType
from typing import Any, Dict, Iterator, List, Mapping, Optional, Type, Union

from agentstream.errors import ConfigError
from agentstream.mcp.server import Server
from agentstream.mcp.tool import ServerTool

__all__ = ["Servers", "load_servers"]

_MOST = 2**20
#: How the file's tables of servers are called.
_TABLES = ("mcpServers", "servers")
_HTTP = ("http", "streamable-http", "streamableHttp", "streamable_http")
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Servers(Mapping[str, Server]):
    """Servers by name; a context manager that closes them all."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = dict(servers)

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def __repr__(self) -> str:
        return f"<Servers {', '.join(self._servers) or 'none'}>"

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close(hurry=kind is not None)

    def tools(self) -> List[ServerTool]:
        """The tools of all servers, each after its server's name: "files_read".

        Raises:
            AgentStreamError: see `Server.tools`.
        """
        found: List[ServerTool] = []
        for name, server in self._servers.items():
            prefix = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:31]
            found += server.tools(prefix=f"{prefix}_")
        return found

    def close(self, *, hurry: bool = False) -> None:
        """Close every server; see `Server.close`."""
        with contextlib.ExitStack() as stack:  # all of them, whatever one raises
            for server in self._servers.values():
                stack.callback(server.close, hurry=hurry)


def load_servers(
    path: Union[str, os.PathLike[str]], *, environ: Optional[Mapping[str, str]] = None
) -> Servers:
    """The servers of a file, none of them started yet; those that are "disabled" are left out.

    Args:
        path: a JSON file with "mcpServers".
        environ: what `${NAME}` and `${NAME:-default}` in its texts stand for;
            `os.environ`, usually.

    Raises:
        ConfigError: the file cannot be read; an entry cannot be used, one line each.
    """
    label = os.fspath(path)
    entries = _entries(label, _read(label))
    servers: Dict[str, Server] = {}
    problems: List[str] = []
    for name, entry in entries.items():
        try:
            if not isinstance(entry, dict):
                raise ConfigError("must be an object")
            if entry.get("disabled") is not True:
                servers[name] = _server(name, _filled(entry, environ))
        except ConfigError as error:
            problems.append(f"{label}: {name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Servers(servers)


def _read(label: str) -> Any:
    try:
        with open(label, "rb") as file:
            raw = file.read(_MOST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{label}: it cannot be read: {why}") from None
    if len(raw) > _MOST:
        raise ConfigError(f"{label}: it has more than 1 MiB: that is no list of servers")
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{label}: it is no JSON: {error}") from None


def _entries(label: str, found: Any) -> Dict[str, Any]:
    table = found if isinstance(found, dict) else {}
    for key in _TABLES:
        if isinstance(table.get(key), dict):
            entries: Dict[str, Any] = table[key]
            return entries
    raise ConfigError(f'{label}: it has no "mcpServers", an object of servers by name')


def _filled(value: Any, environ: Optional[Mapping[str, str]]) -> Any:
    """A copy whose texts have the environment's values in them."""
    if isinstance(value, dict):
        return {key: _filled(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environ) for item in value]
    if not isinstance(value, str):
        return value

    def of(found: re.Match[str]) -> str:
        name, default = found.groups()
        if environ is None:
            raise ConfigError(f"names ${{{name}}}: give load_servers(..., environ=os.environ)")
        if name not in environ and default is None:
            raise ConfigError(f"the environment has no {name}, which it needs")
        return environ.get(name) or default or ""

    return _VARIABLE.sub(of, value)


def _server(name: str, entry: Dict[str, Any]) -> Server:
    kind = entry.get("type", entry.get("transport"))
    if kind == "sse":
        raise ConfigError('type "sse" is the HTTP+SSE of 2024, which is not spoken; "http" is')
    if kind not in (None, "stdio", *_HTTP):
        raise ConfigError('type must be "stdio" or "http"')
    url, command = entry.get("url"), entry.get("command")
    if kind in _HTTP or (kind is None and command is None):
        if not isinstance(url, str):
            raise ConfigError('needs a "command" or a "url", a text')
        return Server.http(url, headers=_texts(entry, "headers"), name=name)
    words = [command] if isinstance(command, str) else command
    arguments = entry.get("args", [])
    if not _are_texts(words) or not words:
        raise ConfigError('"command" must be a text')
    if not _are_texts(arguments):
        raise ConfigError('"args" must be a list of texts')
    cwd = entry.get("cwd")
    if not isinstance(cwd, (str, type(None))):
        raise ConfigError('"cwd" must be a text')
    return Server.stdio([*words, *arguments], env=_texts(entry, "env"), cwd=cwd, name=name)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _texts(entry: Dict[str, Any], key: str) -> Dict[str, str]:
    value = entry.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ConfigError(f'"{key}" must be an object of texts')
    return value
