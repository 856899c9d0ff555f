"""What a caller iterates: the deltas of one call, or its text.

`GuardedStream` is what all streams of the library are: an iterator for one thread
that any thread may end.  `DeltaStream` is an answer's deltas with their running sum,
`TextStream` its text.  Where deltas come from is nothing to this file.
"""

from __future__ import annotations

from typing import Any, Callable, Generator, Iterator, Optional, TypeVar

from agentstream import checks
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConfigError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.finish import remark_on
from agentstream.llm.messages import Delta
from agentstream.results import ChatResponse

__all__ = ["DeltaStream", "GuardedStream", "TextStream", "as_delta_stream"]

T = TypeVar("T")
_Self = TypeVar("_Self", bound="GuardedStream[Any]")


class GuardedStream(Iterator[T]):
    """An iterator over a generator's items, for one thread; any thread may end it.

    A subclass calls `__init__`, then sets `_items`, a generator that `_cancel` ends.
    Leaving a `with` block, `close` or dropping the stream ends the generator.

    Args:
        cancel: the caller's token.  The stream has one of its own, `_cancel`, which
            this one cancels: to close a stream is to stop nothing else.
    """

    _items: Generator[T, None, Any]
    # Of the class too, for `__del__`: Ctrl-C may come before the first line of `__init__`.
    _key: Optional[int] = None
    _outer: Optional[CancelToken] = None

    def __init__(self, cancel: Optional[CancelToken]) -> None:
        self._outer = checks.instance("cancel", cancel, CancelToken, optional=True)
        self._closed_early = False
        self._cancel = own = CancelToken()
        if cancel is not None:
            outer = cancel
            self._key = outer.add_callback(lambda: own.cancel(outer.reason))

    def __repr__(self) -> str:
        ended = self._items.gi_frame is None  # type: ignore[attr-defined]
        return f"<{type(self).__name__}, {'ended' if ended else 'to be iterated'}>"

    def __iter__(self: _Self) -> _Self:
        return self

    def __next__(self) -> T:
        try:
            return next(self._items)
        except StopIteration as end:
            self._unlink()
            if self._closed_early:  # an end, but not the stream's own
                raise Cancelled(
                    "the stream was closed before its end", partial=self._partial(), phase="stream"
                ) from None
            self._ended(end.value)
            raise
        except ValueError as error:
            if _is_refusal(error):
                raise RuntimeError(
                    "this stream is being iterated by another thread: one stream, one thread"
                ) from None
            self._unlink()
            raise
        except BaseException:
            self._unlink()
            raise

    def _ended(self, value: Any) -> None:
        """Called when the generator has returned `value`; may be called again with None."""

    def _partial(self) -> Optional[ChatResponse]:
        """What has arrived, for the error of a stream that was closed early."""
        return None

    def cancel(self, reason: str = "") -> None:
        """Stop the work; its reader gets `Cancelled` at once.  From any thread, at any time."""
        self._cancel.cancel(reason or f"{type(self).__name__}.cancel()")

    def close(self) -> None:
        """End the stream and free its socket.  While another thread reads it: as `cancel`.

        Whoever reads on after a close that came before the end gets `Cancelled`.
        """
        early = self._items.gi_frame is not None  # type: ignore[attr-defined]
        try:
            self._items.close()
        except ValueError as error:
            if not _is_refusal(error):
                raise
            self.cancel(f"{type(self).__name__}.close()")  # it is being read at this moment
        else:
            self._closed_early = self._closed_early or early
            self._close_source()
            self._unlink()

    def _close_source(self) -> None:
        """Close what the generator reads: one that never began cannot do it itself."""

    def _unlink(self) -> None:
        if self._outer is not None and self._key is not None:
            self._outer.remove_callback(self._key)
            self._key = None

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._unlink()


def _is_refusal(error: ValueError) -> bool:
    """True if a generator refused to be entered, since another thread is in it.

    An error of its own has its frame in the traceback; a refusal comes from its door.
    (Its `gi_running` would be asked too late: the other thread may be out again.)
    """
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None


