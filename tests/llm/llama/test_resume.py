"""Going on with an answer that broke off: the seam by itself, and whole calls that break.

The server here continues an assistant's words as llama.cpp does; the real one is
in test_real_llama.py.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Callable, Dict, List, Optional

import pytest

from agentstream import Agent, CancelToken, EventStream
from agentstream.errors import (
    AgentStreamError,
    BadRequest,
    Cancelled,
    ConnectError,
    DeadlineExceeded,
    LimitExceeded,
    ProviderStreamError,
    StallTimeout,
    StreamTruncated,
)
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.clients import LlamaClient, OpenAIClient
from agentstream.llm.llama.resume import ResumingDialect, Seam
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta
from agentstream.llm.settings import Limits, Retries, Timeouts
from agentstream.results import Usage
from agentstream.testing import (
    Cut,
    Drip,
    Gate,
    Hang,
    Reply,
    Request,
    Reset,
    ScriptedServer,
    sse,
    text_chunks,
    tool_call_chunks,
)
from tests.kit.streams import chat_dialect
from tests.kit.support import Task, client_of

# --- the seam -------------------------------------------------------------------------------

TEXTS = (
    "The cat sat. It slept.",
    "  Two  spaces\n\n\nand lines\t\tand tabs \u00a0\u3000 and more\n",
    "def f(n):\n    if n < 2:\n        return n\n\n    return f(n - 1) + f(n - 2)\n",
    "Familie \U0001f469\u200d\U0001f469\u200d\U0001f467 und \U0001f1eb\U0001f1f7, "
    "na\u00efve e\u0301t\u00e9 \U0001f600",
    "\n\n1. One\n2. Two\n",
)


def fit(seam: Seam, pieces: List[str]) -> Optional[str]:
    """What goes out in all; None if the server began again."""
    out = []
    for piece in pieces:
        got = seam.take(piece)
        if got is None:
            return None
        out.append(got)
    return "".join(out) + seam.end()


def in_pieces(text: str, size: int) -> List[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_of_a_text_is_joined_again(text: str, size: int) -> None:
    for cut in range(1, len(text) + 1):
        seam = Seam(text[:cut])
        assert seam.sent == text[:cut].rstrip()
        rest = text[len(seam.sent) :]
        assert fit(seam, in_pieces(rest, size)) == text[cut:], (text[:cut], rest)


@pytest.mark.parametrize(
    ("said", "continuation", "goes_out"),
    [
        ("One, ", " two", "two"),
        ("One, ", "two", "two"),
        ("One,", " two", " two"),
        ("One,\n\n", "\nTwo", "Two"),
        ("One,\n", "\n\nTwo", "\nTwo"),
        ("One, ", "\nTwo", "\nTwo"),
        ("One \n", " \t\nTwo", "\t\nTwo"),
        ("One,\n\n", "\n\n", ""),
        ("One,\n\n", "", ""),
        ("One,\n\n", "\n", ""),
        ("  \n", "  \nTwo", "Two"),
        ("Row, row, ", " row", "row"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_white_space_at_the_seam(said: str, continuation: str, goes_out: str, size: int) -> None:
    assert fit(Seam(said), in_pieces(continuation, size)) == goes_out


def test_text_goes_out_as_soon_as_it_cannot_be_the_beginning() -> None:
    seam = Seam("The cat sat on the mat. ")
    assert seam.take("The ") == ""
    assert seam.take("c") == ""
    assert seam.take("ow") == "The cow"
    assert seam.take("The cat sat on the mat.") == "The cat sat on the mat."


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("text", TEXTS)
def test_a_beginning_that_comes_again_never_goes_out(text: str, size: int) -> None:
    for cut in range(1, len(text) + 1):
        if not text[:cut].strip():
            continue  # nothing was said that could come again
        seam = Seam(text[:cut])
        given = [seam.take(piece) for piece in in_pieces(text, size)]
        assert None in given, text[:cut]
        assert "".join(given[: given.index(None)]) == "", text[:cut]  # type: ignore[arg-type]


def test_a_beginning_without_its_leading_white_space_is_one_too() -> None:
    assert Seam(" Hello there, you").take("Hello there, you") is None


def test_a_text_may_quote_its_own_beginning() -> None:
    text = 'What is a joke about the sea?\n\nThe answer is: "What is a joke about the sea?"'
    cut = text.index('"') + 1
    seam = Seam(text[:cut])
    assert fit(seam, in_pieces(text[cut:], 4)) == text[cut:]
    assert Seam(text[:cut]).take(text) is None


def test_words_the_request_ended_with_are_a_beginning_too() -> None:
    seam = Seam("the sea.", "Once upon a time there was ")
    assert seam.sent == "Once upon a time there was the sea."
    assert seam.take("Once upon a time") is None


def test_strict_takes_one_character_for_a_beginning() -> None:
    assert Seam('{"name": "Par', strict=True).take("{") is None
    assert Seam('{"name": "Par').take('{"other"') == '{"other"'
    assert Seam('{"name": "Par', strict=True).take('is"}') == 'is"}'


# --- the request that goes on ---------------------------------------------------------------

BROKEN = StreamTruncated("it broke", phase="stream", retryable=True)


def resumption(body: Dict[str, Any], *deltas: Delta) -> ResumingDialect:
    answer = Accumulator()
    going = ResumingDialect(chat_dialect(body))
    going.begin(answer)
    for delta in deltas:
        answer.add(delta)
    return going


def said(*texts: str) -> List[Delta]:
    return [Delta(text) for text in texts]


def test_the_request_ends_with_the_words_so_far() -> None:
    going = resumption({"seed": 7, "max_tokens": 10}, *said("One,", " two", ",\n", "\n"))
    assert going.may_resume(BROKEN)
    assert going.body() == {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "One, two,"},
        ],
        "seed": 7,
        "max_tokens": 8,  # two of the four hold white space that will come again
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_before_a_break_nothing_of_the_request_changes() -> None:
    going = resumption({"max_tokens": 5}, *said("One"))
    assert going.body() == chat_dialect({"max_tokens": 5}).body()


@pytest.mark.parametrize(
    ("cap", "left"), [(None, None), (-1, -1), (10, 8), (3, 1), ("junk", "junk")]
)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_bound_on_tokens_is_lowered_by_what_was_used(name: str, cap: Any, left: Any) -> None:
    going = resumption({name: cap}, *said("One,", " two"))
    assert going.may_resume(BROKEN)
    assert going.body().get(name) == left


@pytest.mark.parametrize("cap", [1, 2])
def test_nothing_is_asked_for_when_no_token_is_left(cap: int) -> None:
    assert not resumption({"max_tokens": cap}, *said("One,", " two")).may_resume(BROKEN)


def test_words_that_the_request_ended_with_are_gone_on_with() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once "}]
    going = resumption({"messages": messages}, *said("upon", " a "))
    assert going.may_resume(BROKEN)
    assert going.body()["messages"][-1] == {"role": "assistant", "content": "Once upon a"}
    assert len(going.body()["messages"]) == 2
    assert messages[-1]["content"] == "Once "


def test_white_space_alone_is_the_same_question_again() -> None:
    going = resumption({}, *said("\n", "\n"))
    assert going.may_resume(BROKEN)
    assert going.body() == chat_dialect().body()


def test_thoughts_that_came_before_the_words_go_with_them() -> None:
    going = resumption({}, Delta(reasoning="Hm."), *said("One,"))
    assert going.may_resume(BROKEN)
    assert going.body()["messages"][-1] == {
        "role": "assistant",
        "content": "One,",
        "reasoning_content": "Hm.",
    }


@pytest.mark.parametrize(
    ("body", "deltas"),
    [
        ({}, [Delta(reasoning="Hm")]),
        ({}, [Delta("One"), Delta(reasoning="Hm")]),
        ({}, [Delta("One", reasoning="Hm")]),
        ({}, [Delta("One"), Delta(finish_reason="stop")]),
        ({}, []),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
            [Delta("One")],
        ),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, [Delta("One")]),
        ({"messages": ["junk"]}, [Delta("One")]),
    ],
)
def test_where_it_cannot_go_on(body: Dict[str, Any], deltas: List[Delta]) -> None:
    assert not resumption(body, *deltas).may_resume(BROKEN)


# --- whole calls ----------------------------------------------------------------------------

#: One delta each, as a tokenizer would cut them.
WORDS = [
    "The",
    " cat",
    " sat",
    ".",
    "\n",
    "\n",
    "  It",
    " slept",
    " \U0001f600",
    ".\n",
    "Then",
    " it",
    "  ",
    "ate",
    ".",
]
WHOLE = "".join(WORDS)


class Llama:
    """Continues the assistant's words, and breaks as it is told.

    Attributes:
        breaks: for each request to come: how many words, then what; None for the whole.
        bodies: what was asked.
    """

    def __init__(self, server: ScriptedServer, words: Optional[List[str]] = None) -> None:
        self.words = words or WORDS
        self.breaks: List[Any] = []
        self.bodies: List[Any] = []
        server.route("/v1/chat/completions", self.answer)

    def answer(self, request: Request) -> Reply:
        body = json.loads(request.body)
        self.bodies.append(body)
        last = body["messages"][-1]
        words = self.words
        if last["role"] == "assistant":
            assert body["continue_final_message"] is True
            assert body["add_generation_prompt"] is False
            assert last["content"] == last["content"].rstrip()
            whole = "".join(words)
            assert whole.startswith(last["content"])
            words = in_pieces(whole[len(last["content"]) :], 3)
        plan = self.breaks.pop(0) if self.breaks else None
        if plan is None:
            usage = {
                "prompt_tokens": 100,
                "completion_tokens": len(words),
                "total_tokens": 100 + len(words),
            }
            return Reply.text(*words, usage=usage)
        count, how = plan
        return Reply(*text_chunks(*words[:count], finish_reason=None, usage=False, done=False), how)


class Outcome:
    """A call read to its end: its deltas, its answer, its error if there was one."""

    def __init__(self, client: Any, prompt: Any = "Hi", **settings: Any) -> None:
        request = (
            prompt if isinstance(prompt, ChatRequest) else ChatRequest([ChatMessage.user(prompt)])
        )
        self.deltas: List[Delta] = []
        self.error: Optional[AgentStreamError] = None
        on_delta: Optional[Callable[[Delta], object]] = settings.pop("on_delta", None)
        stream = client.stream_deltas(request, **settings)
        try:
            for delta in stream:
                self.deltas.append(delta)
                if on_delta is not None:
                    on_delta(delta)
        except AgentStreamError as error:
            self.error = error
        self.response = stream.answer.response()
        self.text = "".join(delta.content for delta in self.deltas)
        self.notices = [delta.retry for delta in self.deltas if delta.retry is not None]
        assert self.text == self.response.content  # I2
        if self.error is not None:
            assert self.error.partial is not None
            assert self.error.partial.content == self.text
        assert client._transport.places.free == client._transport.limits.pool_size  # I6


def patient(server: ScriptedServer, attempts: int = 2, **settings: Any) -> LlamaClient:
    settings.setdefault("retries", Retries(attempts, resume=True, backoff=0.001))
    return client_of(server, **settings)


@pytest.mark.parametrize("how", [Cut(), Reset()], ids=["fin", "rst"])
def test_cut_after_every_delta_nothing_is_repeated_or_lost(
    server: ScriptedServer, how: Any
) -> None:
    llama = Llama(server)
    with patient(server) as client:
        for count in range(1, len(WORDS) + 1):
            llama.breaks = [(count, how)]
            outcome = Outcome(client)
            assert outcome.error is None
            assert outcome.text == WHOLE, count
            assert outcome.response.finish_reason == "stop"
            assert [n.resumed for n in outcome.notices] == [True]
            assert outcome.notices[0].error == "StreamTruncated"
            before = "".join(WORDS[:count])
            assert outcome.response.warnings == (
                f"the stream broke off after {len(before)} characters and was resumed",
            )
            place = next(i for i, d in enumerate(outcome.deltas) if d.retry is not None)
            assert "".join(d.content for d in outcome.deltas[:place]) == before
            check_usage(outcome, before, count)


def check_usage(outcome: Outcome, before: str, count: int) -> None:
    """The kept deltas, and the continuation's; the kept ones are no part of the prompt."""
    blank = len(before) - len(before.rstrip())
    kept = count
    while blank > 0:
        kept -= 1
        blank -= len(WORDS[kept])
    rest = len(in_pieces(WHOLE[len(before.rstrip()) :], 3))
    usage = outcome.response.usage
    assert usage == Usage(100 - kept, kept + rest, 100 + rest, estimated=True)


