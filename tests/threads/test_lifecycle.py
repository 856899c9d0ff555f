"""Exit: what happens in which order, through what raises, and that no work is taken after it."""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
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


#: Forks while another thread is in the middle of an import; argv[1] has the module `half`.
FORKS = """
import os, sys, threading
import agentstream
from agentstream import threads

class Client:
    def _after_fork(self): pass

threads.after_fork(client := Client())
agentstream.__path__.append(sys.argv[1])
agentstream.started, agentstream.go_on = threading.Event(), threading.Event()

def importing():
    import agentstream.half

thread = threading.Thread(target=importing)
thread.start()
assert agentstream.started.wait(10)
threading.Timer(0.1, agentstream.go_on.set).start()
child = os.fork()
if not child:
    from agentstream.half import whole
    os._exit(0 if whole else 1)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_r06_a_fork_waits_for_what_another_thread_is_importing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "half.py").write_text(
        "import agentstream\nagentstream.started.set()\nagentstream.go_on.wait(10)\nwhole = True\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path)]
    done = subprocess.run(command, timeout=30, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
