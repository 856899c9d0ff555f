"""Workflow files: TOML that says what a workflow is made of (docs/workflow-files.rst).

problems.py holds what is wrong with one, reading.py gets its tables, parts.py,
conditions.py and steps.py read them, spec.py is what they come to, file.py what a
caller has of it, building.py makes it live, importing.py finds its functions,
describing.py tells of it.
"""

from __future__ import annotations

from agentstream.workflow_files.file import WorkflowFile, load_workflow

__all__ = ["WorkflowFile", "load_workflow"]
