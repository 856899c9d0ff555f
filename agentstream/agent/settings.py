"""The checks of an agent's settings; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Sequence, Union

from agentstream.errors import ConfigError

if TYPE_CHECKING:
    from agentstream.tools import Tool

__all__ = ["as_choice", "as_tools"]

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
        reason = f"must be one of {known}, not {choice!r}"
        raise ConfigError.about("tool_choice", reason, f"agent {agent!r}")
    return {"type": "function", "function": {"name": name}}
