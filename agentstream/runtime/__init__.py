"""Runs workflows in a pool of threads, and stops them."""

from agentstream.runtime.runtime import RunHandle, Runtime, exit_on_sigterm

__all__ = ["RunHandle", "Runtime", "exit_on_sigterm"]