def test_a_break_before_the_first_delta_is_a_retry_as_ever(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(0, Cut())]
    with patient(server) as client:
        outcome = Outcome(client)
    assert outcome.text == WHOLE
    assert [n.resumed for n in outcome.notices] == [False]
    assert outcome.response.warnings == ()
    assert not outcome.response.usage.estimated
    assert llama.bodies[0] == llama.bodies[1]


def test_a_stall_is_a_break(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(4, Hang())]
    with patient(server, stall=0.4) as client:
        outcome = Outcome(client)
    assert outcome.text == WHOLE
    assert [(n.error, n.resumed) for n in outcome.notices] == [("StallTimeout", True)]
    assert server.wait_client_gone()


def test_an_answer_may_break_more_than_once(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(5, Cut()), (2, Reset()), (0, Cut()), (1, Cut())]
    with patient(server, attempts=4) as client:
        outcome = Outcome(client, ChatRequest([ChatMessage.user("Hi")], max_tokens=50, seed=3))
    assert outcome.text == WHOLE
    assert [n.attempt for n in outcome.notices] == [1, 2, 3, 4]
    assert all(n.resumed for n in outcome.notices)
    assert len(outcome.response.warnings) == 3  # one try brought nothing
    assert [body["seed"] for body in llama.bodies] == [3] * 5
    caps = [body["max_tokens"] for body in llama.bodies]
    assert caps == sorted(caps, reverse=True)
    assert caps[0] == 50
    assert caps[1] == 50 - 4


