"""AgentTool: an agent that another agent may call.

A run within a run: with a log of its own, where the calling run has one, that
names the calling run as its parent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Mapping, Optional

from agentstream.cancel import CancelToken
from agentstream.events.model import new_id
from agentstream.events.stream import RunLog
from agentstream.tools.context import RunContext
from agentstream.tools.tool import Tool
from agentstream.workflow import Execution, Workflow

if TYPE_CHECKING:
    from agentstream.agent.agent import Agent

__all__ = ["AgentTool"]

_PARAMETERS = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "What to do, with all that must be known."}
    },
    "required": ["input"],
    "additionalProperties": False,
}


class AgentTool(Tool):
    """A tool that runs an agent; made by `Agent.as_tool`."""

    def __init__(
        self, agent: Agent, description: str, *, name: Optional[str], timeout: Optional[float]
    ) -> None:
        def ask(input: str, cancel: CancelToken) -> str:
            return agent.execute(input, cancel=cancel).response

        named = re.sub(r"[^a-zA-Z0-9_-]", "_", agent.name)[:64] if name is None else name
        super().__init__(named, description, _PARAMETERS, ask, timeout=timeout)
        self.agent = agent

    def call_within(
        self, arguments: Mapping[str, Any], cancel: CancelToken, log: Optional[RunLog]
    ) -> str:
        """As `call`, within the run that `log` belongs to.

        Raises:
            AgentStreamError: what ended the agent's run.
        """
        if log is None:
            text: str = self.call(arguments, cancel, RunContext(cancel=cancel))
            return text
        own = log.open_child(new_id())
        workflow = Workflow(self.agent.name, [self.agent])
        output: str = Execution(workflow, own, cancel).run(arguments["input"]).output
        return output
