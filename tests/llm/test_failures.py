"""docs/faults.rst W08 to W13, B09, B12, B15, B17: what servers send when they fail."""

from __future__ import annotations

import json

import pytest

from agentstream import errors
from agentstream.llm import failures
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Retries
from agentstream.testing import sse, text_chunks
from agentstream.testing.pieces import DONE, chat_chunk
from tests.kit.failures import asked, status_error

BEGINNING = text_chunks("Hello", finish_reason=None, usage=False, done=False)


# --- W08: errors in a choice ---

WORDS = [
    "error",
    "ERROR",
    "abort",
    "aborted",
    "cancelled",
    "network_error",
    "insufficient_system_resource",
    "MALFORMED_FUNCTION_CALL",
    "malformed-function-call",
    "MalformedFunctionCall",
    "FINISH_REASON_MALFORMED_FUNCTION_CALL",
]


def ending(finish=None, native=None, error=None, content=None):
    choice = {
        "index": 0,
        "delta": {} if content is None else {"content": content},
        "finish_reason": finish,
    }
    more = {"native_finish_reason": native, "error": error}
    choice.update({name: value for name, value in more.items() if value is not None})
    return sse({"choices": [choice], "model": "scripted"})


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("field", ["finish", "native"])
def test_w08_a_finish_reason_that_means_an_error(server, word, field):
    chunk = ending(word) if field == "finish" else ending("stop", word)
    result = asked(server, *BEGINNING, chunk, DONE)
    assert type(result.error) is errors.ProviderStreamError
    assert word in str(result.error)
    assert result.error.partial.content == "Hello"
    assert not result.error.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "error",
    [{"message": "upstream died", "code": 502}, "upstream died", {"detail": "upstream died"}],
)
@pytest.mark.parametrize("finish", ["error", "stop", None])
@pytest.mark.parametrize("content", [None, ""])
def test_w08_an_error_inside_the_choice(server, error, finish, content):
    result = asked(server, *BEGINNING, ending(finish, error=error, content=content))
    assert type(result.error) is errors.ProviderStreamError
    assert "upstream died" in str(result.error)
    assert result.error.partial.content == "Hello"


@pytest.mark.parametrize("message", [None, {}, {"content": None}, {"error": "upstream died"}])
def test_w08_in_an_answer_that_is_no_stream(server, message):
    choice = {"index": 0, "message": message, "finish_reason": "error"}
    choice["error"] = None if message and "error" in message else {"message": "upstream died"}
    result = asked(
        server,
        json.dumps({"choices": [choice]}),
        content_type="application/json",
        retries=Retries(0),
    )
    assert type(result.error) is errors.ProviderStreamError
    assert "upstream died" in str(result.error)
    assert result.error.retryable


def test_w08_an_error_inside_the_delta(server):
    result = asked(server, *BEGINNING, chat_chunk({"error": {"message": "upstream died"}}), DONE)
    assert type(result.error) is errors.ProviderStreamError
    assert result.error.partial.content == "Hello"


def test_w08_the_last_words_before_it_are_kept(server):
    result = asked(server, *BEGINNING, ending("error", content=", world"))
    assert type(result.error) is errors.ProviderStreamError
    assert result.error.partial.content == "Hello, world"


@pytest.mark.parametrize(
    "chunk",
    [ending("error"), ending(error="upstream died"), ending("stop", "MALFORMED_FUNCTION_CALL")],
)
def test_w08_it_is_tried_again_if_nothing_had_come(server, chunk):
    result = asked(server, chunk, DONE)
    assert result.error is None
    assert result.text == "Good."
    assert result.response.finish_reason == "stop"


def test_w08_it_is_retryable_if_nothing_had_come(server):
    result = asked(server, ending("error"), DONE, retries=Retries(0))
    assert type(result.error) is errors.ProviderStreamError
    assert result.error.retryable


@pytest.mark.parametrize("error", [{}, {"code": "", "message": ""}, "", None])
def test_w08_an_empty_error_is_none(server, error):
    result = asked(server, ending(error=error, content="Hello"), *text_chunks()[1:])
    assert result.error is None
    assert result.text == "Hello"


# --- W09: objects that are no chunks ---


@pytest.mark.parametrize(
    "payload",
    [
        {"code": 400, "message": "engine died"},
        {"message": "engine died"},
        {"detail": "engine died"},
        {"errors": [{"message": "engine died"}]},
        {"error_code": 17, "error_msg": "engine died"},
        {"status": "error", "msg": "engine died"},
        {"success": False, "msg": "engine died"},
        {"base_resp": {"status_code": 1004, "status_msg": "engine died"}, "choices": None},
        {"fault": {"faultstring": "engine died"}},
        {"title": "engine died", "status": 400},
        {"error": True, "reason": "engine died"},
        {"object": "chat.completion", "choices": [], "code": 7, "message": "engine died"},
        {"statusCode": 400, "message": ["engine died"]},
        [{"error": {"code": 400, "message": "engine died", "status": "INVALID_ARGUMENT"}}],
        {"detail": [{"loc": ["body", "model"], "msg": "engine died"}]},
        {"status": "fail", "code": "E17", "message": "engine died", "data": None},
    ],
)
@pytest.mark.parametrize("form", ["event", "body"])
def test_w09_an_object_that_is_no_chunk(server, payload, form):
    if form == "event":
        result = asked(server, sse(payload), DONE)
    else:
        result = asked(server, json.dumps(payload), content_type="application/json")
    assert type(result.error) is errors.ProviderStreamError
    assert "engine died" in str(result.error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", ["\n\n", "\n", "", "\n\ndata: [DONE]\n\n", "\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("before", [b"", b": waiting\n\n", BEGINNING[0]])
def test_w09_a_bare_line_of_json(server, before, end):
    result = asked(server, before, '{"error": {"message": "engine died"}}' + end)
    assert type(result.error) is errors.ProviderStreamError
    assert "engine died" in str(result.error)


def test_w09_after_the_first_delta_such_an_object_says_nothing(server):
    result = asked(server, *BEGINNING, sse({"message": "still here"}), *text_chunks()[1:])
    assert result.error is None
    assert result.text == "Hello"


# --- W11: errors within a 200 ---

PASSING = {
    "code 429": ({"error": {"message": "slow down", "code": 429}}, errors.RateLimited),
    "code 503, text": ({"error": {"message": "no", "code": "503"}}, errors.ServerError),
    "code 408": ({"error": {"message": "no", "code": 408}}, errors.ServerError),
    "code beside": ({"error": "no", "code": 502}, errors.ServerError),
    "no chunk": ({"code": 500, "message": "no"}, errors.ServerError),
    "status_code": ({"error": {"message": "no", "status_code": 529}}, errors.ServerError),
    "statusCode": ({"statusCode": 429, "message": "no"}, errors.RateLimited),
    "http_status": ({"error": {"http_status": 503, "message": "no"}}, errors.ServerError),
    "a float": ({"error": {"code": 503.0, "message": "no"}}, errors.ServerError),
    "nested": ({"error": {"error": {"code": 503, "message": "no"}}}, errors.ServerError),
    "errors": ({"errors": [{"code": 503, "message": "no"}]}, errors.ServerError),
    "a vendor's number": ({"code": 50505, "message": "Model overloaded."}, errors.ServerError),
    "base_resp": (
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
        errors.RateLimited,
    ),
    "overloaded_error": (
        {"error": {"type": "overloaded_error", "message": "no"}},
        errors.ServerError,
    ),
    "overloaded": ({"error": "The engine is currently overloaded"}, errors.ServerError),
    "server_error": ({"error": {"type": "server_error", "message": "no"}}, errors.ServerError),
    "rate_limit": ({"error": {"code": "rate_limit_exceeded", "message": "no"}}, errors.RateLimited),
    "timeout": ({"error": {"message": "Upstream request timed out"}}, errors.ServerError),
    "unavailable": (
        {"error": {"message": "Service temporarily unavailable", "type": "error"}},
        errors.ServerError,
    ),
    "UNAVAILABLE": ({"error": {"status": "UNAVAILABLE", "message": "no"}}, errors.ServerError),
}


@pytest.mark.parametrize("form", ["event", "body", "named event", "after the role"])
@pytest.mark.parametrize("kind", PASSING)
def test_w11_an_error_within_a_200_is_tried_again(server, kind, form):
    payload, _ = PASSING[kind]
    pieces = {
        "event": [sse(payload)],
        "named event": [sse(payload, event="error")],
        "after the role": [BEGINNING[0], sse(payload)],
        "body": [json.dumps(payload)],
    }[form]
    content_type = "application/json" if form == "body" else "text/event-stream"
    result = asked(server, *pieces, content_type=content_type)
    assert result.error is None
    assert result.text == "Good."
    assert len(result.retries) == 1


@pytest.mark.parametrize("kind", PASSING)
def test_w11_it_is_the_error_that_the_status_would_be(server, kind):
    payload, expected = PASSING[kind]
    result = asked(server, sse(payload), retries=Retries(0))
    assert type(result.error) is expected
    assert result.error.retryable


@pytest.mark.parametrize("kind", PASSING)
def test_w11_after_the_first_delta_nothing_is_tried_again(server, kind):
    result = asked(server, *BEGINNING, sse({"choices": [], "error": PASSING[kind][0]}))
    assert type(result.error) is errors.ProviderStreamError
    assert result.text == "Hello"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"message": "no such model", "code": 404},
        {"message": "the timeout must be a number", "type": "invalid_request_error"},
        {"message": "context too long", "code": 400, "type": "exceed_context_size_error"},
        {"message": "engine died", "code": "boom"},
        "no",
    ],
)
def test_w11_other_errors_are_not_tried_again(server, error):
    result = asked(server, sse({"error": error}))
    assert type(result.error) is errors.ProviderStreamError
    assert not result.error.retryable
    assert len(server.requests) == 1


# --- B17: controls ---

ESC = "\x1b[31m"


def test_b17_controls_in_headers_reach_no_error():
    headers = {"Location": f"/{ESC}x", "X-Request-Id": f"id{ESC}"}
    error = status_error(302, f"moved{ESC}", headers)
    assert "\x1b" not in str(error) + error.body + error.location + error.request_id
    wrong = failures.wrong_content(f"text/{ESC}html", ESC, redact=Redactor())
    assert "\x1b" not in str(wrong) + wrong.content_type + wrong.raw


def test_b17_controls_and_surrogates_in_an_error_of_the_stream():
    payload = {
        "error": {"message": f"no{ESC}\ud83d", "code": f"c{ESC}\ud83d"},
        "request_id": f"r{ESC}",
    }
    error = failures.stream_error(payload, "m" + ESC, json.dumps(payload), redact=Redactor())
    shown = str(error) + error.code + error.body + error.request_id
    assert "\x1b" not in shown
    shown.encode()
