"""OutputStream: the text of a typed answer, its growing value, and the asking again."""

from __future__ import annotations

from typing import Any, Callable, Generator, Iterator, Optional

from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta
from agentstream.llm.output.judge import Wrong, growing, judge
from agentstream.llm.stream import DeltaStream, TextStream, as_delta_stream
from agentstream.results import ChatResponse, Usage
from agentstream.schema.output import Answer, Output, said

__all__ = ["OutputStream"]

#: Sends a request and gives its deltas, for the token that ends them.
Send = Callable[[ChatRequest, CancelToken], Iterator[Delta]]


class _Asking:
    """The answers to one request, the last of which is right.

    Attributes:
        begun: how many have been asked for.
        deltas: the last one's.
        answer: its value; None before it is known.
    """

    def __init__(self, send: Send, request: ChatRequest, model: str, cancel: CancelToken) -> None:
        self.output: Output = request.output
        self.begun = 0
        self.answer: Optional[Answer] = None
        self._send = send
        self._request = request
        self._model = request.model or model
        self._cancel = cancel
        self._usage = Usage()
        self._warnings: Any = ()
        self._ask(request)

    def _ask(self, request: ChatRequest) -> None:
        self.deltas: DeltaStream = as_delta_stream(self._send(request, self._cancel), self._model)
        self.begun += 1

    def response(self) -> ChatResponse:
        """The last answer, with its value and the usage of all."""
        response = self.deltas.response
        return response._replace(
            value=None if self.answer is None else self.answer.value,
            usage=self._usage + response.usage if self.begun > 1 else response.usage,
            warnings=(*self._warnings, *response.warnings),
        )

    def texts(self) -> Generator[str, None, None]:
        """Yield the text of all answers; raises `OutputInvalid` if the last one is wrong too."""
        try:
            while True:
                for delta in self.deltas.deltas:
                    if delta[0]:
                        yield delta[0]
                wrong = self._judge()
                if wrong is None:
                    return
                if wrong.cut or self.begun > self.output.retries:
                    raise wrong.error() from wrong.__cause__
                self._ask_again(wrong)
        except AgentStreamError as error:
            if self.begun > 1 and error.partial is not None:
                error.partial = self.response()
            raise
        finally:
            self.deltas.close()

    def _judge(self) -> Optional[Wrong]:
        response = self.deltas.response
        if response.tool_calls:
            return None  # the caller runs them, and asks again himself
        try:
            self.answer = judge(self.output, response)
        except Wrong as wrong:
            return wrong
        return None

    def _ask_again(self, wrong: Wrong) -> None:
        response = self.deltas.response
        self._usage += response.usage
        self._warnings = (
            *self._warnings,
            f"answer {self.begun} was no {self.output.name} and was asked for again: "
            + "; ".join(said(wrong.problems)),
        )
        self.deltas.close()
        messages = list(self._request.messages)
        if response.content.strip():
            state = response.provider_state
            messages.append(ChatMessage.assistant(response.content, (), state))
        messages.append(ChatMessage.user(wrong.correction))
        request = self._request.replace(messages=messages)
        self._ask(request.replace(tool_choice="none") if request.tools else request)


class OutputStream(TextStream):
    """A `TextStream` whose answer is to be of a type: `ChatRequest.output` says which.

    A wrong answer is sent back with its problems, as often as `Output.retries` says: its
    text is followed by the next one's.  `response.value` is there at the end.

    Args:
        send: sends a request and gives its deltas, for the token that ends them.
        request: what is asked.
        model: the model's name, for an answer that tells none.
        cancel: the caller's token.
    """

    def __init__(
        self, send: Send, request: ChatRequest, model: str, cancel: Optional[CancelToken] = None
    ) -> None:
        super(TextStream, self).__init__(cancel)
        self._asking = _Asking(send, request, model, self._cancel)
        self._items = self._asking.texts()

    @property
    def response(self) -> ChatResponse:
        """See `TextStream.response`; of several answers the last, with the usage of all."""
        return self._asking.response()

    def values(self) -> Iterator[Any]:
        """See `TextStream.values`."""
        asking = self._asking
        yield from growing(asking.output, self, asking)
        if asking.answer is not None:
            yield asking.answer.value

    def _close_source(self) -> None:
        self._asking.deltas.close()
