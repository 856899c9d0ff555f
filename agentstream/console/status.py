"""StatusLine: one line at the bottom of a terminal that says who streams, how much and how fast.

An edge: it knows escape sequences and how wide characters are.  What is printed
above it is console.py's, which tells it when to get out of the way.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import IO, Any, Dict, Optional, Set, Tuple

from agentstream import threads
from agentstream.console.terminal import can_steer, cells, columns_of
from agentstream.events import accessors
from agentstream.events.model import RELEASING, Event, EventType

__all__ = ["StatusLine", "cells"]

logger = logging.getLogger("agentstream.console.console")

_EVERY_S = 0.1
#: Sooner than that after it had to give way to text, lest it flicker.
_AGAIN_S = 0.01
#: How often it is drawn while nothing happens, for the time that passes.
_TICK_S = 0.5

_CHUNKS = (EventType.AGENT_LLM_STREAM_CHUNK, EventType.AGENT_LLM_REASONING_CHUNK)
_BEGINNINGS = (EventType.WORKFLOW_STARTED, EventType.WORKFLOW_RESUMED)
_STEP_ENDS = (EventType.WORKFLOW_STEP_COMPLETED, EventType.WORKFLOW_STEP_FAILED)
_AGENT_ENDS = (EventType.AGENT_COMPLETED, EventType.AGENT_FAILED)


class StatusLine:
    """Who streams, tokens so far, tokens/s and the time, on a terminal's last line.

    A callback for the bus, or a `Console`'s `status`, which then keeps text and
    status apart where both are on one terminal.  It is there while something
    runs, and leaves no trace.  On what is no terminal it does nothing.  Tokens
    are chunks as long as the server has not said how many there were.

    Args:
        file: where to; default standard error.

    Attributes:
        lock: whoever writes to the same terminal meanwhile holds it.
    """

    def __init__(self, file: Optional[IO[str]] = None) -> None:
        self._file: Any = sys.stderr if file is None else file
        self.lock = threading.RLock()
        self._works = can_steer(self._file)
        self._plain = not _encodes(self._file, "⏳·…")
        self._dim = not os.environ.get("NO_COLOR")
        self._tally = _Tally()
        self._latest: Optional[Event] = None
        self._column = 0  # of the text that shares the terminal
        self._drawn: Optional[int] = None  # the column it was drawn at
        self._drawn_at = 0.0
        self._pushed = False  # off the screen by text
        self._ticking: Optional[threading.Event] = None

    def __call__(self, event: Event) -> None:
        """Count what an event says, and draw; at most ten times a second or so."""
        if not self._works:
            return
        with self.lock:
            if event is not self._latest:  # from the bus and from a Console: it counts once
                self._latest = event
                self._tally.add(event)
            if self._tally.runs:
                self._tick()
                self.draw()
            else:
                self.close()

    def draw(self) -> None:
        """Draw it, if that is due."""
        with self.lock:
            since = time.monotonic() - self._drawn_at
            if not self._works or not self._tally.runs:
                return
            if since >= (_AGAIN_S if self._pushed else _EVERY_S):
                self._draw()

    def close(self) -> None:
        """Wipe it, until something runs again.  Idempotent."""
        with self.lock:
            self._wipe()
            self._tally = _Tally()
            self._pushed = False
            self._drawn_at = 0.0
            if self._ticking is not None:
                self._ticking.set()
                self._ticking = None

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for who writes to the same terminal ------------------------------------------------

    def shares(self, file: Any) -> bool:
        """True if `file` is the same terminal."""
        try:
            return self._works and os.path.sameopenfile(file.fileno(), self._file.fileno())
        except (AttributeError, OSError, ValueError):
            return False

    def give_way(self, text: str) -> None:
        """Clear the line where `text` will come to stand; call it before that is written."""
        columns = columns_of(self._file)
        if self._drawn is not None:
            fits = text.isprintable() and self._column + cells(text) < columns
            if self._drawn == 0 or not fits:  # else it stands on the line below, untouched
                self._wipe()
                self._pushed = True
        self._column = _after(text, self._column, columns)

    # --- drawing ----------------------------------------------------------------------------

    def _draw(self) -> None:
        columns = columns_of(self._file)
        if self._column >= columns:
            return  # the next character wraps: where the cursor is, terminals do not agree
        text = self._line(columns - 1)
        if self._dim:
            text = f"\x1b[2m{text}\x1b[0m"
        if self._column == 0:
            text = f"\r{text}\x1b[K\r"
        else:  # on the line below; make one if there is none, and come back
            text = f"\x1b[J\x1bD\x1b[A\x1b7\x1bD\r{text}\x1b[K\x1b8"
        self._write(text)
        self._drawn = self._column
        self._drawn_at = time.monotonic()
        self._pushed = False

    def _wipe(self) -> None:
        if self._drawn is not None:
            self._write("\r\x1b[K" if self._drawn == 0 else "\x1b[J")
        self._drawn = None

    def _line(self, width: int) -> str:
        """What it says, in `width` cells."""
        names, facts = self._tally.show(time.monotonic())
        mark, dot, more = ("*", " | ", "...") if self._plain else ("⏳", " · ", "…")
        rest = "".join(dot + fact for fact in facts)
        room = width - cells(mark) - 1 - cells(rest)
        line = f"{mark} {_cut(', '.join(names), max(room, 8), more)}{rest}"
        return _cut(line, width, more)

    def _write(self, text: str) -> None:
        try:
            encoding = getattr(self._file, "encoding", None) or "ascii"
            self._file.write(text.encode(encoding, "replace").decode(encoding))
            self._file.flush()
        except (OSError, ValueError) as error:  # the terminal is gone
            logger.debug("there is no status line any more: %s", error)
            self._works = False

    # --- the time that passes ---------------------------------------------------------------

    def _tick(self) -> None:
        if self._ticking is not None:
            return
        self._ticking = threading.Event()
        try:
            threads.start_thread("status", self._ticks, self._ticking)
        except RuntimeError:
            pass  # no thread to be had: it is drawn when something happens

    def _ticks(self, stop: threading.Event) -> None:
        while not stop.wait(_TICK_S):
            with self.lock:
                if not stop.is_set():
                    self.draw()


class _Pace:
    """An agent's step, or a function's: its name, and the answer under way."""

    __slots__ = ("begun", "count", "latest", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.begun = self.latest = 0.0


class _Tally:
    """What runs, and what it has come to."""

    def __init__(self) -> None:
        self.runs: Set[str] = set()
        self._started = time.monotonic()
        self._tokens = 0
        self._paces: Dict[Tuple[str, str], _Pace] = {}

    def add(self, event: Event) -> None:
        kind, data, run = event.type, event.data, event.workflow_id
        if kind in RELEASING:
            self.runs.discard(run)
            self._paces = {key: pace for key, pace in self._paces.items() if key[0] != run}
            return
        if kind is EventType.EVENTS_MISSED:  # ends may be among them
            self.runs.clear()
            self._paces.clear()
            return
        if not self.runs:
            self._started = time.monotonic()
        step = accessors.label_of(data)
        if kind in _BEGINNINGS or step is not None:
            self.runs.add(run)
        if step is None:
            return
        key = (run, step)
        if kind is EventType.WORKFLOW_STEP_STARTED:
            if accessors.text(data, "kind") == "Function":
                self._paces[key] = _Pace(accessors.text(data, "name"))
        elif kind in _STEP_ENDS:
            self._paces.pop(key, None)
        elif accessors.is_of_agent(data):
            self._hear(key, kind, event)

    def _hear(self, key: Tuple[str, str], kind: EventType, event: Event) -> None:
        data = event.data
        if kind in _AGENT_ENDS:
            self._paces.pop(key, None)
            if not key[1]:  # an agent on its own: there is no run around it
                self.runs.discard(key[0])
            return
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = _Pace(accessors.text(data, "agent"))
        if kind in _CHUNKS:
            pace.begun = pace.begun if pace.count else event.timestamp
            pace.latest = event.timestamp
            pace.count += 1
        elif kind is EventType.AGENT_LLM_REQUEST_COMPLETED:
            self._tokens += accessors.tokens_of(data) or pace.count
            pace.count = 0
        elif kind is EventType.AGENT_LLM_REQUEST_FAILED:
            self._tokens += pace.count
            pace.count = 0

    def show(self, now: float) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
        """Names, each once; and figures."""
        paces = list(self._paces.values())
        names = dict.fromkeys(_printable(pace.name) for pace in paces)
        tokens = self._tokens + sum(pace.count for pace in paces)
        rate = sum(
            (pace.count - 1) / (pace.latest - pace.begun)
            for pace in paces
            if pace.count > 1 and pace.latest > pace.begun
        )
        facts = [f"{tokens} token{'' if tokens == 1 else 's'}"] if tokens else []
        if rate:
            facts.append(f"{rate:.1f} tokens/s")
        facts.append(_span(now - self._started))
        return tuple(names) or ("...",), tuple(facts)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


# --- lines -------------------------------------------------------------------------------------


def _encodes(file: Any, text: str) -> bool:
    try:
        text.encode(getattr(file, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cut(text: str, width: int, more: str) -> str:
    """`text` in at most `width` cells, with `more` where something was left out."""
    if cells(text) <= width:
        return text
    more = more[: max(width, 0)]
    kept = ""
    for char in text:
        if cells(kept) + cells(char) + cells(more) > width:
            break
        kept += char
    return kept + more


def _after(text: str, column: int, columns: int) -> int:
    """The column after `text`; `columns` itself stands for a line that is just full."""
    tail = text[text.rfind("\n") + 1 :]
    if len(tail) < len(text):
        column = 0
    for char in tail:
        if char == "\t":
            column = min((column // 8 + 1) * 8, columns - 1)
            continue
        width = cells(char)
        column = width if column + width > columns else column + width
    return column
