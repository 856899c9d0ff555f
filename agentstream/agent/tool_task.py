"""Task: one tool call under way, in a thread that may have to be left behind."""

from __future__ import annotations

import contextvars
import logging
from typing import Any, Dict, Iterable, NamedTuple, Optional, Tuple, Union

from agentstream import threads
from agentstream.agent.checkpoints import CallState
from agentstream.cancel import CancelToken
from agentstream.errors import Suspended, ToolError
from agentstream.results import PendingCall, PendingSignal, ToolCall
from agentstream.text import safe_str
from agentstream.tools import Tool
from agentstream.tools.context import RunContext
from agentstream.tools.results import refuse_async, to_text

__all__ = ["Background", "Made", "Outcome", "Task", "cut", "lost_threads", "no_thread", "unknown"]

logger = logging.getLogger("agentstream.tools")

#: What a model is told of an exception's text, in characters.
_SAID = 1000

Pending = Union[PendingCall, PendingSignal]


class Made(NamedTuple):
    """A call that is to be made, and its place among those of its answer."""

    at: int
    call: ToolCall


class Outcome(NamedTuple):
    """What a call came to: the text for the model, and whether it is the tool's own result."""

    text: str
    ok: bool


#: The askings whose threads nobody waits for any longer, by their identity.
_lost: Dict[int, str] = {}


def lost_threads() -> int:
    """How many threads of this process were left behind, by tools that hang, and still run."""
    return len(_lost)


class Background:
    """Work in a thread of its own, which may be given up while it goes on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._finished = False

    def give_up(self) -> None:
        """Wait for it no longer; until its thread ends, it counts as lost."""
        _lost[id(self)] = self.name
        if self._finished:  # looked at after the entry is in, as `finish` does it the other way
            _lost.pop(id(self), None)

    def finish(self) -> bool:
        """The thread is done; False if it had been given up."""
        self._finished = True
        late = _lost.pop(id(self), None) is not None
        if late:
            logger.info("%s came back after all; what it brought is dropped", self.name)
        return not late


class Task(Background):
    """One call under way."""

    def __init__(self, made: Made, key: str) -> None:
        super().__init__(f"tool {made.call.name}")
        self.index, self.call = made
        self.key = key
        self.state: Optional[CallState] = None  # how far an earlier process has come
        self.changed: Optional[str] = None  # other arguments, by an approval
        self.pending: Tuple[Pending, ...] = ()  # what somebody must answer first
        self.tool: Optional[Tool] = None
        self.arguments: Dict[str, Any] = {}
        self.token = CancelToken()
        self.context = contextvars.copy_context()  # what its thread sees
        self.started = 0.0
        self.due = threads.NEVER
        self.problem = ""
        self.text: Optional[str] = None
        self.outcome: Optional[Outcome] = None

    @property
    def is_open(self) -> bool:
        """True while it is to come to something yet, without anybody's answer."""
        return self.outcome is None and not self.pending

    @property
    def is_alone(self) -> bool:
        """True if no other call may run beside it."""
        return self.tool is not None and self.tool.alone

    def work(self, context: RunContext, limit: int) -> None:
        """Call the tool and put its result, or its error, into words: all of that is user code."""
        assert self.tool is not None
        try:
            result = self.tool.call(self.arguments, self.token, context)
            refuse_async(result)
            self.text = to_text(result, limit)
        except Suspended as rest:  # of an agent that it runs
            self.pending = rest.pending
        except ToolError as error:  # in the tool's own words, meant for the model
            self.problem = safe_str(error, _SAID) or "the tool failed"
        except BaseException as error:
            logger.debug("tool %.80r failed", self.call.name, exc_info=True)
            self.problem = f"the tool raised {type(error).__name__}"
            said = safe_str(error, _SAID)
            if said:
                self.problem += f": {said}"


# --- what the model is told of a call that cannot be made -----------------------------------


def unknown(name: str, tools: Iterable[str]) -> ToolError:
    """There is no tool of that name."""
    known = ", ".join(tools) or "none"
    return ToolError(f"there is no tool {name[:64]!r}; known: {known}", tool=name)


def cut(name: str) -> ToolError:
    """The answer ended within the call."""
    return ToolError(
        "your answer was cut at its limit of length, or by a filter, before this call was whole:"
        " it was not made.",
        tool=name,
    )


def no_thread(name: str) -> ToolError:
    """The system gives no thread for it."""
    return ToolError("no thread could be started for the tool", tool=name)
