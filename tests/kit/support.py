"""What the tests of the fault matrix share: a marked client, one call read to its end, and
the invariants of docs/faults.rst that hold after every such call.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
import traceback
from typing import Any, Callable, Iterator, List, Optional

from agentstream import errors
from agentstream.cancel import CancelToken
from agentstream.llm.clients import ChatClient, LlamaClient
from agentstream.llm.messages import Delta, RetryNotice, as_request
from agentstream.llm.settings import Retries, Timeouts
from agentstream.testing import ScriptedClient

#: Marks that no error, repr, log line or event may show.
KEY = "sk-test-MARKEDKEY-0123456789-wxyz"
PROMPT = "MARKEDPROMPT: what is the secret of the sea?"
MARKS = ("MARKEDKEY", "MARKEDPROMPT")

#: No test hangs: what a row does not set is this.
PATIENT = Timeouts(connect=20.0, first_token=20.0, stall=20.0)
NO_RETRIES = Retries(0)

PHASES = ("connect", "tls", "headers", "stream", "tool", "log")


class Result:
    """One call, read to its end.

    Attributes:
        deltas, times: each delta and when it came, on `time.monotonic`'s scale.
        error: the error that ended it, or None.
        response: the `ChatResponse`; the error's partial if there is one.
        began, ended: when the call was begun and when it was over.
    """

    def __init__(self) -> None:
        self.deltas: List[Delta] = []
        self.times: List[float] = []
        self.error: Optional[errors.AgentStreamError] = None
        self.response: Any = None
        self.began = time.monotonic()
        self.ended = 0.0

    @property
    def texts(self) -> List[str]:
        return [delta.content for delta in self.deltas if delta.content]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def retries(self) -> List[RetryNotice]:
        return [delta.retry for delta in self.deltas if delta.retry is not None]

    @property
    def took(self) -> float:
        return self.ended - self.began


def client_of(server: Any, **settings: Any) -> LlamaClient:
    """A client of a ScriptedServer (or a URL) that holds the marked key, patient and retrying not.

    Settings of Timeouts may be given by name: stall=0.2.
    """
    clocks = {name: settings.pop(name) for name in vars(PATIENT) if name in settings}
    settings.setdefault("timeouts", Timeouts(**{**vars(PATIENT), **clocks}))
    settings.setdefault("retries", NO_RETRIES)
    settings.setdefault("api_key", KEY)
    url = server if isinstance(server, str) else server.url
    settings.setdefault("verify", getattr(server, "ca_file", "") or True)
    return LlamaClient(url, **settings)


def ask(
    client: ChatClient,
    prompt: Any = PROMPT,
    *,
    cancel: Optional[CancelToken] = None,
    on_delta: Optional[Callable[[Delta], object]] = None,
) -> Result:
    """Read one call to its end, calling `on_delta` for each delta, and check the invariants."""
    result = Result()
    with logged() as records:
        stream = client.stream_deltas(as_request(prompt), cancel=cancel)
        result.began = time.monotonic()
        try:
            for delta in stream:
                result.times.append(time.monotonic())
                result.deltas.append(delta)
                if on_delta is not None:
                    on_delta(delta)
        except errors.AgentStreamError as error:
            result.error = error
        result.ended = time.monotonic()
        stream.close()
        answer = stream.answer.response()
    result.response = result.error.partial if result.error is not None else answer
    check(result, client)
    for record in records:
        hunt(record)
    return result


@contextlib.contextmanager
def logged() -> Iterator[List[str]]:
    """Every log line of every library meanwhile, formatted, tracebacks and all."""
    records: List[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(self.format(record))

    handler = Keep()
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def check(result: Result, client: Any) -> None:
    """I2, I3, I6 (the pool's places; the fixtures see to threads and descriptors) and I7."""
    answer = result.response
    assert answer is not None
    assert result.text == answer.content
    assert "".join(delta.reasoning for delta in result.deltas) == answer.reasoning
    arguments = [""] * len(answer.tool_calls)
    for delta in result.deltas:
        for piece in delta.tool_calls:
            before = "" if piece.replaces else arguments[piece.place]
            arguments[piece.place] = before + piece.arguments
    assert arguments == [call.arguments for call in answer.tool_calls]
    begun = False
    for delta in result.deltas:
        notice = delta.retry
        resumed = isinstance(notice, RetryNotice) and notice.resumed and client.retries.resume
        assert not (begun and delta.retry) or resumed, "retried after the first delta"
        begun = begun or bool(delta.content or delta.reasoning or delta.tool_calls)
    transport = getattr(client, "_transport", None)
    if transport is not None:
        assert transport.places.free == transport.limits.pool_size
    if result.error is not None:
        check_error(result.error)


def check_error(error: errors.AgentStreamError) -> None:
    """The attributes every error has, and no secret anywhere in it."""
    assert isinstance(error, errors.AgentStreamError)
    assert error.phase in PHASES or (not error.phase and isinstance(error, errors.ConfigError))
    assert isinstance(error.retryable, bool)
    assert error.outcome in ("failed", "unknown")
    assert error.request_id is None or isinstance(error.request_id, str)
    assert str(error)
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    shown = [str(error), repr(error), repr(error.args), trace]
    shown += [repr(value) for name, value in vars(error).items() if name != "partial"]
    shown += [repr(error.partial)]
    for text in shown:
        hunt(text)


def hunt(text: str) -> None:
    """I7: no marked secret in `text`."""
    for mark in MARKS:
        assert mark not in text, f"{mark} shows in {text[:2000]!r}"


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens.

    Not one that the system hands out: other processes that test would get it meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(
            10_000, 32_000
        )  # Linux hands out those from 32768 on
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.1 that answers no SYN: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.1)
            try:
                sock.connect(listener.getsockname())
            except socket.timeout:
                break
        yield listener.getsockname()[1]


