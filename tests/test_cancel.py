"""CancelToken: its parts, and what happens when a signal handler is the one who cancels.

A handler runs between any two bytecodes of the main thread, in the middle of our own
code too, so these tests must run in the main thread, as pytest's do.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time

import pytest

from agentstream import Agent, Cancelled, CancelToken, EventType, Limits, Retries, Runtime
from agentstream.llm.messages import as_request
from agentstream.llm.transport.semaphore import FairSemaphore
from agentstream.testing import Gate, Hang, text_chunks
from tests.kit.support import PROMPT, Task, client_of, events_of, wait_until

SOON = 0.5  # seconds; the aim is a millisecond


def unfinished(*texts):
    return text_chunks(*texts, finish_reason=None, usage=False, done=False)


# --- units ------------------------------------------------------------------------------------


def test_a_new_token_is_not_cancelled():
    token = CancelToken()
    assert (token.cancelled, token.reason) == (False, "")
    assert repr(token) == "<CancelToken active>"


def test_cancel_keeps_the_first_reason():
    token = CancelToken()
    token.cancel("first")
    token.cancel("second")
    assert (token.cancelled, token.reason) == (True, "first")
    assert repr(token) == "<CancelToken cancelled>"


def test_each_callback_runs_once_in_the_cancelling_thread():
    token = CancelToken()
    ran = []
    for name in "abc":
        token.add_callback(lambda name=name: ran.append((name, threading.current_thread())))
    canceller = Task(lambda: (token.cancel(), threading.current_thread())[1]).result()
    token.cancel()
    assert sorted(name for name, _ in ran) == ["a", "b", "c"]
    assert {thread for _, thread in ran} == {canceller}


def test_a_callback_added_late_runs_at_once():
    token = CancelToken()
    token.cancel()
    ran = []
    key = token.add_callback(lambda: ran.append(1))
    assert ran == [1]
    assert token.remove_callback(key) is False


def test_a_removed_callback_never_runs():
    token = CancelToken()
    ran = []
    key = token.add_callback(lambda: ran.append(1))
    assert token.remove_callback(key) is True
    assert token.remove_callback(key) is False
    token.cancel()
    assert ran == []


def test_a_callback_that_raises_is_logged_and_the_others_run(caplog):
    token = CancelToken()
    ran = []
    token.add_callback(lambda: ran.append(1))
    token.add_callback(lambda: 1 / 0)
    token.add_callback(lambda: ran.append(2))
    with caplog.at_level(logging.ERROR, "agentstream.cancel"):
        token.cancel()
    assert sorted(ran) == [1, 2]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_a_callback_may_cancel_add_and_remove():
    token = CancelToken()
    ran = []

    def callback():
        token.cancel()
        token.add_callback(lambda: ran.append("added"))
        token.remove_callback(key)

    key = token.add_callback(callback)
    token.cancel()
    assert ran == ["added"]


def test_wait_ends_with_the_time_or_with_the_cancel():
    token = CancelToken()
    assert token.wait(0) is False
    assert token.wait(-1) is False
    assert token.wait(0.01) is False
    assert token._callbacks == {}
    task = Task(lambda: token.wait(None))
    wait_until(lambda: token._callbacks)
    token.cancel()
    assert task.result() is True
    assert token.wait(1e30) is True
    assert token._callbacks == {}


def test_every_waiter_is_woken():
    token = CancelToken()
    tasks = [Task(lambda: token.wait(30)) for _ in range(20)]
    wait_until(lambda: len(token._callbacks) == 20)
    token.cancel()
    assert [task.result(5) for task in tasks] == [True] * 20


def test_callbacks_race_the_cancel_and_run_once_or_never():
    for _ in range(300):
        token = CancelToken()
        ran = []
        start = threading.Barrier(2)

        def add(token=token, ran=ran, start=start):
            start.wait(5)
            kept = set()
            for number in range(20):
                key = token.add_callback(lambda number=number: ran.append(number))
                if number % 2 or not token.remove_callback(key):
                    kept.add(number)
            return kept

        task = Task(add)
        start.wait(5)
        token.cancel()
        kept = task.result()
        assert sorted(ran) == sorted(kept)
        assert token._callbacks == {}


# --- a signal handler cancels -----------------------------------------------------------------


@contextlib.contextmanager
def alarm(handler, after, every=0.0):
    """Call `handler()` from SIGALRM's handler."""
    old = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, after, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


class Cancelling:
    """A handler that cancels, and remembers when."""

    def __init__(self, cancel):
        self._cancel = cancel
        self.at = None

    def __call__(self):
        self.at = time.monotonic()
        self._cancel()

    def check(self):
        """Call it when the main thread goes on."""
        assert self.at is not None, "it ended before the signal came"
        assert time.monotonic() - self.at < SOON


def test_x05_signal_handler_cancels_a_wait():
    token = CancelToken()
    handler = Cancelling(token.cancel)
    with alarm(handler, 0.02):
        assert token.wait(20) is True
        handler.check()


@pytest.mark.parametrize("kind", ["headers", "body"])
def test_x05_signal_handler_cancels_a_read(server, kind):
    if kind == "headers":
        server.reply(before_headers=[Hang()])
    else:
        server.reply(*unfinished("a"), Hang())
    with client_of(server) as client, client.chat_stream(PROMPT) as stream:
        if kind == "body":
            assert next(stream) == "a"
        handler = Cancelling(stream.cancel)
        with alarm(handler, 0.05), pytest.raises(Cancelled) as caught:
            for _ in stream:
                pass
        handler.check()
        assert caught.value.partial.content == ("a" if kind == "body" else "")


