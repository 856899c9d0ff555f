"""The pieces of tool calls, as servers send them -> ToolCallDeltas.  Pure.

Which call a piece belongs to, what it adds to it, and which calls were cut.
A server may number its calls or name them, repeat ids and names or leave them
out, send arguments in pieces, as growing snapshots, or twice.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Set, Tuple

from agentstream.errors import ProtocolError
from agentstream.llm.chunk import text_of
from agentstream.llm.messages import ToolCallDelta
from agentstream.text import SurrogateJoiner, pattern, replace_surrogates

__all__ = ["ToolCallAssembler"]

#: Arguments that stand for none yet.
_PLACEHOLDERS = ("{}", "null", "[]", '""', "None")
#: What some servers write where an id is missing.
_NO_ID = ("null", "none", "undefined")

#: So many values one behind the other are looked at.
_MOST_VALUES = 16

#: Lenient about raw line breaks in strings, as the reading of arguments is.
_LENIENT = json.JSONDecoder(strict=False)


class _Slot:
    """One tool call being assembled.

    Attributes:
        place: the call's place in the answer; -1 while it waits for a name.
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.id = ""
        self.name = ""
        self.arguments: List[str] = []
        self.size = 0
        self.surrogates = SurrogateJoiner()
        self._nesting = _Nesting()
        self._scanned = 0

    def add(self, arguments: str) -> None:
        self.arguments.append(arguments)
        self.size += len(arguments)

    def replace(self, arguments: str) -> None:
        self.arguments = [arguments]
        self.size = len(arguments)
        self._nesting = _Nesting()
        self._scanned = 0

    def text(self) -> str:
        return "".join(self.arguments)

    def holds_placeholder(self) -> bool:
        """True if the arguments so far stand for none yet."""
        return 0 < self.size <= 8 and _is_placeholder(self.text())

    def is_closed(self) -> bool:
        """True if every bracket of the arguments so far is closed."""
        self._scan()
        return self._nesting.closed or self.holds_placeholder()

    def takes_object(self) -> bool:
        """True if an object may stand where the arguments end: as a value, or in a string."""
        self._scan()
        before = next((piece.rstrip() for piece in reversed(self.arguments) if piece.strip()), "")
        return self._nesting.in_string or before[-1:] in ("", ":", "[", ",")

    def _scan(self) -> None:
        """Look at the pieces that came since the last time, at each once."""
        for piece in self.arguments[self._scanned :]:
            self._nesting.feed(piece)
        self._scanned = len(self.arguments)


class _Nesting:
    """How deep a JSON text, fed in pieces, stands in its brackets."""

    _IN_STRING = pattern(r'["\\]')
    _OUTSIDE = pattern(r'["{}\[\]]')

    def __init__(self) -> None:
        self.in_string = False
        self._depth = 0
        self._opened = False
        self._escaped = False

    @property
    def closed(self) -> bool:
        return self._opened and self._depth <= 0 and not self.in_string

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (self._IN_STRING if self.in_string else self._OUTSIDE).search(text, at)
            if found is None:
                return
            at = found.end()
            mark = found.group()
            if mark == '"':
                self.in_string = not self.in_string
            elif mark == "\\":
                self._escaped = True
            else:
                self._opened = True
                self._depth += 1 if mark in "{[" else -1