def test_attempts_run_out(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(3, Cut()), (2, Cut()), (2, Cut())]
    with patient(server, attempts=2) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert WHOLE.startswith(outcome.text)
    assert len(outcome.text) > len("".join(WORDS[:3]))
    assert len(outcome.notices) == 2
    assert len(llama.bodies) == 3
    assert outcome.response.usage.estimated


@pytest.mark.parametrize("retries", [Retries(2, backoff=0.001), Retries(0, resume=True)])
def test_without_resume_or_attempts_it_raises(server: ScriptedServer, retries: Retries) -> None:
    llama = Llama(server)
    llama.breaks = [(3, Cut())]
    with patient(server, retries=retries) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert outcome.text == "".join(WORDS[:3])
    assert len(llama.bodies) == 1


def test_an_openai_client_never_goes_on(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(3, Cut())]
    retries = Retries(2, resume=True, backoff=0.001)
    with OpenAIClient(base_url=server.url + "/v1", api_key="k", retries=retries) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert len(llama.bodies) == 1


def test_a_server_that_begins_again_is_found_out(server: ScriptedServer) -> None:
    for count in range(1, len(WORDS) + 1):
        server.reply(
            *text_chunks(*WORDS[:count], finish_reason=None, usage=False, done=False), Cut()
        )
        server.reply_text(*WORDS)
        with patient(server) as client:
            outcome = Outcome(client)
        assert isinstance(outcome.error, StreamTruncated), count
        assert "began again" in str(outcome.error)
        assert outcome.text == "".join(WORDS[:count])
        assert len(outcome.notices) == 1
        assert outcome.response.warnings == ()


