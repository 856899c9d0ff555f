"""Values as bytes and exactly back: what a checkpoint holds of inputs, outputs and messages (pure).

The bytes are JSON.  What JSON holds by itself stands as it is; anything else is an object with
the one key "$": `{"$": [kind, ...]}`, `{"$": ["tuple", [1, 2]]}` say.  Nothing is pickled, and
reading makes values of the kinds in this file and in instances.py only.  Two places that held
one object hold equal ones afterwards.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import functools
import json
import math
import pathlib
import uuid
import zoneinfo
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional

from agentstream.errors import LogError
from agentstream.events.model import FrozenDict
from agentstream.llm.messages import ChatMessage
from agentstream.results import ToolCall
from agentstream.text import safe_repr
from agentstream.workflow.context import _Dict, _List
from agentstream.workflow.instances import (
    NotKept,
    article,
    find,
    form_of,
    named,
    restore,
    state_of,
)

__all__ = ["NotKept", "decode", "encode"]

_TAG = "$"
_quote = json.encoder.encode_basestring
#: Deeper, and reading might not get through what writing did.
_MOST_DEPTH = 100
#: A larger int is written in hexadecimal: Python may refuse to write it out in decimals.
_LARGE = 1 << 63


def encode(value: Any, name: str = "output") -> bytes:
    """The bytes that `decode` makes an equal value of; in each process the same ones.

    Args:
        value: of JSON's types, or a tuple, set, bytes, a date, time, duration, Decimal, UUID,
            path, Enum, NamedTuple, dataclass, pydantic model or message; of these in each other.
        name: what the path in an error begins with.

    Raises:
        NotKept: something in it is of another type, or of a class that is not found again by
            its name, or it is nested more than 100 deep.
    """
    try:
        return _write(value, 0).encode("utf-8", "surrogatepass")
    except NotKept as problem:
        problem.path = name + problem.path
        raise


def decode(data: bytes) -> Any:
    """The value that `encode` was given.

    Raises:
        LogError: `encode` did not write this, or a class is not there or has other fields now.
    """
    try:
        return _read(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise LogError("a checkpoint cannot be read: it is damaged") from None


# --- writing ---------------------------------------------------------------------------------


def _write(value: Any, depth: int) -> str:
    """`value` as JSON text."""
    kind = type(value)
    if kind is str:
        return _quote(value)
    if depth > _MOST_DEPTH:
        raise NotKept(f"nested more than {_MOST_DEPTH} deep, or in itself")
    write = _WRITE.get(kind)
    return _write_instance(value, depth) if write is None else write(value, depth)


def _tagged(kind: str, *texts: str) -> str:
    return f'{{"{_TAG}":["{kind}",{",".join(texts)}]}}'


def _dict(value: Mapping[Any, Any], depth: int) -> str:
    """A dict as it is, if its keys are texts and none is the tag."""
    texts: List[str] = []
    key: Any = None
    try:
        for key, one in list(value.items()):  # a list: another thread may add to a context
            if type(key) is not str or key == _TAG:
                break
            text = _quote(one) if type(one) is str else _write(one, depth + 1)
            texts.append(f"{_quote(key)}:{text}")
        else:
            return f"{{{','.join(texts)}}}"
    except NotKept as problem:
        raise problem.within(f"[{safe_repr(key)[:60]}]") from None
    return _pairs("dict", value, depth)


def _fields(values: Mapping[str, Any], depth: int) -> str:
    """An object of a value's attributes."""
    texts: List[str] = []
    name = ""
    try:
        for name, one in values.items():
            text = _quote(one) if type(one) is str else _write(one, depth + 1)
            texts.append(f"{_quote(name)}:{text}")
    except NotKept as problem:
        raise problem.within(f".{name}") from None
    return f"{{{','.join(texts)}}}"


def _pairs(name: str, value: Mapping[Any, Any], depth: int) -> str:
    """A mapping whose keys may be anything."""
    pairs: List[str] = []
    for key, one in list(value.items()):
        try:
            written = _write(key, depth + 1)
        except NotKept as problem:
            raise NotKept(f"a key that is {problem.what}") from None
        try:
            pairs.append(f"[{written},{_write(one, depth + 1)}]")
        except NotKept as problem:
            raise problem.within(f"[{safe_repr(key)[:60]}]") from None
    return _tagged(name, f"[{','.join(pairs)}]")


