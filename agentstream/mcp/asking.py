"""One request to a server, until its result is complete: pages, further rounds, one repetition."""

from __future__ import annotations

import logging
from typing import Any, Dict, List, Mapping, Optional, Protocol, Set, Tuple

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import ConnectError, ProtocolError, StreamTruncated
from agentstream.mcp.messages import Asked, MCPError
from agentstream.mcp.results import found_list

__all__ = ["Asker", "Connection"]

logger = logging.getLogger("agentstream.mcp")

_MOST_PAGES = 1000
#: Rounds of a server that answers "ask again"; the wait before the second, and the longest.
_MOST_ROUNDS, _FIRST_WAIT_S, _MOST_WAIT_S = 10, 0.05, 0.25


class Connection(Protocol):
    """What carries requests to a server: `HttpConnection`, `StdioConnection`."""

    #: Arguments that a schema marks go into HTTP headers.
    mirrors: bool

    @property
    def protocol(self) -> str:
        """The version of MCP that is spoken."""

    @property
    def address(self) -> Optional[Tuple[str, int]]:
        """The server's host and port; None where it is spoken to over pipes."""

    def about(self, cancel: CancelToken) -> Dict[str, Any]:
        """What the server says of itself."""

    def request(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        """The result of one request."""

    def close(self, *, hurry: bool = False) -> None:
        """End it."""


class Asker:
    """Makes requests over a connection.

    Args:
        name: the server's, in the log.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    def pages(self, method: str, key: str) -> Tuple[List[Dict[str, Any]], float]:
        """All pages of a list; and for how many seconds the server lets it be kept."""
        items: List[Dict[str, Any]] = []
        seen: Set[str] = set()
        ttl_ms: List[float] = []
        params: Dict[str, Any] = {}
        while True:
            result = self.request(Asked(method, params), CancelToken())
            items += self.items(result, key)
            ttl: Any = result.get("ttlMs")
            ttl_ms.append(ttl if checks.is_number(ttl) and ttl > 0 else 0.0)
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str) or not cursor:
                return items, min(ttl_ms) / 1000
            if cursor in seen or len(seen) >= _MOST_PAGES:
                raise ProtocolError(f"{method}: the server's pages have no end", phase="stream")
            seen.add(cursor)
            params = {"cursor": cursor}

    @staticmethod
    def items(result: Mapping[str, Any], key: str) -> List[Dict[str, Any]]:
        """The objects of a result's list.

        Raises:
            ProtocolError: it has none.
        """
        items = found_list(result, key)
        if items is None:
            raise ProtocolError(f"the answer has no list of {key}", phase="stream")
        return items

    def request(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        """The result of a request, when it is complete.

        Raises:
            MCPError: the server answered with an error, or wants what nobody here gives.
            AgentStreamError: it did not answer.
        """
        for number in range(_MOST_ROUNDS):
            result = self._repeated(asked, cancel)
            kind = result.get("resultType", "complete")
            if kind == "complete":
                return result
            if kind != "input_required":
                text = f"{asked.method}: a result of an unknown type, {str(kind)[:40]!r}"
                raise ProtocolError(text, phase="stream")
            asked = self._next_round(asked, result)
            cancel.wait(min(_FIRST_WAIT_S * 2**number, _MOST_WAIT_S))
        raise ProtocolError(f"{asked.method}: the server asks again and again", phase="stream")

    @staticmethod
    def _next_round(asked: Asked, result: Mapping[str, Any]) -> Asked:
        """The request as the server wants it again: with its own state, unread.

        Raises:
            MCPError: it wants more than that, which nobody here can give.
        """
        wants = result.get("inputRequests")
        state = result.get("requestState")
        if wants or not isinstance(state, str):
            kinds = wants.values() if isinstance(wants, dict) else ()
            methods = {str(w.get("method"))[:60] for w in kinds if isinstance(w, dict)}
            what = ", ".join(sorted(methods)) or "nothing that can be named"
            raise MCPError(
                f"{asked.method}: the server wants input before it goes on ({what}), and nobody"
                " here gives any",
                method=asked.method,
                phase="stream",
            )
        params = {key: value for key, value in asked.params.items() if key != "requestState"}
        return asked._replace(params={**params, "requestState": state})

    def _repeated(self, asked: Asked, cancel: CancelToken) -> Dict[str, Any]:
        """The result; a request whose answer broke off is made once more if it may be."""
        try:
            return self._connection.request(asked, cancel)
        except (ConnectError, StreamTruncated) as error:
            if error.outcome != "unknown" or not asked.repeatable or cancel.cancelled:
                raise
            logger.info("%s: %s is asked for again: %s", self._name, asked.method, error)
        return self._connection.request(asked, cancel)