def test_x05_signal_handler_cancels_a_tls_read(tls_server):
    tls_server.reply(*unfinished("a"), Hang(), framing="close")
    with client_of(tls_server) as client, client.chat_stream(PROMPT) as stream:
        assert next(stream) == "a"
        handler = Cancelling(stream.cancel)
        with alarm(handler, 0.02), pytest.raises(Cancelled):
            next(stream)
        handler.check()


def test_x05_signal_handler_cancels_dns(monkeypatch):
    answer = threading.Event()

    def getaddrinfo(*_, **__):
        answer.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with client_of("http://slow.test:1", connect=None) as client:
        token = CancelToken()
        handler = Cancelling(token.cancel)
        with alarm(handler, 0.05), pytest.raises(Cancelled):
            client.chat(PROMPT, cancel=token)
        handler.check()
    answer.set()


def test_x05_signal_handler_cancels_a_backoff(server):
    server.reply_json({}, status=503)
    token = CancelToken()
    with client_of(server, retries=Retries(3, backoff=60, max_backoff=60)) as client:
        deltas = client.stream_deltas(as_request(PROMPT), cancel=token)
        assert next(deltas).retry is not None
        handler = Cancelling(token.cancel)
        with alarm(handler, 0.02), pytest.raises(Cancelled):
            next(deltas)
        handler.check()


def test_x05_signal_handler_cancels_the_wait_for_the_pool(server):
    gate = Gate()
    server.reply(*unfinished("a"), gate, *text_chunks("b"))
    token = CancelToken()
    with client_of(server, limits=Limits(pool_size=1)) as client:
        with client.chat_stream(PROMPT) as first:
            assert next(first) == "a"
            handler = Cancelling(token.cancel)
            with alarm(handler, 0.02), pytest.raises(Cancelled):
                client.chat(PROMPT, cancel=token)
            handler.check()
            gate.open()
            assert list(first) == ["b"]
        assert client._transport.places.free == 1


@pytest.mark.parametrize("queued", [False, True])
def test_x05_signal_handler_cancels_the_run_whose_result_is_awaited(server, queued):
    server.default(*unfinished("a"), Hang())
    with client_of(server) as client, Runtime(max_workers=1) as runtime:
        agent = Agent("one", client=client)
        running = runtime.submit(agent, PROMPT)
        assert server.wait_requests()
        handle = runtime.submit(agent, PROMPT) if queued else running
        handler = Cancelling(lambda: runtime.stop_generation(handle.workflow_id))
        with alarm(handler, 0.05), pytest.raises(Cancelled):
            handle.result(20)
        handler.check()
        events_of(runtime.event_stream, handle.workflow_id)
        running.cancel()
        with pytest.raises(Cancelled):
            running.result(5)
    assert len(server.requests) == 1


def test_x05_signal_handler_cancels_the_run_whose_events_are_iterated(server):
    server.default(*unfinished("a"), Hang())
    with client_of(server) as client, Runtime() as runtime:
        handler = Cancelling(lambda: runtime.stop_generation("w"))
        with alarm(handler, 0.05):
            stream = runtime.stream(Agent("one", client=client), PROMPT, workflow_id="w")
            events = []
            with pytest.raises(Cancelled):
                events.extend(stream)
        handler.check()
        assert events[-1].type is EventType.WORKFLOW_CANCELLED


def test_x05_signal_handler_interrupts_the_tokens_own_code():
    # Hundreds of signals, each at some other line of add, remove, wait and cancel.
    tokens = [CancelToken()]
    ran = []

    def handler():
        tokens[-1].cancel("signal")

    rounds = woken = 0
    with alarm(handler, 0.0005, 0.0005):
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            token = CancelToken()
            tokens.append(token)
            ran.clear()
            key = token.add_callback(lambda: ran.append(1))
            woken += token.wait(0.0007)
            removed = token.remove_callback(key)
            if not token.cancelled:
                token.cancel("main")
            assert len(ran) == (0 if removed else 1)
            assert token._callbacks == {}
            rounds += 1
            tokens = tokens[-2:]
    assert rounds > 50
    assert woken > 20


def test_x05_signal_handler_interrupts_the_pools_own_code():
    slots = FairSemaphore(1)
    holder = []

    def handler():
        if holder:
            holder[-1].cancel()

    over = threading.Event()

    def other():  # takes the place and gives it back, all the time
        turns = 0
        while not over.is_set():
            if slots.acquire(CancelToken()):
                threading.Event().wait(0.0003)
                slots.release()
                turns += 1
        return turns

    task = Task(other)
    got = given_up = 0
    with alarm(handler, 0.0005, 0.0005):
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            token = CancelToken()
            holder[:] = [token]
            if slots.acquire(token):
                got += 1
                slots.release()
            else:
                assert token.cancelled
                given_up += 1
    over.set()
    assert task.result(5) > 10
    assert got
    assert slots.free == 1
    assert not slots.waiting


def test_x03_ctrl_c_in_the_wait_for_the_pool_loses_no_place():
    class CtrlC(BaseException):
        pass

    def handler():
        raise CtrlC

    slots = FairSemaphore(1)
    assert slots.acquire(CancelToken())
    for _ in range(5):
        with alarm(handler, 0.005), pytest.raises(CtrlC):
            slots.acquire(CancelToken())
    assert not slots.waiting
    slots.release()
    assert slots.free == 1
    assert slots.acquire(CancelToken())
