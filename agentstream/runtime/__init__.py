"""Runs workflows in a pool of threads, and stops them."""

from agentstream.runtime.handle import RunHandle
from agentstream.runtime.runtime import Runtime, exit_on_sigterm

__all__ = ["RunHandle", "Runtime", "exit_on_sigterm"]
