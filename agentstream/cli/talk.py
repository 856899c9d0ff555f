"""`agentstream chat` without a PROMPT, at a terminal: a conversation.

Reads what is typed, until it is left.  Ctrl-C stops the answer under way; at the prompt the
first one says how to leave, and the second one leaves.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Dict

from agentstream.cli.exits import DONE
from agentstream.cli.keyboard import Keyboard, Typed
from agentstream.cli.output import note
from agentstream.cli.settings import state_folder
from agentstream.cli.signals import on_ctrl_c
from agentstream.cli.slash import COMMANDS, perform
from agentstream.cli.turns import CtrlC, Turns

if TYPE_CHECKING:
    import argparse

__all__ = ["talk"]

_LEFT_BY_CTRL_C = 130


def talk(given: argparse.Namespace, sampling: Dict[str, Any]) -> int:
    """Hold a conversation; returns the exit code.

    Args:
        given: the arguments.
        sampling: what an agent is told of how to answer.
    """
    history = None if given.no_save else os.path.join(state_folder(), "history")
    with contextlib.ExitStack() as stack:
        turns = Turns(given, sampling, stack)
        prompt = _Prompt(Keyboard(history, [f"/{name}" for name in COMMANDS]))

        def stop() -> None:
            prompt.on_ctrl_c()
            turns.on_ctrl_c()

        stack.enter_context(on_ctrl_c(stop))
        if not given.quiet:
            note(turns.greeting())
        return _converse(turns, prompt)


def _converse(turns: Turns, prompt: _Prompt) -> int:
    presses = 0  # of Ctrl-C since something was typed
    while not turns.left:
        try:
            typed = prompt.read()
        except EOFError:
            sys.stdout.write("\n")
            return DONE
        except CtrlC:
            sys.stdout.write("\n")
            presses += 1
            if presses > 1:
                return _LEFT_BY_CTRL_C
            note("(Ctrl-C again, Ctrl-D or /exit leaves)")
            continue
        presses = 0
        if typed.is_command:
            perform(turns, typed.text)
        else:
            turns.ask_new(typed.text)
    return DONE


class _Prompt:
    """Where messages are typed, and Ctrl-C is pressed."""

    def __init__(self, keyboard: Keyboard) -> None:
        self._keyboard = keyboard
        self._reads = False

    def read(self) -> Typed:
        """As `Keyboard.read`; raises CtrlC, too."""
        self._reads = True
        try:
            return self._keyboard.read()
        finally:
            self._reads = False

    def on_ctrl_c(self) -> None:
        """Leave `read`, if that waits; in the main thread."""
        if self._reads:
            raise CtrlC
