"""One run of an agent: ask the model, publish what it says, run its tools, ask again.

What a caller iterates is stream.py's.  How calls are run is tool_calls.py's, which of
them go round in circles loops.py's, what goes back to the model history.py's, and which
answer is of the type that was asked for output.py's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, Generator, List, NamedTuple, Optional, Tuple

from agentstream import checks
from agentstream.agent.asked import Asked, as_messages
from agentstream.agent.conversation import Conversation
from agentstream.agent.history import as_message, joined, made_by
from agentstream.agent.journal import AgentLog
from agentstream.agent.settings import AgentSettings
from agentstream.errors import AgentStreamError, Cancelled, LimitExceeded
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.llm.accumulator import Accumulator, tokens_per_second
from agentstream.llm.finish import remark_on
from agentstream.llm.history import is_empty
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta
from agentstream.llm.stream import as_delta_stream
from agentstream.results import ChatResponse, ToolCall, Usage
from agentstream.tools.context import RunContext

if TYPE_CHECKING:
    from agentstream.agent.loops import LoopDetector
    from agentstream.agent.output import TypedAnswers
    from agentstream.agent.tool_calls import Outcome

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
    ) -> None:
        self.turn: List[ChatMessage] = []
        self.tool_calls = 0
        self.output: Optional[AgentOutput] = None
        self.finish_reason: Optional[str] = None
        self.warnings: List[str] = []
        self.settings = self._agent = settings
        self._asked = as_messages(input)
        self._log = log
        self._context = context
        example = "Conversation(); a list of messages is what is asked: agent.run([...])"
        self._conversation: Optional[Conversation] = checks.instance(
            "conversation", conversation, Conversation, optional=True, example=example
        )
        self._answers: List[Accumulator] = []
        self._loops: Optional[LoopDetector] = None
        self._typed = _typed(settings, log)
        self.begun = 0

    def text(self) -> str:
        """What the agent has said so far, in all its answers."""
        return "".join(answer.text() for answer in self._answers)

    def usage(self) -> Usage:
        """What its requests have used so far, failed ones included as far as is known."""
        return sum((answer.response().usage for answer in self._answers), Usage())

    def texts(self) -> Generator[str, None, None]:
        """Run the agent: yields its text as it arrives; sets `output` at the end.

        Raises:
            AgentStreamError: whichever applies, with `partial`.
            RuntimeError: another run is under way with the conversation.
        """
        conversation = self._conversation
        with conversation.in_use() if conversation is not None else contextlib.nullcontext():
            started = time.monotonic()
            self._log.note(EventType.AGENT_PROCESSING, payloads.agent_processing())
            answered = False
            try:
                response = yield from self._rounds()
                took = time.monotonic() - started
                answered = True
                if conversation is not None:
                    conversation.add(*self.turn)
            except BaseException as error:  # Ctrl-C and a closed generator too
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

    def _add_stopped(self, conversation: Conversation) -> None:
        """Add a turn that was stopped or failed: its rounds, and the text of the last answer."""
        turn = list(self.turn)
        told = sum(message.role == "assistant" for message in turn)
        if len(self._answers) > told and self._answers[-1].text().strip():
            turn.append(ChatMessage.assistant(self._answers[-1].text()))
        try:
            conversation.add(*turn)
        except Exception:  # a store's: it must not hide why the run ended
            logger.exception("a stopped turn of %s is not in its conversation", self._agent.name)

    def _rounds(self) -> Generator[str, None, ChatResponse]:
        """Yield the text of all rounds; returns the last answer."""
        agent, most = self._agent, self._agent.limits.max_rounds
        before = [ChatMessage.system(agent.system_prompt)] if agent.system_prompt else []
        if self._conversation is not None:
            before += self._conversation.fitted(*self._asked)
        self.turn += self._asked
        typed = self._typed
        said = ""  # by answers that the server paused
        for number in itertools.count(1):
            wrong = () if typed is None else typed.messages
            messages = joined([*before, *self.turn, *wrong])
            request = ChatRequest(messages, **agent.of_round(number, again=bool(wrong)))
            self.begun += not said  # or the paused one goes on
            response = yield from self._ask(request, number)
            if response.tool_calls:
                self.tool_calls += len(response.tool_calls)
                if number >= most:
                    break  # nobody would read the results
                self.turn += self._call_tools(response)
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

    def _ask(self, request: ChatRequest, number: int) -> Generator[str, None, ChatResponse]:
        """One request: yields its text, publishes all it brings, returns the answer."""
        log, client = self._log, self._agent.client
        log.note(
            EventType.AGENT_LLM_REQUEST_STARTED,
            payloads.agent_llm_request_started(
                provider=client.provider, model=client.model, round=number
            ),
        )
        deltas = client.stream_deltas(request, cancel=self._context.cancel)
        stream = as_delta_stream(deltas, client.model)
        self._answers.append(stream.answer)
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
            failed = payloads.agent_llm_request_failed(error, round=number)
            log.note_failure(EventType.AGENT_LLM_REQUEST_FAILED, failed)
            raise
        finally:
            stream.close()
        return self._taken(stream.response, number)

    def _taken(self, response: ChatResponse, number: int) -> ChatResponse:
        """Publish an answer; returns it.

        Raises:
            LimitExceeded: it was cut, and the agent is to fail then.
        """
        self.finish_reason = response.finish_reason
        self.warnings += response.warnings
        _note_answer(response, number, self._log)
        remark = remark_on(response.finish_reason, self._agent.request.get("max_tokens"))
        if remark and self._agent.on_cut == "fail":
            raise LimitExceeded(
                f"agent {self._agent.name!r}: the answer {remark}; on_cut is 'fail'",
                limit="max_tokens",
                phase="stream",
                partial=response,
            )
        return response

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

    # --- tools ------------------------------------------------------------------------------

    def _call_tools(self, response: ChatResponse) -> List[ChatMessage]:
        """Run the calls of an answer; returns it, and the messages that answer the calls.

        Raises:
            LimitExceeded: a call has brought the same result once too often.
            Cancelled: the run was stopped meanwhile.
        """
        from agentstream.agent.loops import LoopDetector  # noqa: PLC0415 - only who has tools pays
        from agentstream.agent.tool_calls import ToolCalls  # noqa: PLC0415

        if self._loops is None:
            self._loops = LoopDetector(self._agent.limits.repeat_memory)
        self._loops.begin_answer()
        calls = made_by(response, self._agent.tools)
        keys = [self._key(call) for call in calls]
        # Of equal calls side by side, with none between them, one is made.
        again = [bool(key) and at > 0 and keys[at - 1] == key for at, key in enumerate(keys)]
        box = ToolCalls(self._agent, self._log, self._context)
        made = box.run([call for call, known in zip(calls, again) if not known])
        outcomes: List[Outcome] = []
        for known in again:
            outcomes.append(outcomes[-1] if known else made.pop(0))
        cancel = self._context.cancel
        if cancel.cancelled:
            told = [ChatMessage.tool(call.id, done.text) for call, done in zip(calls, outcomes)]
            self.turn += [as_message(response, calls), *told]
            raise Cancelled(
                f"stopped while tools ran: {cancel.reason}", phase="tool", partial=response
            )
        for call, outcome, known in zip(calls, outcomes, again):
            if known:
                box.note_started(call)
                box.note_completed(call, outcome.text, 0.0, repeated=True)
        results = [
            ChatMessage.tool(call.id, self._told(call, key, outcome, response, known=known))
            for call, key, outcome, known in zip(calls, keys, outcomes, again)
        ]
        return [as_message(response, calls), *results]

    def _key(self, call: ToolCall) -> str:
        """What tells a call from others; "" for one that may be made again and again."""
        from agentstream.agent.loops import same_call  # noqa: PLC0415

        tool = self._agent.tools.get(call.name)
        own = call.cut or (tool is not None and tool.repeatable)
        return "" if own else same_call(call)

    def _told(
        self, call: ToolCall, key: str, outcome: Outcome, response: ChatResponse, *, known: bool
    ) -> str:
        """What the model is told of a call: its result, with a remark if that is an old one."""
        limits = self._agent.limits
        if not key or self._loops is None:
            return outcome.text
        times = self._loops.count(key, outcome.text)
        if limits.repeat_limit is not None and times >= limits.repeat_limit:
            raise LimitExceeded(
                f"agent {self._agent.name!r} called tool {call.name[:64]!r} with the same"
                f" arguments in {times} answers, and had the same result each time"
                " (ToolLimits.repeat_limit)",
                limit="repeat_limit",
                phase="tool",
                partial=response,
            )
        if not outcome.ok or limits.repeat_memory == 0 or (times == 1 and not known):
            return outcome.text
        return (
            f"{outcome.text}\n\n[You have called {call.name} with these arguments before, and the"
            " result was the same. Do not call it so again; use the result.]"
        )


def _typed(settings: AgentSettings, log: AgentLog) -> Optional[TypedAnswers]:
    if settings.output is None:
        return None
    from agentstream.agent.output import TypedAnswers  # noqa: PLC0415 - only who has types pays

    return TypedAnswers(settings, settings.output, log)


def _note_rest(delta: Delta, log: AgentLog) -> None:
    if delta.reasoning:
        log.chunk(EventType.AGENT_LLM_REASONING_CHUNK, delta.reasoning)
    if delta.retry is not None:
        retried = payloads.agent_llm_request_retried(**delta.retry._asdict())
        log.note(EventType.AGENT_LLM_REQUEST_RETRIED, retried)


def _note_answer(response: ChatResponse, number: int, log: AgentLog) -> None:
    for warning in response.warnings:
        log.note(EventType.SYSTEM_WARNING, payloads.system_warning(warning))
    data = payloads.agent_llm_request_completed(
        round=number,
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
    log.note(EventType.AGENT_LLM_REQUEST_COMPLETED, data)
