"""docs/faults.rst W07, W10, W14, W16, B09, B17: what a chunk holds besides tool calls."""

from __future__ import annotations

import json

import pytest

from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chat.chunks import ChunkReader
from agentstream.llm.chat.finish import Ending, ending_of
from agentstream.results import Usage
from agentstream.testing import sse, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.support import ask, client_of

BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)


def answer_to(*chunks):
    """The answer and the warnings that chunks come to."""
    reader, answer = ChunkReader(), Accumulator()
    for delta in [*map(reader.read, chunks), reader.flush()]:
        if delta is not None:
            answer.add(delta)
    for oddity in reader.oddities():
        answer.warn(oddity)
    return answer.response()


def chunk(delta=None, finish=None, **more):
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"choices": [choice], **more}


# --- W07: heartbeats ---


@pytest.mark.parametrize(
    "beat",
    [
        "data:\n\n",
        "data\n\n",
        "data: \n\n",
        "data:   \n\n",
        "data:\ndata:\n\n",
        "data: \t\n\n",
        "event: ping\ndata:\n\n",
        "event: ping\ndata: 2024-01-01 00:00:00\n\n",
        'event: ping\ndata: {"message": "alive"}\n\n',
        "event: heartbeat\ndata: alive\n\n",
        "event: keep-alive\ndata: ok\n\n",
        "event: x\n\n",
    ],
)
def test_w07_blank_data_is_skipped(server, beat):
    server.reply(beat, *BEGINNING, beat, beat, chat_chunk({}, finish_reason="stop"), beat, DONE)
    with client_of(server) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Hello"
    assert result.response.warnings == ()


# --- W10: finish reasons ---


@pytest.mark.parametrize(
    "word",
    [
        "length",
        "max_tokens",
        "MAX_TOKENS",
        "SAFETY",
        "sensitive",
        "repetition_truncation",
        "content-filter",
        "RECITATION",
        "model_length",
        "max_output_tokens",
        "refusal",
        "content_policy_violation",
        "unsafe",
        "budget_exceeded",
        "out_of_tokens",
        "incomplete",
    ],
)
def test_w10_a_word_that_means_a_cut(word):
    response = answer_to(chunk({"content": "x"}), chunk(finish=word))
    assert response.finish_reason == word
    assert response.warnings == (f"the answer was cut: finish_reason {word}",)


@pytest.mark.parametrize("word", ["moonshine", "OTHER", "LANGUAGE", "something new"])
def test_w10_a_word_that_nobody_knows(word):
    response = answer_to(chunk({"content": "x"}), chunk(finish=word))
    assert response.finish_reason == word
    (warning,) = response.warnings
    assert word in warning
    assert "cut" not in warning


@pytest.mark.parametrize(
    "word",
    [
        "stop",
        "STOP",
        "stop_sequence",
        "eos",
        "eos_token",
        "end_turn",
        "tool_calls",
        "tool_use",
        "function_call",
        "TOOL_CALL",
        "completed",
        "COMPLETE",
        "FINISH_REASON_STOP",
        "FinishReason.STOP",
        "stop_str",
        "eos_token_id",
    ],
)
def test_w10_words_that_are_fine(word):
    assert answer_to(chunk({"content": "x"}), chunk(finish=word)).warnings == ()
    assert ending_of(word) is Ending.WHOLE


@pytest.mark.parametrize("word", ["", "null", None, 5, []])
def test_w10_words_that_are_none(word):
    response = answer_to(chunk({"content": "x"}, word), chunk({"content": "y"}, word))
    assert response.finish_reason is None
    assert response.warnings == ()


# --- W14: reasoning ---

REASONING = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm"},
    {"reasoning_text": "hm"},
    {"reasoning_content": {"text": "hm"}},
    {"reasoning": {"content": [{"type": "text", "text": "hm"}]}},
    {"reasoning": {"summary": "hm", "encrypted": "zzz"}},
    {"thinking": "hm"},
    {
        "thinking_blocks": [
            {"type": "thinking", "thinking": "h", "signature": "zzz"},
            {"type": "thinking", "thinking": "m"},
        ]
    },
    {
        "thinking_blocks": [
            {"type": "redacted_thinking", "data": "zzz"},
            {"type": "thinking", "thinking": "hm"},
        ]
    },
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "zzz"}]},
    {"content": [{"type": "reasoning", "text": "hm"}]},
    {"content": [{"type": "reasoning", "summary": "hm"}]},
    {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]},
    {"content": [{"type": "reasoning_text", "text": "hm"}]},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    {"content": {"type": "reasoning", "reasoning": "hm"}},
    {"content": [{"text": "hm", "thought": True}]},
    {"content": [{"type": "summary_text", "text": "hm"}]},
    {"content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}]},
    {"reasoning_content": {"reasoning_text": "hm"}},
    {"reasoning_content": {"type": "text", "value": "hm"}},
    {"reasoning": "hm", "reasoning_details": [{"text": "hm"}]},
    {"reasoning_content": "hm", "thinking_blocks": [{"thinking": "hm"}]},
]  # each says "hm", some twice


@pytest.mark.parametrize("delta", REASONING)
def test_w14_reasoning_in_all_its_places(delta):
    response = answer_to(chunk({"content": "", **delta}), chunk({"content": "Yes."}))
    assert (response.content, response.reasoning) == ("Yes.", "hm")
    whole = {"choices": [{"message": {"role": "assistant", **delta}, "finish_reason": "stop"}]}
    read = ChunkReader().read_whole(whole)
    assert (read.content, read.reasoning) == ("", "hm")


