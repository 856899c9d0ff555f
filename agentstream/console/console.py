"""Prints runs as they stream: a callback for the bus.

An edge: it owns the terminal's troubles, a closed pipe and an encoding without
emoji among them, so that no run ends because of what it prints on.  What is
printed in which order is console_outline.py's.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import IO, Callable, List, Optional

from agentstream.console.outline import Outline, Part, Place
from agentstream.console.status import StatusLine
from agentstream.console.terminal import can_steer, is_terminal, mute, write
from agentstream.console.wrap import wrapper_for
from agentstream.events.model import Event
from agentstream.text import strip_controls

__all__ = ["Console"]

logger = logging.getLogger("agentstream.console.console")


class Console:
    """Prints agents' text under a heading each, as it arrives.

    Of steps that run side by side the one that began first is printed as it
    streams; what the others say meanwhile is kept, and printed when their turn
    comes.  The same goes for several runs at once.  A run within a run is
    printed where it was started.  Text that a retry has made void is dropped,
    or followed by "(trying again: ...)" where it is printed already.

    Args:
        file: where to; default standard output.
        on_closed: called once if nobody reads it any more (`| head`); the
            place to stop the run.
        indent: what a line of text begins with.
        headings: False for nothing but the text; for an agent on its own.
        wrap: False to leave the breaking of lines to the terminal, in the middle of words;
            for whoever writes there too, between two words of a line.
        status: a line below the text that says how far it is; it is told of
            each event here, and needs no subscription of its own.
    """

    def __init__(
        self,
        file: Optional[IO[str]] = None,
        *,
        on_closed: Optional[Callable[[], object]] = None,
        indent: str = "   ",
        headings: bool = True,
        status: Optional[StatusLine] = None,
        wrap: bool = True,
    ) -> None:
        self._file = file or sys.stdout
        self.on_closed = on_closed
        self._indent = indent
        self._headings = headings
        self._status = status
        self._lock = threading.RLock() if status is None else status.lock
        self._beside = status is not None and status.shares(self._file)
        self._outline = Outline()
        self._at_line_start = True
        self._speaker: Optional[Place] = None  # whose heading stands last
        self._terminal = is_terminal(self._file)
        wraps = wrap and can_steer(self._file)
        self._wrapper = wrapper_for(self._file, indent) if wraps else None
        self.closed = False

    def __call__(self, event: Event) -> None:
        """Print what an event shows, and what it makes room for."""
        with self._lock:
            self._outline.add(event)
            self._advance(self._outline.root)
            if self._status is not None:
                self._status(event)

    def line(self, text: str = "") -> None:
        """Print a line of one's own."""
        with self._lock:
            self._write(("" if self._at_line_start else "\n") + text + "\n")
            self._at_line_start = True
            if self._status is not None:
                self._status.draw()

    def end_line(self) -> None:
        """Begin a new line, unless at the beginning of one."""
        with self._lock:
            if not self._at_line_start:
                self._write("\n")
                self._at_line_start = True

    def _advance(self, place: Place) -> bool:
        """Print what can be of a place; true if it is done."""
        parts = place.parts
        while parts:
            part = parts[0]
            if not isinstance(part, Place):
                self._show(place, parts.popleft())  # type: ignore[arg-type]
                continue
            done = self._advance(part)
            if not done and not part.abandoned:
                return False
            parts.popleft()
            if not done:
                self._outline.adopt(part)
        return place.ended

    def _show(self, place: Place, part: Part) -> None:
        if part.kind == "end":
            if self._speaker is place:
                self._end()
            return
        if part.kind == "heading":
            self._heading(place)
        elif part.kind == "text":
            if self._speaker is not place:
                self._heading(place)
            self._text(part.text, place)
        else:
            self.line(self._indent + part.text)
        if part.kind == "again":
            self._speaker = None  # and there is nothing of it now that could be void
        else:
            place.mark_printed()

    def _heading(self, place: Place) -> None:
        if self._speaker is not None:
            self._end()
        self._speaker = place
        if self._headings:
            self._write(f"🤖 {self._clean(place.heading())} >\n")
            self._at_line_start = True

    def _text(self, first: str, place: Place) -> None:
        """Print a chunk, and those that wait behind it."""
        chunks = [first]
        while place.parts and isinstance(place.parts[0], Part) and place.parts[0].kind == "text":
            chunks.append(place.parts.popleft().text)  # type: ignore[union-attr]
        shown: List[str] = []
        for piece in self._clean("".join(chunks)).splitlines(keepends=True):
            if self._at_line_start and piece.strip("\r\n"):
                shown.append(self._indent)
            shown.append(piece)
            self._at_line_start = piece.endswith("\n")
        self._write("".join(shown))

    def _clean(self, text: str) -> str:
        return strip_controls(text) if self._terminal else text

    def _end(self) -> None:
        gap = "\n" if self._headings else ""
        self._write(gap if self._at_line_start else "\n" + gap)
        self._at_line_start = True
        self._speaker = None

    def _write(self, text: str) -> None:
        if self.closed:
            return
        if self._wrapper is not None:
            text = self._wrapper.feed(text)
        if self._beside and self._status is not None:
            self._status.give_way(text)
        try:
            write(self._file, text)
        except BrokenPipeError:
            self._close()
        except (OSError, ValueError) as error:  # terminal gone, disk full, file closed
            logger.warning("nothing more can be printed: %s", error)
            self._close()

    def _close(self) -> None:
        self.closed = True
        mute(self._file)
        if self.on_closed is not None:
            self.on_closed()
