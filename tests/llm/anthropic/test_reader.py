"""The events of a Messages stream, by the rules that real servers teach."""

from __future__ import annotations

import json

import pytest

from agentstream.llm.anthropic.reader import EventReader
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.results import Usage


def start(index, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, **fields):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def text(index, words):
    return delta(index, "text_delta", text=words)


def stop(index):
    return {"type": "content_block_stop", "index": index}


def ending(reason, **fields):
    return {"type": "message_delta", "delta": {"stop_reason": reason, **fields}}


END = {"type": "message_stop"}


class Read:
    """The events of one stream, read to its end."""

    def __init__(self, *events):
        self.reader = EventReader()
        deltas = [self.reader.read(event, len(json.dumps(event))) for event in events]
        self.deltas = [*filter(None, [*deltas, self.reader.flush()])]
        self.text = "".join(d.content for d in self.deltas)
        self.reasoning = "".join(d.reasoning for d in self.deltas)
        self.finish = [d.finish_reason for d in self.deltas if d.finish_reason]
        self.usage = [d.usage for d in self.deltas if d.usage]
        self.calls = {}
        self.cut = set()
        for piece in (piece for d in self.deltas for piece in d.tool_calls):
            call = self.calls.setdefault(piece.place, ["", "", ""])
            for n, part in enumerate((piece.id, piece.name, piece.arguments)):
                call[n] += part
            if piece.cut:
                self.cut.add(piece.place)
        self.state = self.reader.state(self.text, self.reasoning)
        self.oddities = self.reader.oddities()


# --- words ------------------------------------------------------------------------------------


def test_words_in_their_blocks():
    read = Read(
        start(0, type="thinking", thinking="Well", signature=""),
        delta(0, "thinking_delta", thinking=", so."),
        delta(0, "signature_delta", signature="S1"),
        stop(0),
        start(1, type="text", text="a"),
        text(1, "b"),
        text(1, ""),
        stop(1),
        start(2, type="redacted_thinking", data="R"),
        stop(2),
        start(3, type="text", text=""),
        text(3, "c"),
        stop(3),
        ending("end_turn"),
        END,
    )
    assert (read.text, read.reasoning, read.finish) == ("abc", "Well, so.", ["stop"])
    assert read.state == [
        {"type": "thinking", "thinking": "Well, so.", "signature": "S1"},
        {"type": "text", "text": "ab"},
        {"type": "redacted_thinking", "data": "R"},
        {"type": "text", "text": "c"},
    ]
    assert read.reader.ended


def test_blocks_that_are_open_at_once():
    read = Read(
        start(0, type="text", text=""),
        start(1, type="thinking", thinking=""),
        text(0, "a"),
        delta(1, "thinking_delta", thinking="x"),
        text(0, "b"),
        start(2, type="text", text=""),
        text(2, "c"),
        text(0, "d"),
        delta(1, "thinking_delta", thinking="y"),
        ending("end_turn"),
        END,
    )
    assert read.text == "abcd"
    assert [b.get("text", b.get("thinking")) for b in read.state] == ["abd", "xy", "c"]


def test_an_index_that_is_used_twice_is_another_block():
    read = Read(
        start(0, type="thinking", thinking=""),
        delta(0, "thinking_delta", thinking="x"),
        stop(0),
        start(0, type="text", text=""),
        text(0, "a"),
        start(0, type="text", text=""),
        text(0, "b"),
        ending("end_turn"),
        END,
    )
    assert [b.get("text", b.get("thinking")) for b in read.state] == ["x", "a", "b"]


def test_words_without_a_start_or_an_index():
    read = Read(text(0, "a"), {"type": "content_block_delta", "delta": {"text": "b"}})
    assert read.text == "a"
    bare = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "b"}}
    assert Read(bare, bare).text == "bb"
    assert Read(start(0, type="text"), text(0, "a"), bare).text == "ab"
    assert Read(start([1], type="text"), text([1], "a"), text({}, "b")).text == "ab"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": None},
        {"type": 5},
        {"type": ["ping"]},
        {"type": "ping"},
        {"type": "new_event", "delta": {"text": "no"}},
        {"type": "message_start"},
        {"type": "message_start", "message": {"usage": None, "model": None}},
        {"type": "message_delta"},
        {"type": "message_delta", "delta": None, "usage": None},
        {"type": "message_delta", "delta": {"stop_reason": None}},
        {"type": "content_block_start"},
        {"type": "content_block_start", "index": 9, "content_block": {"type": "new", "text": "no"}},
        {"type": "content_block_delta"},
        {"type": "content_block_delta", "index": 0},
        delta(0, "new_delta", text="no"),
        delta(0, "text_delta", text=None),
        delta(0, "text_delta"),
        delta(7, "input_json_delta", partial_json="{"),
        delta(7, "signature_delta", signature="S"),
        stop(7),
        {"type": "content_block_stop"},
    ],
)
def test_what_adds_nothing(event):
    assert EventReader().read(event) is None


