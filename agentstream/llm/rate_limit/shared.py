"""What shares a rate limit between processes, to those who use it: a file, or a Redis server."""

from __future__ import annotations

from typing import Callable, Protocol, TypeVar

from agentstream.llm.rate_limit.window import Rules, Window

__all__ = ["Busy", "Shared", "Unusable"]

T = TypeVar("T")


class Busy(Exception):
    """Another process is at it: come back in a moment."""


class Unusable(Exception):
    """It cannot be used; the text says why, without any secret."""


class Shared(Protocol):
    """Keeps a `Window` for several processes.

    Attributes:
        name: what it is, as warnings call it, without any secret.
        is_near: a change takes a moment, whatever others do.
    """

    name: str
    is_near: bool

    def change(self, rules: Rules, act: Callable[[Window, float], T]) -> T:
        """What `act` gives, called with the state and the time of its clock; the change is kept.

        `act` may be called several times, and only the last one counts.

        Raises:
            Busy: another process is at it.
            Unusable: it cannot be used.
        """

    def shut(self) -> None:
        """End what waits for an answer; from any thread."""

    def close(self) -> None:
        """Close it; the next change opens it again."""

    def after_fork(self) -> None:
        """In a forked child: leave alone what is the parent's."""
