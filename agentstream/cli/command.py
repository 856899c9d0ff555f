"""Runs the command that was given: its module's function of the same name."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from typing import TYPE_CHECKING, ContextManager, Iterator

from agentstream.cli.exits import LOCKED, UNKNOWN, code_of, line_of
from agentstream.cli.output import say
from agentstream.cli.settings import note_unknown_variables, setting
from agentstream.cli.signals import Interruptions

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    # Imported by name below; here for whatever freezes a program by its import statements.
    from agentstream.cli import (  # noqa: F401
        approve,
        chat,
        check,
        completion,
        doctor,
        follow,
        model,
        models,
        resume,
        run,
        runs,
        serve,
        signal,
        stop,
        tools,
    )

__all__ = ["conduct"]


def conduct(given: argparse.Namespace, *, leaving: bool = False) -> int:
    """Run the command that was given; returns its exit code, and says why it is not 0.

    Args:
        given: the arguments.
        leaving: nothing comes after it but the end of the process.
    """
    with Interruptions(leaving) as interruptions, _logging(getattr(given, "verbose", 0)):
        try:
            if not getattr(given, "quiet", False):
                note_unknown_variables(os.environ)
            command = importlib.import_module(f"agentstream.cli.{given.command}")
            # In a conversation it is that of each answer.
            if hasattr(given, "deadline") and not _has_turns(given, command):
                interruptions.expect(setting(given, "deadline"))
            with _watching(getattr(given, "show_requests", False)):
                code: int = getattr(command, given.command)(given)
        except BaseException as error:
            code = code_of(error)
            if code == UNKNOWN:
                raise
            if not (code == LOCKED and given.quiet):  # cron would mail it
                say(line_of(error))
        return code


def _has_turns(given: argparse.Namespace, command: ModuleType) -> bool:
    return given.command == "chat" and bool(command.is_conversation(given))


def _watching(wanted: bool) -> ContextManager[None]:
    """Show what is sent, if that is wanted."""
    if not wanted:
        return contextlib.nullcontext()
    from agentstream.cli.verbose import show_request  # noqa: PLC0415 - few want it
    from agentstream.llm.transport import watching  # noqa: PLC0415

    return watching(show_request)


@contextlib.contextmanager
def _logging(verbosity: int) -> Iterator[None]:
    """Send the library's log to standard error: errors; with -v notes; with -vv all of it."""
    logger = logging.getLogger("agentstream")
    before = logger.handlers[:], logger.level, logger.propagate
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    if verbosity == 1:  # which says the same of each run in its own words
        handler.addFilter(lambda record: record.name != "agentstream.run")
    logger.handlers[:] = [handler]
    logger.setLevel((logging.ERROR, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
