"""`budget = {tokens = 50000, cost = 0.2}`, of a file's runs and of an agent's."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from agentstream.agent.budget import Budget
from agentstream.errors import ConfigError
from agentstream.workflow_files.problems import TABLE, Table

__all__ = ["budget_in", "read_budget", "with_budget"]


def read_budget(table: Table) -> Optional[Budget]:
    """What the runs of the file may spend."""
    given = table.get("budget", TABLE)
    if given is None or not table.accepted("budget", lambda: budget_in(given)):
        return None
    return budget_in(given)


def budget_in(given: Mapping[str, Any]) -> Budget:
    """The budget that a table is.

    Raises:
        ConfigError: it is none.
    """
    unknown = ", ".join(key for key in given if key not in Budget._fields)
    if unknown:
        raise ConfigError(f"has tokens and cost, and no {unknown[:60]}")
    return Budget(**given)


def with_budget(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """An agent's settings as the file has them, with its budget as `Agent` takes it."""
    given = settings.get("budget")
    return dict(settings) if given is None else {**settings, "budget": budget_in(given)}
