"""B13: signal handlers that cancel, stop, shut down and exit, under load; a thousand by hand.

`python -m stress.run_signals` sends a thousand signals to each; here are as many as a suite has time for.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest

from agentstream import Runtime
from tests.kit.programs import run
from tests.kit.signal_programs import EXITS, SHUTDOWNS, STOPS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

STORES = ("memory", "sqlite")


def held(program: str, store: str, how: str, count: int) -> None:
    """Run a program, which is killed after 25 s."""
    done = run(program, store, how, str(count), "25")
    assert done.status == 0, (done.lines, done.errors)  # type: ignore[attr-defined]


@pytest.mark.parametrize("store", STORES)
def test_b13_a_handler_cancels_and_stops(store: str) -> None:
    held(STOPS, store, "", 300)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("how", ["cancel", "wait"])
def test_b13_a_handler_shuts_down(store: str, how: str) -> None:
    held(SHUTDOWNS, store, how, 60)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("how", ["sigterm", "shutdown", "interrupt"])
def test_b13_a_handler_exits(store: str, how: str) -> None:
    held(EXITS, store, how, 10)


def test_b13_submit_within_submit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that interrupts a submit cannot submit: it is told so, and nothing is broken."""
    with Runtime() as runtime:
        refusals = []

        def handler(*_: Any) -> None:
            try:
                runtime.submit(_nothing(), "inner")
            except RuntimeError as error:
                refusals.append(str(error))

        open_log = runtime.event_stream.open_log

        def interrupted(*arguments: Any) -> Any:
            signal.raise_signal(signal.SIGUSR1)
            return open_log(*arguments)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            monkeypatch.setattr(runtime.event_stream, "open_log", interrupted)
            assert runtime.run(_nothing(), "outer").output == "outer"
            monkeypatch.undo()
            assert len(refusals) == 1
            assert "signal handler" in refusals[0]
            assert runtime.run(_nothing(), "next").output == "next"
        finally:
            signal.signal(signal.SIGUSR1, before)


def _nothing() -> Any:
    from agentstream import Workflow

    return Workflow("nothing", [lambda x: x])


def test_b13_exit_on_sigterm_is_not_lost_in_a_finalizer() -> None:
    # Python prints what is raised in __del__, and goes on.
    program = run(
        """
        class Dropped:
            def __del__(self):
                signal.raise_signal(signal.SIGTERM)

        exit_on_sigterm()
        Dropped()
        threading.Event().wait(20)
        say("still here")
        """
    )
    assert program.status == 143, program.errors  # type: ignore[attr-defined]
    assert not program.lines
