"""One run of an agent: ask the model, publish what it says, run its tools, ask again.

What a caller iterates is stream.py's.  How calls are run is tool_rounds.py's, what goes
back to the model history.py's, which answer is of the type that was asked for output.py's,
and what is kept for another process to go on with checkpoints.py's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, Generator, List, NamedTuple, Optional, Sequence, Tuple

from agentstream.agent.asked import Asked, as_conversation, as_messages
from agentstream.agent.budget import Charge, Spending, bearing
from agentstream.agent.history import as_message, joined
from agentstream.agent.journal import AgentLog
from agentstream.agent.settings import AgentSettings
from agentstream.errors import (
    AgentStreamError,
    Cancelled,
    LimitExceeded,
    Suspended,
)
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.llm.accumulator import Accumulator, tokens_per_second
from agentstream.llm.finish import remark_on
from agentstream.llm.history import is_empty
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, FallbackNotice
from agentstream.llm.stream import DeltaStream, as_delta_stream
from agentstream.results import ChatResponse, Usage
from agentstream.tools.context import RunContext

if TYPE_CHECKING:
    from agentstream.agent.checkpoints import AgentCheckpoint
    from agentstream.agent.conversation import Conversation
    from agentstream.agent.output import TypedAnswers
    from agentstream.agent.tool_rounds import ToolRounds

__all__ = ["AgentOutput", "AgentRun"]

logger = logging.getLogger("agentstream.agent")


class AgentOutput(NamedTuple):
    """What an agent came to.

    Attributes:
        response: the text of its last answer.
        agent_name: its name.
        execution_time_ms: `duration_s` in milliseconds; until 0.3.
        usage: of all its requests together.
        tool_calls_count: how many tool calls it made.
        tokens_per_second: of its last answer; None when it cannot be known.
        chat_response: the last answer itself.
        warnings: what was odd about its answers and yet no error.
        value: what the answer is, where the agent has an `output`.
    """

    response: str
    agent_name: str
    execution_time_ms: float
    usage: Usage
    tool_calls_count: int
    tokens_per_second: Optional[float]
    chat_response: ChatResponse
    warnings: Tuple[str, ...] = ()
    value: Any = None

    def __str__(self) -> str:
        return self.response

    @property
    def text(self) -> str:
        """`response`, by the name that all results have for it."""
        return self.response

    @property
    def duration_s(self) -> float:
        """Seconds from the first request to the last text."""
        return self.execution_time_ms / 1000

    @property
    def finish_reason(self) -> Optional[str]:
        """How its last answer ended, as `ChatResponse` has it."""
        return self.chat_response.finish_reason


class AgentRun:
    """One run.  Iterated by one thread, once; read by any.

    Args:
        settings: the agent.
        begun: how many answers have begun.
        input: what it is asked.
        log: where its events go.
        context: what its tools are handed, and the token that stops the run.
        conversation: what was said before; the run's own turn is added to it.
        checkpoint: keeps its rounds, and knows those of an earlier process; None: nothing
            is kept.

    Attributes:
        turn: the messages of this run, the user's first: the new part of the
            conversation.
        tool_calls: how many tool calls the model has made.
        settings: the agent.
        begun: how many answers have begun.
        output: the `AgentOutput`; None before the run has come to its end.
        finish_reason: how its last answer so far ended; None if it had none.
        warnings: what was odd about its answers so far.
    """

    def __init__(
        self,
        settings: AgentSettings,
        input: Asked,
        log: AgentLog,
        context: RunContext,
        conversation: Optional[Conversation] = None,
        *,
        checkpoint: Optional[AgentCheckpoint] = None,
    ) -> None:
        self.turn: List[ChatMessage] = []
        self.tool_calls = 0
        self.output: Optional[AgentOutput] = None
        self.finish_reason: Optional[str] = None
        self.warnings: List[str] = []
        self.settings = self._agent = settings
        self._asked = as_messages(input)
        self._log = log
        self._conversation = as_conversation(conversation)
        self._answers: List[Accumulator] = []
        self._earlier: List[ChatResponse] = []  # of an earlier process
        self._checkpoint = checkpoint
        self._context = context if settings.budget is None else self._bearing(context)
        self._tools: Optional[ToolRounds] = None
        self._typed = _typed(settings, log)
        self.begun = 0

    def _bearing(self, context: RunContext) -> RunContext:
        """The context in which what its requests use counts on the agent's own budget too."""
        budget, kept = self.settings.budget, self._checkpoint
        whose = f"agent {self.settings.name!r}"
        store = None if kept is None else (kept.keeper, f"{kept.place}|spent")
        return context.replace(spending=bearing(budget, whose, context.spending, store))

    def text(self) -> str:
        """What the agent has said so far, in all its answers."""
        earlier = "".join(answer.content for answer in self._earlier)
        return earlier + "".join(answer.text() for answer in self._answers)

    def usage(self) -> Usage:
        """What its requests have used so far, failed ones included as far as is known."""
        earlier = sum((answer.usage for answer in self._earlier), Usage())
        return sum((answer.response().usage for answer in self._answers), earlier)

    def texts(self) -> Generator[str, None, None]:
        """Run the agent: yields its text as it arrives; sets `output` at the end.

        Raises:
            AgentStreamError: whichever applies, with `partial`.
            RuntimeError: another run is under way with the conversation.
            Suspended: somebody must decide about a call before it can go on.
        """
        conversation = self._conversation
        with conversation.in_use() if conversation is not None else contextlib.nullcontext():
            started = time.monotonic()
            begun = payloads.agent_processing()
            self._log.note(EventType.AGENT_PROCESSING, begun, about=conversation)
            answered = False
            try:
                response = yield from self._rounds()
                took = time.monotonic() - started
                answered = True
                if conversation is not None and not self._is_in(conversation):
                    conversation.add(*self.turn)
            except BaseException as error:  # Ctrl-C and a closed generator too
                if self._goes_on(error):
                    raise
                self._log.note_failure(EventType.AGENT_FAILED, payloads.agent_failed(error))
                if conversation is not None and conversation.keep == "all" and not answered:
                    self._add_stopped(conversation)
                raise
        self.output = AgentOutput(
            response.content,
            self._agent.name,
            took * 1000,
            self.usage(),
            self.tool_calls,
            tokens_per_second(response),
            response,
            tuple(self.warnings),
            response.value,
        )
        self._log.note(
            EventType.AGENT_COMPLETED,
            payloads.agent_completed(
                response=self.output.response,
                duration_s=took,
                usage=self.output.usage.to_dict(),
                tool_calls_count=self.tool_calls,
            ),
        )

    def _goes_on(self, error: BaseException) -> bool:
        """True if the run has not failed: another process may go on with it."""
        kept = self._checkpoint
        left = kept is not None and kept.keeper.leaving and isinstance(error, Cancelled)
        return left or isinstance(error, Suspended)

    def _is_in(self, conversation: Conversation) -> bool:
        """True if an earlier process, which died right behind it, has added the turn."""
        return bool(self._earlier) and conversation.messages[-len(self.turn) :] == tuple(self.turn)

    def _add_stopped(self, conversation: Conversation) -> None:
        """Add a turn that was stopped or failed: its rounds, and the text of the last answer."""
        turn = list(self.turn)
        told = sum(message.role == "assistant" for message in turn)
        begun = len(self._earlier) + len(self._answers)
        if begun > told and self._answers and self._answers[-1].text().strip():
            turn.append(ChatMessage.assistant(self._answers[-1].text()))
        try:
            conversation.add(*turn)
        except Exception:  # a store's: it must not hide why the run ended
            logger.exception("a stopped turn of %s is not in its conversation", self._agent.name)

    def _rounds(self) -> Generator[str, None, ChatResponse]:
        """Yield the text of all rounds; returns the last answer."""
        agent, most = self._agent, self._agent.limits.max_rounds
        before = self._begin()
        typed = self._typed
        said = ""  # by answers that the server paused
        for number in itertools.count(1):
            wrong = () if typed is None else typed.messages
            messages = joined([*before, *self.turn, *wrong])
            request = ChatRequest(messages, **agent.of_round(number, again=bool(wrong)))
            self.begun += not said  # or the paused one goes on
            response = self._known(number)
            if response is None:
                response = yield from self._ask(request, number, before)
            if response.tool_calls:
                self.tool_calls += len(response.tool_calls)
                if number >= most:
                    break  # nobody would read the results
                self.turn += self._call_tools(response, number)
                said = ""
            elif response.goes_on and number < most:
                self.turn.append(as_message(response, ()))
                said += response.content
            elif typed is None:
                return self._ended(response, said)
            else:
                if typed.take(response._replace(content=said + response.content)):
                    assert typed.answer is not None
                    return self._ended(response._replace(value=typed.answer.value), said)
                said = ""
        raise LimitExceeded(
            f"agent {agent.name!r} made {most} requests and still calls tools"
            " (ToolLimits.max_rounds)",
            limit="max_rounds",
            phase="tool",
            partial=response,
        )

    def _begin(self) -> List[ChatMessage]:
        """Put what is asked into the turn; returns the messages before it."""
        agent, conversation = self._agent, self._conversation
        begun = None if self._checkpoint is None else self._checkpoint.asked()
        if begun is not None:
            before, asked = begun
            self._asked = asked
        else:
            before = [ChatMessage.system(agent.system_prompt)] if agent.system_prompt else []
            if conversation is not None:
                before += conversation.fitted(*self._asked)
        self.turn += self._asked
        return before

    def _known(self, number: int) -> Optional[ChatResponse]:
        """The answer to request `number`, where an earlier process has had it."""
        kept = self._checkpoint
        if kept is None:
            return None
        response = kept.answer(number)
        # What belongs to an answer that was followed by another one has been appended.
        self._log.muted = response is not None and kept.answer(number + 1) is not None
        if response is None:
            kept.keeper.settle()
            return None
        self._earlier.append(response)
        self._take_in(response)
        return response

    def _ask(
        self, request: ChatRequest, number: int, before: Sequence[ChatMessage]
    ) -> Generator[str, None, ChatResponse]:
        """One request: yields its text, publishes all it brings, returns the answer."""
        log, client = self._log, self._agent.client
        charge = self._charge(request)
        begun = payloads.agent_llm_request_started(
            provider=client.provider, model=client.model, round=number
        )
        try:
            log.note(EventType.AGENT_LLM_REQUEST_STARTED, begun, about=(client, request))
        except BaseException:
            if charge is not None:
                charge.give_back()
            raise
        began = time.monotonic()
        stream = self._open(request, charge)
        try:
            for delta in stream.deltas:
                content = delta[0]
                if delta[1] or delta[7]:
                    _note_rest(delta, log)
                if content:
                    log.chunk(EventType.AGENT_LLM_STREAM_CHUNK, content)
                    yield content
        except BaseException as error:
            if isinstance(error, AgentStreamError) and error.partial is None:
                error.partial = stream.response
            if charge is not None:
                charge.end(stream.response, error)
            failed = payloads.agent_llm_request_failed(
                error, round=number, model=client.model, duration_s=time.monotonic() - began
            )
            log.note_failure(EventType.AGENT_LLM_REQUEST_FAILED, failed)
            raise
        finally:
            stream.close()
        response = stream.response
        if charge is not None:
            charge.end(response)
        if self._checkpoint is not None:
            self._checkpoint.keep_answer(number, response, before, self._asked)
        return self._taken(response, number)

    def _charge(self, request: ChatRequest) -> Optional[Charge]:
        """Charge a request to the budgets that hold; None if there is none.

        Raises:
            LimitExceeded: it would pass one.
        """
        spending: Optional[Spending] = self._context.spending
        return None if spending is None else spending.charge(request, self._agent.client)

    def _open(self, request: ChatRequest, charge: Optional[Charge]) -> DeltaStream:
        client = self._agent.client
        try:
            deltas = client.stream_deltas(request, cancel=self._context.cancel)
        except BaseException as error:
            if charge is not None:
                charge.end(ChatResponse(), error)
            raise
        stream = as_delta_stream(deltas, client.model, client.provider)
        self._answers.append(stream.answer)
        return stream

    def _taken(self, response: ChatResponse, number: int) -> ChatResponse:
        """Publish an answer; returns it.

        Raises:
            LimitExceeded: it was cut, and the agent is to fail then.
        """
        _note_answer(response, number, self._log)
        self._take_in(response)
        return response

    def _take_in(self, response: ChatResponse) -> None:
        """Take note of how an answer ended.

        Raises:
            LimitExceeded: it was cut, and the agent is to fail then.
        """
        self.finish_reason = response.finish_reason
        self.warnings += response.warnings
        remark = remark_on(response.finish_reason, self._agent.request.get("max_tokens"))
        if remark and self._agent.on_cut == "fail":
            raise LimitExceeded(
                f"agent {self._agent.name!r}: the answer {remark}; on_cut is 'fail'",
                limit="max_tokens",
                phase="stream",
                partial=response,
            )

    def _ended(self, response: ChatResponse, said: str) -> ChatResponse:
        """Take the last answer in; returns it whole, with a warning if nobody will remember it.

        Args:
            said: the answer's words before its pauses.
        """
        self.turn.append(as_message(response, ()))
        response = response._replace(content=said + response.content)
        if self._conversation is None or not is_empty(self.turn[-1]):
            return response
        warning = "the answer is empty: what was asked is not added to the conversation"
        self.warnings.append(warning)
        self._log.note(EventType.SYSTEM_WARNING, payloads.system_warning(warning))
        return response._replace(warnings=(*response.warnings, warning))

    def _call_tools(self, response: ChatResponse, number: int) -> List[ChatMessage]:
        """Run the calls of an answer; returns it, and the messages that answer the calls.

        Raises:
            LimitExceeded: a call has brought the same result once too often.
            Cancelled: the run was stopped meanwhile.
            Suspended: somebody must decide about a call.
        """
        from agentstream.agent.tool_rounds import ToolRounds  # noqa: PLC0415 - only who has tools

        if self._tools is None:
            self._tools = ToolRounds(self._agent, self._log, self._context, self._checkpoint)
        messages = self._tools.answer(response, number)
        cancel = self._context.cancel
        if cancel.cancelled:
            self.turn += messages
            raise Cancelled(
                f"stopped while tools ran: {cancel.reason}", phase="tool", partial=response
            )
        return messages


