"""What a typed answer costs beside its text: values that grow with each of many small pieces."""

from __future__ import annotations

import json
import random
import time
from typing import Any, Dict, Iterator, List, Optional

from agentstream import CancelToken, ChatClient, ChatRequest, Delta

#: An object of records: texts, numbers, lists and objects within objects.
SCHEMA: Dict[str, Any] = {"type": "object", "properties": {"records": {"type": "array"}}}


class Pieces(ChatClient):
    """A client whose answer is there already, in pieces."""

    def __init__(self, pieces: List[str]) -> None:
        self._deltas = [Delta(piece) for piece in pieces]

    def stream_deltas(
        self, request: ChatRequest, *, cancel: Optional[CancelToken] = None
    ) -> Iterator[Delta]:
        yield from self._deltas
        yield Delta(finish_reason="stop")


def answer(size: int) -> str:
    """A JSON text of about so many characters; the same in each run."""
    draw, records, length = random.Random(16), [], 0
    while length < size:
        record = {
            "id": draw.randrange(10**6),
            "name": "name " * draw.randrange(1, 12),
            "tags": ["a", "bcd", "é\n"][: draw.randrange(4)],
            "place": {"x": draw.random(), "known": draw.random() < 0.5},
        }
        records.append(record)
        length += len(json.dumps(record)) + 2
    return json.dumps({"records": records})


def values(size: int, piece: int) -> Dict[str, float]:
    """CPU seconds of one answer: parsed at once, iterated as text, and as growing values."""
    text = answer(size)
    client = Pieces([text[at : at + piece] for at in range(0, len(text), piece)])
    loads = _cpu(lambda: json.loads(text))
    texts = _cpu(lambda: sum(1 for _ in client.chat_stream("?")))
    count = 0

    def iterate() -> None:
        nonlocal count
        stream = client.chat_stream("?", output=SCHEMA)
        for last in stream.values():
            count += 1
        assert last == json.loads(text)

    grown = _cpu(iterate)
    return {
        "loads_s": loads,
        "text_s": texts,
        "values_s": grown,
        "values": count,
        "ratio": grown / (loads + texts),
    }


def _cpu(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