def test_an_answer_that_is_not_streamed_repeats_the_beginning(server: ScriptedServer) -> None:
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Cut())
    server.reply_json({"choices": [{"message": {"role": "assistant", "content": "The cat sat."}}]})
    with patient(server) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert outcome.text == "The cat"


def test_a_server_that_begins_to_think_again_is_found_out(server: ScriptedServer) -> None:
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Cut())
    server.reply(sse(chunk({"reasoning_content": "Hm"})), sse("[DONE]"))
    with patient(server) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert outcome.response.reasoning == ""


def test_json_that_begins_again_is_found_out_by_its_first_character(
    server: ScriptedServer,
) -> None:
    server.reply(*text_chunks('{"a', finish_reason=None, usage=False, done=False), Cut())
    server.reply_text('{"b": 1}')
    request = ChatRequest([ChatMessage.user("Hi")], response_format={"type": "json_object"})
    with patient(server) as client:
        outcome = Outcome(client, request)
    assert isinstance(outcome.error, StreamTruncated)
    assert outcome.text == '{"a'


def chunk(delta: Dict[str, Any], finish_reason: Optional[str] = None) -> Dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


@pytest.mark.parametrize("first", [[], ["Well, "]])
def test_in_reasoning_it_raises(server: ScriptedServer, first: List[str]) -> None:
    pieces = text_chunks(*first, finish_reason=None, usage=False, done=False)
    server.reply(*pieces, sse(chunk({"reasoning_content": "Let me see"})), Cut())
    with patient(server) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert outcome.response.reasoning == "Let me see"
    assert outcome.notices == []
    assert len(server.requests) == 1


