"""`rate_limit = {requests = 60, path = "openai.limit"}`: how much a client of a file may send."""

from __future__ import annotations

import os
from typing import Any, Dict

from agentstream.errors import ConfigError
from agentstream.llm.rate_limit.limit import SERVERS, RateLimit
from agentstream.llm.transport import secrets_in
from agentstream.workflow_files.problems import FLAG, TEXT, TIME, WHOLE, Table

__all__ = ["make_rate_limit", "read_rate_limit"]

_KINDS = {
    "requests": WHOLE,
    "tokens": WHOLE,
    "per": TIME,
    "path": TEXT,
    "burst": WHOLE,
    "within_first_token": FLAG,
}


def read_rate_limit(table: Table) -> Dict[str, Any]:
    """The keywords of a client's `RateLimit`; {} if it has none, or one that cannot be."""
    if "rate_limit" not in table.values:
        return {}
    inner = table.table("rate_limit")
    given = inner.settings(_KINDS, _check)
    inner.done()
    if "path" in given and given["path"].startswith(SERVERS) and secrets_in(given["path"]):
        table.problems.warn((*inner.where, "path"), "holds a secret: keep the file to yourself")
    whole = table.accepted("rate_limit", lambda: RateLimit(**{**given, "path": None}))
    return given if whole else {}


def make_rate_limit(given: Dict[str, Any], folder: str) -> RateLimit:
    """The limit, to be closed; a file's path is one from `folder` on."""
    path = given.get("path")
    if path is not None and not path.startswith(SERVERS):
        path = os.path.join(folder, path)
    return RateLimit(**{**given, "path": path})


def _check(**given: Any) -> None:
    for name, value in given.items():
        if name in ("requests", "tokens", "per", "path"):
            RateLimit(**{"requests": 1, name: value})
        elif name == "burst" and value < 1:
            raise ConfigError.about("burst", "must be 1 or more")
