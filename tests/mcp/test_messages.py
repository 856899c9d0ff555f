"""JSON-RPC: what is written, and what is taken for what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentstream import ConfigError, ProtocolError
from agentstream.mcp.messages import (
    LEGACY,
    MCPError,
    encode,
    encode_answer,
    error_of,
    is_answer,
    is_request,
    legacy_version,
    messages_in,
    mutual_version,
    result_of,
    with_meta,
)


def test_a_request_is_one_line_and_a_notification_has_no_id() -> None:
    line = encode("tools/call", {"name": "a\nb", "arguments": {"x": "é\u2028"}}, 7)
    assert b"\n" not in line
    sent = json.loads(line)
    assert sent == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "a\nb", "arguments": {"x": "é\u2028"}},
    }
    assert "id" not in json.loads(encode("notifications/initialized", {}))
    for wrong in ({1, 2}, float("nan"), object()):
        with pytest.raises(ConfigError, match="written as JSON"):
            encode("x", {"a": wrong}, 1)


def test_meta_keeps_what_the_caller_has_put_there() -> None:
    made = with_meta({"a": 1, "_meta": {"traceparent": "00-1"}}, "v")
    assert made["_meta"]["traceparent"] == "00-1"
    assert made["_meta"]["io.modelcontextprotocol/protocolVersion"] == "v"


def test_what_a_text_holds() -> None:
    assert list(messages_in('{"id": 1}')) == [{"id": 1}]
    assert list(messages_in(b'[{"id": 1}, {"id": 2}]')) == [{"id": 1}, {"id": 2}]
    for wrong in ("", "x", "5", "[1]", '"text"', "null", "[" * 100_000, b"\xff", '{"a": '):
        with pytest.raises(ValueError):  # noqa: PT011 - the text is for a log
            list(messages_in(wrong))


@pytest.mark.parametrize(
    ("message", "answers", "asks"),
    [
        ({"id": 1, "result": {}}, True, False),
        ({"id": 1, "error": {}}, True, False),
        ({"id": 1.0, "result": {}}, True, False),
        ({"id": 1, "method": "ping"}, False, True),
        ({"id": "a", "method": "ping"}, False, True),
        ({"id": "1", "result": {}}, False, False),
        ({"id": True, "result": {}}, False, False),
        ({"id": None, "error": {}}, False, False),
        ({"method": "notifications/progress"}, False, False),
        ({"id": [], "method": "x"}, False, False),
        ({"id": 1}, False, False),
        ({}, False, False),
    ],
)
def test_answers_and_requests_are_told_apart(message: Any, answers: bool, asks: bool) -> None:
    assert (is_answer(message), is_request(message)) == (answers, asks)


def test_a_result_an_error_and_neither() -> None:
    assert result_of({"result": {"a": 1}}, "m") == {"a": 1}
    with pytest.raises(MCPError, match=r"m: it is gone \(error -32002\)") as caught:
        result_of({"error": {"code": -32002, "message": "it is gone", "data": [1]}}, "m")
    assert (caught.value.code, caught.value.data, caught.value.method) == (-32002, [1], "m")
    for odd in ({"error": {}}, {"error": {"code": "x", "message": ["\x1b[31m"]}}):
        found = error_of(odd, "m")
        assert found is not None
        assert found.code == 0
        assert "\x1b" not in str(found)
    for nothing in ({}, {"result": 5}, {"result": None}, {"error": "text"}):
        with pytest.raises(ProtocolError):
            result_of(nothing, "m")
    assert error_of([], "m") is None


def test_versions() -> None:
    assert mutual_version(["2025-11-25", "2026-07-28"]) == "2026-07-28"
    assert mutual_version(["2025-06-18", "2025-11-25"], LEGACY) == "2025-11-25"
    for nothing in (None, [], "2026-07-28", [5], {}):
        assert mutual_version(nothing) is None
    assert [legacy_version({"protocolVersion": version}) for version in LEGACY] == list(LEGACY)
    for unknown in ({}, {"protocolVersion": "1999"}, {"protocolVersion": 5}):
        with pytest.raises(ProtocolError, match="2026-07-28, 2025-11-25"):
            legacy_version(unknown)


def test_a_servers_own_request_is_answered_or_refused() -> None:
    assert json.loads(encode_answer({"id": "a", "method": "ping"}))["result"] == {}
    refused = json.loads(encode_answer({"id": 3, "method": "sampling/createMessage"}))
    assert (refused["id"], refused["error"]["code"]) == (3, -32601)
