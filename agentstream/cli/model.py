"""agentstream model: the embedded llama.cpp, kept up at an address of one's choice."""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING

from agentstream.cli.exits import DONE, FAILED
from agentstream.cli.output import Output, say
from agentstream.cli.signals import next_stop, stops

if TYPE_CHECKING:
    import argparse

__all__ = ["model"]

#: Seconds after which it is seen that the model's process has ended.
_LOOK_S = 1.0


def model(given: argparse.Namespace) -> int:
    """Serve the model until a signal ends it; returns the exit code."""
    from agentstream.local import LocalServer, ProgressBar  # noqa: PLC0415
    from agentstream.providers import start_server  # noqa: PLC0415

    with ProgressBar() as bar:  # the small model is fetched once
        server: LocalServer = start_server(
            bar, model=given.model, port=given.port, n_ctx=given.context
        )
    with server, stops() as signals:
        Output(sys.stdout).write(f"{server.model} is served at {server.url}; Ctrl-C ends it\n")
        while server.is_running:
            try:
                next_stop(signals, _LOOK_S)
            except queue.Empty:
                continue
            return DONE
    say("the model's process has ended")
    return FAILED
