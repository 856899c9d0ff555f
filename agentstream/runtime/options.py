"""What a run is told when it is submitted, by keyword; and the checks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

from agentstream import checks
from agentstream.agent.agent import Agent
from agentstream.agent.conversation import Conversation
from agentstream.errors import ConfigError
from agentstream.workflow import Workflow

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    class RunKeywords(TypedDict, total=False):
        """The keywords of `Runtime.submit`, for `run` and `stream`, which hand them on."""

        workflow_id: Optional[str]
        context: Optional[Dict[str, Any]]
        conversation: Optional[Conversation]
        timeout: Optional[float]
        lock: Optional[str]
        once: bool


__all__ = ["RunOptions", "as_workflow"]


class RunOptions(NamedTuple):
    """What a run is told besides its workflow and its input; as `Runtime.submit` has it."""

    workflow_id: Optional[str] = None
    context: Optional[Dict[str, Any]] = None
    conversation: Optional[Conversation] = None
    timeout: Optional[float] = None
    lock: Optional[str] = None
    once: bool = False

    def checked(self) -> RunOptions:
        """The options.

        Raises:
            ConfigError: one cannot be used.
        """
        if self.context is not None and not isinstance(self.context, dict):
            raise ConfigError(f"context must be a dict, not {type(self.context).__name__}")
        if checks.flag("once", self.once) and self.workflow_id is None:
            raise ConfigError("once=True needs a workflow_id: what is to be made once?")
        checks.instance("conversation", self.conversation, Conversation, optional=True)
        return self._replace(timeout=checks.seconds("timeout", self.timeout, optional=True))


def as_workflow(what: Any, *, conversation: bool) -> Workflow:
    """The workflow to run; an agent is one of one step.

    Raises:
        ConfigError: it is neither, or a workflow that is to have a conversation.
    """
    if isinstance(what, Agent):
        return Workflow(what.name, [what])
    if not isinstance(what, Workflow):
        raise ConfigError(f"expected a Workflow or an Agent, not {type(what).__name__}")
    if conversation:
        raise ConfigError(
            f"a conversation is an agent's, and {what!r} is a workflow: "
            "runtime.run(agent, text, conversation=...)"
        )
    return what
