"""A tool's result as the text that a model reads."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from agentstream.mcp import CallResult


def text(value: str) -> Dict[str, Any]:
    return {"type": "text", "text": value}


IMAGE = {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}
LINK = {"type": "resource_link", "uri": "file:///a", "name": "a", "description": "the first"}
NOTE = {"type": "resource", "resource": {"uri": "n://1", "text": "its text"}}
BLOB = {"type": "resource", "resource": {"uri": "n://2", "blob": "aGVsbG8h", "mimeType": "x/y"}}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({}, ""),
        ({"content": [text("a"), text("b")]}, "a\nb"),
        ({"content": [text("a"), IMAGE]}, "a\n[image: image/png, 5 bytes]"),
        ({"content": [{"type": "audio", "data": ""}]}, "[audio: of unknown type, 0 bytes]"),
        ({"content": [LINK]}, "[resource: a file:///a - the first]"),
        ({"content": [NOTE]}, "its text"),
        ({"content": [BLOB]}, "[resource: n://2, x/y, 6 bytes]"),
        ({"content": [{"type": "hologram"}]}, "[a block of type 'hologram', which cannot be shown]"),
        ({"content": "no list", "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": [5, None, text("x")]}, "x"),
        ({"content": [{"type": "text", "text": 5}]}, "[a block of type 'text', which cannot be shown]"),
        ({"content": [text("lone \ud800")]}, "lone \ufffd"),
        # Structured content: once, whatever the texts make of it.
        ({"content": [text('{"a":1}')], "structuredContent": {"a": 1}}, '{"a":1}'),
        ({"content": [text("found 2")], "structuredContent": [1, 2]}, "found 2\n[1, 2]"),
        ({"content": [text("3")], "structuredContent": {"result": 3}}, "3"),
        ({"content": [text("hi")], "structuredContent": {"result": "hi"}}, "hi"),
        ({"content": [text("a"), text("b")], "structuredContent": {"result": ["a", "b"]}}, "a\nb"),
        ({"content": [text("a")], "structuredContent": {"result": ["a"]}}, 'a\n{"result": ["a"]}'),
        ({"content": [text("é")], "structuredContent": {"é": "ü"}}, 'é\n{"é": "ü"}'),
        ({"content": [text("[" * 50_000)], "structuredContent": 0}, "[" * 50_000 + "\n0"),
    ],
)  # fmt: skip
def test_the_text_of_a_result(raw: Any, told: str) -> None:
    assert CallResult(raw).text == told
    assert str(CallResult(raw)) == told


def test_its_values() -> None:
    raw = {"content": [text("a")], "structuredContent": {"n": 1}, "isError": True, "_meta": {}}
    result = CallResult(raw)
    assert result.content == [text("a")]
    assert result.structured == {"n": 1}
    assert result.is_error
    assert result.raw == raw
    assert repr(result) == "<CallResult of 1 blocks, an error>"
    assert not CallResult({"isError": "yes"}).is_error
