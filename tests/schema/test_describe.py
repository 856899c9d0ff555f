"""What an annotation becomes: its JSON schema, its default, its refusal.

Nothing is called here but what makes a tool.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import re
import typing
from typing import (
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    Mapping,
    NewType,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypedDict,
    Union,
)

import pytest

from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError, ToolError
from agentstream.tools import as_tool, tool
from tests.kit.tool_support import INTEGER, NULL, TEXT, Color, Level, made


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Odd(enum.Enum):
    PAIR = (1, 2)


class Empty(enum.Enum):
    pass


@dataclasses.dataclass
class Point:
    """A place.

    Attributes:
        x: to the right
    """

    x: float
    y: Annotated[float, "upwards"] = 0.0
    tags: List[str] = dataclasses.field(default_factory=list)
    secret: int = dataclasses.field(default=3, init=False)


@dataclasses.dataclass
class Plain:
    n: int


@dataclasses.dataclass
class Node:
    children: List[Node]


@dataclasses.dataclass
class Init:
    n: int
    seed: dataclasses.InitVar[int]


class Movie(TypedDict):
    title: str
    stars: Color


class Partly(TypedDict, total=False):
    title: str


@dataclasses.dataclass
class Dangling:
    n: Nowhere  # noqa: F821


class OldModel:
    """What marks a model of pydantic 1."""

    __get_validators__ = None


class MinLength:
    min_length = 2


UserId = NewType("UserId", int)
Key = NewType("Key", str)

POINT = {
    "type": "object",
    "properties": {
        "x": {"type": "number", "description": "to the right"},
        "y": {"type": "number", "description": "upwards", "default": 0.0},
        "tags": {"type": "array", "items": TEXT},
    },
    "required": ["x"],
    "additionalProperties": False,
}


class Doc:
    """An object with a description, as pydantic's FieldInfo has one."""

    description = "from an object"


class Ge:
    ge = 1


class Words:
    """As typing_extensions' Doc."""

    documentation = "documented"


class Switch:
    """Not a bound, whatever its attribute is called."""

    ge = True


class Field:
    description = None
    metadata = [Ge()]


