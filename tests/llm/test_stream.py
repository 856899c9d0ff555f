"""GuardedStream and its kinds: one thread iterates, any thread ends; a sum for foreign deltas."""

from __future__ import annotations

import threading

import pytest

from agentstream import Cancelled, CancelToken, Delta, StreamTruncated
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.stream import DeltaStream, GuardedStream, TextStream, as_delta_stream


class Numbers(GuardedStream[int]):
    def __init__(self, items, cancel=None):
        super().__init__(cancel)
        self._items = items
        self.value = None

    def _ended(self, value):
        self.value = value or self.value


def numbers():
    yield 1
    yield 2
    return "the end"


def test_what_the_generator_returns_is_handed_on():
    stream = Numbers(numbers())
    assert list(stream) == [1, 2]
    assert list(stream) == []
    assert stream.value == "the end"


@pytest.mark.parametrize("read", [0, 1])
def test_reading_on_after_an_early_close_is_no_clean_end(read):
    stream = Numbers(numbers())
    for _ in range(read):
        next(stream)
    stream.close()
    stream.close()
    with pytest.raises(Cancelled, match="closed before its end"):
        next(stream)


@pytest.mark.parametrize(
    "error", [ValueError("generator already executing"), ValueError("its own"), KeyError("x")]
)
def test_an_error_of_the_generators_own_passes_as_it_is(error):
    def failing():
        yield 1
        raise error

    stream = Numbers(failing())
    next(stream)
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error


def test_a_second_thread_is_refused_and_may_close():
    token = CancelToken()
    inside = threading.Event()

    def waiting():
        inside.set()
        assert stream._cancel.wait(10)
        raise Cancelled("told")
        yield 0

    stream = Numbers(waiting(), token)
    caught = []

    def read():
        with pytest.raises(Cancelled) as error:
            next(stream)
        caught.append(error.value)

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(10)
    with pytest.raises(RuntimeError, match="one stream, one thread"):
        next(stream)
    stream.close()
    reader.join(10)
    assert caught
    assert not token.cancelled  # others have it too


def test_the_callers_token_ends_it_and_keeps_nothing_of_it_afterwards():
    token = CancelToken()
    streams = [Numbers(numbers(), token) for _ in range(4)]
    assert len(token._callbacks) == 4
    list(streams[0])
    streams[1].close()
    del streams[2]
    assert len(token._callbacks) == 1
    token.cancel("enough")
    assert streams[-1]._cancel.reason == "enough"


class Foreign:
    """Deltas of somebody else's client."""

    def __init__(self, *items):
        self.items = iter(items)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        self.closed = True


def test_foreign_deltas_get_a_sum_and_are_closed():
    foreign = Foreign(Delta("a"), Delta("", "b"), Delta("c", finish_reason="stop"))
    stream = as_delta_stream(foreign, "m")
    assert [delta.content for delta in stream] == ["a", "", "c"]
    assert (stream.response.content, stream.response.reasoning) == ("ac", "b")
    assert stream.response.model == "m"
    assert foreign.closed


def test_foreign_deltas_that_were_never_asked_for_are_closed():
    for opened in (lambda f: as_delta_stream(f, "m"), lambda f: TextStream(lambda _: f, "m")):
        foreign = Foreign(Delta("a"))
        opened(foreign).close()
        assert foreign.closed


def test_a_foreign_error_gets_what_had_arrived():
    stream = as_delta_stream(Foreign(Delta("a"), StreamTruncated("cut")), "m")
    with pytest.raises(StreamTruncated) as caught:
        list(stream)
    assert caught.value.partial.content == "a"


def test_a_stream_with_a_sum_stays_itself():
    answer = Accumulator()
    stream = DeltaStream(answer, lambda _: (Delta(t) for t in "ab"))
    assert as_delta_stream(stream, "m") is stream
