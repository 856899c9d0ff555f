"""AgentStream: an agent's text, or its value, as it arrives; and an agent run by another's tool."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Iterator, Optional

from agentstream.agent.asked import Asked
from agentstream.agent.journal import AgentLog
from agentstream.agent.run import AgentOutput, AgentRun
from agentstream.agent.settings import AgentSettings
from agentstream.cancel import CancelToken
from agentstream.errors import AgentStreamError, Cancelled, ConfigError, WorkflowFailed
from agentstream.events.model import new_id
from agentstream.events.stream import RunLog
from agentstream.llm.stream import GuardedStream
from agentstream.text import safe_str
from agentstream.tools.context import RunContext, RunWithin

if TYPE_CHECKING:
    from agentstream.agent.budget import Spending
    from agentstream.agent.conversation import Conversation
    from agentstream.schema.output import Output

__all__ = ["AgentStream", "drain"]


class AgentStream(GuardedStream[str]):
    """An agent's text as it arrives.  `output` is there once it has ended.

    Args:
        settings: the agent.
        input: what it is asked.
        log: the run's log; None for no events.
        cancel: the caller's token.
        conversation: as in `Agent.stream`.
        spending: what its requests count on, besides its own budget.
    """

    def __init__(
        self,
        settings: AgentSettings,
        input: Asked,
        log: Optional[RunLog],
        cancel: Optional[CancelToken] = None,
        conversation: Optional[Conversation] = None,
        *,
        spending: Optional[Spending] = None,
    ) -> None:
        super().__init__(cancel)
        bound = AgentLog(log, settings.name)
        context = RunContext(
            bound.workflow_id,
            settings.name,
            cancel=self._cancel,
            within=_within(log),
            spending=spending,
        )
        self._run = AgentRun(settings, input, bound, context, conversation)
        self._items = self._run.texts()

    def values(self) -> Iterator[Any]:
        """The value of the agent's answer as it arrives; see `TextStream.values`.

        Raises:
            ConfigError: the agent has no `output`.
        """
        if self._run.settings.output is None:
            raise ConfigError("values() is of an answer with a type: give the agent an output=")
        return self._values(self._run.settings.output)

    def _values(self, output: Output) -> Iterator[Any]:
        from agentstream.llm.output.judge import growing  # noqa: PLC0415 - only who has types pays

        run = self._run
        yield from growing(output, self, run)
        yield self.output.value

    @property
    def output(self) -> AgentOutput:
        """The `AgentOutput`.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        if self._run.output is None:
            raise RuntimeError("there is no output before the stream has been read to its end")
        return self._run.output


def _within(log: Optional[RunLog]) -> RunWithin:
    """How an agent is run within one that belongs to no workflow.

    Its events, if there are any, are a log of their own, which names that one as its parent.
    """

    def run(agent: Any, input: Any, context: RunContext) -> Any:
        child = None if log is None else log.open_child(new_id())
        try:
            settings = agent.settings
            cancel, spending = context.cancel, context.spending
            stream = AgentStream(settings, input, child, cancel, spending=spending)
            output = contextvars.copy_context().run(drain, stream)  # as execute_with_events
            return output.response if settings.output is None else output.value
        except Cancelled:
            raise
        except Exception as error:
            known = error if isinstance(error, AgentStreamError) else AgentStreamError()
            raise WorkflowFailed(
                f"agent {agent.name!r} failed: {type(error).__name__}: {safe_str(error)}",
                partial=known.partial,
                phase=known.phase,
                retryable=known.retryable,
                request_id=known.request_id,
                outcome=known.outcome,
            ) from error

    return run


def drain(stream: AgentStream) -> AgentOutput:
    """Read a stream to its end; returns its output."""
    with stream:
        for _ in stream:
            pass
        return stream.output
