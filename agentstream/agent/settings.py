"""The checks of an agent's settings; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Sequence, Union

from agentstream.errors import ConfigError

if TYPE_CHECKING:
    from agentstream.tools import Tool

__all__ = ["as_choice", "as_tools", "check_count"]

_CHOICES = ("auto", "none", "required")


def as_tools(agent: str, tools: Sequence[Union[Tool, Callable[..., Any]]]) -> Dict[str, Tool]:
    """The tools by name; raises ConfigError for a name that comes twice."""
    if not tools:
        return {}
    from agentstream.tools import as_tool  # noqa: PLC0415 - only who has tools pays for it

    found: Dict[str, Tool] = {}
    for given in tools:
        made = as_tool(given)
        if made.name in found:
            raise ConfigError(f"agent {agent!r} has two tools named {made.name!r}")
        found[made.name] = made
    return found


def as_choice(
    agent: str, choice: Union[str, Mapping[str, Any], None], tools: Dict[str, Tool]
) -> Union[str, Dict[str, Any], None]:
    """A tool_choice as the API takes it; raises ConfigError for a tool that is not there."""
    if choice is None:
        return None
    name: Any = choice
    if not isinstance(choice, str):
        function = choice.get("function") if isinstance(choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
    elif choice in _CHOICES and choice not in tools:
        return choice
    if name not in tools:
        known = ", ".join([*_CHOICES, *tools])
        raise ConfigError(f"agent {agent!r}: tool_choice must be one of {known}, not {choice!r}")
    return {"type": "function", "function": {"name": name}}


def check_count(
    agent: str, setting: str, value: object, least: int, *, optional: bool = False
) -> None:
    """Raise ConfigError unless a setting is a whole number, `least` or more."""
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        more = ", or None" if optional else ""
        raise ConfigError(f"agent {agent!r}: {setting} must be {least} or more{more}")
