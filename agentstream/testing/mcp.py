"""ScriptedMCP: an MCP server made of a test's own functions, over real sockets or as a process.

As strict as the specifications: of 2026-07-28 with its headers and its `_meta`, or of
2025-11-25 with its sessions.
"""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import uuid
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from agentstream.errors import ToolError
from agentstream.mcp.headers import annotated_arguments, argument_headers, standard_headers
from agentstream.mcp.messages import (
    HEADER_MISMATCH,
    LEGACY,
    METHOD_NOT_FOUND,
    MODERN,
    UNSUPPORTED_VERSION,
    MCPError,
    mutual_version,
)
from agentstream.testing.replies import Reply
from agentstream.testing.request import Request
from agentstream.testing.server import ScriptedServer
from agentstream.tools import Tool, as_tool, to_text

__all__ = ["ScriptedMCP"]

_META = "io.modelcontextprotocol/"
#: Characters of a result: no bound that a test would meet.
_MOST = 2**40
#: Sent by the process of `ScriptedMCP.command`, which knows of no headers.
BRIDGE = "X-Scripted-Bridge"


class MCPCall(NamedTuple):
    """A call that came: the tool's name, and the arguments as they were sent."""

    name: str
    arguments: Dict[str, Any]


class ScriptedMCP:
    """An MCP server on 127.0.0.1, from its construction to `close`; a context manager::

        with ScriptedMCP(add) as script, mcp.Server.http(script.url) as server:
            assert server.call("add", {"a": 1, "b": 2}).text == "3"

    Args:
        tools: functions, described as `@tool` describes them, or Tools.  What one
            returns is its result's text, or, with a key "content", the whole
            result; what it raises is a result with isError.
        annotations: hints by tool, as MCP writes them: {"add": {"readOnlyHint": True}}.
        protocol: "2026-07-28", or an older version, which has sessions.
        page_size: so many tools a page of `tools/list`; None for one page.
        resources: texts by URI.

    Attributes:
        url: for `Server.http`.
        command: for `Server.stdio`: a process that passes on what it is sent.
        calls: the `MCPCall`s that came.
        messages: all messages that came, as JSON.
        sessions: the ids of the sessions that are open.
        http: the `ScriptedServer` under it, whose replies for "/mcp" come first.
    """

    def __init__(
        self,
        *tools: Union[Tool, Callable[..., Any]],
        annotations: Optional[Mapping[str, Mapping[str, Any]]] = None,
        protocol: str = MODERN[0],
        page_size: Optional[int] = None,
        resources: Optional[Mapping[str, str]] = None,
    ) -> None:
        if protocol not in (*MODERN, *LEGACY):
            raise ValueError(f"protocol is one of {', '.join((*MODERN, *LEGACY))}")
        self.tools: Dict[str, Tool] = {made.name: made for made in map(as_tool, tools)}
        self.protocol = protocol
        self.calls: List[MCPCall] = []
        self.messages: List[Any] = []
        self.sessions: List[str] = []
        self._annotations = dict(annotations or {})
        self._page_size = page_size
        self._resources = dict(resources or {})
        self._replies: Dict[str, Deque[Any]] = {}
        self._lock = threading.Lock()
        self.http = ScriptedServer()
        self.http.route("/mcp", self._reply_to)
        self.url = f"{self.http.url}/mcp"

    @property
    def command(self) -> List[str]:
        """See the class."""
        bridge = pathlib.Path(__file__).with_name("mcp_bridge.py")
        return [sys.executable, "-I", str(bridge), str(self.http.port)]

    def __repr__(self) -> str:
        return f"<ScriptedMCP {self.url}: {', '.join(self.tools) or 'no tools'}>"

    def __enter__(self) -> ScriptedMCP:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; see `ScriptedServer.close`."""
        self.http.close()

    def reply(self, method: str, *results: Union[Mapping[str, Any], MCPError]) -> None:
        """Queue results, or errors, for the next requests of a method."""
        with self._lock:
            self._replies.setdefault(method, deque()).extend(results)

    def forget_sessions(self) -> None:
        """End the sessions: what names them gets a 404."""
        self.sessions.clear()

    # --- a request --------------------------------------------------------------------------

    def _reply_to(self, request: Request) -> Reply:
        if request.method == "DELETE":
            return self._end_session(request)
        if request.method != "POST":
            return Reply(status=405, framing="length")
        message = request.json
        with self._lock:
            self.messages.append(message)
        if "id" not in message or "method" not in message:  # a notification, or an answer
            return Reply(status=202, framing="length")
        headers: Dict[str, str] = {}
        try:
            if self.protocol in MODERN:
                self._check_modern(request, message)
            else:
                headers = self._in_session(request, message)
            result = self._result(message["method"], message.get("params") or {})
        except _Refused as refused:
            return Reply.json(_error(message, refused.error), status=refused.status)
        except MCPError as error:
            return Reply.json(_error(message, error))
        if self.protocol in MODERN:
            result = {"resultType": "complete", **result}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        return Reply.json(answer, headers=headers)

    def _check_modern(self, request: Request, message: Dict[str, Any]) -> None:
        method, params = message["method"], message.get("params") or {}
        meta = params.get("_meta") or {}
        version = meta.get(f"{_META}protocolVersion")
        if version is None or f"{_META}clientCapabilities" not in meta:
            raise _Refused(400, -32602, "_meta lacks the protocol's version or capabilities")
        if BRIDGE not in request.headers:
            for name, value in self._headers_of(method, params, version).items():
                if request.headers.get(name) != value:
                    raise _Refused(400, HEADER_MISMATCH, f"{name} does not match the body")
        if version != self.protocol:
            data = {"supported": [self.protocol], "requested": version}
            raise _Refused(400, UNSUPPORTED_VERSION, "Unsupported protocol version", data)

    def _headers_of(self, method: str, params: Dict[str, Any], version: str) -> Dict[str, str]:
        headers = standard_headers(method, params, version)
        made = self.tools.get(params.get("name", ""))
        if method == "tools/call" and made is not None:
            given = params.get("arguments") or {}
            headers.update(argument_headers(annotated_arguments(made.parameters), given))
        return headers

    def _in_session(self, request: Request, message: Dict[str, Any]) -> Dict[str, str]:
        """The headers of the answer; the request has the right ones."""
        if BRIDGE in request.headers:
            return {}
        if message["method"] == "initialize":
            session = uuid.uuid4().hex
            self.sessions.append(session)
            return {"Mcp-Session-Id": session}
        known = request.headers.get("Mcp-Session-Id")
        if known is None:
            raise _Refused(400, -32000, "Bad Request: no session")
        if known not in self.sessions:
            raise _Refused(404, -32001, "Session not found")
        if request.headers.get("MCP-Protocol-Version") != self.protocol:
            raise _Refused(400, -32000, "Bad Request: unsupported protocol version")
        return {}

    def _end_session(self, request: Request) -> Reply:
        known = request.headers.get("Mcp-Session-Id", "")
        if known not in self.sessions:
            return Reply(status=404, framing="length")
        self.sessions.remove(known)
        return Reply(status=200, framing="length")

    # --- its result -------------------------------------------------------------------------

    def _result(self, method: str, params: Dict[str, Any]) -> Dict[str, Any]:
        with self._lock:
            queue = self._replies.get(method)
            scripted = queue.popleft() if queue else None
        if isinstance(scripted, MCPError):
            raise scripted
        if scripted is not None:
            return dict(scripted)
        answers: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
            "initialize": self._initialize,
            "server/discover": lambda _: {**self._about(), "supportedVersions": [self.protocol]},
            "ping": lambda _: {},
            "tools/list": self._list,
            "tools/call": self._call,
            "resources/list": lambda _: {
                "resources": [{"uri": uri, "name": uri} for uri in self._resources]
            },
            "resources/read": self._read,
        }
        modern = self.protocol in MODERN
        known = method in answers and method != ("initialize" if modern else "server/discover")
        if not known:
            raise _Refused(404 if modern else 200, METHOD_NOT_FOUND, f"no method {method}")
        return answers[method](params)

    def _about(self) -> Dict[str, Any]:
        info = {"name": "scripted", "version": "1"}
        about: Dict[str, Any] = {"capabilities": {"tools": {}, "resources": {}}}
        if self.protocol in MODERN:
            return {**about, "_meta": {f"{_META}serverInfo": info}}
        return {**about, "serverInfo": info}

    def _initialize(self, params: Dict[str, Any]) -> Dict[str, Any]:
        offered = mutual_version([params.get("protocolVersion")], [self.protocol])
        return {**self._about(), "protocolVersion": offered or self.protocol}

    def _list(self, params: Dict[str, Any]) -> Dict[str, Any]:
        entries = [
            {
                "name": made.name,
                "description": made.description,
                "inputSchema": made.parameters,
                "annotations": dict(self._annotations.get(made.name, {})),
            }
            for made in self.tools.values()
        ]
        start = int(params.get("cursor") or 0)
        end = len(entries) if self._page_size is None else start + self._page_size
        more = {"nextCursor": str(end)} if end < len(entries) else {}
        return {"tools": entries[start:end], **more}

    def _call(self, params: Dict[str, Any]) -> Dict[str, Any]:
        name, arguments = params.get("name", ""), params.get("arguments") or {}
        with self._lock:
            self.calls.append(MCPCall(name, arguments))
        made = self.tools.get(name)
        if made is None:
            raise MCPError(f"Unknown tool: {name}", code=-32602)
        try:
            value = made.call(made.bind(json.dumps(arguments)))
        except ToolError as error:
            return _texts(str(error), failed=True)
        except Exception as error:  # noqa: BLE001 - the test's own function
            return _texts(f"{type(error).__name__}: {error}", failed=True)
        return (
            value
            if isinstance(value, dict) and "content" in value
            else _texts(to_text(value, _MOST))
        )

    def _read(self, params: Dict[str, Any]) -> Dict[str, Any]:
        uri = params.get("uri", "")
        if uri not in self._resources:
            raise MCPError(f"Resource not found: {uri}", code=-32602)
        return {"contents": [{"uri": uri, "text": self._resources[uri]}]}


class _Refused(Exception):
    """An HTTP error that holds a JSON-RPC error."""

    def __init__(self, status: int, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.status = status
        self.error = MCPError(text, code=code, data=data)


def _error(message: Mapping[str, Any], error: MCPError) -> Dict[str, Any]:
    told: Dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        told["data"] = error.data
    return {"jsonrpc": "2.0", "id": message["id"], "error": told}


def _texts(text: str, *, failed: bool = False) -> Dict[str, Any]:
    block: Tuple[Dict[str, str], ...] = ({"type": "text", "text": text},)
    return {"content": list(block), "isError": failed}
