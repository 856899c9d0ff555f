"""`fallback = ["first", "second"]`: a client of a file that is made of others of it."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Type

from agentstream import checks, errors
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.clients import ChatClient
from agentstream.llm.fallback import FallbackClient, error_kinds
from agentstream.workflow_files.problems import TEXTS, TIME, Table
from agentstream.workflow_files.spec import ClientSpec

__all__ = ["FALLBACK", "Chains", "make_fallback", "outermost", "read_fallback", "read_names"]

#: The key of such a client, and its settings besides.
FALLBACK = "fallback"
_SETTINGS = {
    "on": TEXTS,
    "pause": TIME,
    "max_pause": TIME,
    "patience": TIME.or_false(),
    "total": TIME,
}
#: What it has not.
_OF_ONE = ("provider", "model", "base_url", "api_key_env", "headers", "body", "prices",
           "timeouts", "retries", "limits", "rate_limit")  # fmt: skip
_ELSEWHERE = "belongs to one of the clients that fallback names, each a [clients.NAME] of its own"


def read_fallback(table: Table, name: str, clients: Mapping[str, Any]) -> Optional[ClientSpec]:
    """The client of a table that names others; None if it cannot be made.

    Args:
        clients: the tables of all clients.
    """
    named = read_names(table, clients)
    settings = table.settings(_SETTINGS, _check)
    table.done(dict.fromkeys(_OF_ONE, _ELSEWHERE))
    if any(name in _reached(other, clients) for other in named):
        table.refuse(FALLBACK, "leads back to the client itself")
        return None
    return ClientSpec(name, "", settings, {}, None, {}, None, named) if named else None


def read_names(
    table: Table, clients: Mapping[str, Any], first: Optional[str] = None
) -> Tuple[str, ...]:
    """The clients that a table's `fallback` names; () without one.

    Args:
        clients: the tables of all clients.
        first: the client that is asked before them.
    """
    named: Sequence[str] = table.get(FALLBACK, TEXTS, ())
    if table.values.get(FALLBACK) == []:
        table.refuse(FALLBACK, "names no client")
    for other in dict.fromkeys(named):
        if other not in clients:
            table.refuse(FALLBACK, table.problems.missing("client", other, clients))
        elif [first, *named].count(other) > 1:
            table.refuse(FALLBACK, f"names {other!r} twice")
    return tuple(other for other in dict.fromkeys(named) if other in clients)


def _reached(name: str, clients: Mapping[str, Any]) -> Set[str]:
    """A client, those that it names, those that they name, and so on."""
    found: Set[str] = set()
    left = [name]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += _named_by(clients.get(one))
    return found


def _named_by(table: Any) -> List[str]:
    named = table.get(FALLBACK) if isinstance(table, dict) else None
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []


def outermost(clients: Mapping[str, Any]) -> List[str]:
    """The clients that no other one is made of."""
    inner = {one for table in clients.values() for one in _named_by(table)}
    return [name for name in clients if name not in inner]


def _check(**given: Any) -> None:
    for name, value in given.items():
        if name == "on":
            _kinds(value)
        else:
            optional = name == "patience"
            checks.seconds(name, value, zero=name != "total", optional=optional)


def _kinds(names: Sequence[str]) -> Tuple[Type[AgentStreamError], ...]:
    for name in names:
        if name not in errors.__all__:
            known = ", ".join(errors.__all__)
            raise ConfigError.about("on", f"names no error {name[:40]!r}; there is: {known}")
    return error_kinds(getattr(errors, name) for name in names)


class Chains:
    """The clients of agents that have a `fallback`: one for all agents that name the same."""

    def __init__(self) -> None:
        self._made: Dict[Tuple[str, ...], FallbackClient] = {}

    def client(self, names: Tuple[str, ...], clients: Mapping[str, ChatClient]) -> ChatClient:
        """The client that is made of those of these names."""
        if len(names) == 1:
            return clients[names[0]]
        if names not in self._made:
            self._made[names] = FallbackClient([clients[name] for name in names])
        return self._made[names]


def make_fallback(spec: ClientSpec, clients: Mapping[str, ChatClient]) -> FallbackClient:
    """The client, of those that have been made."""
    settings: Dict[str, Any] = dict(spec.settings)
    if "on" in settings:
        settings["on"] = _kinds(settings["on"])
    return FallbackClient([clients[name] for name in spec.fallback], **settings)
