"""From a file's bytes to its tables, and the command line's changes to them.

Opens the one file that it is told to; what the tables mean is not known here.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import Any, Dict, Iterable, List, Mapping, Tuple, Union

from agentstream.errors import ConfigError
from agentstream.workflow_files.problems import Path, dotted, missing, told

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SECTIONS", "Overrides", "override", "read_json", "read_tables"]

#: The keys of a file.
SECTIONS = (
    "name",
    "input",
    "context",
    "checkpoints",
    "budget",
    "clients",
    "agents",
    "tools",
    "mcp",
    "steps",
)
#: What the tables of these are, one by one.
_KINDS = {"agents": "agent", "clients": "client", "tools": "tool", "mcp": "MCP server"}
#: "a.b.c" and the text of its value.
Overrides = Union[Mapping[str, str], Iterable[Tuple[str, str]]]

_MOST = 2**20
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_tables(path: str) -> Dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: with the path; it cannot be read, is no text, no TOML, or too long.
    """
    text = _text(path, _bytes(path))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: it is nested too deeply") from None
    except ValueError as error:
        found = _AT.search(str(error))
        what = str(error)[: found.start()] if found else str(error)
        line, column = found.groups() if found else ("", "")
        if found and not line:  # the end of the document
            line, column = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
        place = f"line {line}, column {column}: " if found else ""
        raise ConfigError(f"{path}: {place}{what}") from None


def read_json(path: str) -> Any:
    """The JSON value that a file holds.

    Raises:
        ConfigError: with the path; it cannot be read, is no JSON, or too long.
    """
    try:
        return json.loads(_bytes(path, "JSON schema").decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: it is no JSON: {error}") from None


def _bytes(path: str, what: str = "workflow file") -> bytes:
    data = None
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe might take for ever
            with open(path, "rb") as file:
                data = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror or error}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(f"{path!r}: it cannot be read: that is no file's name") from None
    if data is None:
        kind = "a folder" if os.path.isdir(path) else "no regular file"
        raise ConfigError(f"{path}: it is {kind}, not a {what}")
    if len(data) > _MOST:
        raise ConfigError(f"{path}: it has more than 1 MiB: that is no {what}")
    return data


def _text(path: str, data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path}: it is UTF-16: save it as UTF-8")
    if data[:3] == b"\xef\xbb\xbf":
        raise ConfigError(f"{path}: it begins with a byte order mark: save it as UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8"
        ) from None
    if not text.strip():
        raise ConfigError(f"{path}: it is empty: a workflow file has [agents] and [[steps]]")
    return text


# --- --set ----------------------------------------------------------------------------------


def override(tables: Dict[str, Any], changes: Overrides) -> List[Path]:
    """Change the tables; returns the places.

    Raises:
        ConfigError: with a line for each change whose place there is not.
    """
    places, problems = [], []
    for key, value in changes.items() if isinstance(changes, Mapping) else changes:
        try:
            path = _path(key)
            _change(tables, path, _value(value))
            places.append(path)
        except ConfigError as error:
            problems.append(f"--set {key}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return places


def _path(text: str) -> Path:
    trouble = ConfigError("must be a path of keys, like agents.greeter.temperature")
    try:
        table: Any = tomllib.loads(f"{text} = 0")
    except (ValueError, RecursionError):
        raise trouble from None
    keys: List[Union[str, int]] = []
    while isinstance(table, dict):
        if len(table) != 1:
            raise trouble
        key, table = next(iter(table.items()))
        keys.append(key)
    if table != 0 or "\n" in text or "=" in text:
        raise trouble
    return tuple(keys)


def _value(text: Any) -> Any:
    """TOML if it is that, else text."""
    if not isinstance(text, str):
        return text
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text


def _change(tables: Dict[str, Any], path: Path, value: Any) -> None:
    node: Any = tables
    for depth, key in enumerate(path[:-1]):
        node = _step_into(node, path, depth, str(key))
    last = str(path[-1])
    if isinstance(node, list):
        node[_index(node, last)] = value
    elif isinstance(node, dict):
        if len(path) == 2 and path[0] in _KINDS and last not in node:
            raise ConfigError(missing(_KINDS[str(path[0])], last, node))
        node[last] = value
    else:
        raise ConfigError(f"{dotted(path[:-1])} is {told(node)}, not a table")


def _step_into(node: Any, path: Path, depth: int, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, key)]
    if not isinstance(node, dict):
        raise ConfigError(f"{dotted(path[:depth])} is {told(node)}, not a table")
    if key in node:
        return node[key]
    section = path[0]
    if (depth == 0 and key == "context") or depth >= 2 or (section == "context" and depth):
        return node.setdefault(key, {})
    if depth == 0:
        raise ConfigError(missing("table", key, dict.fromkeys([*node, "context"])))
    kind = _KINDS.get(str(section), "key")
    raise ConfigError(missing(kind, key, node))


def _index(items: List[Any], key: str) -> int:
    if not key.isascii() or not key.isdigit() or not 1 <= int(key) <= len(items):
        raise ConfigError(f"there is no number {key}: they are numbered from 1 to {len(items)}")
    return int(key) - 1