# --- runs, threads and waits ----------------------------------------------------------------


class Task:
    """A function in a thread of the test's own.  `result` returns or raises what it did."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self.ended = 0.0
        self._thread = threading.Thread(target=self._run, name="test-task", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        self.ended = time.monotonic()

    def result(self, timeout: float = 30.0) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"not done after {timeout} s"
        if self._error is not None:
            raise self._error
        return self._value

    def error(self, timeout: float = 30.0) -> BaseException:
        """What it raised; fails the test if it raised nothing."""
        try:
            value = self.result(timeout)
        except AssertionError:
            raise
        except BaseException as error:
            return error
        raise AssertionError(f"nothing was raised; it returned {value!r}")


def wait_until(true: Callable[[], Any], timeout: float = 20.0) -> None:
    """Return once `true()` is; fails the test after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        threading.Event().wait(0.001)


TERMINAL_TYPES = {"workflow_completed", "workflow_failed", "workflow_cancelled"}


def events_of(stream: Any, workflow_id: str) -> List[Any]:
    """A run's events as its store has them, held against I1, I4 and I7."""
    events = stream.store.read(workflow_id=workflow_id, after=0, limit=100_000)
    check_events(events)
    return list(events)


def check_events(events: List[Any]) -> None:
    """I1: one terminal event, and it is the last.  I4: offsets 1..n.  I7: no secret."""
    kinds = [str(event.type) for event in events]
    ends = [kind for kind in kinds if kind in TERMINAL_TYPES]
    assert len(ends) == 1, kinds
    assert kinds[-1] == ends[0], kinds
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    for event in events:
        hunt(event.to_json())


# --- models without a socket ----------------------------------------------------------------


class FunctionClient(ChatClient):
    """A model that is a function: `function(request, cancel)` yields texts or Deltas."""

    model = "function"
    provider = "test"

    def __init__(self, function: Callable[[Any, CancelToken], Any]) -> None:
        self._function = function

    def stream_deltas(
        self, request: Any, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        for item in self._function(request, cancel or CancelToken()):
            yield Delta(item) if isinstance(item, str) else item


def saying(*texts: str) -> FunctionClient:
    """A model that says this, and has finished."""
    return FunctionClient(lambda request, cancel: [*texts, Delta(finish_reason="stop")])


def words_of(request: Any) -> str:
    """The text of a request's last message."""
    return str(request.messages[-1].content)


# --- subscribers ----------------------------------------------------------------------------


class Seen:
    """A callback that keeps what it is called with."""

    def __init__(self) -> None:
        self.events: List[Any] = []
        self._changed = threading.Condition()

    def __call__(self, event: Any) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, count: int, timeout: float = 20.0) -> List[Any]:
        """What it has, once that is `count` events; fails the test after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.events) >= count, timeout)
            assert len(self.events) >= count, f"{len(self.events)} of {count} events"
            return list(self.events)


class Gate(Seen):
    """A callback that is stuck until its `with` block is left."""

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Event()
        self._entered = threading.Event()

    def __call__(self, event: Any) -> None:
        self._entered.set()
        self._open.wait(30.0)
        super().__call__(event)

    def entered(self) -> None:
        """Return once it has been called."""
        assert self._entered.wait(20.0)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()


def publish(stream: Any, workflow_id: str, count: int, *, end: bool = False) -> None:
    """Append `count` chunks to a workflow, numbered from 1, and perhaps its end."""
    for n in range(1, count + 1):
        stream.append("agent_llm_stream_chunk", workflow_id, {"n": str(n)})
    if end:
        stream.append("workflow_completed", workflow_id)


class ByRound(ChatClient):
    """Answers by how many answers the request holds, whoever asks and however often."""

    provider = model = "by-round"

    def __init__(self, *replies: Any) -> None:
        self.replies = replies
        self.requests: List[Any] = []

    def stream_deltas(self, request: Any, *, cancel: Any = None) -> Iterator[Delta]:
        self.requests.append(request)
        number = sum(message.role == "assistant" for message in request.messages)
        yield from ScriptedClient(self.replies[number]).stream_deltas(request, cancel=cancel)