def _items(values: Collection[Any], depth: int) -> str:
    texts: List[str] = []
    try:
        for one in list(values):
            texts.append(_quote(one) if type(one) is str else _write(one, depth + 1))
    except NotKept as problem:
        raise problem.within(f"[{len(texts)}]") from None
    return ",".join(texts)


def _list(value: Collection[Any], depth: int) -> str:
    return f"[{_items(value, depth)}]"


def _other_list(name: str, value: Collection[Any], depth: int) -> str:
    return _tagged(name, _list(value, depth))


def _set(name: str, value: Collection[Any], depth: int) -> str:
    """A set, in an order that is the same in each process."""
    texts = []
    for one in list(value):
        try:
            texts.append(_write(one, depth + 1))
        except NotKept as problem:
            raise NotKept(f"a set that holds {problem.what}") from None
    return _tagged(name, f"[{','.join(sorted(texts))}]")


def _int(value: int, depth: int) -> str:
    return str(value) if -_LARGE < value < _LARGE else _tagged("int", _quote(hex(value)))


def _float(value: float, depth: int) -> str:
    text = repr(value)
    return text if math.isfinite(value) else _tagged("float", _quote(text))


def _by_text(name: str, value: Any, depth: int) -> str:
    return _tagged(name, _quote(str(value)))


def _bytes(name: str, value: Any, depth: int) -> str:
    return _tagged(name, _quote(base64.b64encode(value).decode("ascii")))


def _path(value: pathlib.PurePath, depth: int) -> str:
    return _tagged("path", _quote(type(value).__name__), _quote(str(value)))


def _time(name: str, value: Any, depth: int) -> str:
    """A datetime or a time: its ISO form without the zone, the fold, the zone."""
    zone = value.tzinfo
    if zone is not None and type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
        raise NotKept(f"a time whose zone is {article(type(zone))}")
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return _tagged(name, _quote(text), str(value.fold), _write(zone, depth))


def _timedelta(value: datetime.timedelta, depth: int) -> str:
    return _tagged("timedelta", str(value.days), str(value.seconds), str(value.microseconds))


def _timezone(value: Any, depth: int) -> str:
    return _tagged("timezone", _items(value.__getinitargs__(), depth))


def _zone(value: zoneinfo.ZoneInfo, depth: int) -> str:
    if value.key is None:
        raise NotKept("a ZoneInfo without a key")
    return _tagged("zone", _quote(value.key))


def _message(value: ChatMessage, depth: int) -> str:
    """A message: its fields without those that have their default."""
    texts: List[str] = []
    for name, field in vars(value).items():
        if type(field) is str:
            texts.append(f'"{name}":{_quote(field)}')
        elif field is not None and (field != () or name == "content"):
            texts.append(_fields({name: field}, depth)[1:-1])
    return f'{{"{_TAG}":["message",{{{",".join(texts)}}}]}}'


def _call(value: ToolCall, depth: int) -> str:
    """A tool call: its three texts and, if it has them, `extra_content` and `cut`."""
    own = vars(value)
    return _tagged("call", _items(value, depth), *([_dict(own, depth)] if own else []))


def _write_instance(value: Any, depth: int) -> str:
    """A value of a class that has no way of its own.

    Raises:
        NotKept: it is none that instances.py knows.
    """
    kind = type(value)
    form = form_of(kind)
    if not form:
        raise NotKept(article(kind))
    name = _quote(named(kind))
    if form == "flag":
        return _tagged(form, name, _write(value._value_, depth))
    if form == "enum":
        if kind.__members__.get(value._name_) is not value:
            raise NotKept(f"{article(kind)} that is none of its members")
        return _tagged(form, name, _quote(value._name_))
    fields, more, unset = state_of(value, form)
    texts = [_fields(part, depth) for part in (fields, more)]
    parts = [*texts, _list(unset, depth)] if unset else texts if more else texts[:1]
    return _tagged(form, name, *parts)


