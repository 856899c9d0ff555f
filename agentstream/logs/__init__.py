"""Python's logging, for programs that run without anybody looking: `JsonFormatter`."""

from __future__ import annotations

from agentstream.logs.formatter import JsonFormatter

__all__ = ["JsonFormatter"]
