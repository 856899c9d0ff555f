"""RunContext: what a tool may know about the run that called it.

A plain record, handed to a tool that asks for it by annotation.  No way back
into the run lives here but the token that tells the tool to stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentstream.cancel import CancelToken

__all__ = ["RunContext"]


@dataclass(frozen=True)
class RunContext:
    """Where a tool call belongs; annotate a tool's parameter with it to be given one.

    Attributes:
        workflow_id: the run's id; "" outside a run.
        agent: the name of the agent whose model asked.
        step: the workflow's step, as the events write it; "" outside a workflow.
        tool_call_id: the call's id, as the model's server gave it.
        cancel: ends when the run is stopped or the call is out of time.
    """

    workflow_id: str = ""
    agent: str = ""
    step: str = ""
    tool_call_id: str = ""
    cancel: CancelToken = field(default_factory=CancelToken)