class ToolCallAssembler:
    """Assembles the calls of one answer.

    A piece goes to the call of its index, else to that of its id, else to the
    last one; where calls share an index, to that of its id.  A piece that has no
    name begins no call while there is one that it can continue.
    """

    def __init__(self) -> None:
        self._slots: List[_Slot] = []  # by place
        self._by_index: Dict[int, _Slot] = {}
        self._by_id: Dict[str, _Slot] = {}
        #: Nameless pieces under an index of their own, with the call before them.
        self._nameless: List[Tuple[_Slot, _Slot]] = []
        self._told: Set[str] = set()  # the ids that calls have

    def read(self, calls: Any) -> Tuple[ToolCallDelta, ...]:
        """The deltas of one chunk's `tool_calls`.

        Raises:
            ProtocolError: it is no list, or a piece belongs to no call.
        """
        if isinstance(calls, dict):
            calls = [calls]
        if not isinstance(calls, list):
            raise ProtocolError("tool_calls is not a list", phase="stream")
        named: Set[int] = set()  # the calls that a piece of this very chunk named
        deltas: List[ToolCallDelta] = []
        for call in calls:
            if isinstance(call, dict):
                deltas += self._piece(call, named)
        return tuple(deltas)

    def finish(self, cut: bool) -> Tuple[ToolCallDelta, ...]:
        """What only the end can tell, as deltas.

        Pieces that never got a name belong to the call before them.  Arguments
        that were sent as growing snapshots, or once more after their deltas,
        count once.  A call that the answer's end cut is marked.

        Args:
            cut: the answer ended at a limit, or was stopped by a filter.
        """
        deltas = []
        for slot, before in self._nameless:
            rest = slot.text()
            if rest:
                before.add(rest)
                deltas.append(ToolCallDelta(before.place, arguments=rest))
        self._nameless.clear()
        for slot in self._slots:
            lost = slot.surrogates.flush()
            if lost:
                slot.add(lost)
                deltas.append(ToolCallDelta(slot.place, arguments=lost))
            text = slot.text()
            right = _settled(slot.arguments, text, cut)
            if right != text:
                slot.replace(right)
                deltas.append(ToolCallDelta(slot.place, arguments=right, replaces=True))
            if cut and _may_be_half(right, slot is self._slots[-1]):
                deltas.append(ToolCallDelta(slot.place, cut=True))
        return tuple(deltas)

    def _piece(self, call: Dict[str, Any], named: Set[int]) -> List[ToolCallDelta]:
        function = call.get("function")
        if not isinstance(function, dict):
            function = {}
        call_id = text_of(call.get("id")).strip()
        if call_id.lower() in _NO_ID:
            call_id = ""
        name = text_of(function.get("name"))
        if name.isspace():
            name = ""
        arguments = _arguments(function.get("arguments"))
        slot = self._find(call.get("index"), call_id, name, arguments, named)
        if call_id:
            self._by_id.setdefault(call_id, slot)
        new_id = "" if slot.id else call_id
        slot.id = slot.id or call_id
        new_name = _joined_name(slot, name) if name else slot.name
        held = ""
        if slot.place < 0 and new_name:  # its name has come: now it is a call
            slot.place = len(self._slots)
            self._slots.append(slot)
            self._nameless = [pair for pair in self._nameless if pair[0] is not slot]
            new_id, held = slot.id, slot.text()
        if new_id in self._told:
            new_id = ""  # another call has it: this one gets an id of its own
        elif slot.place >= 0 and new_id:
            self._told.add(new_id)
        if name:
            named.add(id(slot))
        if new_name == slot.name:
            new_name = ""
        else:
            slot.name = new_name
        if arguments and (not arguments.isascii() or slot.surrogates.held):
            arguments = slot.surrogates.join(arguments)
        replaces = bool(arguments) and arguments.lstrip()[:1] == "{" and slot.holds_placeholder()
        if replaces:
            slot.replace(arguments)
        elif arguments:
            slot.add(arguments)
        if slot.place < 0:
            return []
        extra = call.get("extra_content")
        if not isinstance(extra, dict):
            extra = None
        piece = ToolCallDelta(slot.place, new_id, new_name, held + arguments, extra)
        return [ToolCallDelta(slot.place, replaces=True), piece] if replaces else [piece]

    # --- which call -------------------------------------------------------------------------

    def _find(self, index: Any, call_id: str, name: str, arguments: str, named: Set[int]) -> _Slot:
        known = self._by_id.get(call_id)
        number = _number(index)
        if number is not None:
            slot = self._by_index.get(number)
            if known is not None and (not name if slot is None else slot.id != call_id):
                slot = known
            if slot is None:
                slot = self._new(bool(name or not self._slots))
            elif self._is_next(slot, call_id, name, arguments, named):
                slot = self._new(True)
            self._by_index[number] = slot
            return slot
        if known is not None:
            if self._is_next(known, call_id, name, arguments, named):
                known = self._by_id[call_id] = self._new(True)
            return known
        if self._slots and (not name or self._goes_on(call_id, name, arguments, named)):
            return self._slots[-1]
        if not (name or call_id):
            raise ProtocolError(
                "a piece of a tool call has no index, id or name, and none came before it",
                phase="stream",
            )
        return self._new(True)

    def _goes_on(self, call_id: str, name: str, arguments: str, named: Set[int]) -> bool:
        """True if a named piece without an index, of a new id, belongs to the last call."""
        last = self._slots[-1]
        if id(last) in named or bool(call_id) != bool(last.id):
            return False
        if not call_id:  # a name in pieces
            return not last.size and name != last.name
        return bool(last.size) and not self._is_next(last, call_id, name, arguments, named)

    @staticmethod
    def _is_next(slot: _Slot, call_id: str, name: str, arguments: str, named: Set[int]) -> bool:
        """True if a piece that came to a call by its index or id begins another one."""
        if not name or not slot.name:
            return False
        afresh = arguments.lstrip()[:1] == "{"
        if call_id and slot.id and call_id != slot.id:
            # An id a piece: what may stand where the arguments so far end goes on with them.
            goes_on = name == slot.name and arguments and slot.size and not slot.is_closed()
            return not (goes_on and (not afresh or slot.takes_object()))
        if id(slot) in named and not call_id:
            return True  # two names in one chunk are two calls
        if name != slot.name:
            if not slot.size:
                return False  # a name in pieces
            return slot.is_closed() or not name.startswith(slot.name)
        if call_id or not afresh or not slot.is_closed():
            return False
        repeated = slot.size == len(arguments) and slot.text() == arguments
        return not (repeated or slot.holds_placeholder())

    def _new(self, placed: bool) -> _Slot:
        if placed:
            slot = _Slot(len(self._slots))
            self._slots.append(slot)
        else:
            slot = _Slot(-1)
            self._nameless.append((slot, self._slots[-1]))
        return slot


