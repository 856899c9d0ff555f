"""Sixty types and answers, right and wrong, through every protocol on one scripted server."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Dict, List, Literal, NamedTuple, Optional, Set, Tuple, Union

import pytest
from typing_extensions import NotRequired, TypedDict

from agentstream import Output, OutputInvalid
from agentstream.testing import ScriptedServer
from tests.kit.schemas import is_part
from tests.kit.typed import PROTOCOLS, play


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class AtLeast(NamedTuple):
    ge: int


class Long(NamedTuple):
    min_length: int


@dataclasses.dataclass
class Item:
    name: str
    price: float
    tags: List[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Invoice:
    """An invoice.

    Attributes:
        number: as it is printed.
    """

    number: int
    items: List[Item]
    color: Color = Color.RED
    due: Optional[datetime.date] = None


@dataclasses.dataclass
class Cat:
    lives: int


@dataclasses.dataclass
class Dog:
    name: str


@dataclasses.dataclass
class Checked:
    n: int

    def __post_init__(self) -> None:
        if self.n == 13:
            raise ValueError("not thirteen")


TREE: Dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["v"],
            "additionalProperties": False,
        }
    },
}
UUID = uuid.UUID(int=5)
DAY = datetime.date(2026, 11, 27)
Bounded = Annotated[int, AtLeast(3)]
Word = Annotated[str, Long(3)]

#: A type, an answer, and what it is.
RIGHT: List[Tuple[Any, str, Any]] = [
    (int, '{"value": 3}', 3),
    (float, '{"value": 3}', 3.0),
    (bool, '{"value": true}', True),
    (str, '{"value": "a \\"b\\" c"}', 'a "b" c'),
    (Optional[int], '{"value": null}', None),
    (Optional[int], '{"value": 4}', 4),
    (Color, '{"value": "blue"}', Color.BLUE),
    (Color, "blue", Color.BLUE),
    (Level, '{"value": 2}', Level.HIGH),
    (Literal["a", "b"], '{"value": "b"}', "b"),
    (Literal["a", 1, None], '{"value": 1}', 1),
    (List[int], '{"value": [1, 2, 3]}', [1, 2, 3]),
    (List[int], "[1, 2, 3]", [1, 2, 3]),
    (List[List[str]], '{"value": [["a"], []]}', [["a"], []]),
    (Set[str], '{"value": ["a", "b"]}', {"a", "b"}),
    (Tuple[int, str], '{"value": [1, "a"]}', (1, "a")),
    (Tuple[int, ...], '{"value": [1, 2]}', (1, 2)),
    (Dict[str, int], '{"a": 1, "b": 2}', {"a": 1, "b": 2}),
    (Point, '{"x": 1, "y": 2}', Point(1, 2)),
    (Point, '{"x": 1, "y": null}', Point(1)),
    (Movie, '{"title": "Metropolis", "year": 1927}', {"title": "Metropolis", "year": 1927}),
    (Movie, '{"title": "M"}', {"title": "M"}),
    (Item, '{"name": "nut", "price": 1.5, "tags": ["a"]}', Item("nut", 1.5, ["a"])),
    (
        Invoice,
        '{"number": 7, "items": [{"name": "nut", "price": 1, "tags": []}, '
        '{"name": "bolt", "price": 2.5, "tags": ["x", "y"]}], "color": "blue", "due": "2026-11-27"}',
        Invoice(7, [Item("nut", 1.0), Item("bolt", 2.5, ["x", "y"])], Color.BLUE, DAY),
    ),
    (Union[Cat, Dog], '{"value": {"name": "Rex"}}', Dog("Rex")),
    (Union[Cat, Dog], '{"lives": 9}', Cat(9)),
    (Optional[Item], '{"value": {"name": "n", "price": 0}}', Item("n", 0.0)),
    (Union[int, List[int]], '{"value": [1]}', [1]),
    (datetime.date, '{"value": "2026-11-27"}', DAY),
    (datetime.timedelta, '{"value": "PT1H30M"}', datetime.timedelta(minutes=90)),
    (uuid.UUID, f'{{"value": "{UUID}"}}', UUID),
    (decimal.Decimal, '{"value": "12.50"}', decimal.Decimal("12.50")),
    (Bounded, '{"value": 3}', 3),
    (Word, '{"value": "abc"}', "abc"),
    (Any, '{"value": {"any": ["thing"]}}', {"any": ["thing"]}),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": 2}', None),
    ({"type": "array", "items": {"type": "integer"}}, '{"value": [1]}', [1]),
    ({"enum": ["x", 2]}, '{"value": 2}', 2),
    (TREE, '{"v": 1, "kids": [{"v": 2, "kids": []}]}', {"v": 1, "kids": [{"v": 2, "kids": []}]}),
    # Mended, since it can only be meant one way.
    (Item, '```json\n{"name": "nut", "price": 1}\n```', Item("nut", 1.0)),
    (Item, 'Sure, here it is: {"name": "nut", "price": 1}. Anything else?', Item("nut", 1.0)),
    (Item, '{"name": "two\nlines", "price": "1.5"}', Item("two\nlines", 1.5)),
    (List[int], '{"value": "[1, 2]"}', [1, 2]),
    (Item, '\ufeff {"name": "nut", "price": 1, "tags": null}', Item("nut", 1.0)),
]

#: A type, an answer, and the places of what is wrong with it.
WRONG: List[Tuple[Any, str, List[Tuple[Any, ...]]]] = [
    (int, '{"value": "three"}', [()]),
    (int, '{"value": 1.5}', [()]),
    (Color, '{"value": "green"}', [()]),
    (Literal["a", "b"], "c", [()]),
    (List[int], '{"value": [1, "x", 2, "y"]}', [(1,), (3,)]),
    (Item, '{"name": "nut"}', [("price",)]),
    (Item, '{"name": 1, "price": "a lot"}', [("name",), ("price",)]),
    (Item, '{"name": "nut", "price": 1, "size": 2}', [("size",)]),
    (Invoice, '{"number": 1, "items": [{"name": "a", "price": "x"}]}', [("items", 0, "price")]),
    (Invoice, '{"number": 1, "items": [], "due": "tomorrow"}', [("due",)]),
    (Union[Cat, Dog], '{"value": {"wings": 2}}', [("lives",), ("wings",)]),
    (Checked, '{"n": 13}', [()]),
    (Bounded, '{"value": 2}', [()]),
    (Word, '{"value": "ab"}', [()]),
    (Movie, '{"year": 1927}', [("title",)]),
    (Item, "I cannot tell.", [()]),
    (Item, '{"name": "nut", "price": 1,}', [()]),
    (Item, "{'name': 'nut', 'price': 1}", [()]),
    (Item, '{"name": "nut", "price": NaN}', [()]),
    (Item, '{"name": "a", "name": "b", "price": 1}', [()]),
    (Item, '{"name": "a", "price": 1} or {"name": "b", "price": 2}', [()]),
    (TREE, '{"v": 1, "kids": [{"v": "x"}]}', [("kids", 0, "v")]),
]


def pieces(text: str) -> List[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_sixty_types_and_answers(server: ScriptedServer, protocol: Any) -> None:
    assert len(RIGHT) + len(WRONG) >= 60
    client = protocol.client(server)
    for kind, text, value in RIGHT:
        expected = {"a": 1, "b": 2} if value is None and isinstance(kind, dict) else value
        play(server, protocol, *pieces(text))
        *parts, last = client.chat_stream("Tell.", output=kind).values()
        assert last == expected and type(last) is type(expected), (kind, text)
        assert all(is_part(*pair) for pair in zip(parts, parts[1:])), (kind, text)
        body = server.requests[-1].json
        held = protocol.schema(body)
        if held is not None:
            protocol.check(held)
        else:  # Messages has no words for it: a tool then
            assert protocol.name == "messages", kind
            assert body["tool_choice"]["name"] == body["tools"][0]["name"], kind
    for kind, text, places in WRONG:
        play(server, protocol, *pieces(text))
        with pytest.raises(OutputInvalid) as caught:
            client.chat("Tell.", output=Output(kind, retries=0))
        assert [problem.path for problem in caught.value.problems] == places, (kind, text)
        assert caught.value.partial.content == text
        assert not caught.value.cut


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_wrong_answer_is_answered_and_a_cut_one_says_so(server: Any, protocol: Any) -> None:
    client = protocol.client(server)
    play(server, protocol, '{"name": "nut"', ', "price": "cheap"}')
    play(server, protocol, '{"name": "nut", "price": 2}')
    response = client.chat("What is it?", output=Item)
    assert response.value == Item("nut", 2.0)
    assert response.usage.prompt_tokens == 20
    assert any("price must be a number" in warning for warning in response.warnings)
    told = str(server.requests[-1].json)
    assert "What is it?" in told and '"price": "cheap"' in told.replace("\\", "")
    assert 'price must be a number, not the string "cheap"' in told.replace("\\", "")
    play(server, protocol, '{"name": "nut", "pri', cut=True)
    count = len(server.requests)
    with pytest.raises(OutputInvalid, match="was cut") as caught:
        client.chat("What is it?", output=Item)
    assert caught.value.cut and caught.value.value == {"name": "nut"}
    assert len(server.requests) == count + 1  # another one would be cut as well
    play(server, protocol, '{"name": "nut", "price": 2}', cut=True)
    assert client.chat("What is it?", output=Item).value == Item("nut", 2.0)
