"""Approval: somebody's answer to "may this tool call be made?".

A plain value, and what else may stand for it.  Who asks, and when, is
tool_runs.py's.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

from agentstream import checks
from agentstream.llm.frozen import Frozen

__all__ = ["Approval", "as_approval"]


class Approval(Frozen):
    """The answer of `Agent(approve=...)` to a tool call.

    Make one with `yes`, `no`, `change` or `later`.  Its repr tells no arguments.

    Attributes:
        allowed: the call may be made.
        reason: why not, for the model; "" for no reason.
        arguments: what to call the tool with instead of what the model sent, by
            name, as JSON values; None for the model's own.
        is_later: somebody will answer later, and the run is suspended until then.
        expires: of such an answer the seconds after which the call counts as refused;
            None for never.
    """

    allowed: bool
    reason: str = ""
    arguments: Optional[Mapping[str, Any]] = None
    is_later: bool = False
    expires: Optional[float] = None

    def __repr__(self) -> str:
        if self.is_later:
            return "<Approval later>"
        answer = "no" if not self.allowed else "yes" if self.arguments is None else "change"
        return f"<Approval {answer}>"

    @classmethod
    def yes(cls) -> Approval:
        """Make the call."""
        return cls(True)

    @classmethod
    def no(cls, reason: str = "") -> Approval:
        """Do not make it; the model is told so, and the reason."""
        return cls(False, str(reason))

    @classmethod
    def change(cls, arguments: Mapping[str, Any]) -> Approval:
        """Make it with these arguments, which are checked like the model's."""
        return cls(True, "", dict(arguments))

    @classmethod
    def later(cls, expires: Optional[float] = None) -> Approval:
        """Suspend the run until somebody answers, with `Runtime.approve`; no thread waits.

        Args:
            expires: seconds after which the call counts as refused; None for never.

        Raises:
            ConfigError: `expires` is no positive number.
        """
        seconds: Optional[float] = checks.seconds("expires", expires, optional=True)
        return cls(False, is_later=True, expires=seconds)


def as_approval(answer: object) -> Approval:
    """The Approval that an answer stands for: True, False, a reason, other arguments.

    Raises:
        TypeError: it is none of these; None, for one, is not a yes.
    """
    if isinstance(answer, Approval):
        return answer
    if isinstance(answer, bool):
        return Approval(answer)
    if isinstance(answer, str):
        return Approval.no(answer)
    if isinstance(answer, Mapping):
        return Approval.change(answer)
    raise TypeError(
        "approve must answer True, False, a reason (str), other arguments (dict) or an "
        f"Approval, not {type(answer).__name__}"
    )
