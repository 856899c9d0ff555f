"""Exchange alone: what is sent stands in for a server; no socket is opened."""

from __future__ import annotations

import threading

import pytest

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.settings import Limits
from agentstream.llm.transport.exchange import Exchange
from agentstream.llm.transport.semaphore import FairSemaphore
from tests.kit.streams import response_of
from tests.kit.support import wait_until


class Timer:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def queued(self):
        self.told.append("queued")

    def connecting(self):
        self.told.append("connecting")
        return 1e9

    def connected(self):
        self.told.append("connected")

    def watch(self, read):
        self.told.append("watch")
        return read

    def is_alive(self):
        self.told.append("alive")


class Script:
    """Sends nothing: each attempt is the next of its outcomes, an error or a response.

    `reused` and `sent` are what the attempts' links say.
    """

    def __init__(self, *outcomes, reused=True, sent=True):
        self.outcomes = list(outcomes)
        self.links = []
        self.reused, self.sent = reused, sent
        self.places = FairSemaphore(1)
        self.stop = CancelToken()
        self.timer = Timer()

    def __call__(self, link):
        self.links.append(link)
        link.reused = self.reused and not link.fresh
        link.sent = self.sent
        outcome = self.outcomes.pop(0)
        if callable(outcome):
            outcome = outcome(link)
        if isinstance(outcome, Exception):
            raise outcome
        outcome.limits = Limits()
        return outcome

    def exchange(self, **how):
        return Exchange(self, self.places, self.stop, timer=self.timer, **how)


def hung_up(link=None):
    return errors.ConnectError("hung up", phase="headers", retryable=True, outcome="unknown")


def foreign(link):
    link.foreign = True
    return errors.ProtocolError("no HTTP", phase="headers")


def cut_in_its_head(link):
    link.answered = True
    return hung_up()


def says_408(link=None):
    return response_of([], {"connection": "close"}, 408)


def test_the_timer_is_told_how_far_it_is():
    script = Script(response_of([b"data: a\n\n", b": comment\n"]))
    with script.exchange() as exchange:
        assert exchange.status == 200
        assert list(exchange.lines()) == [b"data: a", b"", b": comment"]
        assert exchange.broken == ""
    assert script.timer.told == ["queued", "connecting", "watch", "alive"]
    assert script.places.free == 1


@pytest.mark.parametrize("outcome", [hung_up, foreign, says_408])
def test_n17_a_stale_connection_costs_one_more_attempt(outcome):
    script = Script(outcome, response_of([b"own\n"]))
    with script.exchange() as exchange:
        assert exchange.read(100) == b"own"
    assert [link.fresh for link in script.links] == [False, True]


@pytest.mark.parametrize("outcome", [hung_up, foreign])
@pytest.mark.parametrize("how", ["resend=False", "new connection"])
def test_n17_otherwise_it_is_the_error(outcome, how):
    script = Script(outcome, reused=how != "new connection")
    with pytest.raises(errors.AgentStreamError):
        script.exchange(resend=how != "resend=False").__enter__()
    assert len(script.links) == 1
    assert script.places.free == 1


def test_n17_what_was_not_sent_may_always_be_sent():
    script = Script(foreign, response_of([]), sent=False)
    with script.exchange(resend=False):
        pass
    assert len(script.links) == 2


@pytest.mark.parametrize(
    "outcome", [cut_in_its_head, lambda link: errors.ConfigError("no"), response_of([], {}, 408)]
)
def test_n17_what_has_answered_is_not_asked_again(outcome):
    script = Script(outcome)
    try:
        with script.exchange() as exchange:
            assert exchange.status == 408
    except (errors.ConnectError, errors.ConfigError):
        pass
    assert len(script.links) == 1
    assert script.places.free == 1


def test_a_cancel_says_in_which_phase_it_came():
    def stopped(link):
        link.phase = "tls"
        link.stop.cancel("enough")
        return hung_up()

    script = Script(stopped)
    with pytest.raises(errors.Cancelled, match="enough") as caught:
        script.exchange().__enter__()
    assert caught.value.phase == "tls"
    assert script.places.free == 1


def test_a_cancel_ends_the_wait_for_a_place():
    script = Script()
    assert script.places.acquire(CancelToken())
    caught = []

    def wait():
        try:
            script.exchange().__enter__()
        except errors.Cancelled as error:
            caught.append(error.phase)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: script.places.waiting == 1)
    script.stop.cancel()
    thread.join(5.0)
    assert caught == ["connect"]
    assert (script.places.free, script.places.waiting, script.links) == (0, 0, [])


@pytest.mark.parametrize("leave", [None, KeyError, KeyboardInterrupt])
def test_however_it_is_left_its_place_is_free(leave):
    script = Script(response_of([b"line\n"]))
    try:
        with script.exchange():
            if leave is not None:
                raise leave
    except (KeyError, KeyboardInterrupt):
        pass
    assert script.places.free == 1
    script.stop.cancel()  # nobody listens


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), ValueError("shut")])
def test_lines_before_a_break_come_first(error):
    def pieces():
        yield b"one\ntw"
        raise error

    script = Script(response_of(pieces()))
    with script.exchange() as exchange:
        assert list(exchange.lines()) == [b"one", b"tw"]
        assert exchange.broken


def test_read_text_raises_nothing():
    def pieces():
        yield b"some\xff text"
        raise ConnectionResetError

    with Script(response_of(pieces(), status=500)).exchange() as exchange:
        assert exchange.read_text(100) == "some\ufffd text"
