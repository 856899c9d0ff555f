"""docs/faults.rst P01 to P08: lines, letters and JSON, right and wrong.

The framing cases of the corpus are in test_conformance.py; bodies that are no stream and
tool calls in test_faults_answers.py; sizes in test_faults_limits.py.
"""

from __future__ import annotations

import json

import pytest

from agentstream import errors
from agentstream.agent import Agent
from agentstream.events.stream import EventStream
from agentstream.llm.settings import Retries
from agentstream.testing import Cut, sse, text_chunks
from agentstream.testing.pieces import chat_chunk
from tests.kit.streams import cut, play
from tests.kit.support import MARKS, PROMPT, ask, client_of

BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)
ENDING = text_chunks(finish_reason="stop", usage=False)[1:]
ANSWER = text_chunks("Hello", ", ", "world")
BODY = b"".join(ANSWER)


def answer_of(server, *pieces, **settings):
    """What a client makes of "Hello", `pieces` and an ending."""
    server.reply(*BEGINNING, *pieces, *ENDING)
    with client_of(server, retries=Retries(2, backoff=0.01), **settings) as client:
        result = ask(client)
    assert len(server.requests) == 1
    assert not result.retries
    return result


def is_protocol_error(result, raw=""):
    assert type(result.error) is errors.ProtocolError, result.error
    assert result.text == "Hello"
    assert result.error.phase == "stream"
    assert raw in result.error.raw
    assert len(result.error.raw) <= 1024
    assert result.error.partial.content == "Hello"


# --- P01: lines ---

LINE_ENDS = {
    "lf": BODY,
    "crlf": BODY.replace(b"\n", b"\r\n"),
    "cr": BODY.replace(b"\n", b"\r"),
    "mixed": BODY.replace(b"\n\n", b"\r\n\n", 2).replace(b"\n\n", b"\r\r\n", 1),
    "bom": b"\xef\xbb\xbf" + BODY,
    "bom and comment": b"\xef\xbb\xbf: hi\n\n" + BODY,
    "blank lines": b"\n\n" + BODY.replace(b"\n\n", b"\n\n\n\n"),
}


@pytest.mark.parametrize("form", LINE_ENDS)
def test_p01_line_ends(form):
    body = LINE_ENDS[form]
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))]):
        deltas, response, error = play(pieces)
        assert error is None
        assert [d.content for d in deltas if d.content] == ["Hello", ", ", "world"]
        assert response.warnings == ()
    for place in range(1, 60):
        assert play(cut(body, [place]))[1].content == "Hello, world"


def test_p01_cr_and_lf_in_two_segments(server):
    pieces = [p for event in ANSWER for p in (event[:-2] + b"\r", b"\n\r", b"\n")]
    server.reply(*pieces)
    with client_of(server) as client:
        assert ask(client).texts == ["Hello", ", ", "world"]


# --- P02: UTF-8 ---


def test_p02_utf8_cut(server):
    event = chat_chunk({"content": "\u20ac\U0001f600"})
    at = event.index("\u20ac".encode())
    result = answer_of(server, *cut(event, [at + 1, at + 2, at + 5]))
    assert result.error is None
    assert result.text == "Hello\u20ac\U0001f600"
    assert result.response.warnings == ()


@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80"])
def test_p02_invalid_utf8(server, bad):
    event = chat_chunk({"content": "a?b"}).replace(b"?", bad)
    result = answer_of(server, event)
    assert result.error is None
    assert result.text == "Hello" + "a" + bad.decode("utf-8", "replace") + "b"
    assert len(result.response.warnings) == 1
    assert "UTF-8" in result.response.warnings[0]


def test_p02_latin1_in_the_content_type_changes_nothing(server):
    server.reply(*text_chunks("\u20ac"), content_type="text/event-stream; charset=iso-8859-1")
    with client_of(server) as client:
        assert ask(client).text == "\u20ac"


# --- P03: what does not end a line; data in several lines ---


def test_p03_line_separators_in_data(server):
    text = "a\u2028b\u2029c\u0085d\x1ce"
    event = chat_chunk({"content": text})
    assert "\u2028".encode() in event
    result = answer_of(server, event, b'data: {"choices":[{"delta":{"content":"\x7f|"}}]}\n\n')
    assert result.error is None
    assert result.text == "Hello" + text + "\x7f|"


