"""Event and freeze: what an event is made of, and that nobody can change it."""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import enum
import json
import math
import pickle
from collections import OrderedDict, namedtuple
from types import MappingProxyType
from typing import Any, Callable, Dict, List, NamedTuple

import pytest

from agentstream.errors import LogError
from agentstream.events.model import TERMINAL, Event, EventType, freeze
from agentstream.events.stream import EventStream


def event(**data: Any) -> Event:
    stream = EventStream()
    return stream.append(EventType.SYSTEM_WARNING, "w", data)


# --- the fields ----------------------------------------------------------------------------


def test_the_types_are_snake_case_strings_over_the_wire() -> None:
    for kind in EventType:
        assert kind.value == kind.name.lower()
        assert str(kind) == kind.value
        assert json.dumps(kind) == f'"{kind.value}"'
    assert {t.value for t in TERMINAL} == {
        "workflow_completed",
        "workflow_failed",
        "workflow_cancelled",
    }


def test_an_event_has_the_fields_of_the_contract() -> None:
    assert Event._fields == (
        "id",
        "offset",
        "position",
        "type",
        "workflow_id",
        "parent_workflow_id",
        "timestamp",
        "data",
    )


def test_json_round_trip() -> None:
    was = event(text="naïve ☃", nested={"list": [1, 2.5, None, True, {"x": []}]})
    again = Event.from_dict(json.loads(was.to_json()))
    assert again == was
    assert again.type is EventType.SYSTEM_WARNING
    assert "\n" not in was.to_json()
    assert Event.from_dict(was.to_dict()) == was


@pytest.mark.parametrize("keys", [{1: "a", None: "b"}, {b"x": "a"}, {("t",): "a"}])
def test_d11_top_level_keys_become_text(keys: Dict[Any, Any]) -> None:
    was = EventStream().append("system_warning", "w", keys)
    assert all(type(key) is str for key in was.data)
    assert Event.from_dict(json.loads(was.to_json())) == was


@pytest.mark.parametrize(
    "change",
    [{"type": "no_such_type"}, {"data": ["no", "object"]}, {"data": None}],
)
def test_what_is_no_event_is_refused(change: Dict[str, Any]) -> None:
    fields = {**event(a=1).to_dict(), **change}
    with pytest.raises(ValueError):
        Event.from_dict(fields)


def test_a_missing_field_is_a_key_error() -> None:
    fields = event(a=1).to_dict()
    del fields["offset"]
    with pytest.raises(KeyError):
        Event.from_dict(fields)


@pytest.mark.parametrize(
    "duplicate",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_pickled_and_copied_events_are_equal_and_as_frozen(
    duplicate: Callable[[Event], Event],
) -> None:
    was = event(a={"b": [1, {"c": "d"}]})
    again = duplicate(was)
    assert again == was
    assert type(again) is Event
    with pytest.raises(TypeError):
        again.data["a"]["b"][1]["c"] = "changed"


# --- U10: nobody can change it -------------------------------------------------------------

MUTATIONS: List[Callable[[Any], Any]] = [
    lambda d: d.__setitem__("a", 1),
    lambda d: d.__delitem__("a"),
    lambda d: d.clear(),
    lambda d: d.pop("a"),
    lambda d: d.popitem(),
    lambda d: d.setdefault("new", 1),
    lambda d: d.update(a=1),
    lambda d: d.__ior__({"a": 1}),
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_u10_data_cannot_be_changed(mutate: Callable[[Any], Any]) -> None:
    was = event(a="kept", deep={"a": "kept"}, items=[{"a": "kept"}])
    before = was.to_json()
    for target in (was.data, was.data["deep"], was.data["items"][0]):
        with pytest.raises(TypeError, match="cannot be changed"):
            mutate(target)
    assert was.to_json() == before


def test_u10_fields_and_lists_cannot_be_changed() -> None:
    was = event(items=[1, 2])
    with pytest.raises(AttributeError):
        was.offset = 7  # type: ignore[misc]
    with pytest.raises(TypeError):
        was.data["items"][0] = 7
    mine = was.data.copy()  # type: ignore[attr-defined]
    mine["items"] = "changed"
    assert dict(was.data) == {"items": (1, 2)}


def test_u10_what_the_publisher_does_later_changes_nothing() -> None:
    data = {"items": [1], "text": "a"}
    was = event(**data)
    nested: Dict[str, Any] = {"inner": {"x": 1}}
    other = EventStream().append("system_warning", "w", nested)
    data["items"].append(2)  # type: ignore[attr-defined]
    nested["inner"]["x"] = nested["more"] = 2
    assert was.data["items"] == (1,)
    assert other.data == {"inner": {"x": 1}}


# --- D11: what JSON lacks ------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Text(str):
    pass


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Point:
    x: int
    tags: Any


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Talkative:
    def __repr__(self) -> str:
        return "x" * 5000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xff\x00", base64.b64encode(b"\xff\x00").decode()),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"abcd")[::2], "YWM="),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (1.5, 1.5),
        (10**600, 10**600),
        (10**1000, hex(10**1000)),
        ("a\ud83d\ude00b", "a\U0001f600b"),  # a pair that was split
        ("a\ud800b", "a\ufffdb"),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (Text("t"), "t"),
        (Pair(1, 2), (1, 2)),
        (namedtuple("N", "a")([1]), ((1,),)),
        (Point(1, {"t"}), {"x": 1, "tags": ("t",)}),
        ({3}, (3,)),
        (frozenset(["a"]), ("a",)),
        (OrderedDict(a=[1]), {"a": (1,)}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({"\ud800": 1}, {"\ufffd": 1}),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        (1j, "1j"),
        (Unprintable(), "<Unprintable>"),
        (Talkative(), "x" * 1000),
        (int, "<class 'int'>"),
        (True, True),
        (None, None),
    ],
)
def test_d11_what_json_lacks_is_written_by_rule(value: Any, expected: Any) -> None:
    frozen = freeze(value)
    assert frozen == expected
    assert type(frozen) is type(expected) or isinstance(frozen, dict)
    was = event(value=value)
    assert Event.from_dict(json.loads(was.to_json())) == was
    was.to_json().encode()  # valid UTF-8


def test_d11_a_value_that_contains_itself_is_refused_and_the_log_stays_open() -> None:
    cycle: List[Any] = []
    cycle.append({"again": cycle})
    deep: Any = "end"
    for _ in range(100):
        deep = [deep]
    stream = EventStream()
    stream.append("system_warning", "w", {"n": 1})
    for value in (cycle, deep):
        with pytest.raises(LogError, match="nested too deeply"):
            stream.append("system_warning", "w", {"value": value})
    assert stream.append("system_warning", "w", {"n": 2}).offset == 2


def test_d11_an_integer_that_python_does_not_print_is_written_in_hexadecimal() -> None:
    was = event(value=10**5000)
    assert was.data["value"] == hex(10**5000)
    assert Event.from_dict(json.loads(was.to_json())) == was


def test_d11_sixty_levels_are_fine() -> None:
    deep: Any = "end"
    for _ in range(60):
        deep = [deep]
    was = event(value=deep)
    assert Event.from_dict(json.loads(was.to_json())) == was
