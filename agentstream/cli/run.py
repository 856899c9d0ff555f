"""agentstream run: a workflow file, run and shown."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence

from agentstream.cli.check import note_warnings
from agentstream.cli.durable import Kept, checkpoints_of, origin_of
from agentstream.cli.execute import execute, write_result
from agentstream.cli.exits import DONE
from agentstream.cli.fallback import tell_earlier
from agentstream.cli.lock import hold
from agentstream.cli.output import note, piped_in
from agentstream.cli.settings import advise, find_log, open_client, setting
from agentstream.console.terminal import is_terminal
from agentstream.errors import AgentStreamError, ConfigError
from agentstream.llm.messages import ChatMessage

if TYPE_CHECKING:
    import argparse

    from agentstream.results import WorkflowRun
    from agentstream.runtime.once import Earlier
    from agentstream.workflow import Workflow
    from agentstream.workflow_files import WorkflowFile

__all__ = ["build", "check_flags", "perform", "run", "with_retries", "write_earlier"]


def run(given: argparse.Namespace) -> int:
    """Run a workflow file; returns the exit code."""
    from agentstream.workflow_files import load_workflow  # noqa: PLC0415

    file = load_workflow(given.file, set=given.set)
    if given.verbose or (is_terminal(sys.stderr) and not given.quiet):  # cron would mail it
        note_warnings(file)
    check_flags(given, [file])
    checkpoints = checkpoints_of(given, [file], needed=given.resume is not None)
    if checkpoints is not None and setting(given, "log") is None:
        raise ConfigError("checkpoints are kept in a log, for who resumes the run: --log FILE")
    if checkpoints is None and file.waits:
        raise ConfigError(
            f"{file.label}: its runs wait for somebody's answer, which takes checkpoints: "
            "--checkpoints --log FILE"
        )
    kept = None if checkpoints is None else Kept(checkpoints, origin=origin_of(given))
    with hold(given.lock):
        if not (given.once or given.resume is not None):
            return perform(given, file, _input, workflow_id=given.id, kept=kept)
        earlier = _earlier(given)
        if earlier.run is not None:
            return write_earlier(given, earlier.run)
        if earlier.rests:
            checkpoints = checkpoints or checkpoints_of(given, [file], needed=True)
            assert checkpoints is not None
            kept = Kept(checkpoints, begins=False, origin=origin_of(given))
            return perform(given, file, None, workflow_id=earlier.workflow_id, kept=kept)
        if kept is not None:
            kept = kept._replace(goes_on=True)
        once = given.resume or given.id
        return perform(given, file, _input, workflow_id=earlier.workflow_id, once=once, kept=kept)


def perform(
    given: argparse.Namespace,
    file: WorkflowFile,
    read_input: Optional[Callable[[argparse.Namespace, WorkflowFile], str]],
    *,
    workflow_id: Optional[str],
    once: Optional[str] = None,
    kept: Optional[Kept] = None,
) -> int:
    """Build a file's workflow and run it, or go on with a run of it; returns the exit code.

    Args:
        read_input: what its input is; None: the run has it.
        workflow_id, once, kept: as `execute` has them.
    """
    with contextlib.ExitStack() as stack:
        input: Any = None if read_input is None else read_input(given, file)
        files = [*file.files, *getattr(given, "files", ())]
        if files and input is not None:
            input = ChatMessage.user(input, files).content
        workflow = with_retries(given, build(given, file, stack))
        try:
            return execute(
                given,
                workflow,
                input,
                log=find_log(given),
                context=dict(file.context),
                workflow_id=workflow_id,
                once=once,
                kept=kept,
            )
        except AgentStreamError as error:
            advise(error, given) if file.needs_client else tell_earlier(error)
            raise


def with_retries(given: argparse.Namespace, workflow: Workflow) -> Workflow:
    """The workflow, whose steps are tried again as `--retries` says, unless they say it."""
    retries = setting(given, "retries")
    for step in workflow.steps if retries else ():
        step.retries = step.retries or retries
    return workflow


def _earlier(given: argparse.Namespace) -> Earlier:
    """What the log knows of the run that is to be made once, or gone on with.

    Raises:
        Busy: it is under way.
        ConfigError: no id is given, or no log.
        LogError: as `agentstream.runtime.once.look`.
    """
    from agentstream.runtime.once import look  # noqa: PLC0415

    log, workflow_id = find_log(given), given.resume or given.id
    if workflow_id is None or log is None:
        raise ConfigError("--once needs --id ID, what is made once, and --log FILE, which tells")
    with log.open() as store:
        earlier = look(store, workflow_id)
        if given.resume is None:
            return earlier
        return look(store, workflow_id, resume=True)  # what kills its processes is not begun anew


def write_earlier(given: argparse.Namespace, run: WorkflowRun) -> int:
    """Write what a run came to that has been completed; returns the exit code."""
    for warning in () if given.quiet else run.warnings:
        note(f"agentstream: {warning}")
    write_result(given, run)
    return DONE


def check_flags(given: argparse.Namespace, files: Sequence[WorkflowFile]) -> None:
    """Refuse flags that would do nothing."""
    flags = [
        f"--{name.replace('_', '-')}"
        for name in ("provider", "model", "base_url", "fallback", "insecure", "api", "think_tags")
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