@pytest.mark.parametrize("value", [None, "", 5, [], {}, [None], {"text": 5}, {"encrypted": "zzz"}])
def test_w14_no_words(value):
    delta = {"content": "Yes.", "reasoning": value, "thinking_blocks": value}
    response = answer_to(chunk(delta))
    assert (response.content, response.reasoning) == ("Yes.", "")


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text", "text": "Yes."},
        ["Yes."],
        [{"type": "text", "text": {"value": "Yes."}}],
        [{"text": "Yes."}],
        [{"type": "output_text", "text": "Yes."}],
        [{"type": "text", "text": "Yes.", "thought_signature": "zzz", "reasoning": None}],
    ],
)
def test_w14_parts_that_are_text(content):
    assert answer_to(chunk({"content": content})).content == "Yes."


# --- W16: usage ---

USAGES = {
    "plain": ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(7, 3, 10)),
    "input, output": ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3, None)),
    "floats": (
        {"prompt_tokens": 7.0, "completion_tokens": 3.0, "total_tokens": 10.0},
        Usage(7, 3, 10),
    ),
    "details": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(7, 3, 10, False, 5, 1, 2),
    ),
    "other details": (
        {
            "input_tokens": 7,
            "output_tokens": 3,
            "total_tokens": 10,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        Usage(7, 3, 10, False, 5, None, 2),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_cache_hit_tokens": 4,
            "prompt_cache_miss_tokens": 3,
        },
        Usage(7, 3, 10, False, 4),
    ),
    "cost": ({"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.25}, Usage(7, 3, cost=0.25)),
    "cost in parts": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "cost": {"total_cost": 0.25, "request_cost": 0.1},
        },
        Usage(7, 3, cost=0.25),
    ),
    "camel case": ({"promptTokens": 7, "completionTokens": 3, "totalTokens": 10}, Usage(7, 3, 10)),
    "Ollama": ({"prompt_eval_count": 7, "eval_count": 3}, Usage(7, 3)),
    "two spellings, one of zeros": (
        {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 7, "output_tokens": 3},
        Usage(7, 3),
    ),
    "two caches, one of zeros": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 0},
            "prompt_cache_hit_tokens": 5,
        },
        Usage(7, 3, cached_tokens=5),
    ),
    "null details": (
        {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None},
        Usage(7, 3),
    ),
}


def test_w16_a_zero_hides_no_count():
    first = chunk({"content": "x"}, usage={"prompt_tokens": 7, "completion_tokens": 0})
    last = {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}
    usage = answer_to(first, chunk(finish="stop", usage=last)).usage
    assert usage == Usage(7, 3, 10)


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("kind", USAGES)
@pytest.mark.parametrize("place", ["top", "choice", "x_groq"])
@pytest.mark.parametrize("zeros", ["", "before", "after", "both"])
def test_w16_usage_in_all_its_spellings(kind, place, zeros):
    given, expected = USAGES[kind]
    holding = chunk({"content": "x"})
    if place == "choice":
        holding["choices"][0]["usage"] = given
    else:
        holding["usage" if place == "top" else "x_groq"] = (
            given if place == "top" else {"usage": given}
        )
    zero = chunk({"content": "x"}, usage=ZERO)
    before = [zero, zero] if zeros in ("before", "both") else []
    after = [zero, zero] if zeros in ("after", "both") else []
    usage = answer_to(*before, holding, *after).usage
    # A zero that came before stands where the later one says nothing.
    if expected.total_tokens is None and before and place == "top":
        assert usage.total_tokens in (None, 0)
        usage = usage._replace(total_tokens=None)
    assert usage == expected


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 10**400, True, "7", [7], {}])
def test_b09_w16_what_is_no_count(value):
    response = answer_to(chunk({"content": "x"}, usage={"prompt_tokens": value}))
    assert response.usage == Usage(None, 1, None, True)
    json.dumps(response.usage.to_dict(), allow_nan=False)


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("delta", [{"tool_calls": [CALL]}, {"reasoning_content": "hm"}])
def test_w16_an_answer_without_content_is_not_estimated_at_0(delta):
    usage = answer_to(chunk(delta), chunk(delta), chunk(finish="stop")).usage
    assert usage == Usage(None, 2, None, True)


def test_w16_usages_add_up_in_every_field():
    one = Usage(1, 2, 3, False, 4, None, 5, 0.5)
    two = Usage(10, 20, 30, True, None, 6, 50, 0.25)
    assert one + two == Usage(11, 22, 33, True, 4, 6, 55, 0.75)
    assert sum([one, two]) == one + two
    assert Usage(**one.to_dict()) == one
    assert Usage(1, 2, 3).to_dict() == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "estimated": False,
    }
    assert one.to_dict()["cached_tokens"] == 4


def test_w16_the_details_reach_the_caller(server):
    server.reply(*text_chunks("Hello", usage=USAGES["details"][0]))
    with client_of(server) as client:
        assert ask(client).response.usage == USAGES["details"][1]


# --- B17: lone surrogates ---


def test_b17_lone_surrogates_in_model_finish_reason_and_refusal(server):
    server.reply(
        sse(json.dumps(chunk({"refusal": "no\ud83d"}, model="m\ud83d"))),
        sse(json.dumps(chunk({"content": "x"}, "odd\ud83d\x1b[31m", model="m\ud83d"))),
        DONE,
    )
    with client_of(server) as client:
        response = ask(client).response
    assert response.model == "m\ufffd"
    shown = repr([response.model, response.finish_reason, response.warnings])
    shown.encode()
    assert "\\x1b" not in shown
    assert "\\ud83d" not in shown
