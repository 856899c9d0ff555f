"""RateLimit by real clients, threads and sockets."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import tracemalloc
from typing import Any, Iterator, List

import pytest

from agentstream import (
    AnthropicClient,
    Cancelled,
    CancelToken,
    ConfigError,
    ConnectError,
    DeadlineExceeded,
    FallbackClient,
    FirstTokenTimeout,
    Limits,
    LlamaClient,
    OllamaClient,
    OpenAIClient,
    RateLimit,
    RateLimited,
    Retries,
    ServerError,
    Timeouts,
)
from agentstream.testing import Gate, ScriptedServer, messages_chunks, ollama_chunks, text_chunks
from tests.kit.programs import within
from tests.kit.support import free_port, wait_until

ANSWER = text_chunks("Hello", ", ", "world")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.reply(*ANSWER, repeat=True)
        yield server


class Waiting:
    """A call in a thread of its own."""

    def __init__(self, act: Any) -> None:
        self.error: Any = None
        self.took = 0.0
        self._act = act
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._act()
        except Exception as error:  # noqa: BLE001
            self.error = error
        self.ended = time.monotonic()
        self.took = self.ended - self._began

    def join(self) -> Waiting:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "requests"),
        ({"requests": 0}, "requests"),
        ({"requests": 1.5}, "requests"),
        ({"requests": True}, "requests"),
        ({"tokens": 0}, "tokens"),
        ({"tokens": "many"}, "tokens"),
        ({"requests": 1, "per": 0}, "per"),
        ({"requests": 1, "per": float("nan")}, "per"),
        ({"requests": 1, "per": "60"}, "per"),
        ({"requests": 1, "burst": 2}, "burst"),
        ({"requests": 1, "burst": 0}, "burst"),
        ({"requests": 1, "path": 7}, "path"),
        ({"requests": 1, "path": ""}, "path"),
        ({"requests": 1, "path": ":memory:"}, "path"),
        ({"requests": 1, "path": "file:x"}, "path"),
        ({"requests": 1, "path": "a\0b"}, "path"),
        ({"requests": 1, "within_first_token": 1}, "within_first_token"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings: Any, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimit(**settings)
    assert caught.value.setting == named


def test_every_client_takes_one_and_shares_it(server: ScriptedServer) -> None:
    limit = RateLimit(4, per=1.0, burst=4)
    server.reply(*ollama_chunks("hi"), path="/api/chat")
    server.reply(*messages_chunks("hi"), path="/v1/messages")
    began = time.monotonic()
    for client in (
        OpenAIClient("m", base_url=server.url, rate_limit=limit),
        LlamaClient(server.url, rate_limit=limit),
        OllamaClient("m", server.url, rate_limit=limit),
        AnthropicClient("m", base_url=server.url, rate_limit=limit),
        LlamaClient(server.url, rate_limit=limit),
    ):
        with client:
            client.chat("hi")
    assert 0.95 < time.monotonic() - began < 3
    with pytest.raises(ConfigError) as caught:
        LlamaClient(server.url, rate_limit=60)  # type: ignore[arg-type]
    assert caught.value.setting == "rate_limit"
    with pytest.raises(TypeError, match="rate_limit"):
        LlamaClient(server.url, rate_limits=limit)  # type: ignore[call-arg]


def test_a_list_of_models_costs_nothing(server: ScriptedServer) -> None:
    server.reply('{"data": [{"id": "a"}]}', path="/v1/models")
    limit = RateLimit(1, per=60.0)
    with LlamaClient(server.url, rate_limit=limit) as client:
        assert client.models() == ["a"]
        client.chat("hi")


def test_another_client_is_asked_in_place_of_a_long_wait(server: ScriptedServer) -> None:
    limit = RateLimit(1, per=60.0, within_first_token=True)
    timeouts = Timeouts(first_token=0.1)
    first = LlamaClient(server.url, model="first", rate_limit=limit, timeouts=timeouts)
    with FallbackClient([first, LlamaClient(server.url, model="second")]) as client:
        client.chat("hi")
        client.chat("hi")
    assert [request.json["model"] for request in server.requests] == ["first", "second"]


def test_first_come_first_served() -> None:
    limit = RateLimit(50, per=0.5, burst=1)
    order: List[int] = []
    limit.take()
    calls = []
    for number in range(20):
        calls.append(Waiting(lambda number=number: (limit.take(), order.append(number))))
        wait_until(lambda number=number: limit.waiting + len(order) > number)
    for call in calls:
        call.join()
    assert order == sorted(order)
    assert limit.waiting == 0


def test_a_cancel_ends_a_wait_within_10_ms_and_costs_nobody_anything(
    server: ScriptedServer,
) -> None:
    limit = RateLimit(1, per=60.0)
    with LlamaClient(server.url, rate_limit=limit) as client:
        client.chat("hi")

        def attempt() -> float:
            tokens = [CancelToken() for _ in range(20)]
            calls = [Waiting(lambda t=t: client.chat("hi", cancel=t)) for t in tokens]
            wait_until(lambda: limit.waiting == 20)
            slowest = 0.0
            for token, call in zip(tokens, calls):
                began = time.monotonic()
                token.cancel("enough")
                assert isinstance(call.join().error, Cancelled)
                slowest = max(slowest, call.ended - began)
            assert limit.waiting == 0
            return slowest

        within(0.01, attempt)
    assert len(server.requests) == 1


def test_total_ends_a_wait(server: ScriptedServer) -> None:
    limit = RateLimit(1, per=3.0)
    timeouts = Timeouts(total=0.2, first_token=0.05)
    with LlamaClient(server.url, rate_limit=limit, timeouts=timeouts) as client:
        limit.take()
        call = Waiting(lambda: client.chat("hi")).join()
    assert isinstance(call.error, DeadlineExceeded)
    assert call.error.outcome == "failed" or call.error.phase == "connect"
    assert 0.15 < call.took < 1
    assert server.requests == []


def test_a_wait_counts_against_the_first_token_only_if_asked(server: ScriptedServer) -> None:
    timeouts = Timeouts(first_token=0.25)
    for asked in (False, True):
        limit = RateLimit(2, per=0.8, burst=1, within_first_token=asked)
        with LlamaClient(server.url, rate_limit=limit, timeouts=timeouts) as client:
            client.chat("hi")
            call = Waiting(lambda client=client: client.chat("hi")).join()
        assert (type(call.error) is FirstTokenTimeout) is asked, call.error
        assert call.error is None or 0.2 < call.took < 0.39


def test_retries_within_a_call_count_as_requests() -> None:
    with ScriptedServer() as server:
        server.reply(status=503)
        server.reply(status=503)
        server.reply(*ANSWER)
        limit = RateLimit(2, per=0.8, burst=1)
        retries = Retries(backoff=0.001)
        with LlamaClient(server.url, rate_limit=limit, retries=retries) as client:
            began = time.monotonic()
            client.chat("hi")
            assert 0.78 < time.monotonic() - began < 3


def test_a_429_with_retry_after_holds_up_those_who_wait() -> None:
    with ScriptedServer() as server:
        server.reply(status=429, headers={"Retry-After": "1"})
        server.reply(*ANSWER, repeat=True)
        limit = RateLimit(100, per=1.0, burst=1)
        with LlamaClient(server.url, rate_limit=limit, retries=Retries(0)) as client:
            with pytest.raises(RateLimited):
                client.chat("hi")
            began = time.monotonic()
            calls = [Waiting(lambda: client.chat("hi")) for _ in range(5)]
            taken = sorted(call.join().took for call in calls)
        assert all(call.error is None for call in calls)
        assert taken[0] > 0.9
        assert time.monotonic() - began < 3
        assert len(server.requests) == 6


def test_a_wait_longer_than_the_client_allows_holds_up_nobody() -> None:
    with ScriptedServer() as server:
        server.reply(status=429, headers={"Retry-After": "3600"})
        server.reply(*ANSWER)
        limit = RateLimit(100, per=1.0)
        with LlamaClient(server.url, rate_limit=limit) as client:
            with pytest.raises(RateLimited):
                client.chat("hi")
            assert Waiting(lambda: client.chat("hi")).join().took < 1


def test_what_was_never_sent_is_given_back_and_what_was_refused_is_not(
    server: ScriptedServer,
) -> None:
    limit = RateLimit(2, tokens=10_000, per=60.0, burst=2)
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings: Any = {"rate_limit": limit, "retries": Retries(0), "timeouts": Timeouts(total=5)}
    with LlamaClient(nowhere, **settings) as client:
        for _ in range(5):
            with pytest.raises(ConnectError):
                client.chat("hi")
    with LlamaClient(server.url, **settings) as client:
        client.chat("hi")
        assert sum(slot[1] for slot in limit._window._slots) == 1
        server.reply(status=500)
        with pytest.raises(ServerError):
            client.chat("x" * 30_000)
        stop = CancelToken()
        call = Waiting(lambda: client.chat("hi", cancel=stop))
        wait_until(lambda: limit.waiting == 1)
        stop.cancel()
        assert isinstance(call.join().error, Cancelled)


def test_tokens_are_estimated_before_and_corrected_by_usage(server: ScriptedServer) -> None:
    usage = {"prompt_tokens": 70, "completion_tokens": 20, "total_tokens": 90}
    server.reply(*text_chunks("Hello", usage=usage))
    limit = RateLimit(tokens=1000, per=60.0)
    with LlamaClient(server.url, rate_limit=limit) as client:
        client.chat("word " * 500)  # about 625, and 256 for the answer
        assert limit._window._slots[0][2] == 90
        first = limit.estimator.tokens({"messages": [{"content": "word " * 500}]})
        assert 300 < first < 800  # learnt: far fewer tokens a byte, a shorter answer
        client.chat("hi", max_tokens=5)
        assert 90 < sum(slot[2] for slot in limit._window._slots) < 130


def test_what_a_server_says_to_be_left_slows_everybody_down() -> None:
    left = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "600ms",
    }
    with ScriptedServer() as server:
        server.reply(*ANSWER, headers=left)
        server.reply(*ANSWER, repeat=True)
        limit = RateLimit(1000, per=60.0)
        with LlamaClient(server.url, rate_limit=limit) as client:
            client.chat("hi")
            call = Waiting(lambda: client.chat("hi")).join()
            assert 0.5 < call.took < 2
            assert Waiting(lambda: client.chat("hi")).join().took < 0.5


def test_a_stream_that_is_left_keeps_its_share_and_nobody_hangs(server: ScriptedServer) -> None:
    gate = Gate()
    server.reply(*ANSWER[:2], gate, *ANSWER[2:])
    limit = RateLimit(2, tokens=10_000, per=60.0, burst=2)
    with LlamaClient(server.url, rate_limit=limit) as client:
        stream = client.chat_stream("hi")
        next(stream)
        del stream
        gc.collect()
        client.chat("hi")
    gate.open()
    assert sum(slot[1] for slot in limit._window._slots) == 2


def test_many_waits_leave_nothing_behind() -> None:
    limit = RateLimit(10**6, tokens=10**9, per=1.0, burst=10**6)
    for _ in range(500):
        limit.take(5).correct(7)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5000):
            limit.take(5).correct(7)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000  # 201 slots at most
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_limit_of_its_own_and_hangs_nowhere(tmp_path: Any) -> None:
    for path in (None, tmp_path / "limit.db"):
        with RateLimit(1, per=60.0, path=path) as limit:
            limit.take()
            stop = CancelToken()
            call = Waiting(lambda limit=limit, stop=stop: limit.take(cancel=stop))
            wait_until(lambda limit=limit: limit.waiting == 1)
            child = os.fork()
            if not child:
                status = 1
                try:
                    aside = CancelToken()
                    timer = threading.Timer(0.2, aside.cancel)
                    timer.start()
                    try:
                        limit.take(cancel=aside)
                        status = 0 if path is None else 2
                    except Cancelled:
                        status = 0 if path is not None else 3
                    timer.cancel()
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert limit.waiting == 1
            stop.cancel()
            call.join()


def test_a_long_wait_is_told_at_info_and_a_short_one_is_not(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "agentstream")
    limit = RateLimit(1, per=1.05)
    limit.take()
    assert caplog.records == []
    limit.take()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "waited 1.0" in caplog.text


def test_concurrency_lets_so_many_calls_be_under_way(server: ScriptedServer) -> None:
    gate = Gate()
    for _ in range(2):
        server.reply(*ANSWER[:2], gate, *ANSWER[2:])
    with LlamaClient(server.url, limits=Limits(concurrency=2)) as client:
        first = [Waiting(lambda: client.chat("hi")) for _ in range(2)]
        wait_until(lambda: len(server.requests) == 2)
        stop = CancelToken()
        third, fourth = (
            Waiting(lambda: client.chat("hi", cancel=stop)),
            Waiting(lambda: client.chat("hi")),
        )
        wait_until(lambda: client._transport.places.waiting == 2)
        stop.cancel()
        assert isinstance(third.join().error, Cancelled)
        assert len(server.requests) == 2
        gate.open()
        assert [call.join().error for call in (*first, fourth)] == [None] * 3
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ConfigError) as caught:
            Limits(concurrency=wrong)  # type: ignore[arg-type]
        assert caught.value.setting == "Limits.concurrency"
    assert Limits(concurrency=9, pool_size=3).places == 3
    assert Limits().places == Limits().pool_size
