"""The old name of `agentstream.workflow_files`; it goes after 0.2."""

from agentstream.workflow_files import WorkflowFile, load_workflow

__all__ = ["WorkflowFile", "load_workflow"]
