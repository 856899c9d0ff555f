"""The events of a Messages stream -> Deltas.  Pure.

An event is what its data's `type` says; its name repeats that.  A block is found by
its index.  Events, blocks and deltas of unknown types are no error: blocks are kept,
to go back, the rest is ignored.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentstream.llm.anthropic.blocks import CALL, TEXT, THINKING, Block, state_of
from agentstream.llm.anthropic.usage import UsageReader
from agentstream.llm.chunk import shown_id, text_of
from agentstream.llm.finish import Ending, ending_of
from agentstream.llm.messages import Delta, ToolCallDelta
from agentstream.text import SurrogateJoiner, is_encodable, strip_controls

__all__ = ["EventReader"]

_new = tuple.__new__

#: Stop reasons in chat completions' words; others are told as they came.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "compaction": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
#: Those after which the answer is to be sent back for the rest of it.
_PAUSES = ("pause_turn", "compaction")

#: Bytes of events that are kept of one answer, its words aside.
_MOST = 8_000_000

_NO_INDEX = object()


class EventReader:
    """Reads the events of one stream, in order.

    Attributes:
        ended: message_stop came.
        failure: the error that a stop reason is; None while there is none.
        dropped: what goes back was too much to keep.
        response_id: the server's id for the answer; "" for none.
    """

    def __init__(self) -> None:
        self._blocks: List[Block] = []
        self._by_index: Dict[Any, Block] = {}
        self._calls = 0
        self._usage = UsageReader()
        self._content = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._written: Optional[Block] = None  # the block whose words come
        self._text_index: Any = _NO_INDEX  # its index, if it is text
        self._since = 0  # where its words began
        self._said = 0  # characters of text
        self._thought = 0  # characters of reasoning
        self._kept = 0
        self._stop_reason = ""
        self._stop_details: Dict[str, Any] = {}
        self.ended = False
        self.failure: Optional[Dict[str, Any]] = None
        self.dropped = False
        self.response_id = ""

    def read(self, event: Dict[str, Any], size: int = 0) -> Optional[Delta]:
        """The delta an event holds; None if it adds nothing.

        Args:
            size: the bytes of its data.
        """
        kind = event.get("type")
        if kind == "content_block_delta" and event.get("index") == self._text_index:
            delta = event.get("delta")
            if delta.__class__ is dict and len(delta) == 2:  # nearly every event
                text = delta.get("text")
                if (
                    text.__class__ is str
                    and (text.isascii() or is_encodable(text))
                    and delta.get("type") == "text_delta"
                    and not self._content.held
                ):
                    if not text:
                        return None
                    self._said += len(text)
                    plain: Delta = _new(Delta, (text, "", (), None, None, None, (), None, None))
                    return plain
        read = _READ.get(kind) if kind.__class__ is str else None
        return None if read is None else read(self, event, size)

    # --- the message ------------------------------------------------------------------------

    def _message_start(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        message = event.get("message")
        if not isinstance(message, dict):
            return None
        self.response_id = shown_id(message.get("id"))
        usage = self._usage.read(message.get("usage"))
        model = text_of(message.get("model"))
        return Delta(usage=usage, model=model or None) if usage or model else None

    def _message_delta(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        usage = self._usage.read(event.get("usage"))
        finish = None
        delta = event.get("delta")
        if isinstance(delta, dict):
            finish = self._read_ending(delta)
        return Delta(finish_reason=finish, usage=usage) if finish or usage else None

    def _read_ending(self, delta: Dict[str, Any]) -> Optional[str]:
        word = strip_controls(text_of(delta.get("stop_reason")))[:200]
        if not word:
            return None
        details = delta.get("stop_details")
        if isinstance(details, dict):
            self._stop_details = details
        if ending_of(word) is Ending.FAILED:
            said = f"the answer ended with {word}"
            self.failure = {"type": "error", "error": {"type": word, "message": said}}
            return None
        self._stop_reason = word
        return _FINISH.get(word, word)

    def _message_stop(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        self.ended = True
        return None

    # --- blocks -----------------------------------------------------------------------------

    def _block_start(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        raw = event.get("content_block")
        if not isinstance(raw, dict):
            return None
        block = self._begin(raw, event.get("index"))
        self._keep(size)
        if block.kind == CALL:
            name, call_id = text_of(raw.get("name")), text_of(raw.get("id"))
            return Delta(tool_calls=(ToolCallDelta(block.place, call_id, name),))
        if block.kind in (TEXT, THINKING):
            return self._words(block, raw.get(block.kind))
        return None

    def _begin(self, raw: Dict[str, Any], index: Any) -> Block:
        block = Block(raw, index)
        if block.kind == CALL:
            block.place = self._calls
            self._calls += 1
        self._blocks.append(block)
        self._by_index[_key(index)] = block
        if index == self._text_index:
            self._text_index = _NO_INDEX
        return block

    def _block_delta(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return None
        kind = delta.get("type")
        block = self._block(event)
        if kind == "text_delta":
            return self._words(self._of_kind(TEXT, block, event), delta.get("text"))
        if kind == "thinking_delta":
            return self._words(self._of_kind(THINKING, block, event), delta.get("thinking"))
        if block is None:
            return None
        self._keep(size)
        if kind == "input_json_delta":
            return self._input(block, delta.get("partial_json"))
        if not self.dropped:
            block.extend(delta)
        return None

    def _block(self, event: Dict[str, Any]) -> Optional[Block]:
        """The block that an event is about; without an index, the latest."""
        index = event.get("index")
        if index is None:
            return self._blocks[-1] if self._blocks else None
        return self._by_index.get(_key(index))

    def _of_kind(self, kind: str, block: Optional[Block], event: Dict[str, Any]) -> Block:
        """`block` if such words can be its own; else a new one, whose start was not told."""
        if block is not None and block.kind == kind:
            return block
        return self._begin({"type": kind}, event.get("index"))

    def _words(self, block: Block, words: Any) -> Optional[Delta]:
        if not isinstance(words, str):
            return None
        is_text = block.kind == TEXT
        joiner = self._content if is_text else self._reasoning
        if block is not self._written:
            self._write(block)
        if not words.isascii() or joiner.held:
            words = joiner.join(words)
        if not words:
            return None
        if is_text:
            self._said += len(words)
            return Delta(words)
        self._thought += len(words)
        return Delta("", words)

    def _write(self, block: Optional[Block]) -> None:
        """From now on the words are another block's."""
        before = self._written
        if before is not None:
            end = self._said if before.kind == TEXT else self._thought
            before.spans.append((self._since, end))
        self._written = block
        self._text_index = _NO_INDEX
        if block is not None:
            self._since = self._said if block.kind == TEXT else self._thought
            if block.kind == TEXT and block.index is not None:
                self._text_index = block.index

    def _input(self, block: Block, piece: Any) -> Optional[Delta]:
        if not isinstance(piece, str):
            return None
        if not piece.isascii() or block.surrogates.held:
            piece = block.surrogates.join(piece)
        if not piece:
            return None
        if block.place < 0:  # a server's own tool: kept, not told
            if not self.dropped:
                block.pieces.append(piece)
            return None
        block.pieces.append(piece)
        return Delta(tool_calls=(ToolCallDelta(block.place, arguments=piece),))

    def _block_stop(self, event: Dict[str, Any], size: int) -> Optional[Delta]:
        block = self._block(event)
        if block is None or block.stopped:
            return None
        block.stopped = True
        return self._closed(block)

    def _closed(self, block: Block) -> Optional[Delta]:
        """What the end of a block tells: an input that was not streamed, a half that was lost."""
        if block.place < 0:
            joiner = self._reasoning if block.kind == THINKING else self._content
            return self._words(block, joiner.flush()) if block is self._written else None
        rest = block.surrogates.flush()
        if not rest and not block.pieces:
            block.assumed = True
            given = block.raw.get("input")
            rest = json.dumps(given if isinstance(given, dict) else {}, ensure_ascii=False)
        if not rest:
            return None
        block.pieces.append(rest)
        return Delta(tool_calls=(ToolCallDelta(block.place, arguments=rest),))

    def _keep(self, size: int) -> None:
        """Count what is kept; too much of it is dropped, the calls aside."""
        self._kept += size
        if self._kept > _MOST and not self.dropped:
            self.dropped = True
            for block in self._blocks:
                block.raw = {"type": block.kind}
                if block.place < 0:
                    block.pieces.clear()

    # --- the ending -------------------------------------------------------------------------

    @property
    def cut(self) -> bool:
        """True if the server said that the answer was cut: at a limit, or by a refusal."""
        return ending_of(self._stop_reason) is Ending.CUT

    @property
    def native_finish(self) -> str:
        """The answer's stop_reason; "" for none."""
        return self._stop_reason

    @property
    def paused(self) -> bool:
        """True if the server waits for the answer to be sent back, and then goes on with it."""
        return self._stop_reason in _PAUSES and not self._calls

    def flush(self) -> Optional[Delta]:
        """What only the stream's end can tell: lost halves, untold inputs, cut calls."""
        content, reasoning = self._content.flush(), self._reasoning.flush()
        self._said += len(content)
        self._thought += len(reasoning)
        pieces: Tuple[ToolCallDelta, ...] = ()
        for block in self._blocks:
            if block.place < 0:
                continue
            if self.ended and not self.cut and not block.stopped:
                told = self._closed(block)
                pieces += told.tool_calls if told else ()
            is_last = block is self._blocks[-1]
            if self.cut and (self._stop_reason == "refusal" or block.is_half(is_last)):
                pieces += (ToolCallDelta(block.place, cut=True),)
        return Delta(content, reasoning, pieces) if content or reasoning or pieces else None

    def state(self, text: str, reasoning: str) -> Optional[List[Dict[str, Any]]]:
        """The blocks of an answer that ended as they go back; None if text and calls say it all.

        Args:
            text, reasoning: all that this reader's deltas held.
        """
        self._write(None)
        if self.dropped or not (self.ended or self._stop_reason):
            return None
        return state_of(self._blocks, text, reasoning, cut=self.cut, always=self.paused)

    def oddities(self) -> List[str]:
        """What was odd about the answer and yet no error: texts for its warnings."""
        word = self._stop_reason
        found = []
        if word == "refusal":
            said = [
                strip_controls(text_of(self._stop_details.get(name)))[:1024]
                for name in ("category", "explanation")
            ]
            found.append(": ".join(["the model refused", *filter(None, said)]))
        if self.cut:
            found.append(f"the answer was cut: stop_reason {word}")
        elif word and word not in _PAUSES and ending_of(word) is Ending.UNKNOWN:
            found.append(f"the answer ended for a reason that is not known: stop_reason {word}")
        if self.dropped:
            found.append("what the provider wants back with the answer is too long to be kept")
        return found

    def read_whole(self, message: Dict[str, Any]) -> Optional[Delta]:
        """The delta of an unstreamed answer (`type` "message"); None if it is none."""
        content = message.get("content")
        if not isinstance(content, list):
            return None
        events: List[Dict[str, Any]] = [{"type": "message_start", "message": message}]
        for index, raw in enumerate(content):
            events.append({"type": "content_block_start", "index": index, "content_block": raw})
            events.append({"type": "content_block_stop", "index": index})
        events += [{"type": "message_delta", "delta": message}, {"type": "message_stop"}]
        deltas = [delta for delta in map(self.read, events) if delta is not None]
        return Delta(
            "".join(delta.content for delta in deltas),
            "".join(delta.reasoning for delta in deltas),
            tuple(piece for delta in deltas for piece in delta.tool_calls),
            next((delta.finish_reason for delta in deltas if delta.finish_reason), None),
            next((delta.usage for delta in deltas if delta.usage), None),
            next((delta.model for delta in deltas if delta.model), None),
        )


def _key(index: Any) -> Any:
    """An index as a dict takes it."""
    return index if isinstance(index, (int, str)) else None


_READ: Dict[str, Callable[[EventReader, Dict[str, Any], int], Optional[Delta]]] = {
    "message_start": EventReader._message_start,
    "content_block_start": EventReader._block_start,
    "content_block_delta": EventReader._block_delta,
    "content_block_stop": EventReader._block_stop,
    "message_delta": EventReader._message_delta,
    "message_stop": EventReader._message_stop,
}