def test_surrogates_that_are_cut_over_two_deltas():
    read = Read(
        start(0, type="text", text=""),
        text(0, "a\ud83d"),
        text(0, "\ude00b"),
        text(0, "\ud83d"),
        stop(0),
        start(1, type="text", text=""),
        text(1, "c"),
        ending("end_turn"),
        END,
    )
    assert read.text == "a\U0001f600b\ufffdc"
    half = Read(start(0, type="thinking"), delta(0, "thinking_delta", thinking="\ud83d"))
    assert half.reasoning == "\ufffd"


# --- calls ------------------------------------------------------------------------------------


def call(index, name="f", **fields):
    return start(index, type="tool_use", id=f"t{index}", name=name, **fields)


def given(index, piece):
    return delta(index, "input_json_delta", partial_json=piece)


def test_calls_and_their_inputs():
    read = Read(
        call(0, "f", input={}),
        given(0, ""),
        given(0, '{"a": "\ud83d'),
        given(0, '\ude00"}'),
        stop(0),
        call(1, "g", input={}),
        stop(1),
        call(2, "h"),
        given(2, ""),
        stop(2),
        call(3, "i", input={"b": "\u00e9"}),
        ending("tool_use"),
        END,
    )
    assert read.calls == {
        0: ["t0", "f", '{"a": "\U0001f600"}'],
        1: ["t1", "g", "{}"],
        2: ["t2", "h", "{}"],
        3: ["t3", "i", '{"b": "\u00e9"}'],
    }
    assert (read.finish, read.cut, read.state) == (["tool_calls"], set(), None)


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
@pytest.mark.parametrize(
    ("events", "cut"),
    [
        ([call(0), given(0, '{"a": 1}'), stop(0), call(1), given(1, '{"a": ')], {1}),
        ([call(0), given(0, '{"a": 1}'), stop(0), call(1), given(1, '{"a": '), stop(1)], {1}),
        ([call(0), given(0, '{"a": 1}')], {0}),
        ([call(0), stop(0)], {0}),
        ([call(0, input={}), stop(0), call(1), given(1, "{}"), stop(1)], set()),
        ([call(0)], {0}),
        ([call(0), given(0, '{"a": 1}'), stop(0), start(1, type="text")], set()),
    ],
)
def test_w06_a_call_in_which_the_answer_was_cut_is_marked(events, cut, reason):
    read = Read(*events, ending(reason), END)
    assert (read.cut, read.finish) == (cut, ["length"])
    assert read.oddities == [f"the answer was cut: stop_reason {reason}"]


def test_no_call_of_a_refused_answer_is_made():
    read = Read(
        call(0),
        given(0, '{"a": 1}'),
        stop(0),
        ending(
            "refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "No."}
        ),
        END,
    )
    assert (read.cut, read.finish) == ({0}, ["content_filter"])
    assert read.oddities[0] == "the model refused: bio: No."


def test_a_truncated_call_is_not_completed():
    assert Read(call(0)).calls == {0: ["t0", "f", ""]}
    assert Read(call(0), given(0, '{"a"')).state is None


