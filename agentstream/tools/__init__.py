"""Tools: functions that a model may call, described and called one at a time.

Only the public names; schemas are made in schema.py, calls in tool.py.  The
loop that lets a model use them is the agent's.
"""

from __future__ import annotations

from agentstream.tools.context import RunContext
from agentstream.tools.results import to_text
from agentstream.tools.tool import Tool, as_tool, tool

__all__ = ["RunContext", "Tool", "as_tool", "to_text", "tool"]
