"""When a server wants to be asked again: quotas (W12), and waits in headers, fields and words (W13)."""

from __future__ import annotations

import pytest

from agentstream import errors
from agentstream.agent import Agent
from agentstream.llm import failures
from agentstream.llm.retry_hints import Left, what_is_left
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Retries
from agentstream.runtime import Runtime
from agentstream.testing import sse
from agentstream.workflow import Step, Workflow
from tests.kit.failures import TWICE, asked, status_error
from tests.kit.support import ask, client_of

# --- W12: money ---

QUOTA = [
    {"error": {"code": "insufficient_quota", "message": "no"}},
    {"error": {"type": "insufficient_quota", "message": "no"}},
    {"error": {"code": "billing_hard_limit_reached", "message": "no"}},
    {"error": {"message": "You exceeded your current quota, please check your plan and billing"}},
    {"error": {"message": "Insufficient balance"}},
    {"error": {"message": "You have run out of credits"}},
    {"error": {"type": "exceeded_current_quota_error", "message": "suspended"}},
    {"error": {"code": "insufficient_funds", "message": "no"}},
    {"error": {"message": "Monthly spend limit exceeded"}},
    {"error": {"code": "Arrearage", "message": "no"}},
]


@pytest.mark.parametrize("body", QUOTA)
def test_w12_a_quota_that_is_used_up_is_no_wait(server, body):
    for _ in range(4):
        server.reply_json(body, status=429)
    with Runtime() as runtime, client_of(server, retries=TWICE) as client:
        workflow = Workflow("w", [Step(Agent("a", client=client), retries=2)])
        with pytest.raises(errors.WorkflowFailed) as info:
            runtime.run(workflow, "hi")
    assert type(info.value.__cause__) is errors.RateLimited
    assert not info.value.__cause__.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", QUOTA)
def test_w12_within_a_200_too(server, body):
    result = asked(server, sse(body))
    assert type(result.error) is errors.RateLimited
    assert not result.error.retryable
    assert len(server.requests) == 1


def test_w12_a_quota_of_the_minute_passes():
    said = "You exceeded your current quota, check your plan and billing. Please retry in 48.9s."
    error = status_error(429, {"error": {"message": said, "status": "RESOURCE_EXHAUSTED"}})
    assert error.retryable
    assert error.retry_after == 48.9


def test_w12_a_delay_or_a_rate_says_that_it_passes():
    said = "You exceeded your current quota, check your plan and billing."
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}]
    error = status_error(429, {"error": {"message": said, "details": details}})
    assert error.retryable
    assert error.retry_after == 2.0
    said = "Rate limit reached. See https://example.com/account/billing to add a payment method"
    assert status_error(429, {"error": {"message": said, "code": "rate_limit_exceeded"}}).retryable


# --- W13: when to ask again ---


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Rate limit reached. Please try again in 7.66s. Visit", 7.66),
        ("try again in 350ms", 0.35),
        ("Please wait 5 seconds", 5.0),
        ("Please wait for 5 seconds before retrying", 5.0),
        ("It will be available again in 3s", 3.0),
        ("Please try again in about 3 seconds", 3.0),
        ("try again in 2 days", 172_800.0),
        ("Try again in 20 seconds.", 20.0),
        ("Please retry after 2 minutes", 120.0),
        ("Please try again in 1m30.5s", 90.5),
        ("try again in 6m0s", 360.0),
        ("Please retry in 48.939935699s.", 48.939935699),
        ("try again in 1 hour", 3600.0),
        ("try again in 500 milliseconds", 0.5),
        ("try again in a while", None),
        ("try again later", None),
    ],
)
def test_w13_the_wait_in_words(said, seconds):
    for status in (429, 503):
        assert status_error(status, {"error": {"message": said}}).retry_after == (
            seconds if seconds is None else pytest.approx(seconds)
        )


def test_w13_headers_come_before_words():
    body = {"error": {"message": "try again in 7s"}}
    assert status_error(429, body, {"Retry-After-Ms": "1500"}).retry_after == 1.5
    assert status_error(429, body, {"retry-after": "3"}).retry_after == 3.0


@pytest.mark.parametrize(
    "body",
    [
        {"retry_after": 2.5},
        {"error": {"retry_after": "2.5"}},
        {"error": {"retryAfter": 2.5}},
        {"error": {"retry_after_ms": 2500}},
        {"error": {"metadata": {"retry_after_seconds": 2.5}}},
    ],
)
def test_w13_the_wait_in_a_field(body):
    assert status_error(429, body).retry_after == 2.5


@pytest.mark.parametrize("status", [400, 404, 422, 425, 429, 500, 503])
@pytest.mark.parametrize("wish", ["true", "false", "True", "junk", None])
def test_w13_x_should_retry_decides(status, wish):
    headers = {} if wish is None else {"X-Should-Retry": wish}
    usual = status in (425, 429, 500, 503)
    expected = {"true": True, "false": False}.get((wish or "").lower(), usual)
    assert status_error(status, "", headers).retryable == expected


def test_w13_they_are_obeyed(server):
    server.reply_json({"error": "odd"}, status=422, headers={"x-should-retry": "true"})
    server.reply_json({"error": "early"}, status=425)
    server.reply_json({"error": "busy"}, status=429, headers={"retry-after-ms": "120"})
    server.reply_text("Good.")
    with client_of(server, retries=Retries(3, backoff=0.01)) as client:
        result = ask(client)
    assert result.text == "Good."
    assert len(server.requests) == 4
    assert result.retries[-1].delay_s >= 0.12


# --- limits that are used up -----------------------------------------------------------------

NOW = 1_764_236_875.0  # 2025-11-27T09:47:55Z
LIMITS = [
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 7:.0f}"}, 7.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 7:.0f}000"}, 7.0),
    ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
    (
        {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2025-11-27T09:48:05Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2025-11-27T09:48:55Z",
            "anthropic-ratelimit-tokens-remaining": "16000",
            "anthropic-ratelimit-tokens-reset": "2025-11-27T10:48:55Z",
        },
        60.0,
    ),
    # nothing is used up; the reset is over; there is none; it is junk
    ({"x-ratelimit-remaining-tokens": "10", "x-ratelimit-reset-tokens": "6m0s"}, None),
    (
        {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2024-03-26T20:00:00Z",
        },
        None,
    ),
    ({"x-ratelimit-remaining": "0"}, None),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
    # who says it outright is believed first
    ({"retry-after": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 2.0),
]


@pytest.mark.parametrize(("headers", "expected"), LIMITS, ids=str)
def test_w13_a_limit_that_is_used_up_says_when_it_begins_anew(headers, expected):
    def told(status):
        redact = Redactor()
        error = failures.status_error(status, headers, "{}", redact=redact, now=NOW)
        return error.retry_after

    assert told(429) == pytest.approx(expected)
    assert told(503) == (expected if "retry-after" in headers else None)  # that is no limit's


@pytest.mark.parametrize(
    ("said", "retryable"),
    [
        ("'messages' is required", False),
        ('"input[0].content" is required.', False),
        ("model name=x failed to load", False),
        ("a worker is required to restart", True),
        ("Internal error: 'x' is required by the scheduler", True),
    ],
)
def test_a_500_that_another_try_meets_again_is_not_retried(said, retryable):
    error = status_error(500, {"error": {"code": 500, "message": said, "type": "server_error"}})
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, []),
        ({"x-ratelimit-remaining-requests": "5"}, []),  # until when?
        (
            {
                "X-RateLimit-Limit-Requests": "60",
                "X-RateLimit-Remaining-Requests": "59",
                "X-RateLimit-Reset-Requests": "1s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [Left("requests", 59, 60, 1), Left("tokens", 149984, None, 360)],
        ),
        (
            {
                "anthropic-ratelimit-input-tokens-limit": "1000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:25Z",
            },
            [Left("input-tokens", 0, 1000, 5)],
        ),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "9"}, [Left("", 3, None, 9)]),
        ({"x-ratelimit-remaining": "-3", "x-ratelimit-reset": "9"}, []),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "9"}, []),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "0"}, []),
    ],
)
def test_what_a_server_says_to_be_left(headers, expected):
    assert what_is_left(headers, 1_700_000_000.0) == expected