def test_in_a_tool_call_it_raises(server: ScriptedServer) -> None:
    pieces = tool_call_chunks(("get_weather", {"city": "Oslo"}))
    for count in (2, 3):
        server.reply(
            *text_chunks("I look", finish_reason=None, usage=False, done=False),
            *pieces[1:count],
            Cut(),
        )
        with patient(server) as client:
            outcome = Outcome(client)
        assert isinstance(outcome.error, StreamTruncated)
        assert outcome.response.tool_calls[0].name == "get_weather"
        assert outcome.notices == []
    assert len(server.requests) == 2


def test_the_continuation_may_call_a_tool(server: ScriptedServer) -> None:
    server.reply(*text_chunks("I look", finish_reason=None, usage=False, done=False), Cut())
    server.reply_tool_calls(("get_weather", {"city": "Oslo"}))
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    with patient(server) as client:
        outcome = Outcome(client, ChatRequest([ChatMessage.user("Hi")], tools=tools))
    assert outcome.error is None
    assert outcome.text == "I look"
    assert json.loads(outcome.response.tool_calls[0].arguments) == {"city": "Oslo"}
    assert outcome.response.finish_reason == "tool_calls"
    assert json.loads(server.requests[1].body)["tools"] == tools


def test_after_a_finish_reason_there_is_nothing_to_go_on_with(server: ScriptedServer) -> None:
    server.reply(*text_chunks("Whole.", usage=False, done=False), Cut())
    with patient(server) as client:
        outcome = Outcome(client)
    assert outcome.error is None
    assert outcome.response.warnings == ("the stream ended without [DONE]",)
    assert len(server.requests) == 1


def test_a_continuation_that_says_no_more_ends_the_answer(server: ScriptedServer) -> None:
    server.reply(*text_chunks("Whole. ", finish_reason=None, usage=False, done=False), Cut())
    server.reply_text()
    with patient(server) as client:
        outcome = Outcome(client)
    assert outcome.error is None
    assert outcome.text == "Whole. "
    assert outcome.response.finish_reason == "stop"


