"""What is counted in a soak, and what is broken; the hunt for secrets in whatever is written."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from typing import Any, Deque, Dict, Tuple

from stress.soak.toxics import TOXICS

SLACK = 4.0  # seconds past a clock, on a machine that others load too
UNTIMED = 75.0  # bound of a call without `total`: the longest that server and proxy can draw it out
CANCEL_BOUND = 2.0
MAIN = os.getpid()
MAIN_PREFIX = "c"  # of the runs of the soak's own process; a worker has its own
MARKS = ("SOAKKEYMARK", "SOAKHEADERMARK", "SOAKPROMPTMARK")
ENDS = {"workflow_completed": "ok", "workflow_failed": "failed", "workflow_cancelled": "cancelled"}


class Record:
    """Everything counted, and what is broken.  All methods from any thread."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[Tuple[str, str]] = Counter()
        self.by_toxic: Dict[str, Counter[str]] = {t: Counter() for t in (*TOXICS, "none")}
        self.broken: Counter[str] = Counter()
        self.samples: Dict[str, Deque[float]] = {}
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def sample(self, name: str, seconds: float) -> None:
        with self._lock:
            self.samples.setdefault(name, deque(maxlen=20000)).append(seconds)

    def count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self.counts[name] += by

    def outcome(self, kind: str, what: str, toxics: Any) -> None:
        with self._lock:
            self.outcomes[what] += 1
            self.kinds[kind, what.partition("(")[0]] += 1
            for toxic in toxics or ["none"]:
                self.by_toxic[toxic][what] += 1

    def break_(self, invariant: str, what: str) -> None:
        """An invariant is broken: say so with what it takes to play it again."""
        if os.getpid() != MAIN:
            return
        with self._lock:
            self.broken[invariant] += 1
            many = self.broken[invariant] > 20
        if not many:
            note(f"BROKEN {invariant} (seed {self.seed}): {what}")


def note(text: str) -> None:
    stamp = time.strftime("%H:%M:%S")
    sys.stderr.write(f"[{stamp}] {text}\n")
    sys.stderr.flush()


def hunt(record: Record, text: str, where: str) -> None:
    """I7: no marked secret in `text`."""
    for mark in MARKS:
        at = text.find(mark)
        if at >= 0:
            record.break_(
                "I7 secret", f"{mark} in {where}: ...{text[max(0, at - 300) : at + 80]!r}"
            )


class LogHunter(logging.Handler):
    """Counts log lines by level and hunts secrets in them."""

    def __init__(self, record: Record) -> None:
        super().__init__(logging.INFO)
        self.record = record

    def emit(self, entry: logging.LogRecord) -> None:
        if os.getpid() != MAIN:
            return
        try:
            text = self.format(entry)
        except Exception as error:
            text = f"unformattable: {error!r}"
        hunt(self.record, text, f"log {entry.name}")
        self.record.count(f"log {entry.levelname}")
        expected = "soak means to" in text or "soak/subscribers.py" in text  # counted, too
        if entry.levelno >= logging.ERROR and not expected:
            self.record.break_("log error", text[-1500:])
