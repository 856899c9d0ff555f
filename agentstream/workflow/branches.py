"""Work side by side, in threads that are lent for it and in that of the caller.

The caller takes part: where no thread can be had, it does all of it, one
after the other, so that nothing waits for a thread that waits for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, Mapping, Tuple

from agentstream.cancel import CancelToken
from agentstream.errors import Cancelled

__all__ = ["Lend", "linked", "side_by_side"]

#: Runs a function in another thread, and says so; False: there is none to be had.
Lend = Callable[[Callable[[], object]], bool]
Work = Callable[[CancelToken], Any]

_NOT_BEGUN = object()


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
    work: Mapping[str, Work], cancel: CancelToken, lend: Lend, *, fail_fast: bool
) -> Dict[str, Any]:
    """Do all of it at once; returns what each returned by name, in the order of `work`.

    Args:
        work: called with a token that ends when `cancel` does, or, with
            `fail_fast`, when another one fails.
        fail_fast: raise the first error, once all that had begun has ended;
            what had not begun never does.  False: an error is told as a result.

    Raises:
        Cancelled: `cancel` was called, and something ended because of it.
    """
    with linked(cancel) as token:
        crew = _Crew(work, token, fail_fast)
        for _ in range(len(work) - 1):
            if not lend(crew.helper()):
                break
        crew.help()
        outcomes = crew.outcomes(len(work))
    try:
        _raise_what_ends_it(outcomes, cancel, fail_fast=fail_fast)
        return {name: outcomes[name] for name in work}
    finally:
        del outcomes  # no cycle through an error's traceback


def _raise_what_ends_it(
    outcomes: Mapping[str, Any], cancel: CancelToken, *, fail_fast: bool
) -> None:
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, BaseException)]
    stops = [error for error in errors if isinstance(error, Cancelled)]
    others = [error for error in errors if not isinstance(error, Cancelled)]
    try:
        not_begun = any(outcome is _NOT_BEGUN for outcome in outcomes.values())
        if cancel.cancelled and (stops or not_begun):
            raise stops[0] if stops else Cancelled(f"the run was stopped: {cancel.reason}")
        for error in others:
            if fail_fast or not isinstance(error, Exception):
                raise error
        if fail_fast and stops:
            raise stops[0]
    finally:
        del errors, stops, others, outcomes


class _Crew:
    def __init__(self, work: Mapping[str, Work], token: CancelToken, fail_fast: bool) -> None:
        self._todo: Deque[Tuple[str, Work]] = deque(work.items())
        self._ended: queue.SimpleQueue[Tuple[str, Any]] = queue.SimpleQueue()
        self._token = token
        self._fail_fast = fail_fast

    def helper(self) -> Callable[[], object]:
        """`help` for another thread, in the run's own context: what it starts is part of it."""
        context = contextvars.copy_context()
        return lambda: context.run(self.help)

    def help(self) -> None:
        """Do what there is left to begin."""
        while True:
            try:
                name, work = self._todo.popleft()
            except IndexError:
                return
            self._ended.put((name, self._outcome(work)))

    def _outcome(self, work: Work) -> Any:
        if self._token.cancelled:
            return _NOT_BEGUN
        try:
            return work(self._token)
        except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits
            if self._fail_fast:
                self._token.cancel("another branch failed")
            return error

    def outcomes(self, number: int) -> Dict[str, Any]:
        """Wait until all has ended; in the order in which it did."""
        return dict(self._ended.get() for _ in range(number))
