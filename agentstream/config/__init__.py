"""The old name of `agentstream.workflow_files`; it works until 0.3."""

from agentstream.workflow_files import WorkflowFile, load_workflow

__all__ = ["WorkflowFile", "load_workflow"]
