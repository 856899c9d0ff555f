"""agentstream check: what a workflow file would do, in words and as a flowchart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agentstream.cli.exits import DONE
from agentstream.cli.output import Output, note

if TYPE_CHECKING:
    import argparse

    from agentstream.workflow_files import WorkflowFile

__all__ = ["check", "note_warnings"]


def check(given: argparse.Namespace) -> int:
    """Say what a workflow file would do; returns the exit code."""
    from agentstream.workflow_files import load_workflow  # noqa: PLC0415

    file = load_workflow(given.file, set=given.set)
    note_warnings(file)
    output = Output(sys.stdout)
    if not given.mermaid:
        output.write(file.describe().rstrip("\n") + "\n\n")
    output.write(file.to_mermaid())
    output.end_line()
    return DONE


def note_warnings(file: WorkflowFile) -> None:
    """Say what is odd about a file."""
    for warning in file.warnings:
        note(f"agentstream: warning: {warning}")
