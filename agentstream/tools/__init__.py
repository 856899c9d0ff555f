"""Tools: functions that a model may call, described and called one at a time.

Only the public names, each imported when it is first asked for: a workflow of
functions knows `RunContext` and pays for no schemas.  `agentstream.tools.tool` is
the decorator; the module it lives in is `_tool`, so that no name means both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentstream.tools.context import RunContext

if TYPE_CHECKING:
    from agentstream.tools._tool import Tool, as_tool, tool
    from agentstream.tools.results import to_text

__all__ = ["RunContext", "Tool", "as_tool", "to_text", "tool"]

_HOMES = {"Tool": "_tool", "as_tool": "_tool", "tool": "_tool", "to_text": "results"}


def __getattr__(name: str) -> Any:
    import importlib  # noqa: PLC0415

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
