"""A server over HTTP: which version it speaks, sessions, and all that one does wrong."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from agentstream import Cancelled, CancelToken, Limits, RunContext, Timeouts, mcp, tool
from agentstream.errors import (
    AgentStreamError,
    AuthError,
    BadRequest,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    FirstTokenTimeout,
    LimitExceeded,
    ProtocolError,
    RateLimited,
    ServerError,
    StallTimeout,
    StreamTruncated,
)
from agentstream.mcp import http
from agentstream.testing import (
    Callback,
    Cut,
    Hang,
    KeepOpen,
    Reply,
    Request,
    Reset,
    ScriptedMCP,
    sse,
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


HINTS = {"add": {"readOnlyHint": True}}


@pytest.fixture
def script() -> Iterator[ScriptedMCP]:
    with ScriptedMCP(add, shout, annotations=HINTS) as made:
        yield made


@pytest.fixture
def server(script: ScriptedMCP) -> Iterator[mcp.Server]:
    with mcp.Server.http(script.url) as made:
        made.tools()  # its hints are known then
        yield made


def answered(request: Request, text: str = "5") -> Dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": request.json["id"], "result": {"content": content}}


def once(script: ScriptedMCP, *pieces: Any, **options: Any) -> None:
    """Let the next request have this for an answer."""
    script.http.reply(*pieces, path="/mcp", **options)


def streamed(*pieces: Callable[[Request], Any], **options: Any) -> Callable[[Request], Reply]:
    """A route whose answer is an event stream of what the functions make of the request."""

    def reply(request: Request) -> Reply:
        made = [piece(request) if callable(piece) else piece for piece in pieces]
        return Reply(*(sse(p) if isinstance(p, dict) else p for p in made), **options)

    return reply


# --- 2026-07-28 -----------------------------------------------------------------------------


def test_a_call_is_one_post_with_its_headers_and_meta(
    script: ScriptedMCP, server: mcp.Server
) -> None:
    before = len(script.http.requests)
    assert server.call("add", {"a": 1, "b": 2}).text == "3"
    (request,) = script.http.requests[before:]
    assert request.headers["MCP-Protocol-Version"] == "2026-07-28"
    assert request.headers["Mcp-Method"] == "tools/call"
    assert request.headers["Mcp-Name"] == "add"
    assert {"application/json", "text/event-stream"} <= set(request.headers["Accept"].split(", "))
    meta = request.json["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "agentstream"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert "Mcp-Session-Id" not in request.headers
    numbers = [message["id"] for message in script.messages]
    assert len(set(numbers)) == len(numbers)


def test_an_event_stream_with_what_else_a_server_says(
    script: ScriptedMCP, server: mcp.Server
) -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    other = {"jsonrpc": "2.0", "id": 10**9, "result": {"content": []}}
    noise = [b": comment\n\n", b"data: \n\n", b"data: no JSON\n\n", b"event: x\ndata: {}\n\n"]
    script.http.route("/mcp", streamed(*noise, progress, other, answered))
    assert server.call("add", {"a": 2, "b": 3}).text == "5"


def test_a_result_is_whole_or_refused(
    script: ScriptedMCP, server: mcp.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.mcp.asking._MOST_WAIT_S", 0.01)
    script.reply("tools/call", {"resultType": "input_required", "requestState": "opaque \u2713"})
    assert server.call("add", {"a": 1, "b": 1}).text == "2"
    again = script.messages[-1]
    assert again["params"]["requestState"] == "opaque \u2713"
    assert again["id"] != script.messages[-2]["id"]
    asks = {"who": {"method": "elicitation/create", "params": {}}}
    script.reply("tools/call", {"resultType": "input_required", "inputRequests": asks})
    with pytest.raises(mcp.MCPError, match="elicitation/create"):
        server.call("add", {"a": 1, "b": 1})
    script.reply("tools/call", {"resultType": "something_new"})
    with pytest.raises(ProtocolError, match="something_new"):
        server.call("add", {"a": 1, "b": 1})
    script.reply("tools/call", *[{"resultType": "input_required", "requestState": "x"}] * 10)
    with pytest.raises(ProtocolError, match="again and again"):
        server.call("add", {"a": 1, "b": 1})


def test_another_version_is_agreed_on_or_told() -> None:
    with ScriptedMCP(add) as script, mcp.Server.http(script.url) as server:
        error = {"code": -32022, "message": "no", "data": {"supported": ["2099-01-01"]}}
        once(
            script,
            json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}),
            status=400,
            content_type="application/json",
        )
        with pytest.raises(mcp.MCPError) as caught:
            server.tools()
        assert caught.value.code == -32022
        assert caught.value.data == {"supported": ["2099-01-01"]}
        assert [tool.name for tool in server.tools()] == ["add"]


def test_arguments_that_a_schema_marks_go_into_headers(script: ScriptedMCP) -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "n": {"type": "object", "properties": {"m": {"type": "integer", "x-mcp-header": "M"}}},
        },
    }
    wrong = {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}}
    listed = [{"name": "query", "inputSchema": schema}, {"name": "bad", "inputSchema": wrong}]
    script.reply("tools/list", {"tools": listed}, {"tools": listed})
    script.reply("tools/call", mcp.MCPError("stale", code=-32020), {"content": []})
    with mcp.Server.http(script.url) as server:
        # Its schema is not known: the server says so, and the list is fetched.
        server.call("query", {"region": "us-west1", "n": {"m": 5}})
        request = script.http.requests[-1]
        assert request.headers["Mcp-Param-Region"] == "us-west1"
        assert request.headers["Mcp-Param-M"] == "5"
        assert [tool.name for tool in server.tools()] == ["query"]
        assert "bad" in server.left_out


def test_errors_of_the_server_and_of_http(script: ScriptedMCP, server: mcp.Server) -> None:
    with pytest.raises(mcp.MCPError, match=r"Unknown tool: nope \(error -32602\)") as caught:
        server.call("nope")
    assert caught.value.code == -32602
    assert caught.value.method == "tools/call"
    with pytest.raises(mcp.MCPError, match="no method prompts/list") as caught:
        server.prompts()
    assert caught.value.code == -32601
    expected = ((401, AuthError), (429, RateLimited), (500, ServerError), (302, BadRequest))
    for status, kind in expected:
        once(script, json.dumps({"error": "oh no"}), status=status, content_type="application/json")
        with pytest.raises(kind):
            server.call("add", {"a": 1, "b": 2})
    assert server.call("add", {"a": 1, "b": 2}).text == "3"


def test_m04_m05_what_is_no_answer(script: ScriptedMCP, server: mcp.Server) -> None:
    wrong_id = {"jsonrpc": "2.0", "id": 10**9, "result": {}}
    for reply, kind in (
        (Reply("<html>hello</html>", content_type="text/html"), ProtocolError),
        (Reply('{"jsonrpc"', content_type="application/json", framing="length"), ProtocolError),
        (Reply.json([1]), ProtocolError),
        (Reply.json(wrong_id), ProtocolError),
        (Reply(status=202, content_type=None, framing="length"), ProtocolError),
        (Reply("[" * 100_000, content_type="application/json"), ProtocolError),
    ):
        script.http._add(reply, "/mcp", False)
        with pytest.raises(kind):
            server.call("shout", {"text": "x"})
    script.http.route("/mcp", lambda request: Reply.json({**answered(request), "result": 5}))
    with pytest.raises(ProtocolError, match="has no result"):
        server.call("shout", {"text": "x"})


# --- what hangs, breaks, is too much --------------------------------------------------------


def test_m01_one_that_hangs_before_the_headers_and_in_the_stream(script: ScriptedMCP) -> None:
    waits = Timeouts(connect=5, first_token=0.6, stall=0.6, total=20)
    with mcp.Server.http(script.url, timeouts=waits) as server:
        once(script, before_headers=[Hang()])
        with pytest.raises(FirstTokenTimeout, match=r"0.6 s \(Timeouts.first_token\)"):
            server.call("add", {"a": 1, "b": 2})
        progress = sse({"jsonrpc": "2.0", "method": "notifications/progress"})
        once(script, progress, Hang())
        with pytest.raises(StallTimeout):
            server.call("add", {"a": 1, "b": 2})
        once(script, Hang())
        with pytest.raises(DeadlineExceeded) as caught:
            server.call("add", {"a": 1, "b": 2}, timeout=0.3)
        assert caught.value.outcome == "unknown"
        assert server.call("add", {"a": 1, "b": 2}).text == "3"


def test_m11_a_cancel_closes_the_connection_at_once(
    script: ScriptedMCP, server: mcp.Server
) -> None:
    for in_the_stream in (False, True):
        token = CancelToken()
        stop = Callback(functools.partial(token.cancel, "enough"))
        if in_the_stream:
            once(script, b": x\n\n", stop, Hang())
        else:
            once(script, before_headers=[stop, Hang()])
        began = time.monotonic()
        with pytest.raises(Cancelled, match="enough"):
            server.call("add", {"a": 1, "b": 2}, cancel=token)
        assert time.monotonic() - began < 5.0
    assert script.http.wait_client_gone(count=2)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        server.call("add", {"a": 1, "b": 2}, cancel=token)


@pytest.mark.parametrize("end", [Cut(), Reset()])
def test_m07_a_broken_stream_is_asked_for_again_if_the_tool_may_be_called_twice(
    end: Any, script: ScriptedMCP, server: mcp.Server
) -> None:
    progress = sse({"jsonrpc": "2.0", "method": "notifications/progress"})
    for pieces, more in (((progress, end), {}), ((), {"before_headers": [end]})):
        once(script, *pieces, **more)
        assert server.call("add", {"a": 1, "b": 2}).text == "3"
        calls = len(script.calls)
        once(script, *pieces, **more)
        with pytest.raises((StreamTruncated, ConnectError)) as caught:
            server.call("shout", {"text": "x"})
        assert caught.value.outcome == "unknown"
        assert len(script.calls) == calls
    numbers = [r.json["id"] for r in script.http.requests]
    assert len(set(numbers)) == len(numbers)


def test_a_stream_that_ends_without_its_answer(script: ScriptedMCP, server: mcp.Server) -> None:
    once(script, sse({"jsonrpc": "2.0", "method": "notifications/progress"}))
    with pytest.raises(StreamTruncated, match="the stream ended"):
        server.call("shout", {"text": "x"})


def test_m06_huge_results_and_their_bound(script: ScriptedMCP) -> None:
    with mcp.Server.http(script.url, limits=Limits(event=2**20, line=2**21)) as server:
        assert len(server.call("shout", {"text": "x" * 900_000}).text) == 900_000
        with pytest.raises(LimitExceeded):
            server.call("shout", {"text": "x" * 2**20})
        whole = streamed(lambda request: answered(request, "x" * 2**20))
        script.http.route("/mcp", whole)
        with pytest.raises(LimitExceeded):
            server.call("shout", {"text": "x"})


def test_nobody_is_there() -> None:
    with mcp.Server.http("http://127.0.0.1:9/mcp") as server:
        with pytest.raises(ConnectError, match="cannot connect"):
            server.tools()
    for url in ("files", "ftp://x", ""):
        with pytest.raises(ConfigError):
            mcp.Server.http(url)


# --- before 2026-07-28 ----------------------------------------------------------------------


@pytest.fixture
def older() -> Iterator[ScriptedMCP]:
    with ScriptedMCP(add, shout, annotations=HINTS, protocol="2025-06-18") as made:
        yield made


def methods(script: ScriptedMCP) -> List[str]:
    return [message["method"] for message in script.messages]


def test_an_older_server_is_opened_and_its_session_kept_and_ended(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        assert server.call("add", {"a": 1, "b": 2}).text == "3"
        assert server.info().protocol == "2025-06-18"
        assert server.info().name == "scripted"
        (session,) = older.sessions
        request = older.http.requests[-1]
        assert request.headers["Mcp-Session-Id"] == session
        assert request.headers["MCP-Protocol-Version"] == "2025-06-18"
        assert "_meta" not in request.json["params"]
    assert methods(older) == ["tools/call", "initialize", "notifications/initialized", "tools/call"]
    assert older.http.requests[-1].method == "DELETE"
    assert older.sessions == []


def test_that_a_server_is_older_is_remembered_for_its_origin(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.tools()
    del older.messages[:]
    with mcp.Server.http(older.url) as server:
        server.tools()
    assert methods(older) == ["initialize", "notifications/initialized", "tools/list"]


def test_m12_a_memory_that_is_wrong_is_given_up(script: ScriptedMCP) -> None:
    with mcp.Server.http(script.url) as server:
        http._older.add(server._connection._origin)
        assert server.call("add", {"a": 1, "b": 2}).text == "3"
        assert server._connection._origin not in http._older
        assert server.info().protocol == "2026-07-28"


def test_m12_a_session_that_is_gone_is_replaced(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.call("shout", {"text": "x"})
        older.forget_sessions()
        found: List[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(server.call("shout", {"text": "y"}).text))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == ["Y"] * 6
        assert methods(older).count("initialize") == 2  # one thread opens it for all
        assert len(older.calls) == 7


def test_a_modern_error_that_says_nothing_of_the_version_is_no_older_server() -> None:
    with ScriptedMCP(add) as script, mcp.Server.http(script.url) as server:
        error = {"code": -32602, "message": "Unknown tool: nope"}
        once(
            script,
            json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}),
            status=400,
            content_type="application/json",
        )
        with pytest.raises(mcp.MCPError, match="nope"):
            server.call("nope")
        assert methods(script) == ["server/discover"]  # asked, to tell
        assert server.call("add", {"a": 1, "b": 2}).text == "3"


def test_an_older_server_that_says_yes_to_everything_is_found_out(older: ScriptedMCP) -> None:
    refused = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "no session"}}
    once(older, json.dumps(refused), status=400, content_type="application/json")
    yes = {"jsonrpc": "2.0", "id": 2, "result": {}}  # to server/discover
    once(older, json.dumps(yes), content_type="application/json")
    with mcp.Server.http(older.url) as server:
        assert server.call("add", {"a": 1, "b": 2}).text == "3"
        assert server.info().protocol == "2025-06-18"


def test_requests_of_an_older_servers_own_are_answered(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.tools()
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        roots = {"jsonrpc": "2.0", "id": 7, "method": "roots/list"}
        once(older, sse(ping), sse(roots), KeepOpen())
        with pytest.raises(AgentStreamError):
            server.call("shout", {"text": "x"}, timeout=1.0)
        said = [r.json for r in older.http.requests if r.body and "method" not in r.json]
        assert {"jsonrpc": "2.0", "id": "p", "result": {}} in said
        assert [m["error"]["code"] for m in said if "error" in m] == [-32601]


def test_m11_an_older_server_is_told_of_a_cancel(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.tools()
        token = CancelToken()
        once(older, Callback(functools.partial(token.cancel, "enough")), Hang())
        with pytest.raises(Cancelled):
            server.call("add", {"a": 1, "b": 2}, cancel=token)
        told = older.messages[-1]
        assert told["method"] == "notifications/cancelled"
        assert told["params"]["reason"] == "enough"
        # The hanging one was answered by a queued reply, so it is not among the messages.
        asked = [r.json["id"] for r in older.http.requests if r.json.get("method") == "tools/call"]
        assert told["params"]["requestId"] == asked[-1]


def test_an_older_servers_broken_stream_is_gone_on_with(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.tools()
        once(older, "id: 7\nretry: 50\ndata: \n\n", Cut())

        def go_on(request: Request) -> Reply:
            asked = [r for r in older.http.requests if r.body][-1]
            return Reply(sse(answered(asked, "late")))

        older.http.route("/mcp", go_on)
        began = time.monotonic()
        assert server.call("shout", {"text": "x"}).text == "late"
        assert time.monotonic() - began >= 0.05
        resumed = older.http.requests[-1]
        assert resumed.method == "GET"
        assert resumed.headers["Last-Event-ID"] == "7"
        assert resumed.headers["Mcp-Session-Id"]
        server.close()


# --- keys -----------------------------------------------------------------------------------


def test_a_call_with_an_idempotency_key_has_its_header_and_no_other_request(
    script: ScriptedMCP, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    key = "3f9c0a7be1d24586"
    context = RunContext("w", tool_call_id="c", idempotency_key=key)
    with ScriptedMCP(add, annotations=HINTS, protocol="2025-06-18") as older:
        for one in (script, older):
            with mcp.Server.http(one.url) as server:
                made, *_ = server.tools()
                assert made.call({"a": 2, "b": 3}, context=context) == "5"
                made.call({"a": 2, "b": 3}, context=RunContext("w", tool_call_id="d"))
                made.call({"a": 2, "b": 3})
                server.call("add", {"a": 1, "b": 1}, idempotency_key="by hand")
                server.resources()
            keys = [request.headers.get("Idempotency-Key") for request in one.http.requests]
            assert [each for each in keys if each is not None] == [key, "by hand"]
            (keyed,) = [r for r in one.http.requests if r.headers.get("Idempotency-Key") == key]
            assert keyed.json["method"] == "tools/call"
            assert key not in json.dumps(keyed.json)
    assert key not in caplog.text


def test_a_call_that_is_made_again_has_the_same_key(script: ScriptedMCP) -> None:
    with mcp.Server.http(script.url) as server:
        made = next(t for t in server.tools() if t.name == "add")
        once(script, Cut())
        assert made.call({"a": 2, "b": 3}, context=RunContext(idempotency_key="k")) == "5"
        sent = [r for r in script.http.requests if r.json["method"] == "tools/call"]
        assert [r.headers["Idempotency-Key"] for r in sent] == ["k", "k"]
        for wrong in ("a\nb", "é", " ", 3):
            with pytest.raises(ConfigError, match="idempotency_key") as caught:
                server.call("add", {"a": 1, "b": 1}, idempotency_key=wrong)  # type: ignore[arg-type]
            assert "a\nb" not in str(caught.value)


def test_headers_fixed_or_asked_for_each_time(script: ScriptedMCP) -> None:
    with mcp.Server.http(script.url, headers={"Authorization": "Bearer one"}) as server:
        server.tools()
        assert script.http.requests[-1].headers["Authorization"] == "Bearer one"
    tokens = iter(["two", "three"])
    asked = {"headers": lambda: {"Authorization": f"Bearer {next(tokens)}"}}
    with mcp.Server.http(script.url, **asked) as server:
        server.tools()
        server.tools()
        sent = [r.headers["Authorization"] for r in script.http.requests[-2:]]
        assert sent == ["Bearer two", "Bearer three"]
        with pytest.raises(ConfigError, match="headers could not be asked for: StopIteration"):
            server.tools()


def test_m13_no_key_in_an_error(script: ScriptedMCP) -> None:
    secret = "sk-very-secret-token-1234"
    for headers in ({"X-Key": secret}, lambda: {"Authorization": f"Bearer {secret}"}):
        with mcp.Server.http(script.url, headers=headers) as server:
            once(
                script,
                json.dumps({"error": f"bad key {secret}"}),
                status=401,
                content_type="application/json",
            )
            with pytest.raises(AuthError) as caught:
                server.tools()
            assert secret not in f"{caught.value}{caught.value.body}{server!r}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_m09_a_forked_child_has_a_session_of_its_own(older: ScriptedMCP) -> None:
    with mcp.Server.http(older.url) as server:
        server.tools()
        (first,) = older.sessions
        child = os.fork()
        if not child:
            try:
                server.call("shout", {"text": "child"})
                server.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert older.sessions == [first]
        sent = {r.headers.get("Mcp-Session-Id") for r in older.http.requests} - {None}
        assert len(sent) == 2
        assert server.call("shout", {"text": "parent"}).text == "PARENT"
    assert json.loads(older.http.requests[0].body)["method"] == "tools/list"
