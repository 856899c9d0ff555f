"""What a tool returned -> the text that the model reads.

Never raises, whatever the value does when it is looked at, and costs no more
than the limit asks for: a huge value is cut before it is written, not after.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import io
import json
import math
import types
from collections import deque
from typing import Any, Dict, Iterator, List, Mapping, Set

from agentstream.schema import scalars
from agentstream.text import replace_surrogates, safe_str

__all__ = ["DEFAULT_LIMIT", "refuse_async", "to_text"]

#: Characters of a result that a model is sent.
DEFAULT_LIMIT = 20_000

_UNREADABLE = "(the result cannot be shown)"
_LISTS = (
    list,
    tuple,
    set,
    frozenset,
    deque,
    range,
    collections.abc.MappingView,
    collections.abc.Iterator,
)
_BYTES = (bytes, bytearray, memoryview)


def refuse_async(result: object) -> None:
    """Raise TypeError for what only an event loop can give: a coroutine, an async generator."""
    if not _is_async(result):
        return
    raise TypeError(
        f"it returned {type(result).__name__}, which is async: tools are called in threads of"
        " their own, without an event loop; return the value itself"
    )


def _is_async(value: object) -> bool:
    """True for what only an event loop can give, which is closed."""
    asynchronous = inspect.isawaitable(value) or isinstance(value, collections.abc.AsyncIterable)
    if not asynchronous or isinstance(value, type):
        return False
    if isinstance(value, types.CoroutineType):
        value.close()  # or Python warns that nobody awaited it
    return True


def to_text(result: object, limit: int = DEFAULT_LIMIT) -> str:
    """`result` as text of at most `limit` characters.

    A str stays as it is.  Everything else is JSON where it can be: None is
    "null", dataclasses and models are objects, dates and paths strings, NaN the
    string "NaN"; generators and other iterators are their items, as far as there is
    room; numpy's numbers and arrays are Python's.  Of bytes only their number is
    told.  What has no JSON is its repr, and so is what contains itself.
    A text that is too long ends in a remark that says so; lone surrogates are
    U+FFFD.  Never raises.
    """
    try:
        return _to_text(result, max(int(limit), 0))
    except (Exception, SystemExit):  # noqa: BLE001  # what a value does when looked at is user code
        return _UNREADABLE[: max(limit, 0)]


def _to_text(result: object, limit: int) -> str:
    if isinstance(result, enum.Enum):
        result = result.value
    if isinstance(result, str):
        length = str.__len__(result)
        return _cut(str.__getitem__(result, slice(0, limit + 1)), length, limit)
    if isinstance(result, _BYTES):
        text = _bytes(result)
        return _cut(text, len(text), limit)
    writer = _Pruner(limit)
    try:
        pruned = writer.prune(result)
        text = json.dumps(pruned, ensure_ascii=False, allow_nan=False)
    except (_NotJson, RecursionError):
        text = _repr(result, limit + 1)
    # A pruned value is written to the limit and beyond, so that it is cut below.
    return _cut(text, -1 if writer.pruned else len(text), limit)


def _cut(text: str, length: int, limit: int) -> str:
    """`text` cut to `limit`; `length` is how long all of it was, -1 if nobody knows."""
    if 0 <= length <= limit:
        return replace_surrogates(text)
    if length < 0:
        mark = f"\n[cut here: the result is longer than {limit} characters]"
    else:
        mark = f"\n[cut here: the result has {length} characters]"
    return replace_surrogates(text[: max(limit - len(mark), 0)]) + mark[:limit]


def _bytes(value: object) -> str:
    size = value.nbytes if isinstance(value, memoryview) else len(value)  # type: ignore[arg-type]
    return f"bytes, {size} of them"


def _repr(value: object, limit: int) -> str:
    """The start of a value's repr; a fixed text where it has none."""
    if isinstance(value, int) and value.bit_length() > 12_000:
        return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    try:
        text = repr(value)
    except (Exception, SystemExit):  # noqa: BLE001  # user code again
        return _UNREADABLE
    return str.__getitem__(text, slice(0, limit))


