"""`--budget-tokens`, `--budget-cost` and the prices of the config file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from agentstream.cli.settings import setting

if TYPE_CHECKING:
    import argparse

    from agentstream.agent.budget import Budget

__all__ = ["budget_of"]


def budget_of(given: argparse.Namespace) -> Optional[Budget]:
    """What the run may spend; None for no bound.

    Raises:
        ConfigError: a setting is not what it must be.
    """
    tokens, cost = setting(given, "budget_tokens"), setting(given, "budget_cost")
    if tokens is None and cost is None:
        return None
    from agentstream.agent.budget import Budget  # noqa: PLC0415 - few runs have one

    return Budget(tokens=tokens, cost=cost)
