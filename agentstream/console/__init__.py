"""Runs on a terminal: what agents say as they say it, and a line that says how far they are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentstream.console.console import Console
    from agentstream.console.status import StatusLine

__all__ = ["Console", "StatusLine"]

_HOMES = {"Console": "agentstream.console.console", "StatusLine": "agentstream.console.status"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # a plain answer needs `terminal` only
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
