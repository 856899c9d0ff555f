"""agentstream check: what a workflow file would do, in words and as a flowchart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agentstream.cli.exits import DONE, FAILED
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
    fine = True
    if not given.mermaid:
        output.write(file.describe().rstrip("\n") + "\n\n")
        fine = given.offline or _tell_offers(file, output)
    output.write(file.to_mermaid())
    output.end_line()
    return DONE if fine else FAILED


def _tell_offers(file: WorkflowFile, output: Output) -> bool:
    """List what its MCP servers offer; False if one does not answer."""
    if not has_servers(file):
        return True
    from agentstream.cli.tools import tell_offers  # noqa: PLC0415

    output.write("Its MCP servers offer:\n")
    fine = tell_offers(file, output)
    output.write("\n")
    return fine


def has_servers(file: WorkflowFile) -> bool:
    """True if it, or a file within it, has MCP servers."""
    return bool(file.servers) or any(map(has_servers, file.nested))  # type: ignore[arg-type]


def note_warnings(file: WorkflowFile) -> None:
    """Say what is odd about a file."""
    for warning in file.warnings:
        note(f"agentstream: warning: {warning}")
