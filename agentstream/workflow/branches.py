"""Work side by side, in threads that are lent for it and in that of the caller.

The caller takes part: where no thread can be had, it does all of it, one
after the other, so that nothing waits for a thread that waits for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

from agentstream.cancel import CancelToken
from agentstream.errors import Cancelled, Suspended
from agentstream.results import PendingCall, PendingSignal

__all__ = ["Lend", "Outcome", "first_failure", "linked", "side_by_side", "suspended"]

#: Runs a function in another thread, and says so; False: there is none to be had.
Lend = Callable[[Callable[[], object]], bool]
Work = Callable[[CancelToken], Any]


class Outcome(NamedTuple):
    """What a branch returned, or what it raised."""

    value: Any = None
    error: Optional[BaseException] = None


@contextlib.contextmanager
def linked(outer: CancelToken) -> Iterator[CancelToken]:
    """A token of one's own that `outer` cancels too."""
    token = CancelToken()
    key = outer.add_callback(lambda: token.cancel(outer.reason))
    try:
        yield token
    finally:
        outer.remove_callback(key)


def side_by_side(
    work: Mapping[str, Work],
    cancel: CancelToken,
    lend: Lend,
    *,
    fail_fast: bool,
    at_most: Optional[int] = None,
) -> Dict[str, Outcome]:
    """Run `work` side by side; returns the outcomes, in the order in which they ended.

    What had not begun when it was stopped is a `Cancelled`.

    Args:
        work: called with a token that ends when `cancel` does, or, with
            `fail_fast`, when another one fails.
        fail_fast: one that fails stops the others; what had not begun never does.
        at_most: how many are under way at once, begun in their order; None for all.
    """
    with linked(cancel) as token:
        group = _Group(work, token, fail_fast)
        for _ in range(min(len(work), at_most or len(work)) - 1):
            if not lend(group.help):
                break
        group.help()
        return group.outcomes(len(work))


def first_failure(
    outcomes: Mapping[str, Outcome], cancel: CancelToken, *, fail_fast: bool
) -> Optional[str]:
    """The branch whose error is the step's; None if the step has not failed.

    Of `outcomes` in the order in which they ended: a stop, if it came from
    outside; else the first failure, or what is no `Exception`, or all failed.  One
    that is suspended has not failed.
    """
    failed = [
        name
        for name, outcome in outcomes.items()
        if outcome.error is not None and not isinstance(outcome.error, Suspended)
    ]
    stopped = [name for name in failed if isinstance(outcomes[name].error, Cancelled)]
    if cancel.cancelled and stopped:
        return stopped[0]
    own = [name for name in failed if name not in stopped]
    for name in own:
        if not isinstance(outcomes[name].error, Exception):  # a SystemExit
            return name
    if failed and (fail_fast or len(failed) == len(outcomes)):
        return (own or failed)[0]
    return None


def suspended(
    outcomes: Mapping[str, Outcome],
) -> Tuple[Union[PendingCall, PendingSignal], ...]:
    """What the branches that are suspended wait for."""
    errors = (outcome.error for outcome in outcomes.values())
    return tuple(each for error in errors if isinstance(error, Suspended) for each in error.pending)


class _Group:
    def __init__(self, work: Mapping[str, Work], token: CancelToken, fail_fast: bool) -> None:
        # Each branch has a copy of the caller's contextvars: no other one sees what it sets.
        self._todo: Deque[Tuple[str, Work, contextvars.Context]] = deque(
            (name, function, contextvars.copy_context()) for name, function in work.items()
        )
        self._ended: queue.SimpleQueue[Tuple[str, Outcome]] = queue.SimpleQueue()
        self._token = token
        self._fail_fast = fail_fast

    def help(self) -> None:
        """Do what there is left to begin."""
        while True:
            try:
                name, work, context = self._todo.popleft()
            except IndexError:
                return
            self._ended.put((name, context.run(self._outcome, work)))

    def _outcome(self, work: Work) -> Outcome:
        if self._token.cancelled:
            return Outcome(error=Cancelled(f"the run was stopped: {self._token.reason}"))
        try:
            return Outcome(work(self._token))
        except Suspended as rest:  # the others go on
            return Outcome(error=rest)
        except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
            if self._fail_fast:
                self._token.cancel("another branch failed")
            return Outcome(error=error)

    def outcomes(self, number: int) -> Dict[str, Outcome]:
        """Wait until all has ended; in the order in which it did."""
        return dict(self._ended.get() for _ in range(number))
