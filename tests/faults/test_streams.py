"""Rows U08 and U09: what becomes of a stream that its caller abandons, holds, shares or breaks."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from agentstream import Agent, Cancelled, Limits
from agentstream.errors import AgentStreamError
from agentstream.llm.messages import as_request
from agentstream.testing import Cut, Gate, Hang, text_chunks
from tests.kit.support import PROMPT, Task, client_of, wait_until


def unfinished(*texts):
    return text_chunks(*texts, finish_reason=None, usage=False, done=False)


@pytest.fixture
def hanging(server):
    """A server whose answers say "a", "b" and then nothing, and a client with two places."""
    server.default(*unfinished("a", "b"), Hang())
    with client_of(server, limits=Limits(pool_size=2)) as client:
        yield server, client
        assert client._transport.places.free == 2


def open_stream(client, kind):
    """A started stream of one of the kinds there are."""
    if kind == "text":
        stream = client.chat_stream(PROMPT)
    elif kind == "deltas":
        stream = client.stream_deltas(as_request(PROMPT))
    else:
        stream = Agent("one", client=client).stream(PROMPT)
    first = next(stream)
    while kind == "deltas" and not first.content:
        first = next(stream)
    return stream


KINDS = ["text", "deltas", "agent"]


@pytest.mark.parametrize("kind", KINDS)
def test_u08_a_dropped_stream_frees_its_socket_without_the_collector(hanging, kind):
    server, client = hanging
    gc.disable()
    try:
        for number in range(3):  # a place that were not given back would be missed
            stream = open_stream(client, kind)
            del stream
            assert server.wait_client_gone(count=number + 1)
        assert client._transport.places.free == 2
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
def test_u08_a_stream_dropped_before_its_first_text_sends_nothing(hanging, kind):
    server, client = hanging
    if kind == "agent":
        stream = Agent("one", client=client).stream(PROMPT)
    else:
        stream = client.chat_stream(PROMPT)
    stream.close()
    del stream
    assert server.connections == 0


@pytest.mark.parametrize("kind", KINDS)
def test_u08_close_frees_the_socket_of_a_stream_that_is_held(hanging, kind):
    server, client = hanging
    stream = open_stream(client, kind)
    stream.close()
    assert server.wait_client_gone()
    stream.close()
    assert sys.getrefcount(stream) >= 2  # still held


@pytest.mark.parametrize("kind", ["text", "agent"])
def test_u08_with_frees_the_socket_though_a_traceback_keeps_the_stream(hanging, kind):
    server, client = hanging

    def broken():
        with open_stream(client, kind) as stream:
            raise KeyError(stream.__class__.__name__)

    with pytest.raises(KeyError) as kept:
        broken()
    assert server.wait_client_gone()
    frames = [entry.frame.f_locals for entry in kept.traceback]
    assert any("stream" in names for names in frames)  # it is kept all the same


def test_u08_a_stream_kept_in_a_traceback_is_freed_with_it(hanging):
    server, client = hanging

    def broken():
        stream = client.chat_stream(PROMPT)
        for _ in stream:
            raise KeyError("the caller's own")

    kept = None
    try:
        broken()
    except KeyError as error:
        kept = error
    assert server.open_connections == 1
    del kept
    assert server.wait_client_gone()


@pytest.mark.parametrize("kind", ["text", "agent"])
def test_u08_closed_by_another_thread_while_it_is_read(hanging, kind):
    server, client = hanging
    stream = open_stream(client, kind)
    assert next(stream) == "b"
    task = Task(lambda: next(stream))
    generator = stream._items
    wait_until(lambda: generator.gi_running)
    stream.close()
    error = task.error()
    assert type(error) is Cancelled
    assert error.partial.content == "ab"
    assert server.wait_client_gone()


def test_u08_closed_by_another_thread_between_two_texts_is_no_clean_end(hanging):
    server, client = hanging
    stream = open_stream(client, "text")
    Task(stream.close).result()
    assert server.wait_client_gone()
    for _ in range(2):
        with pytest.raises(Cancelled) as caught:
            next(stream)
        assert caught.value.partial.content == "a"
    assert stream.response.finish_reason is None


def test_u08_a_close_after_the_end_changes_nothing(server):
    server.reply_text("whole")
    with client_of(server) as client:
        stream = client.chat_stream(PROMPT)
        assert list(stream) == ["whole"]
        stream.close()
        assert list(stream) == []
        assert stream.response.finish_reason == "stop"


@pytest.mark.parametrize("kind", ["text", "agent"])
def test_u08_two_threads_on_one_stream_get_a_clear_error(hanging, kind):
    _, client = hanging
    stream = open_stream(client, kind)
    assert next(stream) == "b"
    reader = Task(lambda: next(stream))
    wait_until(lambda: stream._items.gi_running)
    with pytest.raises(RuntimeError, match="another thread"):
        next(stream)
    assert not isinstance(Task(lambda: next(stream)).error(), AgentStreamError)
    stream.cancel()  # the reader that was first is none the worse, and is told
    assert type(reader.error()) is Cancelled
    stream.close()


def test_u08_many_threads_on_one_stream_take_every_text_once(server):
    # Misuse, but never a text twice or lost, and never another error than that one.
    words = [f"w{number} " for number in range(400)]
    server.reply(*text_chunks(*words))
    with client_of(server) as client, client.chat_stream(PROMPT) as stream:
        taken = []

        def read():
            while True:
                try:
                    taken.append(next(stream))
                except RuntimeError as error:
                    assert "another thread" in str(error)
                    threading.Event().wait(0.0001)
                except StopIteration:
                    return

        for task in [Task(read) for _ in range(4)]:
            task.result(20)
        assert sorted(taken) == sorted(words)
        assert stream.response.content == "".join(words)


def test_u08_response_may_be_asked_for_while_another_thread_reads(hanging):
    _, client = hanging
    stream = open_stream(client, "text")
    reader = Task(lambda: list(stream))
    wait_until(lambda: stream.response.content == "ab")
    stream.cancel()
    assert type(reader.error()) is Cancelled
    assert stream.response.content == "ab"


def test_u08_closing_the_client_leaves_its_streams_alone(server):
    gate = Gate()
    server.reply(*unfinished("a"), gate, *text_chunks("b"))
    client = client_of(server)
    stream = client.chat_stream(PROMPT)
    assert next(stream) == "a"
    client.close()
    gate.open()
    assert list(stream) == ["b"]
    client.close()


# --- U09: the caller's own exception ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "agent"])
def test_u09_an_exception_in_the_for_body_closes_the_connection(hanging, kind):
    server, client = hanging

    class Own(Exception):
        pass

    other = open_stream(client, "text")

    def body():
        with open_stream(client, kind) as stream:
            for _ in stream:
                raise Own

    with pytest.raises(Own) as caught:
        body()
    assert server.wait_client_gone()
    assert caught.value.__cause__ is caught.value.__context__ is None
    # ... and touches no other stream.
    assert next(other) == "b"
    assert list(server.outcomes.values()) == ["client_gone"]
    other.close()


def test_u09_an_exception_in_the_for_body_without_a_with(hanging):
    server, client = hanging

    def body():
        for text in client.chat_stream(PROMPT):
            raise KeyError(text)

    try:
        body()
    except KeyError as error:
        assert error.args == ("a",)
    assert server.wait_client_gone()


def test_u09_a_break_closes_the_connection(hanging):
    server, client = hanging
    for text in client.chat_stream(PROMPT):
        assert text == "a"
        break
    assert server.wait_client_gone()


def test_u08_two_threads_on_one_stream_of_deltas(hanging):
    _, client = hanging
    deltas = open_stream(client, "deltas")
    reader = Task(lambda: list(deltas))
    wait_until(lambda: deltas.deltas.gi_running)
    with pytest.raises(RuntimeError, match="another thread"):
        next(deltas)
    deltas.close()  # by another thread than the reader's: as a cancel
    assert isinstance(reader.error(), Cancelled)


def test_u08_i6_close_of_the_client_closes_idle_connections_though_an_error_is_kept(server):
    server.reply_text("whole")
    server.reply(*unfinished("a"), Cut())
    client = client_of(server)
    client.chat(PROMPT)  # leaves an idle connection in the pool
    with pytest.raises(AgentStreamError) as kept:
        list(client.chat_stream(PROMPT))
    client.chat_stream(PROMPT).close()
    server.reply_text("whole")
    client.chat(PROMPT)
    held = kept.value  # its traceback knows the response, and that the pool
    client.close()
    wait_until(lambda: server.open_connections == 0)
    assert held.__traceback__ is not None
