"""Chunks of chat completions, and what an answer made of them comes to."""

from __future__ import annotations

from agentstream.llm.accumulator import Accumulator
from agentstream.llm.chat.chunks import ChunkReader


def answer_to(*chunks):
    """The answer and the warnings that chunks come to."""
    reader, answer = ChunkReader(), Accumulator()
    for delta in [*map(reader.read, chunks), reader.flush()]:
        if delta is not None:
            answer.add(delta)
    for oddity in reader.oddities():
        answer.warn(oddity)
    return answer.response()


def chunk(delta=None, finish=None, **more):
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"choices": [choice], **more}
