"""docs/faults.rst V01 to V04: HTTP answers that are errors, and what is tried again."""

from __future__ import annotations

import datetime
import email.utils
import json
import threading

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.settings import Retries
from agentstream.testing import Drip, Hang
from tests.kit.support import KEY, PROMPT, ask, client_of

ROOM = 1.0  # a slow machine's share of every bound


def said(message, **more):
    return {"error": {"message": message, "type": "some_type", **more}}


def refused(server, retries, **settings):
    with client_of(server, retries=retries, **settings) as client:
        return ask(client)


# --- V01 ---


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (402, errors.BadRequest),
        (404, errors.BadRequest),
        (413, errors.BadRequest),
        (422, errors.BadRequest),
        (401, errors.AuthError),
        (403, errors.AuthError),
    ],
)
def test_v01_request_at_fault(server, status, kind):
    server.reply_json(
        said(f"that is wrong; your key is {KEY}, you said {PROMPT}"),
        status=status,
        headers={"x-request-id": "req-7"},
    )
    result = refused(server, Retries(3))
    assert type(result.error) is kind
    assert result.error.status == status
    assert result.error.request_id == "req-7"
    assert (result.error.phase, result.error.outcome) == ("headers", "failed")
    assert not result.error.retryable
    assert str(result.error).startswith(f"HTTP {status}: that is wrong; your key is sk-…")
    assert "[prompt]" in result.error.body
    assert len(server.requests) == 1
    assert result.took < ROOM


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain words",
        b"<html><title>Nope</title></html>",
        b'{"detail": "Nope"}',
        b"[1, 2",
        b'{"error": {"message": {"deep": [1]}}}',
        b"\xff\xfe\x00",
        b'{"error": "' + b"x" * 5000 + b'"}',
        b"[" * 5000,
        b'"' + b"\\ud83d" * 400 + b'"',
    ],
)
def test_v01_bodies_of_all_kinds(server, body):
    server.reply(body, status=400, content_type=None, framing="length")
    result = refused(server, Retries(3))
    assert type(result.error) is errors.BadRequest
    assert str(result.error).startswith("HTTP 400")
    assert len(result.error.body) <= 1024
    assert len(str(result.error)) < 1200
    json.dumps(result.error.body)


def test_v01_connection_serves_on(server):
    """A refusal that was read to its end costs no connection."""
    server.reply_json(said("no"), status=400)
    server.reply_text("Hello")
    with client_of(server) as client:
        assert type(ask(client).error) is errors.BadRequest
        assert ask(client).text == "Hello"
    assert [r.connection_id for r in server.requests] == [1, 1]


# --- V02 ---

RETRIED = [
    (408, errors.ServerError),
    (409, errors.ServerError),
    (429, errors.RateLimited),
    (500, errors.ServerError),
    (502, errors.ServerError),
    (503, errors.ServerError),
    (504, errors.ServerError),
    (520, errors.ServerError),
    (529, errors.ServerError),
]


@pytest.mark.parametrize(("status", "kind"), RETRIED)
def test_v02_retried_until_attempts_run_out(server, status, kind):
    server.reply_json(said("busy"), status=status, repeat=True)
    result = refused(server, Retries(2, backoff=0.02))
    assert type(result.error) is kind
    assert result.error.status == status
    assert result.error.retryable
    assert [notice.attempt for notice in result.retries] == [1, 2]
    assert [notice.error for notice in result.retries] == [kind.__name__] * 2
    for notice, whole in zip(result.retries, (0.02, 0.04)):
        assert whole / 2 <= notice.delay_s <= whole
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1
    assert result.took < 0.06 + ROOM


@pytest.mark.parametrize("status", [429, 503])
def test_v02_gets_through(server, status):
    server.reply_json(said("busy"), status=status)
    server.reply_text("Hello")
    result = refused(server, Retries(2, backoff=0.02))
    assert result.error is None
    assert result.text == "Hello"
    assert len(result.retries) == 1


def test_v02_server_says_not_to(server):
    server.reply_json(said("no"), status=500, headers={"x-should-retry": "false"})
    result = refused(server, Retries(2))
    assert type(result.error) is errors.ServerError
    assert len(server.requests) == 1


def test_v02_model_that_cannot_be_loaded(server):
    server.reply_json(said("model name=x failed to load"), status=500)
    result = refused(server, Retries(2))
    assert type(result.error) is errors.ServerError
    assert not result.error.retryable
    assert len(server.requests) == 1


def loading(server, **options):
    server.reply_json(said("Loading model", code=503), status=503, **options)


def test_v02_a_model_being_loaded_is_waited_for(server):
    """llama.cpp says so; these waits are not counted as retries."""
    loading(server)
    loading(server)
    server.reply_text("Hello")
    result = refused(server, Retries(0))
    assert result.error is None
    assert result.text == "Hello"
    assert len(result.retries) == 2
    assert 0.5 <= result.took < 1.0 + ROOM


def test_v02_a_model_that_loads_for_ever(server):
    loading(server, repeat=True)
    result = refused(server, Retries(0), first_token=0.6)
    assert type(result.error) is errors.ServerError
    assert len(server.requests) == 2
    assert result.took < 0.6 + ROOM


# --- V03 ---


def retry_after(server, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    server.reply_json(said("slow down"), status=429, headers=headers)
    server.reply_text("Hello")


def test_v03_seconds(server):
    retry_after(server, retry_after="1")
    result = refused(server, Retries(1, backoff=0.0))
    assert result.text == "Hello"
    assert result.retries[0].delay_s == 1.0
    assert 1.0 <= result.took < 1.0 + ROOM


def test_v03_milliseconds_and_the_larger_of_both(server):
    retry_after(server, retry_after="0", retry_after_ms="150")
    result = refused(server, Retries(1, backoff=0.0))
    assert result.retries[0].delay_s == 0.15
    retry_after(server, retry_after="0.2", retry_after_ms="0")
    assert refused(server, Retries(1, backoff=0.0)).retries[0].delay_s == 0.2


def http_date(seconds):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return email.utils.format_datetime(when, usegmt=True)


def test_v03_date(server):
    retry_after(server, retry_after=http_date(9))
    result = refused(server, Retries(1, backoff=0.0), total=0.5)
    assert type(result.error) is errors.RateLimited  # the deadline would pass in the wait
    assert 0.5 < result.error.retry_after <= 9.0


@pytest.mark.parametrize(
    "junk",
    [
        "soon",
        "-5",
        "1e9",
        "",
        "Wed, 99 Foo 2099 99:99:99 GMT",
        "\u00bd",
        "9" * 400,
        "1,5",
        "NaN",
        "inf",
    ],
)
def test_v03_junk_asks_for_nothing(server, junk):
    retry_after(server, retry_after=junk)
    result = refused(server, Retries(1, backoff=0.02))
    assert result.text == "Hello"
    assert 0.01 <= result.retries[0].delay_s <= 0.02


def test_v03_date_in_the_past(server):
    retry_after(server, retry_after=http_date(-3600))
    result = refused(server, Retries(1, backoff=0.02))
    assert result.text == "Hello"
    assert result.retries[0].delay_s <= 0.02


@pytest.mark.parametrize(
    "value", [pytest.param("3600"), pytest.param(http_date(3600), id="date"), pytest.param("61")]
)
def test_v03_more_than_the_cap(server, value):
    retry_after(server, retry_after=value)
    result = refused(server, Retries(3))
    assert type(result.error) is errors.RateLimited
    assert 60 < result.error.retry_after <= 3600
    assert not result.retries
    assert len(server.requests) == 1
    assert result.took < ROOM


def test_v03_cap_can_be_moved(server):
    retry_after(server, retry_after="0.2")
    result = refused(server, Retries(3, max_retry_after=0.1))
    assert type(result.error) is errors.RateLimited
    assert result.error.retry_after == 0.2


def test_v03_googles_way(server):
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.9s"}
    server.reply_json(said("quota", details=[detail]), status=429)
    result = refused(server, Retries(0))
    assert result.error.retry_after == 48.9


def test_v03_cancel_ends_the_wait(server):
    retry_after(server, retry_after="50")
    token = CancelToken()
    timers = []

    def cancel_soon(delta):
        timers.append(threading.Timer(0.05, token.cancel))
        timers[0].start()

    with client_of(server, retries=Retries(1)) as client:
        result = ask(client, cancel=token, on_delta=cancel_soon)
    timers[0].join()
    assert type(result.error) is errors.Cancelled
    assert result.took < 0.05 + ROOM
    assert len(server.requests) == 1


# --- V04 ---


def test_v04_slow_error_body(tls_server):
    tls_server.reply('{"error": "out of', Drip(b" order" * 500, 1, 0.05), status=500)
    result = refused(tls_server, Retries(0))
    assert type(result.error) is errors.ServerError
    assert "out of order" in str(result.error)
    assert 2.0 <= result.took < 2.0 + ROOM


def test_v04_silent_error_body_under_a_cancel(server):
    server.reply("a beginning", Hang(), status=500)
    token = CancelToken()
    timer = threading.Timer(0.1, token.cancel)
    timer.start()
    with client_of(server, retries=Retries(2)) as client:
        result = ask(client, cancel=token)
    timer.join()
    assert type(result.error) is errors.Cancelled
    assert result.took < 0.1 + ROOM


def test_v04_endless_error_body(server):
    server.reply(*[b"x" * 65536] * 800, status=500)
    result = refused(server, Retries(0))
    assert type(result.error) is errors.ServerError
    assert result.error.body == "x" * 1024
    assert result.took < 2.0
    assert server.wait_client_gone()


def test_v04_cut_error_body(server):
    server.reply(json.dumps(said("no such model")), status=404, framing="length", length=5000)
    result = refused(server, Retries(0))
    assert type(result.error) is errors.BadRequest
    assert "no such model" in str(result.error)
