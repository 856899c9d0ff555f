"""Reasoning and text, wherever a message holds them (W14)."""

from __future__ import annotations

import pytest

from agentstream.llm.chat.chunks import ChunkReader
from tests.kit.chunks import answer_to, chunk

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
