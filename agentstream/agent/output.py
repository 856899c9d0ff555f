"""The answers of a run whose agent has an `output`: which one is right, and what goes back."""

from __future__ import annotations

from typing import List, Optional

from agentstream.agent.history import as_message
from agentstream.agent.journal import AgentLog
from agentstream.agent.settings import AgentSettings
from agentstream.errors import OutputInvalid
from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.llm.messages import ChatMessage
from agentstream.llm.output.judge import Wrong, judge
from agentstream.results import ChatResponse
from agentstream.schema.output import Answer, Output

__all__ = ["TypedAnswers"]


class TypedAnswers:
    """The answers of one run.

    Args:
        settings: the agent.
        output: what the answer is to be.
        log: where the run's events go.

    Attributes:
        answer: the right one's value; None before there is one.
        messages: the last wrong one and what is wrong with it, for the next request.
    """

    def __init__(self, settings: AgentSettings, output: Output, log: AgentLog) -> None:
        self.answer: Optional[Answer] = None
        self.messages: List[ChatMessage] = []
        self._output = output
        self._log = log
        self._left = output.retries
        # A server that takes no schema beside tools could not hold the first answer to it.
        self._is_first_free = bool(settings.tools) and not settings.client.schema_with_tools

    def take(self, response: ChatResponse) -> bool:
        """True if `response` is right; False if the model is to be asked again.

        Raises:
            OutputInvalid: it is wrong, and no further one is due.
        """
        try:
            self.answer = judge(self._output, response)
        except Wrong as wrong:
            self._take_wrong(wrong, response)
            return False
        self._log.note(EventType.AGENT_OUTPUT, payloads.agent_output(self.answer.plain))
        return True

    def _take_wrong(self, wrong: Wrong, response: ChatResponse) -> None:
        free, self._is_first_free = self._is_first_free, False
        again = not wrong.cut and (free or self._left > 0)
        self._log.note(
            EventType.AGENT_OUTPUT_INVALID,
            payloads.agent_output_invalid(wrong.problems, will_retry=again),
        )
        if not again:
            error: OutputInvalid = wrong.error()
            raise error from wrong.__cause__
        self._left -= not free
        answer = [as_message(response, ())] if response.content.strip() else []
        self.messages = [*answer, ChatMessage.user(wrong.correction)]
