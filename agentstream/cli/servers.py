"""The servers that a client asks: how they are told to people, and whether they answer."""

from __future__ import annotations

import contextlib
import queue
import re
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from agentstream import threads
from agentstream.cancel import CancelToken

__all__ = ["Answer", "ask_all", "each", "title"]


class Answer(NamedTuple):
    """What became of asking a server which models it has.

    Attributes:
        models: their names; None if it gave none.
        error: why it gave none; Cancelled for one that was silent.
        seconds: that it took.
    """

    models: Optional[List[str]]
    error: Optional[Exception]
    seconds: float


def each(client: Any) -> Sequence[Any]:
    """The clients that a client is made of; itself, if of none."""
    clients: Sequence[Any] = getattr(client, "clients", (client,))
    return clients


def title(client: Any) -> str:
    """Model and server as people are told them: 'm' at https://host, without the path."""
    return ", then ".join(
        re.sub("(://[^/]*)/.*", r"\1", repr(one).strip("<>").partition(" ")[2])
        for one in each(client)
    )


def ask_all(clients: Sequence[Any], seconds: float) -> List[Answer]:
    """Ask all of them for their models, at the same time; one that is silent is left.

    Args:
        clients: whose servers are asked.
        seconds: that each may take.

    Raises:
        BaseException: what interrupts the wait; nothing is asked any more then.
    """
    told: queue.SimpleQueue[Tuple[int, Answer]] = queue.SimpleQueue()
    tokens = [CancelToken() for _ in clients]
    started = [
        threads.start_thread("doctor", _ask, number, client, tokens[number], told)
        for number, client in enumerate(clients)
    ]
    found: Dict[int, Answer] = {}
    end = time.monotonic() + seconds
    try:
        while len(found) < len(clients):
            took = _next(told, end - time.monotonic())
            if took is None:
                break
            found[took[0]] = took[1]
    finally:
        for token in tokens:
            token.cancel("nobody waits for it any more")
        for thread in started:
            thread.join()
    while len(found) < len(clients):  # those that were silent
        number, answer = told.get_nowait()
        found[number] = answer
    return [found[number] for number in range(len(clients))]


def _next(
    told: queue.SimpleQueue[Tuple[int, Answer]], timeout: float
) -> Optional[Tuple[int, Answer]]:
    """The next answer; None if there is none within `timeout` seconds."""
    for seconds in threads.slices(max(timeout, 0.0)):
        with contextlib.suppress(queue.Empty):
            return threads.get_within(told, seconds)
    return None


def _ask(
    number: int,
    client: Any,
    token: CancelToken,
    told: queue.SimpleQueue[Tuple[int, Answer]],
) -> None:
    begun = time.monotonic()
    models: Optional[List[str]] = None
    problem: Optional[Exception] = None
    try:
        models = client.models(cancel=token)
    except Exception as error:  # noqa: BLE001 - it belongs to the one who waits
        problem = error
    told.put((number, Answer(models, problem, time.monotonic() - begun)))
