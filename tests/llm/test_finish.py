"""Why an answer ended, in the words of any server (W10)."""

from __future__ import annotations

import pytest

from agentstream.llm.finish import Ending, ending_of
from tests.kit.chunks import answer_to, chunk


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
