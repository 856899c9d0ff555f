"""The clients of a soak, a case that is under way with one of them, and who cancels it."""

from __future__ import annotations

import heapq
import random
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentstream import (
    Limits,
    LlamaClient,
    OpenAIClient,
    Retries,
    Timeouts,
)
from stress.soak.record import (
    UNTIMED,
    Record,
)
from stress.soak.script import HEADER, KEY


class Config:
    """A long-lived client and what was set on it."""

    def __init__(self, name: str, client: Any, tls: bool) -> None:
        self.name = name
        self.client = client
        self.tls = tls
        self.timeouts: Timeouts = client.timeouts
        self.retries: Retries = client.retries
        self.limits: Limits = client.limits

    @property
    def bound(self) -> float:
        return self.timeouts.total or UNTIMED


def make_clients(ports: Tuple[int, int], ca_file: str) -> List[Config]:
    clocks = {
        "normal": Timeouts(2.0, 3.0, 1.5, 12.0),
        "short": Timeouts(0.5, 0.4, 0.3, 3.0),
        "tight": Timeouts(1.0, 2.0, 1.0, 0.8),
        "untimed": Timeouts(2.0, 2.0, 1.0, None),
    }
    quick = Retries(2, backoff=0.05, max_backoff=0.2, max_retry_after=2.0)
    shapes: List[Tuple[str, Retries, Limits]] = [
        ("normal", quick, Limits()),
        ("normal", Retries(0), Limits(pool_size=2)),
        ("short", quick, Limits()),
        ("tight", quick, Limits(pool_size=3)),
        ("untimed", Retries(1, backoff=0.02), Limits()),
        ("normal", quick, Limits(answer=250)),
    ]
    found = []
    for tls in (False, True):
        for number, (clock, retries, limits) in enumerate(shapes):
            root = f"https://localhost:{ports[1]}" if tls else f"http://127.0.0.1:{ports[0]}"
            common: Dict[str, Any] = {
                "api_key": KEY,
                "headers": {"X-Secret": HEADER},
                "timeouts": clocks[clock],
                "retries": retries,
                "limits": limits,
                "verify": ca_file if tls else True,
            }
            client = (
                LlamaClient(root, **common)
                if number % 2
                else OpenAIClient("soak", base_url=root + "/v1", **common)
            )
            found.append(Config(f"{'tls' if tls else 'plain'}-{number}-{clock}", client, tls))
    return found


class Case:
    """One operation under way: a call or a run, its cancels and its clocks."""

    def __init__(self, name: str, kind: str, config: Config, rng: random.Random) -> None:
        self.name = name
        self.kind = kind
        self.config = config
        self.rng = rng
        self.started = time.monotonic()
        self.first: Dict[str, float] = {}  # when the first text of a call came
        self.cancel_at: Optional[float] = None
        self.cancel_how = ""
        self.bound = config.bound
        self.hung = False

    def __str__(self) -> str:
        return f"case {self.name} ({self.kind}, {self.config.name}, cancel {self.cancel_how!r})"


class Canceller:
    """One thread that cancels at the appointed times, and measures what that costs."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._heap: List[Tuple[float, int, Case, str, Callable[[], object]]] = []
        self._changed = threading.Condition()
        self._number = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="soak-canceller", daemon=True)
        self._thread.start()

    def at(self, delay: float, case: Case, how: str, cancel: Callable[[], object]) -> None:
        with self._changed:
            self._number += 1
            heapq.heappush(self._heap, (time.monotonic() + delay, self._number, case, how, cancel))
            self._changed.notify()

    def drop(self, case: Case) -> None:
        with self._changed:
            self._heap = [item for item in self._heap if item[2] is not case]
            heapq.heapify(self._heap)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left = self._heap[0][0] - time.monotonic() if self._heap else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                _, _, case, how, cancel = heapq.heappop(self._heap)
            fire(self.record, case, how, cancel)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(2.0)


def fire(record: Record, case: Case, how: str, cancel: Callable[[], object]) -> None:
    """Cancel, noting when; called twice at times, which must do no harm."""
    begun = time.monotonic()
    if case.cancel_at is None:
        case.cancel_at, case.cancel_how = begun, how
    try:
        cancel()
    except Exception:
        record.break_("cancel raised", f"{case}: {traceback.format_exc()}")
    record.sample("canceller held", time.monotonic() - begun)