_WRITE: Dict[type, Callable[[Any, int], str]] = {
    type(None): lambda value, depth: "null",
    bool: lambda value, depth: "true" if value else "false",
    int: _int,
    float: _float,
    dict: _dict,
    list: _list,
    tuple: functools.partial(_other_list, "tuple"),
    set: functools.partial(_set, "set"),
    frozenset: functools.partial(_set, "frozenset"),
    _Dict: functools.partial(_pairs, "answered dict"),
    _List: functools.partial(_other_list, "answered list"),
    FrozenDict: functools.partial(_pairs, "frozen dict"),
    bytes: functools.partial(_bytes, "bytes"),
    bytearray: functools.partial(_bytes, "bytearray"),
    datetime.datetime: functools.partial(_time, "datetime"),
    datetime.time: functools.partial(_time, "time"),
    datetime.date: functools.partial(_by_text, "date"),
    datetime.timedelta: _timedelta,
    datetime.timezone: _timezone,
    zoneinfo.ZoneInfo: _zone,
    decimal.Decimal: functools.partial(_by_text, "decimal"),
    uuid.UUID: functools.partial(_by_text, "uuid"),
    pathlib.PosixPath: _path,
    pathlib.WindowsPath: _path,
    pathlib.PurePosixPath: _path,
    pathlib.PureWindowsPath: _path,
    ChatMessage: _message,
    ToolCall: _call,
}


# --- reading ---------------------------------------------------------------------------------


def _unpack(found: Dict[str, Any]) -> Any:
    """An object of the JSON text: itself, or what it stands for; what is in it has been read.

    Raises:
        LogError: it stands for nothing.
    """
    if _TAG not in found:
        return found
    tagged = found[_TAG]
    kind = tagged[0] if isinstance(tagged, list) and tagged else None
    read = _UNPACK.get(kind) if isinstance(kind, str) else None
    if read is None or len(found) != 1:
        raise LogError("a checkpoint cannot be read: it holds a kind of value that is not known")
    try:
        return read(*tagged[1:])
    except LogError:
        raise
    except Exception as problem:  # noqa: BLE001 - whatever a damaged text leads to
        raise LogError(
            f"a checkpoint cannot be read: it holds no {kind} where one should be"
            f" ({type(problem).__name__})"
        ) from None


_read: Callable[[str], Any] = json.JSONDecoder(object_hook=_unpack).decode


def _read_time(kind: Any, text: str, fold: int, zone: Optional[datetime.tzinfo]) -> Any:
    return kind.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _read_path(name: str, text: str) -> pathlib.PurePath:
    kinds = (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath,
             pathlib.PureWindowsPath)  # fmt: skip
    return {kind.__name__: kind for kind in kinds}[name](text)


def _read_message(fields: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage(**fields)


def _read_call(
    id: str, name: str, arguments: str, own: Optional[Mapping[str, Any]] = None
) -> ToolCall:
    call = ToolCall(id, name, arguments)
    vars(call).update(own or {})
    return call


def _read_instance(form: str, name: str, *state: Any) -> Any:
    missing: List[Any] = [{}, {}, []]
    fields, more, unset = [*state, *missing[len(state) :]]
    return restore(name, form, (fields, more, unset))


def _read_enum(name: str, member: str) -> Any:
    return find(name, "enum").__members__[member]


def _read_flag(name: str, value: int) -> Any:
    return find(name, "flag")(value)


_UNPACK: Dict[str, Callable[..., Any]] = {
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "answered dict": _Dict,
    "answered list": _List,
    "frozen dict": FrozenDict,
    "int": lambda text: int(text, 16),
    "float": float,
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "bytearray": lambda text: bytearray(base64.b64decode(text, validate=True)),
    "datetime": functools.partial(_read_time, datetime.datetime),
    "time": functools.partial(_read_time, datetime.time),
    "date": datetime.date.fromisoformat,
    "timedelta": datetime.timedelta,
    "timezone": datetime.timezone,
    "zone": zoneinfo.ZoneInfo,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "path": _read_path,
    "message": _read_message,
    "call": _read_call,
    "enum": _read_enum,
    "flag": _read_flag,
    **{form: functools.partial(_read_instance, form) for form in ("named", "dataclass", "model")},
}