class DeltaStream(GuardedStream[Delta]):
    """The deltas of one call, and their running sum.

    Args:
        answer: their sum, which `run` adds to.
        run: gives the generator of the deltas, for the token that ends it.
        cancel: the caller's token.
        source: closed with the stream.

    Attributes:
        answer: an `Accumulator`.
        deltas: the generator under the stream, for those who see to its closing
            themselves and spare each chunk a call.
    """

    def __init__(
        self,
        answer: Accumulator,
        run: Callable[[CancelToken], Generator[Delta, None, None]],
        cancel: Optional[CancelToken] = None,
        source: object = None,
    ) -> None:
        super().__init__(cancel)
        self.answer = answer
        self.deltas = self._items = run(self._cancel)
        self._source = source

    @property
    def response(self) -> ChatResponse:
        """The `ChatResponse`, as complete as what has arrived."""
        return self.answer.response()

    def _partial(self) -> ChatResponse:
        return self.response

    def _close_source(self) -> None:
        _close(self._source)


def as_delta_stream(deltas: Iterator[Delta], model: str, provider: str = "") -> DeltaStream:
    """Deltas with their running sum: the same stream if it has one, else summed on their way.

    Args:
        deltas: what a client's `stream_deltas` gave.
        model: the model's name, for an answer that tells none.
        provider: the client's.
    """
    if isinstance(deltas, DeltaStream):
        return deltas
    answer = Accumulator(model, provider)
    return DeltaStream(answer, lambda _: _summed(deltas, answer), source=deltas)


def _summed(deltas: Iterator[Delta], answer: Accumulator) -> Generator[Delta, None, None]:
    answer.start()
    try:
        for delta in deltas:
            answer.add(delta)
            yield delta
    except AgentStreamError as error:
        answer.end()
        if error.partial is None:
            error.partial = answer.response()
        raise
    finally:
        _close(deltas)
    answer.end()
    cut = remark_on(answer.finish_reason)
    if cut:
        answer.warn(f"the answer {cut}")


class TextStream(GuardedStream[str]):
    """The text of one answer as it arrives: an iterator of non-empty str.

    One thread may iterate it; `cancel`, `close` and `response` are for any.

    Args:
        open_deltas: sends the request and gives the deltas, for the token that ends them.
        model: the model's name, for an answer that tells none.
        cancel: the caller's token.
        provider: the client's.
    """

    def __init__(
        self,
        open_deltas: Callable[[CancelToken], Iterator[Delta]],
        model: str,
        cancel: Optional[CancelToken] = None,
        *,
        provider: str = "",
    ) -> None:
        super().__init__(cancel)
        self._deltas = as_delta_stream(open_deltas(self._cancel), model, provider)
        self._items = _texts(self._deltas)

    @property
    def response(self) -> ChatResponse:
        """The `ChatResponse`, as complete as what has arrived."""
        return self._deltas.response

    def values(self) -> Iterator[Any]:
        """The value of an answer that `output` asks for, as it arrives: in place of the text.

        Each is a new plain value (dicts, lists, texts, numbers), of which no later one
        takes anything back: a field is there once its value has begun, texts grow,
        numbers come when they are whole.  There is one for each piece of the answer at
        most.  The last is what `response.value` is.

        Raises:
            ConfigError: no `output` was asked for.
            OutputInvalid: the answer is none, after all retries.
        """
        raise ConfigError("values() is of an answer with a type: give output= to chat_stream")

    def _partial(self) -> ChatResponse:
        return self.response

    def _close_source(self) -> None:
        self._deltas.close()


def _texts(stream: DeltaStream) -> Generator[str, None, None]:
    # A function, not a method: a generator that held its TextStream would keep
    # it, and the socket, until the garbage collector came by.
    try:
        for delta in stream.deltas:
            if delta[0]:
                yield delta[0]
        if stream.answer.goes_on:  # an agent sends it back; nobody does here
            stream.answer.warn("the server paused: sent back as it is, the answer goes on")
    finally:
        stream.close()


def _close(source: object) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()
