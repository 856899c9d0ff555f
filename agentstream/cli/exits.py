"""How a command ends: its exit code, and the line that says why.

0   done
1   failed, or was stopped by somebody else
2   usage error: an argument, a setting, a file
3   the run is suspended: it waits for somebody's answer
75  another process holds the lock, or runs what is to be run once (EX_TEMPFAIL of sysexits.h)
124 the deadline has passed (as timeout(1) says it)
129, 130, 143: ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from agentstream.errors import AgentStreamError, Busy, Cancelled, ConfigError, WorkflowFailed

if TYPE_CHECKING:
    from agentstream.results import StepResult, WorkflowRun

__all__ = [
    "DONE",
    "FAILED",
    "LATE",
    "LOCKED",
    "SUSPENDED",
    "UNKNOWN",
    "USAGE",
    "Interrupted",
    "code_of",
    "line_of",
]

DONE, FAILED, USAGE, SUSPENDED, LOCKED, LATE = 0, 1, 2, 3, 75, 124
UNKNOWN = -1

#: Characters of what had arrived that the line shows.
_TAIL = 60


class Interrupted(KeyboardInterrupt):
    """The command is to end, with this exit code: the deadline, or a signal."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.run: Optional[WorkflowRun] = None
        self.text: Optional[str] = None  # what had arrived
        self.advice = ""  # how to go on


def code_of(error: BaseException) -> int:
    """The exit code an error comes to; `UNKNOWN` for a fault of ours, or SystemExit."""
    if isinstance(error, Interrupted):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Busy):
        return LOCKED
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, (AgentStreamError, OSError)):
        return FAILED
    return UNKNOWN


def line_of(error: BaseException) -> str:
    """What an error says on standard error: one line, of a file's problems one each."""
    if isinstance(error, ConfigError):
        return str(error)  # a file's problems are a line each
    return " ".join(_told(error).split())


def _told(error: BaseException) -> str:
    run: Optional[WorkflowRun] = getattr(error, "run", None)
    if isinstance(error, KeyboardInterrupt):
        text = str(error) or "stopped by Ctrl-C"
        if run is not None:
            text += f" in run {run.workflow_id}{_where(run)}"
        advice: str = getattr(error, "advice", "")
        return text + _arrived(error, run) + (f"; {advice}" if advice else "")
    text = str(error) or type(error).__name__
    plain = isinstance(error, (WorkflowFailed, Cancelled, Busy))
    if not plain and isinstance(error, AgentStreamError):  # its timeouts are OSErrors as well
        text = f"{type(error).__name__}: {text}"
    return text + _arrived(error, run)


def _where(run: WorkflowRun) -> str:
    step = _last(run)
    return "" if step is None else f", step {step.name!r}"


def _last(run: WorkflowRun) -> Optional[StepResult]:
    """The step that was under way."""
    found = None
    steps = run.steps
    while steps:
        found = next((step for step in steps if step.status != "completed"), steps[-1])
        steps = found.steps
    return found


def _arrived(error: BaseException, run: Optional[WorkflowRun]) -> str:
    """What had arrived: how much, and its end."""
    text: Any = getattr(error, "text", None)
    if run is not None:
        step = _last(run)
        text = run.output if step is None else step.output
    elif text is None and isinstance(error, AgentStreamError) and error.partial is not None:
        text = error.partial.content
    if text is None:
        return ""
    if not isinstance(text, str):
        text = str(text)
    if not text:
        return "; nothing had arrived"
    tail = " ".join(text[-4 * _TAIL :].split())[-_TAIL:]
    dots = "" if len(text) <= _TAIL else "..."
    return f'; {len(text)} characters had arrived: "{dots}{tail}"'
