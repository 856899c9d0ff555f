"""Cancel from another thread: how long the reader stays blocked, and the canceller with it.

The reader waits for headers that do not come, or for the next chunk in
mid-stream.  Ours is asked by `TextStream.cancel`; a peer by what it offers for the
purpose: closing the stream where there is one, and its client.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, Optional

from benchmarks.clients import CLIENTS, MESSAGES, Client

BLOCKED_S = 5.0
#: So long a reader has been at it when it is stopped: blocked for certain.
_SETTLE_S = 0.05


class _Reader:
    """A thread that reads one answer."""

    def __init__(self, client: Client, hang: str) -> None:
        self.client = client
        self.stream: Any = None
        self.ended_at: Optional[float] = None
        self._blocked = threading.Event()
        self._texts_due = 3 if hang == "body" else 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.stream = _begin(self.client)
            if not self._texts_due:
                self._blocked.set()
            texts = 0
            for _ in self.stream:
                texts += 1
                if texts == self._texts_due:
                    self._blocked.set()
        except BaseException:
            pass  # whatever it is: the reader is free
        self.ended_at = time.perf_counter()

    def stop(self) -> Dict[str, Any]:
        """Cancel it; milliseconds until reader and canceller were free, None where they are not."""
        if self._texts_due:
            self._blocked.wait(10)
        time.sleep(_SETTLE_S)
        assert self._thread.is_alive(), "the reader was not blocked"
        returned: List[float] = []
        began = time.perf_counter()

        def cancel() -> None:
            try:
                _cancel(self.client, self.stream)
            except BaseException:
                pass
            returned.append(time.perf_counter())

        canceller = threading.Thread(target=cancel, daemon=True)
        canceller.start()
        self._thread.join(BLOCKED_S)
        canceller.join(max(0.0, began + BLOCKED_S - time.perf_counter()))
        free = self.ended_at
        return {
            "reader_ms": None if free is None else max(0.0, free - began) * 1000,
            "canceller_ms": (returned[0] - began) * 1000 if returned else None,
        }


def _begin(client: Client) -> Any:
    """Open the stream by the peer's own call, so that its own `close` can be reached."""
    name = type(client).__name__
    if name == "OpenAIPython":
        return client.client.chat.completions.create(  # type: ignore[attr-defined]
            model="m", messages=MESSAGES, stream=True
        )
    if name == "LiteLLM":
        return client.start()  # type: ignore[attr-defined]
    return client.stream()


def _cancel(client: Client, stream: Any) -> None:
    steps: List[Callable[[], Any]] = []
    if hasattr(stream, "cancel"):
        stream.cancel()  # ours
        return
    steps += [s.close for s in (stream, getattr(stream, "response", None)) if hasattr(s, "close")]
    it = getattr(client, "client", None)
    it = getattr(it, "root_client", it)  # langchain-openai's own openai client
    steps += [s.close for s in (it, getattr(it, "_client", None)) if hasattr(s, "close")]
    for step in steps:
        try:
            step()
        except BaseException:
            pass


def stop(client: str, url: str, hang: str, times: int, beside: int = 0) -> Dict[str, Any]:
    """Cancel `times` times; with `beside` paced streams read in other threads meanwhile.

    One that stays blocked is tried twice only.
    """
    over = threading.Event()
    others = [threading.Thread(target=_read_on, args=(url, over)) for _ in range(beside)]
    for other in others:
        other.start()
    root = f"{url}/hang={hang}&n="
    outcomes: List[Dict[str, Any]] = []
    it = CLIENTS[client](root + "0")
    for number in range(times):
        outcomes.append(_Reader(it, hang).stop())
        if [o["reader_ms"] for o in outcomes[-2:]] == [None, None]:
            break
        if client != "agentstream":
            it = CLIENTS[client](f"{root}{number + 1}")  # a closed one serves no more
    over.set()
    for other in others:
        other.join()
    freed = sorted(o["reader_ms"] for o in outcomes if o["reader_ms"] is not None)
    callers = sorted(o["canceller_ms"] for o in outcomes if o["canceller_ms"] is not None)
    return {
        "times": len(outcomes),
        "blocked": len(outcomes) - len(freed),
        "canceller_blocked": len(outcomes) - len(callers),
        **_percentiles("reader", freed),
        **_percentiles("canceller", callers),
    }


def _percentiles(who: str, times: List[float]) -> Dict[str, float]:
    if not times:
        return {}
    last = len(times) - 1
    return {
        f"{who}_p50_ms": times[len(times) // 2],
        f"{who}_p99_ms": times[int(last * 0.99)],
        f"{who}_max_ms": times[last],
    }


def _read_on(url: str, over: threading.Event) -> None:
    it = CLIENTS["agentstream"](f"{url}/chunks=100000&rate=30")
    stream: Any = it.stream()
    for _ in stream:
        if over.is_set():
            stream.close()
            return