CASES = [
    (str, TEXT),
    (int, INTEGER),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (None, NULL),
    (Any, {}),
    (object, {}),
    (datetime.date, {"type": "string", "format": "date"}),
    (datetime.datetime, {"type": "string", "format": "date-time"}),
    (list, {"type": "array", "items": {}}),
    (List[int], {"type": "array", "items": INTEGER}),
    (list[str], {"type": "array", "items": TEXT}),
    (Sequence[int], {"type": "array", "items": INTEGER}),
    (tuple, {"type": "array", "items": {}}),
    (Tuple[int, ...], {"type": "array", "items": INTEGER}),
    (Tuple[int, int], {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2}),
    (
        Tuple[int, str],
        {
            "type": "array",
            "prefixItems": [INTEGER, TEXT],
            "items": {"anyOf": [INTEGER, TEXT]},
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    (Set[int], {"type": "array", "items": INTEGER, "uniqueItems": True}),
    (dict, {"type": "object"}),
    (Dict[str, Any], {"type": "object"}),
    (Dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
    (
        Mapping[str, List[int]],
        {
            "type": "object",
            "additionalProperties": {"type": "array", "items": INTEGER},
        },
    ),
    (Optional[int], {"anyOf": [INTEGER, NULL]}),
    (Union[int, str], {"anyOf": [INTEGER, TEXT]}),
    (Optional[Annotated[int, "how many"]], {"anyOf": [INTEGER, NULL], "description": "how many"}),
    (Literal["C", "F"], {"type": "string", "enum": ["C", "F"]}),
    (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
    (Literal[True], {"type": "boolean", "enum": [True]}),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}),
    (Literal[Color.RED], {"type": "string", "enum": ["red"]}),
    (Color, {"type": "string", "enum": ["red", "blue"]}),
    (Level, {"type": "integer", "enum": [1, 2]}),
    (Mixed, {"enum": [1, "two"]}),
    (UserId, INTEGER),
    (List[UserId], {"type": "array", "items": INTEGER}),
    (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
    (Dict[Key, int], {"type": "object", "additionalProperties": INTEGER}),
    (Annotated[str, MinLength()], {"type": "string", "minLength": 2}),
    (Annotated[List[int], MinLength()], {"type": "array", "items": INTEGER, "minItems": 2}),
    (Annotated[dict, MinLength()], {"type": "object", "minProperties": 2}),
    (Annotated[int, Doc()], {"type": "integer", "description": "from an object"}),
    (Annotated[int, Words()], {"type": "integer", "description": "documented"}),
    (Annotated[int, Switch()], INTEGER),
    (Annotated[int, Field()], {"type": "integer", "minimum": 1}),
    (Annotated[Optional[int], Ge()], {"anyOf": [{"type": "integer", "minimum": 1}, NULL]}),
    (Point, POINT),
    (List[Point], {"type": "array", "items": POINT}),
    (
        Movie,
        {
            "type": "object",
            "properties": {"title": TEXT, "stars": {"type": "string", "enum": ["red", "blue"]}},
            "required": ["title", "stars"],
            "additionalProperties": False,
        },
    ),
    (
        Partly,
        {
            "type": "object",
            "properties": {"title": TEXT},
            "required": [],
            "additionalProperties": False,
        },
    ),
]


@pytest.mark.parametrize(
    ("annotation", "schema"), CASES, ids=[re.sub(r" at 0x\w+", "", str(one[0])) for one in CASES]
)
def test_an_annotation_becomes_its_schema(annotation, schema):
    parameters = made(annotation).parameters
    assert parameters["properties"]["x"] == schema
    assert parameters["required"] == ["x"]
    assert parameters["additionalProperties"] is False
    json.dumps(parameters)


def refused_star(*numbers: int) -> None: ...


def refused_stars(**numbers: int) -> None: ...


def refused_bare(city) -> None: ...


def refused_place(city: str, /) -> None: ...


def refused_forward(city: Unknown) -> None: ...  # noqa: F821


class Weather:
    def lookup(self, city: str, days: int = 1) -> str:
        """Weather of a city."""
        return f"{city}:{days}"


REFUSED = [
    (lambda: tool(refused_star), r"'refused_star', parameter 'numbers'.*name each one"),
    (lambda: tool(refused_stars), r"parameter 'numbers': \*\*numbers"),
    (lambda: tool(refused_bare), r"parameter 'city'.*no annotation; write city: str"),
    (lambda: tool(refused_place), r"parameter 'city'.*positional-only"),
    (lambda: tool(refused_forward), r"parameter 'city'.*'Unknown'.*top of the module"),
    (lambda: tool(Weather.lookup), r"parameter 'self'.*bound method"),
    (lambda: made(bytes), r"'probe', parameter 'x': bytes has no JSON schema.*use str"),
    (lambda: made(complex), "complex"),
    (lambda: made(Dict[int, str]), r"keys are strings, not int"),
    (lambda: made(List[bytes]), "bytes"),
    (lambda: made(Odd), r"choice \(1, 2\)"),
    (lambda: made(Empty), "no members"),
    (lambda: made(Literal[b"x"]), "choice b'x'"),
    (lambda: made(Node), r"Node.children: Node refers to itself"),
    (lambda: made(Dangling), r"annotations of Dangling.*'Nowhere'"),
    (lambda: made(OldModel), "pydantic 1"),
    (lambda: made(List["Nowhere"]), "Nowhere"),  # noqa: F821
    (lambda: made("3 +"), "cannot be evaluated|Forward reference must be"),
    (lambda: made(Init), "needs seed|annotations of Init"),
    (lambda: made(list["Point2"]), "Point2"),  # noqa: F821
    (lambda: made(typing.TypeVar("T")), "has no JSON schema"),
    (lambda: made(typing.Callable[[], int]), "has no JSON schema"),
    (lambda: made(Union[int, bytes]), "bytes"),
    (lambda: made(Tuple[CancelToken, None]), "CancelToken"),
    (lambda: made(type[int]), "has no JSON schema"),
    (lambda: made(Union[CancelToken, int]), "CancelToken"),
    (lambda: tool(3), "has 1 to 64|a function"),
    (lambda: as_tool("x"), "has 1 to 64|a function"),
    (lambda: tool(Plain), "is a class"),
    (lambda: tool(lambda: 1), "name="),
    (lambda: tool(functools.partial(print)), "name="),
    (lambda: tool(max), "cannot be read|positional-only|cannot be described"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_what_cannot_be_described_is_refused_by_name(make, says):
    with pytest.raises(ConfigError) as caught:
        make()
    assert re.search(says, str(caught.value), re.DOTALL), caught.value


DEFAULTS = [
    (int, 3, {"type": "integer", "default": 3}),
    (bool, False, {"type": "boolean", "default": False}),
    (Color, Color.BLUE, {"type": "string", "enum": ["red", "blue"], "default": "blue"}),
    (Tuple[int, ...], (1, 2), {"type": "array", "items": INTEGER, "default": [1, 2]}),
    (int, None, {"anyOf": [INTEGER, NULL]}),
    (Annotated[int, "n"], None, {"anyOf": [INTEGER, NULL], "description": "n"}),
    (Optional[int], None, {"anyOf": [INTEGER, NULL]}),
    (Any, None, {}),
    (float, float("nan"), {"type": "number"}),
    (Plain, Plain(1), None),
    (str, "x" * 2000, TEXT),
]


@pytest.mark.parametrize(("annotation", "default", "schema"), DEFAULTS)
def test_a_default_is_shown_where_it_is_plain_json(annotation, default, schema):
    def probe(x=default):
        pass

    probe.__annotations__["x"] = annotation
    parameters = tool(probe).parameters
    assert parameters["required"] == []
    if schema is None:
        assert "default" not in parameters["properties"]["x"]
    else:
        assert parameters["properties"]["x"] == schema


def test_t09_field_as_a_default():
    pydantic = pytest.importorskip("pydantic")
    field = pydantic.Field

    @tool
    def search(
        query: str = field(description="What to look for.", min_length=2),
        limit: int = field(default=3, ge=1, le=9, description="At most so many."),
        tags: List[str] = field(default_factory=list),
        code: str = field("ab", pattern="^a"),
        page: int = field(7),
        size: Optional[int] = field(None, gt=0),
    ) -> Any:
        """Search."""
        return query, limit, tags, code, page, size

    schema = search.parameters
    assert schema["required"] == ["query"]
    assert schema["properties"]["query"] == {
        "type": "string",
        "description": "What to look for.",
        "minLength": 2,
    }
    assert schema["properties"]["limit"] == {
        "type": "integer",
        "description": "At most so many.",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }
    assert schema["properties"]["code"]["pattern"] == "^a"
    first = search.call(search.bind('{"query": "it"}'))
    assert first == ("it", 3, [], "ab", 7, None)
    assert first[2] is not search.call(search.bind('{"query": "it"}'))[2]
    assert search.call(search.bind('{"query": "it", "limit": 5}'))[1] == 5
    for wrong in ({"query": "it", "limit": 0}, {"limit": 3}, {"query": "i"}, {"query": None}):
        with pytest.raises(ToolError):
            search.bind(json.dumps(wrong))
