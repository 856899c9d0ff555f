"""The bytes of a stream: events, chunks, recorded bodies."""

from __future__ import annotations

import pytest

from agentstream.testing import recorded, sse, text_chunks, tool_call_chunks


def test_sse():
    assert sse({"a": "é\n"}) == 'data: {"a":"é\\n"}\n\n'.encode()
    assert sse("[DONE]") == b"data: [DONE]\n\n"
    assert sse("a\nb", event="e", id="1") == b"event: e\nid: 1\ndata: a\ndata: b\n\n"
    assert sse({"a": "\ud83d"}) == b'data: {"a":"\\ud83d"}\n\n'


def test_text_chunks_without_their_marks():
    whole = text_chunks("a")
    bare = text_chunks("a", finish_reason=None, usage=False, done=False)
    assert len(whole) == 5
    assert bare == whole[:2]
    assert text_chunks("a", usage={"total_tokens": 7})[-2].endswith(
        b'"usage":{"total_tokens":7}}\n\n'
    )
    assert tool_call_chunks(finish_reason=None, usage=False) == [
        b'data: {"id":"chatcmpl-scripted","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"scripted","choices":[{"index":0,"delta":{"role":"assistant","content":null},'
        b'"finish_reason":null}]}\n\n',
        b"data: [DONE]\n\n",
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_recorded_cuts_between_events(end, tmp_path):
    events = [b": hi" + end * 2, b"data: 1" + end + b"data: 2" + end * 2, b"data: cut"]
    path = tmp_path / "body.sse"
    path.write_bytes(b"".join(events))
    assert recorded(path) == recorded(str(path)) == recorded(b"".join(events)) == events


def test_recorded_changes_nothing():
    body = b"\n\n\r\n\rdata: x\r\r\n\n\ndata\n\r\n"
    assert b"".join(recorded(body)) == body
    assert recorded(b"") == []
