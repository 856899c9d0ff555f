"""How a command ends: exit codes, the line that says why, deadline, signals.

0   done
1   failed, or was stopped by somebody else
2   asked for wrongly: an argument, a setting, a file
75  another process holds the lock (EX_TEMPFAIL of sysexits.h)
124 the deadline has passed (as timeout(1) says it)
129, 130, 143: ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

from agentstream import threads
from agentstream.console.terminal import harmless
from agentstream.errors import AgentStreamError, Cancelled, ConfigError, WorkflowFailed

if TYPE_CHECKING:
    import argparse

    from agentstream.results import StepResult, WorkflowRun

__all__ = ["DONE", "FAILED", "LOCKED", "WRONG", "Interrupted", "Locked", "conduct", "note", "say"]

DONE, FAILED, WRONG, LOCKED, LATE = 0, 1, 2, 75, 124
_UNKNOWN = -1  # a fault of ours, or SystemExit: its own traceback, its own code

#: Seconds from the deadline, or a signal, to the end of a process that does not end.
_MOST_S = 8.0
#: Characters of what had arrived that the line shows.
_TAIL = 60


class Locked(AgentStreamError):
    """Another process holds the lock."""


class Interrupted(KeyboardInterrupt):
    """The command is to end, with this exit code: the deadline, or a signal."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.run: Optional[WorkflowRun] = None
        self.text: Optional[str] = None  # what had arrived


def conduct(given: argparse.Namespace, *, leaving: bool = False) -> int:
    """Run the command that was given; returns its exit code, and says why it is not 0.

    Args:
        given: the arguments.
        leaving: nothing comes after it but the end of the process.
    """
    import importlib  # noqa: PLC0415

    with _Interruptions(leaving) as interruptions, _logging(getattr(given, "verbose", 0)):
        try:
            interruptions.expect(_deadline_of(given))
            command = importlib.import_module(f"agentstream.cli.{_HOMES[given.command]}")
            code: int = getattr(command, given.command)(given)
        except BaseException as error:
            code = _code(error)
            if code == _UNKNOWN:
                raise
            if not (code == LOCKED and given.quiet):  # cron would mail it
                say(_line(error))
        return code


#: The module each command lives in.
_HOMES = {
    "chat": "chat",
    "run": "run",
    "check": "run",
    "serve": "serve",
    "runs": "log",
    "stop": "log",
    "follow": "follow",
}


def say(problem: str) -> None:
    """Say on standard error why the command ends as it does."""
    note(f"agentstream: {problem}")


def note(text: str) -> None:
    """A line on standard error, if anything can be written there."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(harmless(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _logging(verbosity: int) -> Iterator[None]:
    """Send the library's log to standard error: errors; with -v notes; with -vv all of it."""
    logger = logging.getLogger("agentstream")
    before = logger.handlers[:], logger.level, logger.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel((logging.ERROR, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


# --- what an error comes to -----------------------------------------------------------------


def _code(error: BaseException) -> int:
    if isinstance(error, Interrupted):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Locked):
        return LOCKED
    if isinstance(error, ConfigError):
        return WRONG
    if isinstance(error, (AgentStreamError, OSError)):
        return FAILED
    return _UNKNOWN


def _line(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)  # a file's problems are a line each
    return " ".join(_told(error).split())


def _told(error: BaseException) -> str:
    run: Optional[WorkflowRun] = getattr(error, "run", None)
    if isinstance(error, KeyboardInterrupt):
        text = str(error) or "stopped by Ctrl-C"
        if run is not None:
            text += f" in run {run.workflow_id}{_where(run)}"
        return text + _arrived(error, run)
    text = str(error) or type(error).__name__
    plain = isinstance(error, (WorkflowFailed, Cancelled, Locked))
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


# --- the deadline, and signals ---------------------------------------------------------------


def _deadline_of(given: argparse.Namespace) -> Optional[float]:
    if not hasattr(given, "deadline"):
        return None
    from agentstream.cli.settings import setting  # noqa: PLC0415 - it tells, as this does

    seconds: Optional[float] = setting(given, "deadline")
    return seconds


#: What wakes the main thread when the deadline has passed, wherever it waits.
_WAKE = getattr(signal, "SIGALRM", signal.SIGINT)
_SIGNALS = {
    "SIGINT": (130, "stopped by Ctrl-C"),
    "SIGTERM": (143, "stopped by SIGTERM"),
    "SIGHUP": (129, "stopped by SIGHUP"),
}


class _Interruptions:
    """What ends a command early: it raises `Interrupted` in the main thread.

    Only there: called by another thread of a program, it does nothing, and
    leaves that program its signals.
    """

    def __init__(self, leaving: bool) -> None:
        self._leaving = leaving
        self._ended = False
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before: Dict[int, Any] = {}
        self._alarms: List[threads.Alarm] = []

    def __enter__(self) -> _Interruptions:
        for name, (code, why) in _SIGNALS.items():
            number = getattr(signal, name, None)
            # What is ignored stays so: nohup, and a shell's background jobs.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._on(number, code, why)
        return self

    def expect(self, deadline: Optional[float]) -> None:
        """Interrupt after so many seconds; None for never."""
        if deadline is not None and self._is_main:
            why = f"the deadline of {deadline:g} s has passed"
            self._on(_WAKE, LATE, why)
            self._arm(self._wake, deadline)
            self._arm(lambda _: _leave(LATE, why), deadline + _MOST_S)

    def _on(self, number: int, code: int, why: str) -> None:
        if self._is_main:
            before = signal.signal(number, lambda *_: self._interrupt(code, why))
            self._before.setdefault(number, before)

    def _interrupt(self, code: int, why: str) -> None:
        if self._ended and code == LATE:
            return  # one that ends already
        self._ended = True
        with contextlib.suppress(RuntimeError):  # no thread to be had
            self._arm(lambda _: _leave(code, why), _MOST_S)
        raise Interrupted(code, why)

    def _wake(self, now: float) -> None:
        """Interrupt the main thread, again and again: it may be just about to wait."""
        if self._ended:
            return
        _signal_main_thread()
        self._arm(self._wake, 0.25)

    def _arm(self, ring: Callable[[float], object], seconds: float) -> None:
        alarm = threads.Alarm(ring, grain=seconds)
        self._alarms.append(alarm)
        threads.arm(alarm, time.monotonic() + seconds)

    def __exit__(self, *_: object) -> None:
        for alarm in self._alarms:
            alarm.stop()
        for number, handler in self._before.items():
            # A second Ctrl-C must not change how a process ends that is about to.
            signal.signal(number, signal.SIG_IGN if self._ended and self._leaving else handler)


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
    else:  # Windows, where it is seen between two pieces of a wait
        signal.raise_signal(_WAKE)


def _leave(code: int, why: str) -> None:
    """For a process that does not end although it was told to."""
    say(f"{why}, and the run does not stop: it is left")
    os._exit(code)
