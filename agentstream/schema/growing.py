"""The value of a JSON text that is still arriving, as far as it can be known (pure).

A field is there once its value has begun; texts grow, numbers come when they are
whole.  Nothing is checked here: what does not read on as JSON just stops growing, and
says the parser of the whole why.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional, Union

from agentstream.schema.known import ANYTHING, Known
from agentstream.schema.parse import MAX_DEPTH, MAX_TRIES, clean
from agentstream.schema.partial_json import StringDecoder

__all__ = ["NOTHING", "WRAPPED", "GrowingValue"]

#: What is known of a value that has not begun.
NOTHING: Any = object()
#: The key under which a value stands that is no object by itself.
WRAPPED = "value"

#: Up to so many characters any piece is worth reading; of longer texts, 1/256.
_AT_ONCE = 4096
_SHARE = 256
#: Members that cost nothing to copy; each ten more delay the next copy by a character.
_FEW = 1000
_COPIED = 10
#: So many characters at least are worth a try to read several members together.
_LONG = 128
#: Characters of a key or a number before it counts as none.
_MOST = 4096

#: What stands between values; whether it stands right is not looked at.
_BETWEEN = re.compile(r"[\s,:]*")
_STARTS = {marks: re.compile(f"[{re.escape(marks)}]") for marks in ("{", "[", "{[")}
_WORD = re.compile(r'[^\s,:"\[\]{}]+')
_LITERALS = {"true": True, "false": False, "null": None}
_decode = json.JSONDecoder(strict=False).raw_decode


class _Open:
    """An object or an array that has begun and not ended.

    Attributes:
        members: those that are whole.
        key: of an object, the key whose value is to come; None between two members.
        known: what is known of its keys or items; None if it is itself not wanted.
        tried: in which reading its members were last tried together.
    """

    __slots__ = ("key", "known", "members", "tried")

    def __init__(self, members: Union[Dict[str, Any], List[Any]], known: Optional[Known]) -> None:
        self.members: Any = members
        self.known = known
        self.key: Optional[str] = None
        self.tried = 0

    def expected(self) -> Optional[Known]:
        """What is known of the value that comes next; None if it is not wanted."""
        if self.known is None:
            return None
        return self.known.items if self.key is None else self.known.under(self.key)

    def add(self, value: Any, *, wanted: bool) -> None:
        """Take a whole value in."""
        if self.key is None:
            self.members.append(value)
        elif wanted:
            self.members[self.key] = value
        self.key = None

    def with_last(self, last: Any) -> Any:
        """A copy, with the value that has begun; `NOTHING` for none."""
        if self.members.__class__ is dict:
            members = dict(self.members)
            if last is not NOTHING:
                members[self.key] = last
            return members
        return self.members[:] if last is NOTHING else [*self.members, last]


class GrowingValue:
    """A JSON value that arrives in pieces, which may be cut anywhere.

    Words before the value are passed over.  Each reading makes a copy of what is still
    open, so that pieces of long texts are to be fed together: `due` characters at a time
    make the whole cost what its length says.

    Args:
        known: which keys are kept.
        wrapped: the value is expected within {"value": ...}.
        bare: how the value itself may begin: "{", "[", both, or "" for neither.

    Attributes:
        due: so many characters are worth the next reading.
    """

    def __init__(self, known: Known = ANYTHING, *, wrapped: bool = False, bare: str = "{") -> None:
        self._known = known
        self._wrapped = wrapped
        self.due = 1
        self._size = 0
        self._readings = 0
        self._tries = 0  # brackets that were none of the value's
        self._rest = ""  # read, and not understood before more comes
        self._stack: List[_Open] = []
        self._string: Optional[StringDecoder] = None
        self._text: List[str] = []  # of that
        self._start = _STARTS[("{" if wrapped or "{" in bare else "") + ("[" * ("[" in bare))]
        self._may_be_bare = "{" in bare
        self._bare = not wrapped
        self._grown = False
        self._over = False
        self._last: Any = NOTHING

    def feed(self, text: str) -> bool:
        """Take a piece; True if `value` has become another one."""
        self._size += len(text)
        self._readings += 1
        self.due = 1 + max(0, self._size - _AT_ONCE) // _SHARE
        self._grown = False
        if not self._over:
            self._read(self._rest + text)
        return self._grown and (self._bare or self._wrapped_has_begun())

    def value(self) -> Any:
        """The value so far, which no later piece changes; `NOTHING` before it has begun."""
        if not self._stack:
            return self._last
        last, copied = NOTHING, 0
        if self._string is not None:
            self._text = ["".join(self._text)]
            last = self._text[0]
        for frame in reversed(self._stack):
            if frame.known is None or (frame.key is not None and frame.expected() is None):
                last = NOTHING
            if frame.known is not None:
                copied += len(frame.members)
                last = frame.with_last(last)
        self.due += max(0, copied - _FEW) // _COPIED
        return self._unwrapped(last)

    def _unwrapped(self, value: Any) -> Any:
        return value if self._bare else value.get(WRAPPED, NOTHING)

    def _wrapped_has_begun(self) -> bool:
        if not self._stack:
            return self._last is not NOTHING
        outer = self._stack[0]
        return WRAPPED in outer.members or len(self._stack) > 1 or self._string is not None

    # --- reading ----------------------------------------------------------------------------

    def _read(self, text: str) -> None:
        self._rest = ""
        at = 0
        while not self._over:
            if self._string is not None:
                at = self._in_string(self._string, text, at)
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if at >= len(text):
                break
            try:
                reached = self._token(text, at) if self._stack else self._begin(text, at)
            except (ValueError, RecursionError):
                reached = self._give_up(at)
            if reached == at:  # more must come first
                self._rest = text[at:]
                self._over = len(self._rest) > _MOST
                break
            at = reached

    def _begin(self, text: str, at: int) -> int:
        """Pass over what stands before the value."""
        start = self._start.search(text, at)
        if start is None:
            return len(text)
        at = start.start()
        self._bare = not self._wrapped or text[at] == "["
        if self._bare:
            self._open(text[at], self._known)
        else:
            outer = Known()
            outer.keys, outer.bare = {WRAPPED: self._known}, False
            self._open("{", outer)
        return at + 1

    def _give_up(self, at: int) -> int:
        """It is no JSON: the value begins later, or does not grow any more."""
        self._tries += 1
        is_first = len(self._stack) == 1 and not self._stack[0].members
        if is_first and self._tries < MAX_TRIES:
            self._stack.clear()
            return at + 1
        self._over = True
        return at

    def _token(self, text: str, at: int) -> int:
        """Read what begins at `at`; returns where it ends, or `at` if that has not come yet."""
        frame = self._stack[-1]
        char = text[at]
        if char in "}]":
            self._close()
            return at + 1
        if frame.key is None and len(text) - at > _LONG and frame.tried != self._readings:
            frame.tried = self._readings
            end = self._several(frame, text, at)
            if end > at:
                return end
        if frame.key is None and frame.members.__class__ is dict:
            return self._key(frame, text, at)
        if char == '"' or char in "{[":
            return self._begun(frame, text, at)
        end = _WORD.match(text, at).end()  # type: ignore[union-attr]
        if end == len(text):
            return at
        word = text[at:end]
        value = _LITERALS[word] if word in _LITERALS else _number(word)
        self._add(frame, value)
        return end

    def _several(self, frame: _Open, text: str, at: int) -> int:
        """Read all members up to a late comma, if it stands between two of them."""
        first, last = "{}" if frame.members.__class__ is dict else "[]"
        if frame.known is None or not (frame.members or self._stack[0] is not frame):
            return at  # the outermost one's first key says what it is
        # Between two objects, most likely of an array of them; else the last one.
        end = max(text.rfind(mark, at) for mark in ("}, {", "},{")) + 1 if first == "[" else 0
        end = end if end > at else text.rfind(",", at)
        if end <= at:
            return at
        try:
            members, read = _decode(first + text[at:end] + last)
        except (ValueError, RecursionError):
            return at
        if read < end - at + 2:
            return at
        members = clean(members, text, at, end)
        self._grown = True
        if first == "{":
            frame.members.update(frame.known.pruned(members))
        else:
            frame.members.extend(map(frame.known.items.pruned, members))
        return end

    def _key(self, frame: _Open, text: str, at: int) -> int:
        if text[at] != '"':
            raise ValueError("a key is a text")
        if text.find('"', at + 1) < 0:
            return at
        try:
            key, end = _decode(text, at)
        except ValueError:
            return at  # it ends later
        if len(self._stack) == 1 and not frame.members and not self._bare and key != WRAPPED:
            if not self._may_be_bare:
                raise ValueError(key)
            self._bare, frame.known = True, self._known
        frame.key = clean(key, text, at, end)
        return end

    def _begun(self, frame: _Open, text: str, at: int) -> int:
        """A text, an array or an object: all of it, if it is there, else its beginning."""
        char = text[at]
        if text.find({"{": "}", "[": "]"}.get(char, char), at + 1) > 0:
            try:
                value, end = _decode(text, at)
            except (ValueError, RecursionError):
                pass
            else:
                value = clean(value, text, at, end)
                self._add(frame, value)
                return end
        known = frame.expected()
        self._grown = self._grown or known is not None
        if char == '"':
            self._string, self._text = StringDecoder(), []
        else:
            self._open(char, known)
        return at + 1

    def _in_string(self, string: StringDecoder, text: str, at: int) -> int:
        piece, at = string.feed(text, at)
        frame = self._stack[-1]
        wanted = frame.expected() is not None
        if piece:
            self._text.append(piece)
            self._grown = self._grown or wanted
        if string.done:
            frame.add("".join(self._text), wanted=wanted)
            self._string, self._text = None, []
        return at

    def _open(self, char: str, known: Optional[Known]) -> None:
        if len(self._stack) > MAX_DEPTH:
            raise ValueError("nested too deeply")  # as `parse_json` has it
        # The outermost one shows with its first member: a bracket may be one of the words before.
        self._grown = self._grown or (known is not None and bool(self._stack))
        self._stack.append(_Open({} if char == "{" else [], known))

    def _close(self) -> None:
        frame = self._stack.pop()
        if not self._stack:
            self._over = True
            self._last = self._unwrapped(frame.members)
            self._grown = self._grown or not frame.members
        else:
            outer = self._stack[-1]
            outer.add(frame.members, wanted=frame.known is not None)

    def _add(self, frame: _Open, value: Any) -> None:
        known = frame.expected()
        if known is not None:
            value = known.pruned(value)
            self._grown = True
        frame.add(value, wanted=known is not None)


def _number(word: str) -> Any:
    value, end = _decode(word)
    if end != len(word) or value.__class__ not in (int, float) or value - value != 0:
        raise ValueError(word)
    return value