@pytest.mark.parametrize("control", ["\x0b", "\x0c", "\x00"])
def test_p03_raw_control_characters_split_no_line(server, control):
    """JSON forbids them raw; the line must still be one line, and its error say so."""
    raw = b'data: {"choices":[{"delta":{"content":"a' + control.encode() + b'b"}}]}\n\n'
    result = answer_of(server, raw)
    is_protocol_error(result, '"a')
    assert '"content":"a' in result.error.raw
    assert 'b"' in result.error.raw


@pytest.mark.parametrize(
    "form",
    [
        b'data: {"choices":\ndata: [{"delta":{"content":"!"}}]}\n\n',
        b'data:{"choices":[{"delta":{"content":"!"}}]}\n\n',
        b'event: x\nid: 7\nretry: 10\ndata: {"choices":[{"delta":{"content":"!"}}]}\n\n',
        b'foo\nfoo: bar\n: c\ndata: {"choices":[{"delta":{"content":"!"}}]}\n\n',
        b'data: \ndata: {"choices":[{"delta":{"content":"!"}}]}\ndata\n\n',
    ],
)
def test_p03_forms_of_an_event(server, form):
    result = answer_of(server, form)
    assert result.error is None
    assert result.text == "Hello!"


# --- P04: the tail ---


def test_p04_tail_without_its_blank_line_is_not_delivered(server):
    server.reply(*BEGINNING, ANSWER[2][:-1])
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert result.text == "Hello"


def test_p04_cut_json_is_not_delivered(server):
    server.reply(*BEGINNING, ANSWER[2][:40], framing="close")
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert result.text == "Hello"


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r"])
def test_p04_done_without_its_blank_line_is_accepted(server, tail):
    server.reply(*BEGINNING, tail, framing="close")
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello"


# --- P05, P08: bad JSON ---


@pytest.mark.parametrize("raw", ["{", "nonsense", '{"choices": [}', "[DONE", "{} {}", '{"a":1}x'])
def test_p05_bad_json(server, raw):
    is_protocol_error(answer_of(server, sse(raw)), raw)


def test_p05_raw_is_cut_and_clean_of_secrets(server):
    echoed = f'{{"you said": "{PROMPT}", ' + "x" * 5000
    result = answer_of(server, sse(echoed))
    is_protocol_error(result, "[prompt]")
    assert not any(mark in result.error.raw for mark in MARKS)


DEEP = '{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"
LONG = '{"choices":[],"usage":{"prompt_tokens":' + "9" * 5000 + "}}"


def test_p08_nested_too_deeply(server):
    is_protocol_error(answer_of(server, sse(DEEP)), '{"choices":[[[')


def test_p08_five_thousand_digits(server):
    is_protocol_error(answer_of(server, sse(LONG)), "999")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_p08_not_a_number(server, value):
    text = '{"choices":[],"usage":{"prompt_tokens":?,"completion_tokens":?}}'.replace("?", value)
    result = answer_of(server, sse(text))
    if result.error is not None:
        is_protocol_error(result, value)
    else:
        json.dumps(result.response.usage.to_dict(), allow_nan=False)


def test_p08_nan_in_tool_arguments_that_are_an_object(server):
    function = '{"name":"f","arguments":{"a":NaN}}'
    text = '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":?}]}}]}'
    result = answer_of(server, sse(text.replace("?", function)))
    assert type(result.error) is errors.ProtocolError


def test_p08_duplicate_keys(server):
    result = answer_of(server, sse('{"choices":[{"delta":{"content":"a","content":"b"}}]}'))
    assert result.error is None
    assert result.text == "Hellob"


# --- P06: nothing where something should be ---

