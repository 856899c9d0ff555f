"""The tool calls of an agent's run, answer by answer: made, or known from before, and told.

How the calls of one answer are run is tool_calls.py's, which of them go round in circles
loops.py's; what is kept of them checkpoints.py's.
"""

from __future__ import annotations

from typing import List, Optional

from agentstream.agent.checkpoints import AgentCheckpoint, RoundCheckpoint
from agentstream.agent.history import as_message, made_by
from agentstream.agent.journal import AgentLog
from agentstream.agent.loops import LoopDetector, same_call
from agentstream.agent.settings import AgentSettings
from agentstream.agent.tool_calls import Made, Outcome, ToolCalls
from agentstream.errors import LimitExceeded
from agentstream.events.model import new_id
from agentstream.llm.messages import ChatMessage
from agentstream.results import ChatResponse, ToolCall
from agentstream.tools.context import RunContext

__all__ = ["ToolRounds"]


class ToolRounds:
    """The calls of one run.

    Args:
        agent: its tools and limits.
        log: where the calls' events go.
        context: the run, as its tools see it.
        checkpoint: keeps the calls; None: nothing is kept.
    """

    def __init__(
        self,
        agent: AgentSettings,
        log: AgentLog,
        context: RunContext,
        checkpoint: Optional[AgentCheckpoint],
    ) -> None:
        self._agent = agent
        self._log = log
        self._context = context
        self._checkpoint = checkpoint
        self._base = context.idempotency_key or new_id()
        self._loops = LoopDetector(agent.limits.repeat_memory)

    def answer(self, response: ChatResponse, number: int) -> List[ChatMessage]:
        """Run the calls of answer `number`; returns it, and the messages that answer them.

        Returns early once the run is stopped, with what the calls have come to.

        Raises:
            LimitExceeded: a call has brought the same result once too often.
            Suspended: somebody must decide about a call; the others have been made.
        """
        self._loops.begin_answer()
        calls = made_by(response, self._agent.tools)
        keys = [self._key(call) for call in calls]
        # Of equal calls side by side, with none between them, one is made.
        again = [bool(key) and at > 0 and keys[at - 1] == key for at, key in enumerate(keys)]
        round = self._round(number)
        box = ToolCalls(self._agent, self._log, self._context, round)
        made = box.run([Made(at, call) for at, call in enumerate(calls) if not again[at]])
        outcomes: List[Outcome] = []
        for known in again:
            outcomes.append(outcomes[-1] if known else made.pop(0))
        if self._context.cancel.cancelled:
            told = [ChatMessage.tool(call.id, done.text) for call, done in zip(calls, outcomes)]
            return [as_message(response, calls), *told]
        for call, outcome, known in zip(calls, outcomes, again):
            if known:
                box.note_started(call)
                box.note_completed(call, outcome.text, 0.0, repeated=True)
        results = [
            ChatMessage.tool(call.id, self._told(call, key, outcome, response, known=known))
            for call, key, outcome, known in zip(calls, keys, outcomes, again)
        ]
        return [as_message(response, calls), *results]

    def _round(self, number: int) -> RoundCheckpoint:
        kept = self._checkpoint
        if kept is None:
            return RoundCheckpoint(self._base, number, None, "")
        return RoundCheckpoint(self._base, number, kept.keeper, kept.place)

    def _key(self, call: ToolCall) -> str:
        """What tells a call from others; "" for one that may be made again and again."""
        tool = self._agent.tools.get(call.name)
        own = call.cut or (tool is not None and tool.repeatable)
        return "" if own else same_call(call)

    def _told(
        self, call: ToolCall, key: str, outcome: Outcome, response: ChatResponse, *, known: bool
    ) -> str:
        """What the model is told of a call: its result, with a remark if that is an old one."""
        limits = self._agent.limits
        if not key:
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
