"""The steps of a script: what a ScriptedServer does between its bytes.

An action plays on a `Stage`, which frames and sends, waits and hangs up; here is
no socket and no HTTP.
"""

from __future__ import annotations

import threading
from typing import Callable, Iterable, List, Optional, Tuple, Union

from agentstream.testing.link import Link, ScriptEnded, Signal

__all__ = [
    "Action",
    "Callback",
    "Cut",
    "Drip",
    "Framing",
    "Gate",
    "Hang",
    "KeepOpen",
    "Pause",
    "Piece",
    "Raw",
    "Reset",
    "Send",
    "Stage",
    "as_actions",
]


class Framing:
    """How body bytes become wire bytes.  This one leaves them as they are."""

    version = "HTTP/1.1"
    fields: Tuple[str, ...] = ()
    keep_alive: bool = False

    def __init__(self, length: int = 0) -> None:
        self.length = length

    def start(self) -> bytes:
        """What goes before the first piece."""
        return b""

    def piece(self, data: bytes) -> bytes:
        """The wire form of one piece that is not empty."""
        return data

    def end(self) -> bytes:
        """What goes after the last piece."""
        return b""


class Stage:
    """Where a script plays: one connection, and the framing of the reply under way."""

    def __init__(self, link: Link, framing: Optional[Framing] = None) -> None:
        self.link = link
        self.framing = framing or Framing()

    def frame(self, data: bytes) -> bytes:
        """`data` as it goes onto the wire; nothing for nothing (an empty chunk is an end)."""
        return self.framing.piece(data) if data else b""

    def write(self, data: bytes) -> None:
        """Send bytes as they are, with one sendall."""
        if data:
            self.link.write(data)

    def wait(self, seconds: Optional[float] = None, signal: Optional[Signal] = None) -> bool:
        """True if the signal came, False after `seconds`; the script ends if the client leaves."""
        return self.link.wait(seconds, signal)


class Action:
    """One step.  Write `play` for a step of your own.

    Attributes:
        body: the bytes it adds to the body, counted for Content-Length.
    """

    body = b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def play(self, stage: Stage) -> None:
        """Do it.  `ScriptEnded("cut")` or `ScriptEnded("reset")`, raised, ends the connection."""
        raise NotImplementedError


class Send(Action):
    """Body bytes: one sendall, one chunk.  This is what a piece of bytes or str becomes."""

    def __init__(self, data: Union[bytes, str]) -> None:
        self.body = data.encode("utf-8") if isinstance(data, str) else data

    def play(self, stage: Stage) -> None:
        stage.write(stage.frame(self.body))


class Raw(Action):
    """Bytes for the wire as they are, past the framing: half a chunk header, say.

    They do not count for Content-Length.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def play(self, stage: Stage) -> None:
        stage.write(self.data)


class Drip(Action):
    """Body bytes (framed as one piece) or a `Raw`, sent `size` wire bytes at a time.

    `every` is the time between two of them, in seconds.
    """

    def __init__(self, data: Union[bytes, str, Raw], size: int = 1, every: float = 0.0) -> None:
        self._what = data if isinstance(data, Raw) else Send(data)
        self.body = self._what.body
        self.size = size
        self.every = every

    def play(self, stage: Stage) -> None:
        what = self._what
        wire = what.data if isinstance(what, Raw) else stage.frame(what.body)
        for start in range(0, len(wire), self.size):
            if start and self.every:
                stage.wait(self.every)
            stage.write(wire[start : start + self.size])


class Pause(Action):
    """Wait some seconds; the server's close ends it early."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def play(self, stage: Stage) -> None:
        stage.wait(self.seconds)


class Gate(Action):
    """Stop the script here until the test says `open`; how tests synchronise without sleeping.

    Once open it stays open, for every script it is in.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reached = 0
        self._waiting = 0
        self._open = False
        self._signal: Optional[Signal] = None  # there while somebody waits

    @property
    def reached(self) -> int:
        """How many times a script has come here."""
        return self._reached

    def wait_reached(self, timeout: float = 5.0, count: int = 1) -> bool:
        """True once scripts have come here `count` times; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._reached >= count, min(timeout, threading.TIMEOUT_MAX)
            )

    def open(self) -> None:
        """Let every script go on that waits here or will come here.  Idempotent."""
        with self._changed:
            self._open = True
            if self._signal is not None:
                self._signal.set()

    def play(self, stage: Stage) -> None:
        signal = self._enter()
        try:
            if signal is not None:
                stage.wait(None, signal)
        finally:
            self._leave(signal)

    def _enter(self) -> Optional[Signal]:
        with self._changed:
            self._reached += 1
            self._changed.notify_all()
            if self._open:
                return None
            if self._signal is None:
                self._signal = Signal()
            self._waiting += 1
            return self._signal

    def _leave(self, signal: Optional[Signal]) -> None:
        if signal is None:
            return
        with self._changed:
            self._waiting -= 1
            if not self._waiting:
                signal.close()
                self._signal = None


class Hang(Action):
    """Say nothing more until the client leaves or the server closes."""

    def play(self, stage: Stage) -> None:
        stage.wait()


class KeepOpen(Action):
    """The body ends here without its terminator, and the connection stays open.

    On the wire the same as `Hang`; but the script counts as done, so a client
    that leaves now is not one that left in mid-script.
    """

    def play(self, stage: Stage) -> None:
        try:
            stage.wait()
        except ScriptEnded as ended:
            raise ScriptEnded("done" if ended.outcome == "client_gone" else ended.outcome) from None


class Cut(Action):
    """FIN right now, wherever the body is; on TLS without close_notify."""

    def play(self, stage: Stage) -> None:
        raise ScriptEnded("cut")


class Reset(Action):
    """RST right now."""

    def play(self, stage: Stage) -> None:
        raise ScriptEnded("reset")


class Callback(Action):
    """Call `function()` in the server's thread; bytes or str that it returns are sent.

    What it raises ends the connection and goes to `threading.excepthook`.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def play(self, stage: Stage) -> None:
        result = self.function()
        if isinstance(result, (bytes, str)):
            Send(result).play(stage)


Piece = Union[bytes, str, Action]


def as_actions(pieces: Iterable[Piece]) -> List[Action]:
    """Pieces as actions; TypeError for anything else, so that a test hears of it at once."""
    actions: List[Action] = []
    for piece in pieces:
        if isinstance(piece, (bytes, str)):
            actions.append(Send(piece))
        elif isinstance(piece, Action):
            actions.append(piece)
        else:
            raise TypeError(f"a piece is bytes, str or an Action, not {type(piece).__name__}")
    return actions