def test_what_looked_like_a_beginning_goes_out_when_the_answer_ends_there(
    server: ScriptedServer,
) -> None:
    for done in (text_chunks("Hel"), [*text_chunks("Hel", finish_reason=None, usage=False)]):
        server.reply(*text_chunks("Hello. ", finish_reason=None, usage=False, done=False), Cut())
        server.reply(*done)
        with patient(server) as client:
            outcome = Outcome(client)
        assert outcome.error is None
        assert outcome.text == "Hello. Hel"


def test_half_a_character_at_the_cut_is_not_made_up(server: ScriptedServer) -> None:
    high = sse('{"choices":[{"index":0,"delta":{"content":"a \\ud83d"}}]}')
    server.reply(high, Cut())
    server.reply_text(" \U0001f600", "!")
    with patient(server) as client:
        outcome = Outcome(client)
    assert outcome.text == "a \U0001f600!"


def test_a_refused_continuation_raises_the_break(server: ScriptedServer) -> None:
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Cut())
    server.reply_json({"error": {"message": "no prefill with thinking"}}, status=400)
    with patient(server) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert isinstance(outcome.error.__cause__, BadRequest)
    assert "no prefill with thinking" in str(outcome.error)
    assert outcome.error.outcome == "unknown"
    assert len(server.requests) == 2


def test_a_server_that_is_gone_raises_the_break() -> None:
    with ScriptedServer() as server:
        server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Hang())
        with patient(server, stall=0.1) as client:

            def close(delta: Delta) -> None:
                if delta.retry is not None:
                    server.close()

            outcome = Outcome(client, on_delta=close)
    assert isinstance(outcome.error, StallTimeout)
    assert isinstance(outcome.error.__cause__, ConnectError)
    assert outcome.text == "The cat"
    assert [n.resumed for n in outcome.notices] == [True, True]


def test_a_server_that_loads_its_model_again_is_waited_for(server: ScriptedServer) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Cut())
    server.reply_json(loading, status=503)
    server.reply_text(" sat.")
    with patient(server, attempts=1) as client:
        outcome = Outcome(client)
    assert outcome.text == "The cat sat."
    assert [(n.error, n.resumed) for n in outcome.notices] == [
        ("StreamTruncated", True),
        ("ServerError", True),
    ]


def test_the_wait_for_a_loading_server_counts_from_the_break(server: ScriptedServer) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    body = b"".join(text_chunks(*["word "] * 40, finish_reason=None, usage=False, done=False))
    server.reply(Drip(body, 400, every=0.1), Cut())
    server.reply_json(loading, status=503)
    server.reply_text("word.")
    # The answer takes longer than this before it breaks.
    with patient(server, first_token=1.0) as client:
        outcome = Outcome(client)
    assert outcome.error is None
    assert outcome.text == "word " * 40 + "word."


def test_running_usage_of_the_first_part_does_not_pass_for_the_whole(
    server: ScriptedServer,
) -> None:
    running = {
        **chunk({"content": "The cat"}),
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    server.reply(sse(running), Cut())
    server.reply_text(" sat", ".", usage=False)
    with patient(server) as client:
        outcome = Outcome(client, ChatRequest([ChatMessage.user("Hi")], max_tokens=10))
    assert outcome.text == "The cat sat."
    assert outcome.response.usage == Usage(completion_tokens=3, estimated=True)
    assert json.loads(server.requests[1].body)["max_tokens"] == 8


def test_a_try_that_broke_at_the_seam_leaves_nothing_behind(server: ScriptedServer) -> None:
    for texts in (["Hello. "], [" Hel"], ["Hel"]):
        server.reply(*text_chunks(*texts, finish_reason=None, usage=False, done=False), Cut())
    server.reply_text("lo.")
    with patient(server, attempts=3) as client:
        outcome = Outcome(client)
    assert outcome.error is None
    assert outcome.text == "Hello. Hello."  # the third "Hel" might have been the beginning


def test_an_error_that_the_server_reports_is_no_break(server: ScriptedServer) -> None:
    server.reply(
        *text_chunks("The cat", finish_reason=None, usage=False, done=False),
        sse({"error": {"message": "out of memory"}}),
    )
    with patient(server) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, ProviderStreamError)
    assert len(server.requests) == 1


def test_the_total_deadline_is_no_break(server: ScriptedServer) -> None:
    body = b"".join(text_chunks(*["word "] * 200))
    server.reply(Drip(body, 200, every=0.02))
    with patient(server, total=0.6) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.text
    assert len(server.requests) == 1


def test_the_limit_on_an_answer_counts_both_parts(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(6, Cut())]
    limits = Limits(answer=len("".join(WORDS[:9])))
    with patient(server, limits=limits) as client:
        outcome = Outcome(client)
    assert isinstance(outcome.error, LimitExceeded)
    assert WHOLE.startswith(outcome.text)
    assert len(outcome.text) <= limits.answer  # type: ignore[operator]
    assert len(outcome.notices) == 1


def test_a_cancel_during_the_wait_ends_it_at_once(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(3, Cut())]
    token = CancelToken()
    retries = Retries(2, resume=True, backoff=30.0, max_backoff=30.0)
    waiting = threading.Event()

    def seen(delta: Delta) -> None:
        if delta.retry is not None:
            waiting.set()

    with patient(server, retries=retries) as client:
        call = Task(lambda: Outcome(client, cancel=token, on_delta=seen))
        assert waiting.wait(5)
        began = time.monotonic()
        token.cancel("enough")
        outcome = call.result()
        assert call.ended - began < 5.0
    assert isinstance(outcome.error, Cancelled)
    assert outcome.text == "".join(WORDS[:3])
    assert len(llama.bodies) == 1


def test_a_cancel_is_no_break(server: ScriptedServer) -> None:
    gate = Gate()
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), gate)
    token = CancelToken()
    with patient(server) as client:
        call = Task(lambda: Outcome(client, cancel=token))
        assert gate.wait_reached()
        token.cancel()
        outcome = call.result()
    assert isinstance(outcome.error, Cancelled)
    assert outcome.notices == []
    assert len(server.requests) == 1


def test_a_continuation_has_its_own_clock_for_the_first_token(server: ScriptedServer) -> None:
    server.reply(*text_chunks("The cat", finish_reason=None, usage=False, done=False), Cut())
    # A chunk with a role and a model's name is no token.
    server.reply(text_chunks("x")[0], Hang())
    timeouts = Timeouts(first_token=0.2, stall=30.0)
    with patient(server, timeouts=timeouts) as client:
        began = time.monotonic()
        outcome = Outcome(client)
    assert isinstance(outcome.error, StreamTruncated)
    assert "Timeouts.first_token" in str(outcome.error)
    assert time.monotonic() - began < 5.0


def test_the_agent_says_that_it_was_resumed(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(6, Cut())]
    with patient(server) as client, EventStream() as stream:
        agent = Agent("greeter", client=client)
        output = agent.execute_with_events("Hi", stream, workflow_id="w")
        events = stream.store.read(workflow_id="w", after=0, limit=1000)
    assert output.response == WHOLE
    kinds = [event.type.value for event in events]
    place = kinds.index("agent_llm_request_retried")
    data = events[place].data
    assert data["resumed"] is True
    assert data["error"] == "StreamTruncated"
    chunks = [event.data["chunk"] for event in events if event.type == "agent_llm_stream_chunk"]
    assert "".join(chunks) == WHOLE
    assert kinds[place - 6 : place] == ["agent_llm_stream_chunk"] * 6
    assert kinds[-1] == "agent_completed"


def test_text_is_iterated_as_if_nothing_had_happened(server: ScriptedServer) -> None:
    llama = Llama(server)
    llama.breaks = [(2, Cut())]
    with patient(server) as client, client.chat_stream("Hi") as stream:
        assert "".join(stream) == WHOLE
    assert stream.response.content == WHOLE