class _NotJson(Exception):
    """The value has no JSON form of its own."""


class _Pruner:
    """Copies a value into plain JSON types, and stops when the copy is long enough.

    Attributes:
        pruned: True once something was left out.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit + 1  # of characters; what a value takes is never overstated
        self._above: Set[int] = set()
        self.pruned = False

    def prune(self, value: Any) -> Any:
        """The copy of a whole result.  Raises _NotJson."""
        return self._value(value, top=True)

    def _value(self, value: Any, *, top: bool = False) -> Any:
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, str):
            return self._text(value)
        self._room -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if value.bit_length() <= 12_000 else _repr(value, 100)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else _not_finite(value)
        if isinstance(value, scalars.WRITTEN):
            return self._text(str(value))
        if isinstance(value, _BYTES):
            return self._text(_bytes(value))
        return self._container(value, top)

    def _container(self, value: Any, top: bool) -> Any:
        key = id(value)
        if key in self._above:
            raise _NotJson
        self._above.add(key)
        try:
            if isinstance(value, tuple) and hasattr(value, "_asdict"):
                return self._pairs(value._asdict().items())
            if isinstance(value, _LISTS) and not isinstance(value, io.IOBase):
                return self._items(value)
            if isinstance(value, Mapping):
                return self._pairs(value.items())
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                names = [field.name for field in dataclasses.fields(value)]
                return self._pairs((name, getattr(value, name)) for name in names)
            if hasattr(value, "model_dump") and not isinstance(value, type):
                return self._value(value.model_dump(mode="json"), top=top)
            if _is_array(value):
                return self._array(value)
        finally:
            self._above.discard(key)
        if top:
            raise _NotJson
        if _is_async(value):
            return self._text(f"{type(value).__name__}, which is async: it was not awaited")
        return self._text(_repr(value, max(self._room, 0) + 1))

    def _items(self, values: Any) -> List[Any]:
        out: List[Any] = []
        items = _safely(values) if isinstance(values, collections.abc.Iterator) else values
        for value in items:
            if self._room <= 0:
                self.pruned = True
                break
            out.append(self._value(value))
        return out

    def _array(self, value: Any) -> Any:
        """A number or an array of numpy's kind."""
        if getattr(value, "ndim", isinstance(value, collections.abc.Iterable)):
            return self._items(value)
        plain = value.item() if hasattr(value, "item") else value.tolist()
        return self._text(_repr(value, 200)) if type(plain) is type(value) else self._value(plain)

    def _pairs(self, pairs: Any) -> Dict[str, Any]:
        out: Dict[str, Any] = {}
        for key, value in pairs:
            if self._room <= 0:
                self.pruned = True
                break
            out[self._key(key)] = self._value(value)
        return out

    def _key(self, key: Any) -> str:
        if isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, (str, *scalars.WRITTEN)):
            return self._text(key if isinstance(key, str) else str(key))
        if key is None or isinstance(key, bool):  # as json writes them
            return self._text(json.dumps(key))
        return self._text(_repr(key, 200))

    def _text(self, text: str) -> str:
        length = str.__len__(text)
        taken = str.__getitem__(text, slice(0, max(self._room, 0)))
        self._room -= len(taken) + 2
        if len(taken) < length:
            self.pruned = True
        return taken


def _is_array(value: Any) -> bool:
    """True for numpy's scalars and arrays, and for what is made like them."""
    if isinstance(value, type):
        return False
    is_scalar = hasattr(value, "dtype") and callable(getattr(value, "item", None))
    return is_scalar or callable(getattr(value, "tolist", None))


def _safely(values: Iterator[Any]) -> Iterator[Any]:
    """The items of a generator, say; where it raises, the words of that are its last item."""
    try:
        yield from values
    except Exception as error:  # noqa: BLE001  # user code again
        yield f"(then it raised {type(error).__name__}: {safe_str(error)})"


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
