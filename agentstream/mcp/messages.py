"""JSON-RPC as MCP uses it: requests, answers, errors, and the protocol's versions.  Pure.

JSON-RPC 2.0; MCP of 2026-07-28, "basic", and of 2025-11-25, "lifecycle".
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from agentstream._version import __version__
from agentstream.errors import AgentStreamError, ConfigError, ProtocolError
from agentstream.llm.transport import trace_headers
from agentstream.text import safe_str, strip_controls

__all__ = [
    "HEADER_MISMATCH",
    "LEGACY",
    "METHOD_NOT_FOUND",
    "MODERN",
    "MODERN_ERRORS",
    "STANDARD_ERRORS",
    "UNSUPPORTED_VERSION",
    "Asked",
    "MCPError",
    "encode",
    "encode_answer",
    "error_of",
    "initialize_params",
    "is_answer",
    "is_request",
    "legacy_version",
    "messages_in",
    "mutual_version",
    "result_of",
    "with_meta",
]

#: The versions spoken: those whose requests stand alone, and those that begin with
#: `initialize`.  The newest first.
MODERN = ("2026-07-28",)
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")

METHOD_NOT_FOUND = -32601
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
#: Errors that only a server of a modern version gives.
MODERN_ERRORS = (HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION)
#: JSON-RPC's own, which say nothing of the version.
STANDARD_ERRORS = (-32700, -32600, METHOD_NOT_FOUND, -32602, -32603)

_INFO = {"name": "agentstream", "version": __version__}
_META = "io.modelcontextprotocol/"
#: Characters of a server's words that an error repeats.
_SAID = 1000


class MCPError(AgentStreamError):
    """An MCP server answered a request with an error.

    Attributes:
        code: JSON-RPC's or MCP's code, -32602 for invalid parameters for example.
        data: what the server sent along with it, or None.
        method: the request's, "tools/call" for example.
    """

    def __init__(
        self, message: str = "", *, code: int = 0, data: Any = None, method: str = "", **common: Any
    ) -> None:
        super().__init__(message, **common)
        self.code = code
        self.data = data
        self.method = method


class Asked(NamedTuple):
    """One request, as its caller means it.

    Attributes:
        repeatable: asked twice it does no harm.
        headers: HTTP headers beyond those of every request, for a server that mirrors.
        timeout: seconds until its answer; None for the connection's own.
        idempotency_key: what tells the same call, made again, from another; over HTTP
            it is a header.  "" for none.
    """

    method: str
    params: Mapping[str, Any]
    repeatable: bool = True
    headers: Mapping[str, str] = {}
    timeout: Optional[float] = None
    idempotency_key: str = ""

    def key_header(self) -> Dict[str, str]:
        """The header Idempotency-Key, if there is a key."""
        return {"Idempotency-Key": self.idempotency_key} if self.idempotency_key else {}


# --- what is sent ---------------------------------------------------------------------------


def encode(method: str, params: Mapping[str, Any], number: Optional[int] = None) -> bytes:
    """A request with that id, or a notification, in one line without its end.

    Raises:
        ConfigError: the parameters are no JSON.
    """
    message: Dict[str, Any] = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    if number is None:
        del message["id"]
    return _written(message)


def encode_answer(request: Mapping[str, Any]) -> bytes:
    """The answer to a request of the server's own: a ping is answered, all else refused."""
    answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
    if request["method"] == "ping":
        return _written({**answer, "result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "this client offers no such method"}
    return _written({**answer, "error": error})


def _written(message: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}") from None


def with_meta(params: Mapping[str, Any], version: str) -> Dict[str, Any]:
    """Parameters with what every request of a modern version says of its sender.

    And of the trace it belongs to, where that is to be sent on.
    """
    meta = {
        f"{_META}protocolVersion": version,
        f"{_META}clientInfo": _INFO,
        f"{_META}clientCapabilities": {},
    }
    return {**params, "_meta": {**trace_headers(), **params.get("_meta", {}), **meta}}


def initialize_params() -> Dict[str, Any]:
    """The parameters of `initialize`."""
    return {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": _INFO}


# --- what comes back ------------------------------------------------------------------------


def messages_in(text: Union[str, bytes]) -> Iterator[Dict[str, Any]]:
    """The messages of a JSON text: one, or those of a batch (2025-03-26).

    Raises:
        ValueError: it is no JSON, or holds something that is no object.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    for message in found if isinstance(found, list) else [found]:
        if not isinstance(message, dict):
            raise ValueError("not a JSON-RPC message")
        yield message


def is_answer(message: Mapping[str, Any]) -> bool:
    """True for what answers a request: it has an id, and a result or an error."""
    number = message.get("id")
    known = isinstance(number, (int, float)) and not isinstance(number, bool)
    return known and "method" not in message and ("result" in message or "error" in message)


def is_request(message: Mapping[str, Any]) -> bool:
    """True for a request of the server's own, which wants an answer."""
    return isinstance(message.get("method"), str) and isinstance(message.get("id"), (str, int))


def result_of(message: Mapping[str, Any], method: str) -> Dict[str, Any]:
    """The result that an answer holds.

    Raises:
        MCPError: it holds an error.
        ProtocolError: it holds neither.
    """
    error = error_of(message, method)
    if error is not None:
        raise error
    result = message.get("result")
    if not isinstance(result, dict):
        raise ProtocolError(f"{method}: the answer has no result", phase="stream")
    return result


def error_of(message: Any, method: str) -> Optional[MCPError]:
    """The error that an answer holds; None for none."""
    error = message.get("error") if isinstance(message, dict) else None
    if not isinstance(error, dict):
        return None
    code = error.get("code")
    code = code if isinstance(code, int) else 0
    said = strip_controls(safe_str(error.get("message") or "no reason given", _SAID))
    text = f"{method}: {said} (error {code})"
    return MCPError(text, code=code, data=error.get("data"), method=method, phase="stream")


def mutual_version(supported: Any, known: Sequence[str] = MODERN) -> Optional[str]:
    """The newest of the known versions that a server supports; None for none."""
    offered = supported if isinstance(supported, list) else ()
    return next((version for version in known if version in offered), None)


def legacy_version(result: Mapping[str, Any]) -> str:
    """The version that an answer to `initialize` settles on.

    Raises:
        ProtocolError: it is not spoken here.
    """
    version = result.get("protocolVersion")
    if version not in LEGACY:
        spoken: Tuple[str, ...] = (*MODERN, *LEGACY)
        raise ProtocolError(
            f"the server speaks MCP {strip_controls(safe_str(version, 40))!r}, which is not known"
            f" here; known are {', '.join(spoken)}",
            phase="stream",
        )
    return str(version)
