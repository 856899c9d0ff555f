"""What a signature and its docstring become: JSON schema, descriptions, refusals.

Nothing is called here but what makes a tool.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
import pathlib
import re
import sys
import typing
import uuid
from typing import (
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    Mapping,
    NamedTuple,
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
from agentstream.tools import RunContext, Tool, as_tool, tool
from agentstream.tools.docstring import parse_docstring

NULL = {"type": "null"}
TEXT = {"type": "string"}
INTEGER = {"type": "integer"}


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


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


def made(annotation: Any) -> Tool:
    def probe(x):
        pass

    probe.__annotations__["x"] = annotation
    return tool(probe)


@pytest.mark.parametrize(
    ("annotation", "schema"), CASES, ids=[re.sub(r" at 0x\w+", "", str(one[0])) for one in CASES]
)
def test_an_annotation_becomes_its_schema(annotation, schema):
    parameters = made(annotation).parameters
    assert parameters["properties"]["x"] == schema
    assert parameters["required"] == ["x"]
    assert parameters["additionalProperties"] is False
    json.dumps(parameters)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | Y begins with 3.10")
def test_a_bar_is_a_union():
    assert made("int | str | None").parameters["properties"]["x"] == {
        "anyOf": [INTEGER, TEXT, NULL]
    }
    assert made(eval("int | None")).parameters == made(Optional[int]).parameters


@pytest.mark.skipif(sys.version_info >= (3, 10), reason="X | Y is understood there")
def test_a_bar_is_refused_with_a_way_out_on_3_9():
    with pytest.raises(ConfigError, match=r"'probe', parameter 'x'.*Optional\[X\]"):
        made("int | str")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements begin with 3.12")
def test_a_type_statement_is_what_it_stands_for_and_may_not_recur():
    names: Dict[str, Any] = {}
    exec("type Whole = int\ntype Json = list[Json]", names)
    assert made(names["Whole"]).parameters["properties"]["x"] == INTEGER
    with pytest.raises(ConfigError, match="refers to itself"):
        made(names["Json"])


def test_required_and_notrequired_win_over_total():
    extensions = pytest.importorskip("typing_extensions")
    for source in (extensions, typing):
        if not hasattr(source, "NotRequired"):
            continue
        hints = {"a": int, "b": source.NotRequired[int], "c": source.Required[Annotated[int, "c"]]}
        closed = source.TypedDict("closed", hints)
        assert made(closed).parameters["properties"]["x"]["required"] == ["a", "c"]
        opened = source.TypedDict("opened", hints, total=False)
        schema = made(opened).parameters["properties"]["x"]
        assert schema["required"] == ["c"]
        assert schema["properties"]["c"] == {"type": "integer", "description": "c"}


def refused_star(*numbers: int) -> None: ...


def refused_stars(**numbers: int) -> None: ...


def refused_bare(city) -> None: ...


def refused_place(city: str, /) -> None: ...


def refused_forward(city: Unknown) -> None: ...  # noqa: F821


class Weather:
    def lookup(self, city: str, days: int = 1) -> str:
        """Weather of a city."""
        return f"{city}:{days}"


class Callable_:
    """Not this text."""

    def __call__(self, city: str) -> str:
        """Looks a city up."""
        return city


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
    (lambda: tool(3), "has 1 to 64|not a function"),
    (lambda: as_tool("x"), "has 1 to 64|not a function"),
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


def test_async_and_generator_functions_are_refused():
    async def later(x: int) -> int:
        return x

    def many(x: int):
        yield x

    class Later:
        async def __call__(self, x: int) -> int:
            return x

    async def rows(x: int):
        yield x

    for function in (later, functools.partial(later, 1), Later(), rows):
        with pytest.raises(ConfigError, match="async functions"):
            tool(function, name="later")
        with pytest.raises(ConfigError, match="async functions"):
            Tool("later", "", {}, function)
    with pytest.raises(ConfigError, match="generator"):
        tool(many)


def test_a_plain_wrapper_of_an_async_function_is_a_plain_function():
    async def later(x: int) -> int:
        """Later."""
        return x

    @functools.wraps(later)
    def now(*args, **kwargs):
        try:
            later(*args, **kwargs).send(None)
        except StopIteration as stop:
            return stop.value

    made = tool(now)
    assert made.parameters["properties"] == {"x": INTEGER}
    assert made.call(made.bind('{"x": 3}')) == 3


@pytest.mark.parametrize("name", ["", "a b", "ä", "a" * 65, "a.b", "a\n", None, 3])
def test_a_bad_name_is_refused(name):
    with pytest.raises(ConfigError, match="1 to 64"):
        Tool(name, "", {}, lambda: None)
    if name is not None:
        with pytest.raises(ConfigError, match="1 to 64"):
            tool(Weather().lookup, name=name)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True])
def test_a_bad_timeout_is_refused(timeout):
    with pytest.raises(ConfigError, match="timeout"):
        Tool("t", "", {}, lambda: None, timeout=timeout)


@tool
def get_weather(city: str, unit: Literal["C", "F"] = "C", days: Optional[int] = None) -> str:
    """Current weather
    of a city.

    More of it.

    Args:
        city: the city's name,
            in English
        unit (str): degrees
    """
    return f"{city} {unit} {days}"


def test_a_tool_as_a_request_lists_it():
    assert get_weather.to_openai() == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city.\n\nMore of it.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "the city's name, in English"},
                    "unit": {
                        "type": "string",
                        "enum": ["C", "F"],
                        "description": "degrees",
                        "default": "C",
                    },
                    "days": {"anyOf": [INTEGER, NULL]},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


def test_what_a_request_lists_is_a_copy():
    get_weather.to_openai()["function"]["parameters"]["properties"].clear()
    assert "city" in get_weather.to_openai()["function"]["parameters"]["properties"]


def test_a_tool_is_still_its_function():
    assert get_weather("Paris") == "Paris C None"
    assert get_weather("Paris", unit="F", days=2) == "Paris F 2"
    assert get_weather.__name__ == "get_weather"
    assert get_weather.__doc__.startswith("Current weather")
    assert get_weather.__wrapped__ is get_weather.function
    assert repr(get_weather) == "<Tool get_weather>"


def test_the_decorators_arguments_win():
    @tool(name="other", description="Told.", timeout=2)
    def one(x: int) -> int:
        """Not told."""
        return x

    assert (one.name, one.description, one.timeout) == ("other", "Told.", 2.0)
    assert one(3) == 3
    assert tool(one.function, description="").description == ""


def test_a_functions_own_attributes_do_not_become_the_tools():
    def one(x: int) -> int:
        return x

    one.name, one.parameters, one.call = "evil", {}, None
    made = tool(one)
    assert made.name == "one"
    assert "x" in made.parameters["properties"]
    assert made.call({"x": 1}) == 1


def test_as_tool_leaves_a_tool_alone_and_wraps_a_function():
    assert as_tool(get_weather) is get_weather
    assert as_tool(get_weather.function).parameters == get_weather.parameters
    with pytest.raises(ConfigError, match="already"):
        tool(get_weather, name="again")


def test_bound_methods_and_callable_objects_work():
    method = tool(Weather().lookup)
    assert (method.name, method.description) == ("lookup", "Weather of a city.")
    assert list(method.parameters["properties"]) == ["city", "days"]
    assert method("Rome") == "Rome:1"
    called = tool(Callable_(), name="find")
    assert called.description == "Looks a city up."
    assert called.call(called.bind('{"city": "Rome"}')) == "Rome"


def test_a_partials_bound_arguments_are_the_programs():
    def ask(question: str, key: str) -> str:
        """Asks."""
        return question + key

    made = tool(functools.partial(ask, key="sesame"), name="ask")
    assert made.description == "Asks."
    assert list(made.parameters["properties"]) == ["question"]
    assert "sesame" not in json.dumps(made.to_openai())
    assert made.call(made.bind('{"question": "open "}')) == "open sesame"


def test_a_cached_function_is_read_through_its_cache():
    @functools.cache
    def twice(n: int) -> int:
        """Doubles."""
        return 2 * n

    made = tool(twice)
    assert (made.description, made.parameters["properties"]) == ("Doubles.", {"n": INTEGER})
    assert made.call(made.bind('{"n": 4}')) == 8


def test_tokens_and_contexts_are_not_in_the_schema():
    def work(
        x: int,
        cancel: CancelToken,
        maybe: Optional[CancelToken] = None,
        context: Annotated[RunContext, "ours"] = None,
        late: Optional[RunContext] = None,
    ) -> None: ...

    assert list(tool(work).parameters["properties"]) == ["x"]


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


GOOGLE = """Sum up.

    Longer.

    Args:
        a: first, see: below
        b (Optional[int]): second
            goes on

            and on
        *rest: more
        none:

    Returns:
        c: not a parameter
    """
NUMPY = """Sum up.

    Parameters
    ----------
    a : int
        first,
        see: below
    b, c : str, optional
        both
    d
        last

    Returns
    -------
    e : int
        not a parameter
    """
REST = """Sum up.
    :param a: first,
        see: below
    :param int b: second
    :type b: int
    :return: c: nothing
    """
DOCS = [
    (None, "", {}),
    ("", "", {}),
    ("Sum\n    up.\n\n    More.", "Sum up.", {}),
    ("\n    Sum up.\n    Args:\n        a: first\n", "Sum up.", {"a": "first"}),
    ("Args:\n    a: first\n", "", {"a": "first"}),
    (
        GOOGLE,
        "Sum up.",
        {"a": "first, see: below", "b": "second goes on and on", "rest": "more"},
    ),
    (NUMPY, "Sum up.", {"a": "first, see: below", "b": "both", "c": "both", "d": "last"}),
    (REST, "Sum up.", {"a": "first, see: below", "b": "second"}),
    ("Sum.\n\n:param a: first\n\n    Quoted.", "Sum.", {"a": "first"}),
    ("Parameters\n----------", "", {}),
    ("Args:", "", {}),
    (":param", ":param", {}),
    ("Weather of a city, such as:\n\nRome", "Weather of a city, such as:", {}),
    ("Notes of a city.", "Notes of a city.", {}),
]


@pytest.mark.parametrize(("text", "summary", "parameters"), DOCS)
def test_docstrings_are_read_in_three_styles(text, summary, parameters):
    assert parse_docstring(text) == (summary, parameters)


def test_annotated_wins_over_the_docstring():
    def probe(x: Annotated[int, "from the annotation"], y: int) -> None:
        """Probe.

        Args:
            x: from the docstring
            y: from the docstring
        """

    properties = tool(probe).parameters["properties"]
    assert properties["x"]["description"] == "from the annotation"
    assert properties["y"]["description"] == "from the docstring"


def test_a_brought_schema_is_copied_and_completed():
    schema = {"properties": {"q": {"type": "string"}}}
    made = Tool("find", "Finds.", schema, lambda q="": q)
    schema["properties"]["q"]["type"] = "integer"
    assert made.parameters == {"type": "object", "properties": {"q": {"type": "string"}}}
    assert Tool("t", "", {}, lambda: 1).parameters == {"type": "object", "properties": {}}


def test_a_brought_schema_whose_root_is_a_reference_is_followed():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    made = Tool("t", "", {"$ref": "#/$defs/Node", "$defs": {"Node": node}}, lambda next=None: next)
    assert made.bind('{"next": {"next": {}}}') == {"next": {"next": {}}}


WRONG_SCHEMAS = [
    ("x", lambda: 1, "must be a JSON schema"),
    ({"type": "array"}, lambda: 1, "of an object"),
    ({"properties": []}, lambda: 1, "of an object"),
    ({"required": "x"}, lambda: 1, "list of names"),
    ({"properties": {"x": object()}}, lambda x: 1, "not JSON"),
    ({"properties": {"x": {"minimum": float("nan")}}}, lambda x: 1, "not JSON"),
    ({"properties": {"x": {"$ref": "#/$defs/X"}}}, lambda x=1: 1, r"no '#/\$defs/X'"),
    ({"properties": {"x": {"$ref": "http://x/y"}}}, lambda x=1: 1, "only local"),
    ({"$ref": "#/nowhere"}, lambda: 1, "nowhere"),
    ({"properties": {"x": {}}}, lambda: 1, "parameter 'x': the function does not take it"),
    ({"properties": {"x": {}}}, lambda x: 1, "parameter 'x'.*must require it"),
    ({}, lambda x: 1, "parameter 'x'.*must require it"),
    ({"properties": {"x": {}}, "required": ["x"]}, refused_place, "does not take it"),
    ({"properties": {"city": {}}, "required": ["city"]}, refused_place, "positional-only"),
    ({}, 3, "not a function"),
    ({"required": ["x"]}, lambda x: 1, "must require it"),
]


@pytest.mark.parametrize(("schema", "function", "says"), WRONG_SCHEMAS)
def test_a_brought_schema_that_cannot_work_is_refused(schema, function, says):
    with pytest.raises(ConfigError, match=says):
        Tool("t", "", schema, function)


def test_a_function_that_hides_its_signature_may_be_brought_with_a_schema():
    made = Tool("find_max", "", {}, max)
    assert made.parameters == {"type": "object", "properties": {}}
    assert made(1, 2) == 2


def test_annotations_that_cannot_be_resolved_do_not_hinder_a_brought_schema():
    schema = {"properties": {"city": {}}, "required": ["city"]}
    assert Tool("t", "", schema, refused_forward).bind('{"city": 1}') == {"city": 1}


def test_a_description_is_a_text():
    with pytest.raises(ConfigError, match="description"):
        Tool("t", None, {}, lambda: 1)


def test_a_brought_schema_may_not_describe_what_is_ours_to_give():
    def work(cancel: CancelToken) -> None: ...

    with pytest.raises(ConfigError, match=r"parameter 'cancel'.*ours"):
        Tool("t", "", {"properties": {"cancel": {}}}, work)
    Tool("t", "", {}, work)


def test_the_strict_form_requires_everything_and_lets_the_optional_be_null():
    def find(query: str, limit: int = 5, color: Optional[Color] = None) -> Any:
        """Finds."""
        return query, limit, color

    made = tool(find, strict=True)
    function = made.to_openai()["function"]
    assert function["strict"] is True
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "query": TEXT,
            "limit": {"anyOf": [INTEGER, NULL]},
            "color": {"anyOf": [{"type": "string", "enum": ["red", "blue"]}, NULL]},
        },
        "required": ["query", "limit", "color"],
        "additionalProperties": False,
    }
    bound = made.bind('{"query": "x", "limit": null, "color": null}')
    assert made.call(bound) == ("x", 5, None)
    assert "strict" not in tool(find).to_openai()["function"]


def test_the_strict_form_reaches_definitions_and_keeps_one_null():
    maybe = {"anyOf": [{"type": "integer"}, NULL]}
    point = {"type": "object", "properties": {"x": maybe, "c": {"enum": ["a", None]}}}
    schema = {"properties": {"p": {"$ref": "#/$defs/P"}}, "required": ["p"], "$defs": {"P": point}}
    made = Tool("t", "", schema, lambda p: p, strict=True)
    strict = made.to_openai()["function"]["parameters"]["$defs"]["P"]
    assert strict["properties"]["x"] == maybe
    assert (strict["required"], strict["additionalProperties"]) == (["x", "c"], False)
    assert "required" not in made.parameters["$defs"]["P"]


@pytest.mark.parametrize("annotation", [dict, Dict[str, int], Any, list, Tuple[int, str]])
def test_the_strict_form_refuses_what_it_cannot_say(annotation):
    def probe(x):
        pass

    probe.__annotations__["x"] = annotation
    with pytest.raises(ConfigError, match=r"'probe': parameters\.x"):
        tool(probe, strict=True)


def test_pydantic_models_bring_their_own_schema():
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):
        n: int = pydantic.Field(ge=1, description="how many")

    class Outer(pydantic.BaseModel):
        inner: Inner
        others: List[Inner] = []

    schema = made(Outer).parameters["properties"]["x"]
    inner = schema["properties"]["inner"]
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema
    assert inner["properties"]["n"]["minimum"] == 1
    assert inner["properties"]["n"]["description"] == "how many"
    assert schema["properties"]["others"]["items"] == inner
    described = made(Annotated[int, pydantic.Field(ge=1, description="how many")])
    assert described.parameters["properties"]["x"] == {
        "type": "integer",
        "minimum": 1,
        "description": "how many",
    }


def test_a_recursive_pydantic_model_is_refused():
    pydantic = pytest.importorskip("pydantic")
    tree = pydantic.create_model("Tree", n=(int, ...))
    tree = pydantic.create_model("Tree", __base__=tree, child=(Optional["Tree"], None))  # noqa: F821
    tree.model_rebuild(_types_namespace={"Tree": tree})
    with pytest.raises(ConfigError, match="'probe', parameter 'x': Tree refers to itself"):
        made(tree)


def test_a_model_is_known_by_its_methods_alone():
    class Model:
        @classmethod
        def model_json_schema(cls):
            return {
                "type": "object",
                "properties": {"n": {"$ref": "#/$defs/N"}},
                "$defs": {"N": {"type": "integer"}},
            }

        @classmethod
        def model_validate(cls, value):
            return cls, value

    probe = made(Model)
    assert probe.parameters["properties"]["x"]["properties"] == {"n": INTEGER}
    assert probe.bind('{"x": {"n": 1}}') == {"x": (Model, {"n": 1})}

    class Broken(Model):
        @classmethod
        def model_json_schema(cls):
            raise RuntimeError("no schema")

    with pytest.raises(ConfigError, match="Broken cannot be made: no schema"):
        made(Broken)


# --- types that JSON has no word for, and Field(...) as a default -----------------------------


class Place(NamedTuple):
    """A place.

    Args:
        lat: degrees north.
    """

    lat: float
    lon: float = 0.5


UUID_TEXT = "12345678-1234-5678-1234-567812345678"

SCALARS = [
    (uuid.UUID, UUID_TEXT, uuid.UUID(UUID_TEXT)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
    (decimal.Decimal, 3, decimal.Decimal(3)),
    (pathlib.Path, "a/b.txt", pathlib.Path("a/b.txt")),
    (datetime.time, "09:30:00", datetime.time(9, 30)),
    (datetime.time, "09:30:00Z", datetime.time(9, 30, tzinfo=datetime.timezone.utc)),
    (datetime.timedelta, "PT1H30M", datetime.timedelta(minutes=90)),
    (datetime.timedelta, "P1DT0.5S", datetime.timedelta(days=1, seconds=0.5)),
    (datetime.timedelta, "-P1W", datetime.timedelta(weeks=-1)),
    (datetime.timedelta, "90", datetime.timedelta(seconds=90)),
    (datetime.timedelta, "1 day, 2:03:04", datetime.timedelta(1, 7384)),
    (Place, {"lat": 1}, Place(1.0, 0.5)),
    (Place, {"lat": 1, "lon": 2}, Place(1.0, 2.0)),
    (List[uuid.UUID], [UUID_TEXT], [uuid.UUID(UUID_TEXT)]),
    (Optional[pathlib.Path], None, None),
]


@pytest.mark.parametrize(("annotation", "sent", "value"), SCALARS, ids=str)
def test_t09_types_that_json_has_no_word_for(annotation, sent, value):
    made = tool(_taking(annotation))
    assert made.bind(json.dumps({"x": sent})) == {"x": value}
    assert type(made.bind(json.dumps({"x": sent}))["x"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (uuid.UUID, "no"),
        (decimal.Decimal, "NaN"),
        (decimal.Decimal, "1e999999999"),
        (decimal.Decimal, "much"),
        (datetime.time, "noon"),
        (datetime.timedelta, "P"),
        (datetime.timedelta, "P1M"),
        (datetime.timedelta, "soon"),
        (datetime.timedelta, "9" * 30),
        (Place, {"lon": 1}),
        (Place, {"lat": 1, "alt": 2}),
        (Place, [1, 2]),
        (pathlib.Path, 5),
    ],
    ids=str,
)
def test_t09_what_fits_none_of_them_is_told_to_the_model(annotation, sent):
    with pytest.raises(ToolError, match='argument "x'):
        tool(_taking(annotation)).bind(json.dumps({"x": sent}))


def _taking(annotation: Any) -> Any:
    def work(x: Any) -> Any:
        return x

    work.__annotations__["x"] = annotation
    return work


def test_t09_such_types_are_described():
    def work(
        id: uuid.UUID,
        price: decimal.Decimal,
        path: pathlib.Path,
        at: datetime.time,
        wait: datetime.timedelta = datetime.timedelta(seconds=5),
        place: Optional[Place] = None,
    ) -> None: ...

    properties = tool(work).parameters["properties"]
    formats = {name: schema.get("format") for name, schema in properties.items()}
    assert formats == {
        "id": "uuid",
        "price": None,
        "path": "path",
        "at": "time",
        "wait": "duration",
        "place": None,
    }
    assert properties["wait"]["default"] == "0:00:05"
    assert tool(work).parameters["required"] == ["id", "price", "path", "at"]
    place = properties["place"]["anyOf"][0]
    assert place["properties"]["lat"] == {"type": "number", "description": "degrees north."}
    assert place["required"] == ["lat"]


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sum.\n\nOnly of whole\nnumbers.", "Sum.\n\nOnly of whole numbers."),
        ("Sum.\n\nTwo.\n\n\nThree.\n\nArgs:\n    x: no.\n\nLate.", "Sum.\n\nTwo.\n\nThree."),
        ("Sum.\n\nTwo.\n\nReturns:\n    it.", "Sum.\n\nTwo."),
        ("Sum.\n\nTwo.\n\nParameters\n----------\nx : int\n", "Sum.\n\nTwo."),
        ("Sum.\n\nTwo.\n\n:param x: no", "Sum.\n\nTwo."),
        ("", ""),
    ],
)
def test_t12_all_paragraphs_before_the_sections_reach_the_model(text, said):
    def work(x: int) -> int:
        return x

    work.__doc__ = text
    assert tool(work).to_openai()["function"]["description"] == said
