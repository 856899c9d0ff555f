"""One run of an agent: ask the model, publish what it says, run its tools, ask again.

`AgentRun.rounds` is the one generator that does it.  What an agent is, and how
its text is handed out, is agent.py's; how calls are run, tool_runs.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Generator, List, Optional, Tuple

from agentstream.agent.journal import Scribe
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, LimitExceeded
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.llm.messages import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    Content,
    Delta,
    ToolCall,
    Usage,
)
from agentstream.llm.stream import as_delta_stream

if TYPE_CHECKING:
    from agentstream.agent.agent import Agent
    from agentstream.agent.conversation import Conversation
    from agentstream.agent.loops import Repeats
    from agentstream.agent.tool_calls import Outcome

__all__ = ["AgentRun"]


class AgentRun:
    """One run.  Iterated by one thread, once.

    Attributes:
        turn: what was said in it, the user's message first: the new part of the
            conversation.
        tool_calls: how many tool calls the model has made.
    """

    def __init__(
        self,
        agent: Agent,
        scribe: Scribe,
        cancel: CancelToken,
        conversation: Optional[Conversation],
    ) -> None:
        self._agent = agent
        self._scribe = scribe
        self._cancel = cancel
        self._conversation = conversation
        self._repeats: Optional[Repeats] = None
        self.turn: List[ChatMessage] = []
        self.tool_calls = 0

    def rounds(self, input: Content) -> Generator[str, None, Tuple[ChatResponse, Usage]]:
        """Yield the text of all rounds; the value is the last answer, and the usage of all."""
        agent = self._agent
        user = ChatMessage.user(input)
        before = [ChatMessage.system(agent.system_prompt)] if agent.system_prompt else []
        if self._conversation is not None:
            before += self._conversation.fitted(user)
        self.turn.append(user)
        usage: Optional[Usage] = None
        for number in range(1, agent.max_rounds + 1):
            request = ChatRequest([*before, *self.turn], **agent.settings_of(number))
            response = yield from self._ask(request, number)
            usage = response.usage if usage is None else usage + response.usage
            if not response.tool_calls:
                self.turn.append(ChatMessage.assistant(response.content))
                return response, usage
            self.tool_calls += len(response.tool_calls)
            if number < agent.max_rounds:  # nobody would read the results of the last one
                results = self._call_tools(response)
                said = ChatMessage.assistant(response.content or None, response.tool_calls)
                self.turn += [said, *results]
        raise LimitExceeded(
            f"agent {agent.name!r} made {agent.max_rounds} requests and still calls tools"
            " (Agent.max_rounds)",
            limit="max_rounds",
            phase="tool",
            partial=response,
        )

    def _ask(self, request: ChatRequest, number: int) -> Generator[str, None, ChatResponse]:
        """One request: yields its text, publishes all it brings, returns the answer."""
        scribe = self._scribe
        client = self._agent.client
        scribe.note(
            EventType.AGENT_LLM_REQUEST_STARTED,
            payloads.agent_llm_request_started(
                provider=client.provider, model=client.model, round=number
            ),
        )
        stream = as_delta_stream(client.stream_deltas(request, cancel=self._cancel), client.model)
        scribe.answers.append(stream.answer)
        try:
            for delta in stream.deltas:
                content = delta[0]
                if delta[1] or delta[7]:
                    _note_rest(delta, scribe)
                if content:
                    scribe.chunk(EventType.AGENT_LLM_STREAM_CHUNK, content)
                    yield content
        except BaseException as error:
            if isinstance(error, AgentStreamError) and error.partial is None:
                error.partial = stream.response
            failed = payloads.agent_llm_request_failed(error, round=number)
            scribe.note_failure(EventType.AGENT_LLM_REQUEST_FAILED, failed)
            raise
        finally:
            stream.close()
        response = stream.response
        _note_answer(response, number, scribe)
        return response

    # --- tools ------------------------------------------------------------------------------

    def _call_tools(self, response: ChatResponse) -> List[ChatMessage]:
        """The messages that answer the calls, in their order."""
        calls = response.tool_calls
        keys = self._count(response)
        earlier = {key: self._remembered(key) for key in keys if key}
        fresh: Dict[str, int] = {}  # where the outcome of a call will be
        to_run: List[ToolCall] = []
        places: List[Optional[int]] = []
        for call, key in zip(calls, keys):
            place = fresh.get(key) if key else None
            if place is None and earlier.get(key) is None:
                place = len(to_run)
                to_run.append(call)
                if key:
                    fresh[key] = place
                places.append(place)
            else:
                places.append(None)
        outcomes = self._agent.toolbox.run(to_run, self._scribe, self._cancel) if to_run else []
        if self._cancel.cancelled:
            raise Cancelled(
                f"stopped while tools ran: {self._cancel.reason}", phase="tool", partial=response
            )
        texts = []
        for call, key, own in zip(calls, keys, places):
            if own is not None:
                texts.append(outcomes[own].text)
                self._keep(key, outcomes[own])
            else:
                known = earlier[key]
                texts.append(
                    self._again(call, outcomes[fresh[key]].text if known is None else known)
                )
        return [ChatMessage.tool(call.id, text) for call, text in zip(calls, texts)]

    def _count(self, response: ChatResponse) -> List[str]:
        """What tells each call from others; "" for one that may be made again and again.

        Raises:
            LimitExceeded: a call was made once too often.
        """
        from agentstream.agent.loops import Repeats, same_call  # noqa: PLC0415 - only who has tools pays

        agent = self._agent
        if self._repeats is None:
            self._repeats = Repeats(agent.repeat_memory)
        keys = []
        for call in response.tool_calls:
            tool = agent.tools.get(call.name)
            own = call.cut or (tool is not None and tool.repeatable)
            keys.append("" if own else same_call(call))
        most = self._repeats.begin_turn(key for key in keys if key)
        limit = agent.repeat_limit
        if limit is not None and most is not None and self._repeats.count(most) >= limit:
            name = most.partition("\n")[0][:64]
            raise LimitExceeded(
                f"agent {agent.name!r} called tool {name!r} with the same arguments in {limit}"
                " answers (Agent.repeat_limit)",
                limit="repeat_limit",
                phase="tool",
                partial=response,
            )
        return keys

    def _remembered(self, key: str) -> Optional[str]:
        return None if self._repeats is None else self._repeats.result(key)

    def _keep(self, key: str, outcome: Outcome) -> None:
        # What failed may work the next time.
        if key and outcome.ok and self._repeats is not None:
            self._repeats.keep(key, outcome.text)

    def _again(self, call: ToolCall, text: str) -> str:
        """The answer to a call that need not be made: the earlier result, with a remark."""
        from agentstream.agent.tool_calls import note_completed, note_started  # noqa: PLC0415

        note_started(self._scribe, call)
        note_completed(self._scribe, call, text, None, repeated=True)
        return (
            f"{text}\n\n[You have called {call.name} with these arguments before: this is the"
            " earlier result. Do not call it so again; use the result.]"
        )


def _note_rest(delta: Delta, scribe: Scribe) -> None:
    if delta.reasoning:
        scribe.chunk(EventType.AGENT_LLM_REASONING_CHUNK, delta.reasoning)
    if delta.retry is not None:
        retried = payloads.agent_llm_request_retried(**delta.retry._asdict())
        scribe.note(EventType.AGENT_LLM_REQUEST_RETRIED, retried)


def _note_answer(response: ChatResponse, number: int, scribe: Scribe) -> None:
    for warning in response.warnings:
        scribe.note(EventType.SYSTEM_WARNING, payloads.system_warning(warning))
    data = payloads.agent_llm_request_completed(
        round=number,
        model=response.model,
        finish_reason=response.finish_reason,
        usage=response.usage.to_dict(),
        first_token_s=response.first_token_s,
        duration_s=response.duration_s,
        tokens_per_second=response.tokens_per_second,
        warnings=response.warnings,
    )
    scribe.note(EventType.AGENT_LLM_REQUEST_COMPLETED, data)