def _typed(settings: AgentSettings, log: AgentLog) -> Optional[TypedAnswers]:
    if settings.output is None:
        return None
    from agentstream.agent.output import TypedAnswers  # noqa: PLC0415 - only who has types pays

    return TypedAnswers(settings, settings.output, log)


def _note_rest(delta: Delta, log: AgentLog) -> None:
    if delta.reasoning:
        log.chunk(EventType.AGENT_LLM_REASONING_CHUNK, delta.reasoning)
    notice = delta.retry
    if isinstance(notice, FallbackNotice):
        log.note(EventType.AGENT_FALLBACK, payloads.agent_fallback(**notice._asdict()))
    elif notice is not None:
        retried = payloads.agent_llm_request_retried(**notice._asdict())
        log.note(EventType.AGENT_LLM_REQUEST_RETRIED, retried)


def _note_answer(response: ChatResponse, number: int, log: AgentLog) -> None:
    for warning in response.warnings:
        log.note(EventType.SYSTEM_WARNING, payloads.system_warning(warning))
    data = payloads.agent_llm_request_completed(
        round=number,
        provider=response.provider,
        model=response.model,
        finish_reason=response.finish_reason,
        usage=response.usage.to_dict(),
        first_token_s=response.first_token_s,
        duration_s=response.duration_s,
        tokens_per_second=response.tokens_per_second,
        warnings=response.warnings,
        response_id=response.response_id,
        native_finish_reason=response.native_finish_reason,
    )
    log.note(EventType.AGENT_LLM_REQUEST_COMPLETED, data, about=response)
