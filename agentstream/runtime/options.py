"""What a run is told when it is submitted, by keyword; and the checks of it."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

from agentstream import checks
from agentstream.agent.agent import Agent
from agentstream.agent.asked import as_conversation
from agentstream.agent.budget import Budget
from agentstream.errors import ConfigError
from agentstream.llm.client import ChatClient
from agentstream.workflow import Workflow

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    from agentstream.agent.conversation import Conversation

    class RunKeywords(TypedDict, total=False):
        """The keywords of `Runtime.submit`, for `run` and `stream`, which hand them on."""

        workflow_id: Optional[str]
        context: Optional[Dict[str, Any]]
        conversation: Optional[Conversation]
        timeout: Optional[float]
        lock: Optional[str]
        once: bool
        resume: bool
        budget: Optional[Budget]


__all__ = ["HINTS", "OPTIONS", "SETTINGS_HINTS", "RunOptions", "as_workflow"]

#: The keys of `RunKeywords`.
OPTIONS = ("workflow_id", "context", "conversation", "timeout", "lock", "once", "resume", "budget")

#: Keywords that runs have elsewhere -> what is written here.
HINTS: Dict[str, str] = {
    "stream": "runtime.stream(workflow, input) yields the events of the run",
    "cancel": "runtime.submit(...).cancel() stops a run, or runtime.stop_generation(workflow_id)",
    "id": "it is workflow_id=",
    "run_id": "it is workflow_id=",
    "deadline": "it is timeout=",
    "history": "it is conversation=",
    "callback": "runtime.event_stream.subscribe(callback) is told of all runs",
    **dict.fromkeys(("max_cost", "max_budget"), "it is budget=Budget(cost=0.20)"),
    "retries": "a step has them: Step(agent, retries=2); so has a client, for its requests",
    **dict.fromkeys(
        ("model", "temperature", "max_tokens", "tools", "system_prompt", "output"),
        "an Agent has it; a run takes it as it is",
    ),
}

#: Settings of a runtime by other names -> what is written here.
SETTINGS_HINTS: Dict[str, str] = {
    "workers": "it is max_workers=",
    "threads": "it is max_workers=",
    **dict.fromkeys(
        ("log", "store", "db", "path"), 'it is event_stream=EventStream(SqliteStore("runs.db"))'
    ),
    "client": "an Agent has it: Agent(name, client=client)",
    "timeout": "a run has it: runtime.run(workflow, input, timeout=60)",
}

#: What to write instead of what cannot be run.
_EXAMPLES: Dict[type, str] = {
    list: ': Workflow("name", [...])',
    tuple: ': Workflow("name", [...])',
    ChatClient: ': Agent("name", client=client)',
    FunctionType: ': Workflow("name", [function])',
    object: "",
}


class RunOptions(NamedTuple):
    """What a run is told besides its workflow and its input; as `Runtime.submit` has it."""

    workflow_id: Optional[str] = None
    context: Optional[Dict[str, Any]] = None
    conversation: Optional[Conversation] = None
    timeout: Optional[float] = None
    lock: Optional[str] = None
    once: bool = False
    resume: bool = False
    budget: Optional[Budget] = None

    def checked(self) -> RunOptions:
        """The options.

        Raises:
            ConfigError: one cannot be used.
        """
        if self.context is not None and not isinstance(self.context, dict):
            raise ConfigError(f"context must be a dict, not {type(self.context).__name__}")
        if checks.flag("once", self.once) and self.workflow_id is None:
            raise ConfigError("once=True needs a workflow_id: what is to be made once?")
        if checks.flag("resume", self.resume) and self.workflow_id is None:
            raise ConfigError("resume=True needs a workflow_id: what is to be resumed?")
        as_conversation(self.conversation)
        checks.instance("budget", self.budget, Budget, optional=True)
        return self._replace(timeout=checks.seconds("timeout", self.timeout, optional=True))


def as_workflow(what: Any, *, conversation: bool) -> Workflow:
    """The workflow to run; an agent is one of one step.

    Raises:
        ConfigError: it is neither, or a workflow that is to have a conversation.
    """
    if isinstance(what, Agent):
        return Workflow(what.name, [what])
    if not isinstance(what, Workflow):
        example = _EXAMPLES[next(kind for kind in _EXAMPLES if isinstance(what, kind))]
        raise ConfigError(f"expected a Workflow or an Agent, not {type(what).__name__}{example}")
    if conversation:
        raise ConfigError(
            f"a conversation is an agent's, and {what!r} is a workflow: "
            "runtime.run(agent, text, conversation=...)"
        )
    return what
