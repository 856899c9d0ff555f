"""Workflows: what is done in which order, by agents, by functions, and by workflows.

definition.py says what there is to do, shapes.py in which shapes, execution.py
does it, results.py is what came of it, mermaid.py draws it.
"""

from __future__ import annotations

from agentstream.results import StepResult, WorkflowRun
from agentstream.workflow.definition import Step, Workflow
from agentstream.workflow.execution import Execution

__all__ = ["Execution", "Step", "StepResult", "Workflow", "WorkflowRun"]