def test_a_servers_own_tool_is_no_call():
    read = Read(
        start(0, type="server_tool_use", id="s0", name="web_search", input={}),
        given(0, '{"query": '),
        given(0, '"x"}'),
        stop(0),
        start(1, type="web_search_tool_result", tool_use_id="s0", content=[{"url": "u"}]),
        stop(1),
        start(2, type="text", text="", citations=[]),
        delta(2, "citations_delta", citation={"url": "u"}),
        text(2, "It is x."),
        stop(2),
        start(3, type="compaction", content=None),
        delta(3, "compaction_delta", content="short"),
        stop(3),
        ending("pause_turn"),
        END,
    )
    assert (read.calls, read.text, read.finish) == ({}, "It is x.", ["stop"])
    assert read.state == [
        {"type": "server_tool_use", "id": "s0", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s0", "content": [{"url": "u"}]},
        {"type": "text", "text": "It is x.", "citations": [{"url": "u"}]},
        {"type": "compaction", "content": "short"},
    ]
    assert read.oddities == []


def test_reasoning_that_was_cut_does_not_go_back():
    words = delta(0, "thinking_delta", thinking="x")
    half = [start(0, type="thinking", thinking="", signature=""), words]
    assert not Read(*half, ending("max_tokens"), END).state
    assert Read(*half, stop(0), ending("end_turn"), END).state
    whole = [*half, delta(0, "signature_delta", signature="S"), ending("max_tokens"), END]
    assert Read(*whole).state


def test_too_much_to_keep_is_dropped_and_told_of():
    block = start(0, type="big", content="x" * 1000)
    reader = EventReader()
    for _ in range(9):
        reader.read(block, 1_000_000)
    reader.read(call(1), 10)
    reader.read(given(1, "{}"), 10)
    reader.read(ending("tool_use"))
    reader.read(END)
    assert reader.state("", "") is None
    assert reader.oddities() == [
        "what the provider wants back with the answer is too long to be kept"
    ]


# --- endings and counts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "finish", "odd"),
    [
        ("end_turn", "stop", False),
        ("stop_sequence", "stop", False),
        ("tool_use", "tool_calls", False),
        ("max_tokens", "length", True),
        ("refusal", "content_filter", True),
        ("compaction", "stop", False),
        ("stop", "stop", False),
        ("brand_new", "brand_new", True),
    ],
)
def test_w10_reasons_for_an_ending(word, finish, odd):
    read = Read(start(0, type="text", text="a"), ending(word), ending(None), END)
    assert read.finish == [finish]
    assert any(word in oddity for oddity in read.oddities) == (odd and word != "stop")


@pytest.mark.parametrize("word", ["error", "cancelled", "server_error"])
def test_an_ending_that_is_a_failure(word):
    read = Read(start(0, type="text", text="a"), ending(word))
    assert read.finish == []
    assert read.reader.failure == {
        "type": "error",
        "error": {"type": word, "message": f"the answer ended with {word}"},
    }


def begun(**usage):
    return {"type": "message_start", "message": {"model": "m", "usage": usage}}


def told(**usage):
    return {"type": "message_delta", "usage": usage}


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ([begun(input_tokens=5, output_tokens=1)], (5, 1, 6, None, None, None)),
        ([begun(input_tokens=5, output_tokens=1), told(output_tokens=9)], (5, 9, 14) + (None,) * 3),
        (
            [
                begun(input_tokens=100, cache_read_input_tokens=0, output_tokens=0),
                told(input_tokens=3, cache_read_input_tokens=97, output_tokens=2),
            ],
            (100, 2, 102, 97, None, None),
        ),
        (
            [
                begun(input_tokens=None),
                told(
                    input_tokens=1,
                    cache_creation_input_tokens=2,
                    cache_read_input_tokens=4,
                    output_tokens=8,
                    output_tokens_details={"thinking_tokens": 6},
                ),
            ],
            (7, 8, 15, 4, 2, 6),
        ),
        ([begun(input_tokens="5", output_tokens=True)], None),
        ([begun(input_tokens=-1), told(output_tokens=float("nan"))], None),
        ([told(output_tokens=4, output_tokens_details=None)], (None, 4, None, None, None, None)),
    ],
)
def test_usage_is_cumulative_and_the_last_value_wins(events, usage):
    read = Read(*events)
    last = read.usage[-1] if read.usage else None
    assert last == (
        usage
        and Usage(
            *usage[:3],
            cached_tokens=usage[3],
            cache_write_tokens=usage[4],
            reasoning_tokens=usage[5],
        )
    )


def test_usage_that_says_nothing_new_is_not_told_again():
    read = Read(begun(input_tokens=5, output_tokens=1), told(output_tokens=1), told())
    assert len(read.usage) == 1


def test_an_answer_that_is_no_stream():
    reader = EventReader()
    message = {
        "type": "message",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "x", "signature": "S"},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"b": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    pieces = (ToolCallDelta(0, "t", "f"), ToolCallDelta(0, arguments='{"b": 1}'))
    usage = Usage(1, 2, 3)
    assert reader.read_whole(message) == Delta("a", "x", pieces, "tool_calls", usage, "m")
    assert len(reader.state("a", "x")) == 3
    assert EventReader().read_whole({"type": "message"}) is None
