"""agentstream run: a workflow file, run and shown."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Optional, Sequence

from agentstream.cli.check import note_warnings
from agentstream.cli.execute import execute, write_result
from agentstream.cli.exits import DONE
from agentstream.cli.lock import hold
from agentstream.cli.output import note, piped_in
from agentstream.cli.settings import advise, open_client, setting
from agentstream.console.terminal import is_terminal
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.messages import ChatMessage

if TYPE_CHECKING:
    import argparse

    from agentstream.workflow import Workflow
    from agentstream.workflow_files import WorkflowFile

__all__ = ["build", "check_flags", "run"]


def run(given: argparse.Namespace) -> int:
    """Run a workflow file; returns the exit code."""
    from agentstream.workflow_files import load_workflow  # noqa: PLC0415

    file = load_workflow(given.file, set=given.set)
    if given.verbose or (is_terminal(sys.stderr) and not given.quiet):  # cron would mail it
        note_warnings(file)
    check_flags(given, [file])
    with hold(given.lock), contextlib.ExitStack() as stack:
        workflow_id = _once(given) if given.once else given.id
        if given.once and workflow_id is None:
            return DONE
        input: Any = _input(given, file)
        files = [*file.files, *given.files]
        if files:
            input = ChatMessage.user(input, files).content
        workflow = build(given, file, stack)
        retries = setting(given, "retries")
        for step in workflow.steps if retries else ():
            step.retries = step.retries or retries
        try:
            return execute(
                given,
                workflow,
                input,
                log=setting(given, "log"),
                context=dict(file.context),
                workflow_id=workflow_id,
            )
        except AgentStreamError as error:
            if file.needs_client:
                advise(error, given)
            raise


def _once(given: argparse.Namespace) -> Optional[str]:
    """The id for a run that is to be made once; None: it has been, and its output is written.

    Raises:
        Busy: it is under way.
    """
    from agentstream.events.sqlite import SqliteStore  # noqa: PLC0415
    from agentstream.runtime.once import look  # noqa: PLC0415

    log = setting(given, "log")
    if given.id is None or log is None:
        raise ConfigError("--once needs --id ID, what is made once, and --log FILE, which tells")
    with SqliteStore(log) as store:
        earlier = look(store, given.id)
    if earlier.run is None:
        return earlier.workflow_id
    for warning in () if given.quiet else earlier.run.warnings:
        note(f"agentstream: {warning}")
    write_result(given, earlier.run)
    return None


def check_flags(given: argparse.Namespace, files: Sequence[WorkflowFile]) -> None:
    """Refuse flags that would do nothing."""
    flags = [
        f"--{name.replace('_', '-')}"
        for name in ("provider", "model", "base_url", "insecure", "api", "think_tags")
        if getattr(given, name) is not None
    ]
    if not flags or any(file.needs_client for file in files):
        return
    if not files:
        raise ConfigError(f"{', '.join(flags)}: only for workflow files, and none is given")
    names = ", ".join(file.label for file in files)
    raise ConfigError(
        f"{', '.join(flags)}: {names} has clients of its own; use --set clients.NAME.model=..."
    )


def build(given: argparse.Namespace, file: WorkflowFile, stack: contextlib.ExitStack) -> Workflow:
    """The live workflow; `stack` closes what it took."""
    from agentstream.local import ProgressBar  # noqa: PLC0415

    with ProgressBar() as bar:  # for the embedded model, which is fetched once
        built = file.build(
            environ=os.environ, default_client=lambda: open_client(given, stack), progress=bar
        )
        return stack.enter_context(built)


def _input(given: argparse.Namespace, file: WorkflowFile) -> str:
    """`--input` ("-": standard input), else what is piped in, else the file's own."""
    own, named = file.input, given.input == "-"
    asked = None if named else given.input
    piped = None
    if asked is None:
        piped = piped_in(needed=named or not own, quiet=given.quiet, named=named)
    for found in (asked, piped, None if named else own):
        if found is not None and (found is asked or found.strip()):
            return str(found)
    raise ConfigError(
        f"what is the input? use --input TEXT, pipe it in, or write input = ... into {given.file}"
    )
