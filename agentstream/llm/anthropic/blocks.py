"""The blocks of an answer: as they stream, and as they go back.  Pure.

A block is kept as it was started, with what its deltas added.  Its words are kept
nowhere: it knows where they stand in the answer.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Tuple

from agentstream.results import ToolCall
from agentstream.text import SurrogateJoiner

__all__ = ["CALL", "TEXT", "THINKING", "Block", "blocks_of", "input_of", "sent_back", "state_of"]

CALL, TEXT, THINKING = "tool_use", "text", "thinking"
#: Under which arguments go back that are no JSON object, as Anthropic's documents advise.
_INVALID = "INVALID_JSON"
_PLAIN = {TEXT: {"type", "text", "citations"}, CALL: {"type", "id", "name", "input"}}

#: Lenient about raw line breaks in strings, as the reading of arguments is.
_LENIENT = json.JSONDecoder(strict=False)


class Block:
    """One block of an answer that streams.

    Attributes:
        raw: the block as it was started, with what deltas added to its fields.
        kind: its type.
        index: its number in the stream.
        place: of a call, its place among the answer's calls; else -1.
        spans: of words, where they stand in the answer's text or reasoning.
        pieces: of its input, the JSON as it came.
        surrogates: joins what is cut over two of them.
        stopped: its end was told.
        assumed: of a call, none of its input was streamed.
    """

    __slots__ = (
        "assumed",
        "index",
        "kind",
        "pieces",
        "place",
        "raw",
        "spans",
        "stopped",
        "surrogates",
    )

    def __init__(self, raw: Mapping[str, Any], index: Any = None, place: int = -1) -> None:
        self.raw: Dict[str, Any] = dict(raw)
        kind = raw.get("type")
        self.kind = kind if isinstance(kind, str) else ""
        self.index = index
        self.place = place
        self.spans: List[Tuple[int, int]] = []
        self.pieces: List[str] = []
        self.surrogates = SurrogateJoiner()
        self.stopped = False
        self.assumed = False

    def arguments(self) -> str:
        """The input as JSON; "" for none."""
        return "".join(self.pieces)

    def extend(self, delta: Mapping[str, Any]) -> None:
        """Take in a delta that is neither words nor input: a signature, a citation."""
        for name, value in delta.items():
            if name == "citation":
                cited = self.raw.get("citations")
                self.raw["citations"] = [*(cited if isinstance(cited, list) else ()), value]
            elif name != "type" and isinstance(value, str):
                before = self.raw.get(name)
                self.raw[name] = (before if isinstance(before, str) else "") + value

    def words(self, answer: str) -> str:
        """Its words, cut out of the answer's."""
        return "".join(answer[begin:end] for begin, end in self.spans)

    def is_half(self, is_last: bool) -> bool:
        """True if its input, that of a call, may have been cut when the answer was."""
        if not self.stopped or (self.assumed and is_last):
            return True
        return not _is_json(self.arguments())


def state_of(
    blocks: List[Block], text: str, reasoning: str, *, cut: bool, always: bool = False
) -> Optional[List[Dict[str, Any]]]:
    """The blocks as they go back; None if text and calls say all that they do.

    Args:
        blocks: in their order.
        text, reasoning: the answer's.
        cut: the answer was cut, so that reasoning without a signature is half.
        always: never None.
    """
    if cut and blocks and blocks[-1].kind == THINKING and not blocks[-1].raw.get("signature"):
        blocks = blocks[:-1]
    kinds = [block.kind for block in blocks]
    plain = all(
        block.raw.keys() <= _PLAIN.get(block.kind, set()) and not block.raw.get("citations")
        for block in blocks
    )
    if plain and not always and kinds == sorted(kinds):  # "text" before "tool_use"
        return None
    return [_kept(block, text, reasoning) for block in blocks]


def _kept(block: Block, text: str, reasoning: str) -> Dict[str, Any]:
    if block.kind == TEXT:
        return {**block.raw, TEXT: block.words(text)}
    if block.kind == THINKING:
        return {**block.raw, THINKING: block.words(reasoning)}
    if block.kind == CALL:  # its input is the call's
        return {name: value for name, value in block.raw.items() if name != "input"}
    if block.pieces:
        return {**block.raw, "input": input_of(block.arguments())}
    return block.raw


def sent_back(
    blocks: List[Dict[str, Any]], text: str, calls: Mapping[str, ToolCall]
) -> Optional[List[Dict[str, Any]]]:
    """An answer's blocks as they were, to stand for a message with that text and those calls.

    Returns None if the text is not that of the blocks: somebody wrote another one.

    Args:
        blocks: what `state_of` gave.
        text: the message's content.
        calls: the message's calls by their ids; they win over those of the blocks.
    """
    if "".join(block.get(TEXT, "") for block in blocks if block.get("type") == TEXT) != text:
        return None
    sent = []
    told = set()
    for block in blocks:
        kind = block.get("type")
        if kind == CALL:
            call = calls.get(block.get("id", ""))
            if call is None:
                continue
            told.add(call.id)
            sent.append({**block, **_call_block(call)})
        elif kind != TEXT or block[TEXT].strip():
            sent.append(dict(block))
    return sent + [_call_block(call) for call in calls.values() if call.id not in told]


def blocks_of(text: str, calls: Mapping[str, ToolCall]) -> List[Dict[str, Any]]:
    """The blocks of an answer that is text and calls and nothing else; blank text is refused."""
    said = [{"type": TEXT, TEXT: text}] if text.strip() else []
    return said + [_call_block(call) for call in calls.values()]


def _call_block(call: ToolCall) -> Dict[str, Any]:
    return {"type": CALL, "id": call.id, "name": call.name, "input": input_of(call.arguments)}


def input_of(arguments: str) -> Dict[str, Any]:
    """A call's arguments as the object that Messages wants; what is none goes under a key."""
    if not arguments.strip():
        return {}
    try:
        value = _LENIENT.decode(arguments)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {_INVALID: arguments}


def _is_json(text: str) -> bool:
    try:
        _LENIENT.decode(text)
    except (ValueError, RecursionError):
        return False
    return True