def _joined_name(slot: _Slot, name: str) -> str:
    """The call's name now that `name` has come: a piece of it, or the whole of it again."""
    if not slot.name or name.startswith(slot.name):
        joined = name
    elif slot.size:
        joined = slot.name
    else:
        joined = slot.name + name
    return replace_surrogates(joined)


def _settled(pieces: List[str], text: str, cut: bool) -> str:
    """The arguments that `pieces` mean, `text` being their sum."""
    if not text.strip() or _is_json(text):
        return text
    last = pieces[-1]
    if pieces[0].lstrip()[:1] == "{" and all(
        after.startswith(before) for before, after in zip(pieces, pieces[1:])
    ):
        if len(pieces) > 2 or (len(pieces) == 2 and (not cut or _is_json(pieces[0]))):
            return last  # growing snapshots
    once = _said_once(text)
    if once:
        return once
    if len(pieces) > 1 and last.lstrip()[:1] == "{" and _is_json(last):
        # Of an answer that was cut, an inner object may have come whole.
        if not cut or _is_json("".join(pieces[:-1])):
            return last
    return text


def _said_once(text: str) -> str:
    """The JSON value in a text that holds it twice, or beside placeholders; "" if there is none."""
    found: List[str] = []
    rest = text.strip()
    while rest and len(found) < _MOST_VALUES:
        placeholder = next((p for p in _PLACEHOLDERS if rest.startswith(p)), "")
        try:
            end = len(placeholder) or _LENIENT.raw_decode(rest)[1]
        except (ValueError, RecursionError):
            return ""
        if not placeholder:
            found.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest or not found:
        return "" if rest else "{}"
    first = _LENIENT.decode(found[0])
    return found[-1] if all(_LENIENT.decode(other) == first for other in found[1:]) else ""


def _is_placeholder(text: str) -> bool:
    return "".join(text.split()) in _PLACEHOLDERS


def _may_be_half(arguments: str, is_last: bool) -> bool:
    """True if a call with these arguments may have been cut when its answer was."""
    if not arguments.strip():
        return is_last  # its arguments may have been about to come
    return not _is_json(arguments)


def _is_json(text: str) -> bool:
    try:
        _, end = _LENIENT.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return not text.lstrip()[end:].strip()


def _number(index: Any) -> Optional[int]:
    """A call's index as a number, in whatever type it came; None for none."""
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise ProtocolError("tool arguments that JSON cannot hold", phase="stream") from None
