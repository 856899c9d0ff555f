"""docs/faults.rst W15: reasoning between tags in the content."""

from __future__ import annotations

import pytest

from agentstream import CancelToken, errors
from agentstream.llm.chat.think import HELD, ThinkSplitter
from agentstream.llm.clients import OpenAIClient
from agentstream.llm.messages import as_request
from agentstream.llm.settings import Retries
from agentstream.testing import Hang, Pause, text_chunks
from agentstream.testing.pieces import chat_chunk, sse
from tests.kit.support import ask, client_of

ANSWERS = {
    "<think>a < b</think>Yes.": ("Yes.", "a < b"),
    "\n<think>\nhm\n</think>\n\nYes.\n": ("Yes.\n", "\nhm\n"),
    "hm</think>Yes.": ("Yes.", "hm"),
    "hm < hm</think>\n\nYes <b>": ("Yes <b>", "hm < hm"),
    "Yes.": ("Yes.", ""),
    "Yes <thin": ("Yes <thin", ""),
    "</think>Yes.": ("Yes.", ""),
    "<think></think>Yes.": ("Yes.", ""),
    "<think>never closed</thi": ("", "never closed</thi"),
    "One <think>hm</think>two <think>hm</think>three": ("One two three", "hmhm"),
    "<think>a</think>b</think>c": ("b</think>c", "a"),
    "": ("", ""),
}


def split(pieces):
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.end()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@pytest.mark.parametrize("text", ANSWERS)
def test_w15_tags_cut_anywhere(text):
    assert split([text]) == ANSWERS[text]
    assert split(list(text)) == ANSWERS[text]
    for first in range(len(text)):
        for second in range(first, len(text), 3):
            pieces = [text[:first], text[first:second], text[second:]]
            assert split(pieces) == ANSWERS[text], pieces


def test_w15_what_is_certain_goes_out_at_once():
    splitter = ThinkSplitter()
    assert splitter.feed("<think>hm") == ("", "hm")
    assert splitter.feed(", hm</th") == ("", ", hm")
    assert splitter.feed("ink> Yes") == ("Yes", "")
    assert splitter.feed(" <b") == (" <b", "")


def test_w15_what_is_held_back_is_bounded():
    splitter = ThinkSplitter()
    out = [splitter.feed("x" * 100)[0] for _ in range(HELD // 100 + 3)]
    assert "".join(out) + splitter.end()[0] == "x" * 100 * len(out)
    assert out[-1] == "x" * 100


@pytest.mark.parametrize("text", ANSWERS)
def test_w15_the_client_moves_it_to_the_reasoning(server, text):
    server.reply(*text_chunks(*text))
    with client_of(server, think_tags=True) as client:
        result = ask(client)
    assert result.error is None
    assert (result.response.content, result.response.reasoning) == ANSWERS[text]


def test_w15_only_if_it_was_asked_to(server):
    server.reply_text("<think>hm</think>Yes.")
    with OpenAIClient("m", base_url=server.url + "/v1", api_key="") as client:
        assert client.chat("hi").content == "<think>hm</think>Yes."
    server.reply_text("<think>hm</think>Yes.")
    with OpenAIClient("m", base_url=server.url + "/v1", api_key="", think_tags=True) as client:
        assert client.chat("hi").reasoning == "hm"


@pytest.mark.parametrize("failure", ['{"error": {"message": "engine died"}}', "{no JSON"])
def test_w15_what_is_held_back_goes_out_before_a_failure(server, failure):
    server.reply(*text_chunks("Hel", "lo", finish_reason=None, done=False), sse(failure))
    with client_of(server, think_tags=True) as client:
        result = ask(client)
    assert result.error is not None
    assert result.text == result.error.partial.content == "Hello"


def test_w15_what_is_held_back_is_not_lost_when_the_call_is_stopped(server):
    held = [chat_chunk({"content": text}) for text in ("Hel", "lo")]
    server.reply(*held, chat_chunk({"reasoning_content": "now"}), Hang())
    cancel = CancelToken()
    texts = []
    with client_of(server, think_tags=True) as client:
        deltas = client.stream_deltas(as_request("hi"), cancel=cancel)
        with pytest.raises(errors.Cancelled) as info:
            for delta in deltas:
                texts.append(delta.content)
                if delta.reasoning:
                    assert "".join(texts) == ""
                    cancel.cancel()
    assert info.value.partial.content == "".join(texts) == "Hello"


def test_w15_what_is_held_back_stops_no_further_attempt(server):
    failure = sse({"error": {"message": "overloaded", "code": 503}})
    server.reply(*text_chunks("Hello", finish_reason=None, done=False), failure)
    server.reply_text("Good.")
    with client_of(server, think_tags=True, retries=Retries(1, backoff=0.01)) as client:
        result = ask(client)
    assert result.error is None
    assert result.text == "Good."


def test_w15_an_answer_that_is_no_stream(server):
    message = {"role": "assistant", "content": "<think>hm</think>Yes."}
    server.reply_json({"choices": [{"message": message, "finish_reason": "stop"}]})
    with client_of(server, think_tags=True) as client:
        response = ask(client).response
    assert (response.content, response.reasoning) == ("Yes.", "hm")


def test_w15_what_is_held_back_counts_as_the_first_token(server):
    server.reply(chat_chunk({"content": "hm"}), Pause(0.9), *text_chunks(" hm</think>", "Yes."))
    with client_of(server, think_tags=True, first_token=0.6) as client:
        result = ask(client)
    assert result.error is None
    assert (result.response.content, result.response.reasoning) == ("Yes.", "hm hm")


def test_w15_a_call_ends_the_waiting(server):
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    server.reply(
        *text_chunks("I call.", done=False)[:-2],
        chat_chunk({"tool_calls": [call]}),
        *text_chunks(finish_reason="tool_calls")[1:],
    )
    with client_of(server, think_tags=True) as client:
        result = ask(client)
    assert result.error is None or isinstance(result.error, errors.StreamError)
    assert result.response.content == "I call."
    assert len(result.response.tool_calls) == 1
