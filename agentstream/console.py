"""Prints a run as it streams: a callback for the bus.

An edge: it owns the terminal's troubles, a closed pipe and an encoding without
emoji among them, so that no run ends because of what it prints on.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import IO, Any, Callable, Optional

from agentstream.events.model import Event, EventType

__all__ = ["Console"]

logger = logging.getLogger("agentstream.console")


class Console:
    """Prints agents' text under a heading each, as it arrives.

    Args:
        file: where to; default standard output.
        on_closed: called once if nobody reads it any more (`| head`); the
            place to stop the run.
        indent: what a line of text begins with.
    """

    def __init__(
        self,
        file: Optional[IO[str]] = None,
        *,
        on_closed: Optional[Callable[[], object]] = None,
        indent: str = "   ",
    ) -> None:
        self._file = file or sys.stdout
        self.on_closed = on_closed
        self._indent = indent
        self._lock = threading.Lock()
        self._at_line_start = True
        self._agent: Optional[str] = None
        self.closed = False

    def __call__(self, event: Event) -> None:
        """Print what an event shows."""
        data = event.data
        if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
            self._text(data["agent"], data["chunk"])
        elif event.type is EventType.AGENT_PROCESSING:
            self._heading(data["agent"])
        elif event.type in (EventType.AGENT_COMPLETED, EventType.AGENT_FAILED):
            self._end()
        elif event.type is EventType.AGENT_LLM_REQUEST_RETRIED:
            self.line(f"{self._indent}(trying again: {data['message']})")

    def line(self, text: str = "") -> None:
        """Print a line of one's own."""
        with self._lock:
            self._write(("" if self._at_line_start else "\n") + text + "\n")
            self._at_line_start = True

    def _heading(self, agent: str) -> None:
        with self._lock:
            self._agent = agent
            self._write(f"🤖 {agent} >\n")
            self._at_line_start = True

    def _text(self, agent: str, chunk: str) -> None:
        if agent != self._agent:
            self._heading(agent)
        with self._lock:
            shown = []
            for piece in chunk.splitlines(keepends=True):
                if self._at_line_start and piece.strip("\r\n"):
                    shown.append(self._indent)
                shown.append(piece)
                self._at_line_start = piece.endswith("\n")
            self._write("".join(shown))

    def _end(self) -> None:
        with self._lock:
            self._write("\n" if self._at_line_start else "\n\n")
            self._at_line_start = True
            self._agent = None

    def _write(self, text: str) -> None:
        if self.closed:
            return
        try:
            try:
                self._file.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._file, "encoding", None) or "ascii"
                self._file.write(text.encode(encoding, "replace").decode(encoding))
            self._file.flush()
        except BrokenPipeError:
            self._close()
        except (OSError, ValueError) as error:  # terminal gone, disk full, file closed
            logger.warning("nothing more can be printed: %s", error)
            self._close()

    def _close(self) -> None:
        self.closed = True
        quiet_exit(self._file)
        if self.on_closed is not None:
            self.on_closed()


def quiet_exit(file: Any) -> None:
    """Point a file nobody reads at nowhere, so that the interpreter's last flush says nothing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass
