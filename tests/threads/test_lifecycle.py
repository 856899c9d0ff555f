"""Exit: what happens in which order, through what raises, and that no work is taken after it."""

from __future__ import annotations

import logging
import weakref
from typing import Any, List

import pytest

from agentstream import threads


class Leaving:
    def __init__(self, order: int, left: List[int], error: Any = None) -> None:
        self._exit_order = order
        self._left = left
        self._error = error

    def _at_exit(self) -> None:
        self._left.append(self._exit_order)
        if self._error is not None:
            raise self._error


def test_r04_exit_goes_in_order_and_through_what_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left: List[int] = []
    monkeypatch.setattr(threads.lifecycle, "_exits", weakref.WeakSet())
    monkeypatch.setattr(threads.lifecycle, "_exiting", False)
    things = [
        Leaving(2, left),
        Leaving(0, left, ValueError("stuck")),
        Leaving(1, left, KeyboardInterrupt()),
        Leaving(3, left),
    ]
    for thing in things:
        threads.at_exit(thing)
    gone = Leaving(9, left)
    threads.at_exit(gone)
    del gone
    with caplog.at_level(logging.WARNING):
        threads.lifecycle._run_exits()
    assert left == [0, 1, 2, 3]
    assert threads.exiting()
    assert "could not be closed at exit" in caplog.text
    assert "interrupted" in caplog.text