EMPTY = [
    "null",
    "[]",
    "{}",
    "0",
    '"text"',
    "true",
    '{"choices":null}',
    '{"choices":[]}',
    '{"choices":[null]}',
    '{"choices":[{}]}',
    '{"choices":[[]]}',
    '{"choices":"x"}',
    '{"choices":[{"delta":null}]}',
    '{"choices":[{"delta":[]}]}',
    '{"choices":{"0":{}}}',
    '{"choices":[{"delta":{"content":null}}]}',
    '{"choices":[{"delta":{"content":5}}]}',
    '{"choices":[{"delta":{"content":[null, 3, {}]}}]}',
    '{"usage":null,"choices":[]}',
    '{"choices":[{"index":1,"delta":{"content":"of choice 1"}}]}',
    '{"choices":[{"delta":{"tool_calls":null}}]}',
    '{"choices":[{"delta":{"tool_calls":[]}}]}',
    '{"choices":[{"delta":{"tool_calls":[null]}}]}',
    '{"model":5,"choices":[]}',
    '{"choices":[{"delta":{},"finish_reason":5}]}',
    '{"usage":[],"choices":[]}',
    '{"usage":{"prompt_tokens":"many"},"choices":[]}',
    '{"x_groq":7,"choices":[]}',
    '{"error":null,"choices":[]}',
    '{"choices":[{"delta":{"reasoning_details":3}}]}',
]


@pytest.mark.parametrize("empty", EMPTY)
def test_p06_nothing_in_it(server, empty):
    result = answer_of(server, sse(empty))
    assert result.error is None
    assert result.text == "Hello"
    assert result.response.usage.estimated


def test_p06_usage_only_chunk(server):
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 11}
    result = answer_of(server, sse({"usage": usage}))
    assert result.error is None
    assert result.response.usage.to_dict() == {**usage, "estimated": False}


# --- P07: surrogates ---

SMILE = ("\ud83d", "\ude00")


def test_p07_pair_split_over_deltas(server):
    result = answer_of(
        server, *[chat_chunk({"content": half}) for half in ("a" + SMILE[0], SMILE[1] + "b")]
    )
    assert result.text == "Helloa\U0001f600b"


def test_p07_pair_split_with_an_empty_delta_between(server):
    texts = (SMILE[0], "", SMILE[1])
    assert answer_of(server, *[chat_chunk({"content": t}) for t in texts]).text == (
        "Hello\U0001f600"
    )


@pytest.mark.parametrize("texts", [[SMILE[0], "b"], [SMILE[1], "b"], [SMILE[0] * 2, "b"]])
def test_p07_lone_one_becomes_u_fffd(server, texts):
    result = answer_of(server, *[chat_chunk({"content": t}) for t in texts])
    assert result.error is None
    assert result.text == "Hello" + "\ufffd" * len(texts[0]) + "b"
    result.text.encode()


def test_p07_lone_one_at_the_very_end(server):
    result = answer_of(server, chat_chunk({"content": "x" + SMILE[0]}))
    assert result.text == "Hellox\ufffd"


def test_p07_lone_one_held_when_the_stream_is_cut(server):
    server.reply(*BEGINNING, chat_chunk({"content": "x" + SMILE[0]}), Cut())
    with client_of(server) as client:
        result = ask(client)
    assert type(result.error) is errors.StreamTruncated
    assert result.text == "Hellox\ufffd"


def test_p07_in_reasoning_and_in_tool_arguments(server):
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"' + SMILE[0]}}
    rest = {"index": 0, "function": {"arguments": SMILE[1] + '"}'}}
    result = answer_of(
        server,
        *[chat_chunk({"reasoning_content": half}) for half in SMILE],
        *[chat_chunk({"tool_calls": [part]}) for part in (call, rest)],
    )
    assert result.response.reasoning == "\U0001f600"
    assert result.response.tool_calls[0].arguments == '{"a":"\U0001f600"}'


def test_p07_lone_one_reaches_no_event(server):
    server.reply(*BEGINNING, chat_chunk({"content": SMILE[0]}), *ENDING)
    seen = []
    with EventStream() as events, client_of(server) as client:
        events.subscribe(seen.append)
        Agent("a", client=client).execute_with_events("hi", events)
    assert [e.data["chunk"] for e in seen if "chunk" in e.data] == ["Hello", "\ufffd"]
    for event in seen:
        json.dumps(event.to_dict(), ensure_ascii=False).encode()
