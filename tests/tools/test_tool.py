"""What a model sent -> Python values -> a call -> the text that goes back.

The cases of `bind` are tables; a seeded fuzz holds it to "ToolError or values
that fit", whatever comes.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import random
import subprocess
import sys
import tracemalloc
from typing import Any, Dict, List, Literal, NamedTuple, Optional, Set, Tuple, TypedDict, Union

import pytest

from agentstream.cancel import CancelToken
from agentstream.errors import ToolError
from agentstream.tools import RunContext, Tool, to_text, tool
from agentstream.tools.arguments import MAX_DEPTH, MAX_DIGITS
from agentstream.tools.validate import same


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5
    color: Color = Color.RED

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x lies left of the map")


class Movie(TypedDict, total=False):
    title: str
    color: Color


def taking(annotation: Any, **default: Any) -> Tool:
    """A tool that gives back its one argument, x."""

    def echo(x):
        return x

    if default:
        echo.__defaults__ = (default["default"],)
    echo.__annotations__["x"] = annotation
    return tool(echo)


def bound(annotation: Any, text: str) -> Any:
    return taking(annotation).bind(f'{{"x": {text}}}')["x"]


FITS = [
    (str, '"a"', "a"),
    (str, '"5"', "5"),
    (int, "5", 5),
    (int, "3.0", 3),
    (int, '"5"', 5),
    (int, '" -5 "', -5),
    (int, '"3.0"', 3),
    (float, "5", 5.0),
    (float, '"5"', 5.0),
    (float, '"-1.5e3"', -1500.0),
    (bool, "true", True),
    (bool, '"true"', True),
    (bool, '"False"', False),
    (None, "null", None),
    (Optional[int], "null", None),
    (Optional[int], '"null"', None),
    (Optional[int], '"7"', 7),
    (Optional[str], '"null"', "null"),
    (Union[int, str], '"5"', "5"),
    (Union[str, int], "5", 5),
    (Union[int, bool], '"true"', True),
    (Any, '{"a": [1, null]}', {"a": [1, None]}),
    (list, "[1, 2]", [1, 2]),
    (List[int], '["1", 2.0]', [1, 2]),
    (List[int], '"[1, 2]"', [1, 2]),
    (Dict[str, int], '"{\\"a\\": 1}"', {"a": 1}),
    (Dict[str, float], '{"a": 1}', {"a": 1.0}),
    (Tuple[int, ...], "[1, 2]", (1, 2)),
    (Tuple[int, Color], '["1", "red"]', (1, Color.RED)),
    (Set[int], "[1, 2]", {1, 2}),
    (Literal["C", "F"], '"C"', "C"),
    (Literal[1, 2], '"2"', 2),
    (Literal[1, 2], "2.0", 2),
    (Literal["a", 1, None], "1", 1),
    (Color, '"red"', Color.RED),
    (Level, "2", Level.HIGH),
    (Level, '"2"', Level.HIGH),
    (List[Color], '["red", "blue"]', [Color.RED, Color.BLUE]),
    (Optional[Color], '"blue"', Color.BLUE),
    (Literal[Color.RED], '"red"', Color.RED),
    (Point, '{"x": 1}', Point(1.0)),
    (Point, '{"x": "1", "y": null, "color": "blue"}', Point(1.0, 0.5, Color.BLUE)),
    (Point, '"{\\"x\\": 1}"', Point(1.0)),
    (List[Point], '[{"x": 1}]', [Point(1.0)]),
    (Optional[Point], '{"x": 1}', Point(1.0)),
    (Union[Point, List[Point]], '[{"x": 1}]', [Point(1.0)]),
    (Movie, '{"color": "red"}', {"color": Color.RED}),
    (datetime.date, '"2025-01-31"', datetime.date(2025, 1, 31)),
    (
        datetime.datetime,
        '"2025-01-31T09:30:00Z"',
        datetime.datetime(2025, 1, 31, 9, 30, tzinfo=datetime.timezone.utc),
    ),
    (Union[datetime.date, str], '"tomorrow"', "tomorrow"),
]


@pytest.mark.parametrize(("annotation", "text", "value"), FITS)
def test_what_fits_or_can_be_mended_becomes_the_python_value(annotation, text, value):
    got = bound(annotation, text)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, dict):
        assert [type(item) for item in got.values()] == [type(item) for item in value.values()]
    if isinstance(value, (list, tuple)):
        assert [type(item) for item in got] == [type(item) for item in value]


REFUSED = [
    (str, "5", '"x" must be a string, not 5'),
    (str, "null", "must be a string, not null"),
    (int, "3.5", "must be an integer, not 3.5"),
    (int, '"many"', 'must be an integer, not the string "many"'),
    (int, '"3.5"', "must be an integer"),
    (int, '"0x10"', "must be an integer"),
    (int, '"1_000"', "must be an integer"),
    (int, '"\u0665"', "must be an integer"),
    (int, "true", "must be an integer, not true"),
    (int, '"1e999"', "must be an integer"),
    (float, '"nan"', "must be a number"),
    (float, "true", "must be a number, not true"),
    (float, "1" * 400, "must be a smaller number"),
    (bool, "1", "must be true or false, not 1"),
    (bool, '"yes"', "must be true or false"),
    (Optional[int], '"x"', "must be an integer or null"),
    (List[int], '[1, "x"]', r'"x\[1\]" must be an integer'),
    (List[int], "1", "must be an array, not 1"),
    (List[int], '"[1, 1e999]"', "must be an array"),
    (Tuple[int, str], "[1]", "at least 2 item"),
    (Tuple[int, str], '[1, "a", 2]', "at most 2 item"),
    (Tuple[int, str], '["a", "a"]', r'"x\[0\]" must be an integer'),
    (Set[int], "[1, 1]", "same item twice"),
    (Set[Any], "[[1]]", "simple values"),
    (Dict[str, int], '{"a": "b"}', '"x.a" must be an integer'),
    (Literal["C", "F"], '"K"', 'must be one of "C", "F", not the string "K"'),
    (Literal[1, 2], "true", "must be one of 1, 2, not true"),
    (Color, '"green"', 'one of "red", "blue"'),
    (Point, "{}", '"x.x" is missing'),
    (Point, '{"x": 1, "z": 2}', '"x.z" is unknown; known here: x, y, color'),
    (Point, '{"x": -1}', '"x" is refused: x lies left of the map'),
    (List[Point], '[{"x": -1}]', r'"x\[0\]" is refused'),
    (Optional[Point], '{"y": 1}', '"x.x" is missing'),
    (datetime.date, '"31.1.2025"', "must be a date like"),
    (datetime.datetime, '"soon"', "must be a date and time like"),
]


@pytest.mark.parametrize(("annotation", "text", "says"), REFUSED)
def test_v07_s09_what_does_not_fit_is_refused_in_words(annotation, text, says):
    with pytest.raises(ToolError, match=says) as caught:
        bound(annotation, text)
    assert caught.value.tool == "echo"
    assert caught.value.phase == "tool"
    assert str(caught.value).startswith("echo was not called: ")


@tool
def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Weather of a city."""
    return f"{city} {days} {unit}"


@tool
def ping() -> str:
    """Answers."""
    return "pong"


@pytest.mark.parametrize("text", ["", "  \n", "null", "{}", '"{}"'])
def test_no_arguments_have_several_spellings(text):
    assert ping.bind(text) == {}
    with pytest.raises(ToolError, match='"city" is missing'):
        get_weather.bind(text)


def test_arguments_encoded_twice_are_read():
    assert get_weather.bind(json.dumps('{"city": "Rome"}')) == {"city": "Rome"}


def test_a_default_is_left_to_the_function_and_null_means_it():
    assert get_weather.bind('{"city": "Rome"}') == {"city": "Rome"}
    assert get_weather.bind('{"city": "Rome", "days": null}') == {"city": "Rome"}
    assert taking(Optional[int], default=3).bind('{"x": null}') == {"x": None}


MALFORMED = [
    ('{"city": ', "this is not JSON"),
    ("{'city': 'Rome'}", "this is not JSON"),
    ('{"city": "Rome"} extra', "this is not JSON"),
    ("\ufeff{}", "this is not JSON"),
    ("[]", "the JSON must be an object, not an array"),
    ('"Rome"', 'must be an object, not the string "Rome"'),
    ("5", "must be an object, not 5"),
    ('{"city": NaN}', "NaN is not a JSON number"),
    ('{"city": -Infinity}', "Infinity is not a JSON number"),
    ('{"city": 1e999}', "a number is too large"),
    ('{"city": ' + "9" * 5000 + "}", f"more than {MAX_DIGITS} digits"),
    ('{"city": ' + "[" * 100_000, "nested too deeply|not JSON"),
    ('{"city": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
    ('{"city": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested"),
    ('{"city": "a", "city": "b"}', 'the key "city" is given twice'),
    ('{"days": 1, "city": "a", "city": "b"}', 'the key "city" is given twice'),
    ('{"city": {"a": 1, "a": 1}}', 'the key "a" is given twice'),
]


@pytest.mark.parametrize(("text", "says"), MALFORMED, ids=range(len(MALFORMED)))
def test_p08_p11_bad_json_is_a_toolerror_that_says_what_to_send(text, says):
    with pytest.raises(ToolError, match=says) as caught:
        get_weather.bind(text)
    assert 'the keys "city", "days" (optional), "unit" (optional).' in str(caught.value)
    assert len(str(caught.value)) < 400


def test_p08_lone_surrogates_are_replaced_in_values_and_keys():
    values = taking(Any).bind('{"x": {"a\\ud800": "b\\udc00", "c": "\\ud83d\\ude00"}}')["x"]
    assert values == {"a\ufffd": "b\ufffd", "c": "\U0001f600"}
    assert taking(str).bind('{"x": "\ud800"}') == {"x": "\ufffd"}


def test_p08_a_long_integer_that_is_allowed_keeps_its_digits():
    digits = "9" * MAX_DIGITS
    assert bound(int, digits) == int(digits)
    with pytest.raises(ToolError, match="very large integer"):
        bound(str, digits)


def test_s09_unknown_and_missing_keys_are_all_named_and_nothing_is_called():
    with pytest.raises(ToolError) as caught:
        get_weather.bind('{"location": "Rome", "days": "x"}')
    text = str(caught.value)
    assert '"city" is missing' in text
    assert '"location" is unknown; known here: city, days, unit' in text
    assert '"days" must be an integer' in text


def test_s09_many_problems_make_a_short_message():
    with pytest.raises(ToolError) as caught:
        get_weather.bind(json.dumps({f"k{n}" * 50: n for n in range(1000)}))
    assert "and 996 more problems" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_five_problems_are_all_told():
    with pytest.raises(ToolError) as caught:
        get_weather.bind('{"a": 1, "b": 1, "c": 1, "d": 1}')
    assert "more problems" not in str(caught.value)
    assert all(f'"{name}" is unknown' in str(caught.value) for name in "abcd")


EQUAL = [
    (1, 1.0, True),
    (1, True, False),
    (True, 1, False),
    (True, True, True),
    ([1], 1, False),
    ([1], [True], False),
    ([1, 2], [1], False),
    ({"a": 1}, {"a": 1.0}, True),
    ("1", 1, False),
    ({"a": 1}, {"b": 1}, False),
    ({"a": 1}, [], False),
    (None, False, False),
]


@pytest.mark.parametrize(("left", "right", "equal"), EQUAL)
def test_values_are_compared_as_json(left, right, equal):
    assert same(left, right) is equal


def test_text_that_is_no_text_is_refused():
    with pytest.raises(ToolError, match="text"):
        get_weather.bind(None)


# -- a schema that was brought ---------------------------------------------------------------

TREE = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Node"}]}
BROUGHT = {
    "properties": {
        "tree": TREE,
        "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
        "odd": {"exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.1},
        "q": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]+$"},
        "one": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"multipleOf": 3}]},
        "all": {"allOf": [{"type": "integer"}, {"maximum": 5}]},
        "const": {"const": [1, {"a": True}]},
        "old": {"type": "array", "items": [{"type": "integer"}], "additionalItems": False},
        "never": False,
        "huge": {"multipleOf": 0.5},
        "mixed": {
            "anyOf": [False, {"const": 1}, {"enum": ["a"]}, {"oneOf": [{"type": "integer"}]}]
        },
        "free": {
            "type": "object",
            "patternProperties": {"^i_": {"type": "integer"}},
            "additionalProperties": {"type": "string"},
            "maxProperties": 2,
        },
        "later": {"type": "something-new", "unknownKeyword": 3, "pattern": "(?<n>"},
    },
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "left": TREE, "right": TREE},
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}

BROUGHT_CASES = [
    ("tree", {"value": 1, "left": {"value": 2, "right": None}}, None),
    ("tree", {"value": 1, "left": {"right": None}}, '"tree.left.value" is missing'),
    ("n", 0, "at least 1"),
    ("n", 10, "at most 9"),
    ("n", None, None),
    ("n", 1, None),
    ("n", 9, None),
    ("q", "abc", None),
    ("odd", True, None),
    ("odd", 0.3, None),
    ("odd", 0, "more than 0"),
    ("odd", 1, "less than 1"),
    ("odd", 0.35, "multiple of 0.1"),
    ("q", "ab", None),
    ("q", "a", "at least 2 character"),
    ("q", "abcd", "at most 3 character"),
    ("q", "AB", "match the pattern"),
    ("one", 4, None),
    ("one", 9, None),
    ("one", 6, "more than one"),
    ("all", 5, None),
    ("all", 6, "at most 5"),
    ("const", [1, {"a": True}], None),
    ("const", [1, {"a": 1}], "must be"),
    ("old", [1], None),
    ("old", [1, 2], r'"old\[1\]" is not allowed'),
    ("never", 1, "not allowed"),
    ("free", {"i_a": 1, "b": "c"}, None),
    ("free", {"i_a": "x"}, '"free.i_a" must be an integer'),
    ("free", {"b": 1}, '"free.b" must be a string'),
    ("free", {"a": "", "b": "", "c": ""}, "at most 2 key"),
    ("later", "anything", None),
    ("huge", int("9" * 400), "must be a multiple of 0.5"),
    ("mixed", "x", 'must be something else or 1 or "a" or an integer, not the string "x"'),
]


@pytest.mark.parametrize(("name", "value", "says"), BROUGHT_CASES)
def test_a_brought_schema_is_checked(name, value, says):
    made = Tool("t", "", BROUGHT, lambda **given: given)
    text = json.dumps({name: value})
    if says is None:
        assert made.call(made.bind(text)) == {name: value}
    else:
        with pytest.raises(ToolError, match=says):
            made.bind(text)


def test_a_brought_schema_that_is_open_lets_through_only_what_the_function_takes():
    schema = {"properties": {"a": {}}, "additionalProperties": True, "patternProperties": {".": {}}}
    with pytest.raises(ToolError, match='"b" is unknown'):
        Tool("t", "", schema, lambda a=1: a).bind('{"a": 1, "b": 2}')
    assert Tool("t", "", schema, lambda **k: k).bind('{"a": 1, "b": 2}') == {"a": 1, "b": 2}


def test_s09_the_model_cannot_hand_in_our_own_token():
    def work(cancel: CancelToken, **others: Any) -> Any:
        return others

    made = Tool("t", "", {}, work)
    with pytest.raises(ToolError, match='"cancel" is unknown'):
        made.bind('{"cancel": 1}')
    assert made.call(made.bind('{"a": 1}')) == {"a": 1}


def test_a_schema_that_branches_and_recurs_cannot_be_made_to_run_for_ever():
    branch = {"type": "object", "properties": {"a": {"$ref": "#/$defs/P"}}}
    definitions = {"P": {"anyOf": [branch] * 6}}
    schema = {"properties": {"x": {"$ref": "#/$defs/P"}}, "$defs": definitions}
    made = Tool("t", "", schema, lambda x=1: x)
    value: Any = {}
    for _ in range(30):
        value = {"a": value}
    assert made.bind(json.dumps({"x": value})) == {"x": value}
    text = json.dumps({"x": value}).replace("{}", "0")  # 6 ** 30 ways to fail
    with pytest.raises(ToolError):
        made.bind(text)


def test_a_reference_to_itself_is_an_error_not_a_crash():
    schema = {"properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}}
    with pytest.raises(ToolError, match=r"deeply|complicated"):
        Tool("t", "", schema, lambda x=1: x).bind('{"x": 1}')


def test_odd_keyword_values_in_a_brought_schema_do_not_crash():
    odd_ones = [
        *({"type": {"a": 1}}, {"required": [[1]]}, {"enum": 3}, {"anyOf": 3}, {"items": 3}),
        *({"properties": 3}, {"minimum": "3"}, {"maxItems": True}, {"pattern": 3}),
    ]
    for odd in odd_ones:
        made = Tool("t", "", {"properties": {"x": odd}}, lambda x=1: x)
        for text in ("1", '"a"', "[1]", '{"a": 1}', "null"):
            assert made.bind(f'{{"x": {text}}}') == {"x": json.loads(text)}


# -- pydantic --------------------------------------------------------------------------------


def test_a_pydantic_model_is_made_and_its_refusals_are_placed():
    pydantic = pytest.importorskip("pydantic")

    class Trip(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        city: str
        day: datetime.date
        people: int = pydantic.Field(default=1, ge=1)

        @pydantic.field_validator("city")
        @classmethod
        def known(cls, value):
            if value != "Rome":
                raise ValueError("only Rome")
            return value

    trip = bound(Trip, '{"city": "Rome", "day": "2025-01-31", "people": "2"}')
    trips = pydantic.create_model("Trips", trips=(List[Trip], ...))
    with pytest.raises(ToolError, match=r'"x\.trips\[0\]\.city" is refused'):
        bound(trips, '{"trips": [{"city": "Oslo", "day": "2025-01-31"}]}')
    assert trip == Trip(city="Rome", day=datetime.date(2025, 1, 31), people=2)
    assert bound(List[Trip], '[{"city": "Rome", "day": "2025-01-31"}]')[0].people == 1
    with pytest.raises(ToolError, match=r'"x\.city" is refused: .*only Rome') as caught:
        bound(Trip, '{"city": "Oslo", "day": "2025-01-31"}')
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)
    with pytest.raises(ToolError, match=r'"x\[0\]\.people" must be at least 1'):
        bound(List[Trip], '[{"city": "Rome", "day": "2025-01-31", "people": 0}]')
    assert to_text(trip) == '{"city": "Rome", "day": "2025-01-31", "people": 2}'
    assert to_text([trip]) == f"[{to_text(trip)}]"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


@dataclasses.dataclass
class Fragile:
    n: int

    def __post_init__(self):
        raise (Mute() if self.n else ValueError())


def test_an_exception_of_the_callers_type_is_told_even_if_it_cannot_speak():
    with pytest.raises(ToolError, match=r'"x" is refused: Mute\.') as caught:
        bound(Fragile, '{"n": 1}')
    assert isinstance(caught.value.__cause__, Mute)
    with pytest.raises(ToolError, match=r'"x" is refused: ValueError\.'):
        bound(Fragile, '{"n": 0}')


def test_a_model_that_raises_anything_is_a_toolerror():
    class Model:
        @classmethod
        def model_json_schema(cls):
            return {"type": "object", "properties": {"any": True}}

        @classmethod
        def model_validate(cls, value):
            raise KeyError("secret place")

    with pytest.raises(ToolError, match='"x" is refused'):
        bound(Model, '{"any": 1}')


# -- fuzz ------------------------------------------------------------------------------------


def random_json(rng: random.Random, depth: int = 0) -> Any:
    scalars = [
        None,
        True,
        False,
        0,
        -1,
        3.0,
        2.5,
        10**30,
        "",
        "5",
        "true",
        "red",
        "null",
        "[1]",
        '{"x": 1}',
        "\ud800",
        "é\n",
    ]
    kind = rng.random()
    if depth > 3 or kind < 0.5:
        return rng.choice(scalars)
    if kind < 0.7:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ["x", "y", "color", "a", "b", "c", "d", "e", "f", "title", "\udfff"]
    return {rng.choice(keys): random_json(rng, depth + 1) for _ in range(rng.randrange(5))}


@tool
def everything(
    a: int,
    b: Optional[float] = None,
    c: Union[Point, List[Point], str, None] = None,
    d: Tuple[Color, ...] = (),
    e: Dict[str, List[Union[int, bool]]] = {},
    f: Optional[Movie] = None,
) -> None:
    """Takes everything."""


def fits(value: Dict[str, Any]) -> bool:
    one_of = (Point, list, str, type(None))
    return (
        type(value["a"]) is int
        and type(value.get("b")) in (float, type(None))
        and isinstance(value.get("c"), one_of)
        and all(isinstance(item, Color) for item in value.get("d", ()))
        and all(type(item) in (int, bool) for part in value.get("e", {}).values() for item in part)
        and isinstance((value.get("f") or {}).get("color", Color.RED), Color)
    )


def test_fuzz_of_bind_gives_values_that_fit_or_a_toolerror():
    rng = random.Random(5)
    good = 0
    for _ in range(4000):
        sent = {key: random_json(rng) for key in rng.sample("abcdef", rng.randrange(1, 4))}
        if rng.random() < 0.8:
            sent["a"] = rng.choice([1, "2", 3.0])
        text = json.dumps(rng.choice([sent, sent, sent, random_json(rng)]))
        if rng.random() < 0.1:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(["", '"', "}", "\\", "\x00", "NaN"]) + text[at + 1 :]
        try:
            value = everything.bind(text)
        except ToolError as exc:
            str(exc).encode("utf-8")
            continue
        good += 1
        assert fits(value), text
    assert good > 200  # else the fuzz tried nothing


# -- call ------------------------------------------------------------------------------------


def test_call_gives_the_function_its_arguments_token_and_context():
    def work(
        x: int,
        cancel: CancelToken,
        context: RunContext,
        maybe: Optional[CancelToken] = None,
        late: Optional[RunContext] = None,
    ) -> Any:
        return x, cancel, context, maybe, late

    made = tool(work)
    token, run = CancelToken(), RunContext("w", "agent", "0", "call_1")
    assert made.call({"x": 1}, token, run) == (1, token, run, token, run)
    assert made.call({"x": 1}, context=run) == (1, run.cancel, run, run.cancel, run)
    x, cancel, context, maybe, late = made.call({"x": 1})
    assert (x, maybe, late) == (1, None, None)
    assert isinstance(cancel, CancelToken)
    assert not cancel.cancelled
    assert (context.workflow_id, context.agent, context.step, context.tool_call_id) == ("",) * 4
    assert dict(context) == {}
    assert made.call({"x": 1}, token)[2].cancel is token


def test_a_context_is_a_mapping_whose_attributes_stay():
    values = {"n": 1}
    context = RunContext("w", "agent", "0", values=values)
    with pytest.raises(AttributeError):
        context.agent = "x"
    with context.lock:
        context["n"] += 1
    other = context.replace(tool_call_id="c")
    other["m"] = 3
    assert (dict(context), values) == ({"n": 2, "m": 3},) * 2
    assert (other.workflow_id, other.agent, other.step, other.tool_call_id) == (
        "w",
        "agent",
        "0",
        "c",
    )
    assert other.cancel is context.cancel
    del other["m"]
    assert list(context) == ["n"]


@pytest.mark.parametrize(
    "raised", [ValueError("no"), StopIteration(1), SystemExit(3), KeyboardInterrupt(), ToolError()]
)
def test_u04_what_the_function_raises_comes_out_of_call(raised):
    def work() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        tool(work).call({})
    assert caught.value is raised


# -- results ---------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: int
    right: str


class Unseen:
    def __repr__(self):
        raise RuntimeError("no")


class Leaves:
    def __repr__(self):
        raise SystemExit(3)


class Seen:
    def __repr__(self):
        return "<seen \ud800>"


class BadModel:
    def model_dump(self, mode):
        raise RuntimeError("no")


class Text(str):
    def __len__(self):
        raise RuntimeError("no")

    def __getitem__(self, key):
        raise RuntimeError("no")


SHARED = [1]
RESULTS = [
    ("plain ü\n", "plain ü\n"),
    ("", ""),
    (Text("sub"), "sub"),
    ("a\ud800b", "a\ufffdb"),
    ("\ud83d\ude00", "\U0001f600"),
    (None, "null"),
    (True, "true"),
    (3, "3"),
    (1.5, "1.5"),
    (float("nan"), '"NaN"'),
    ([float("inf"), -float("inf")], '["Infinity", "-Infinity"]'),
    ({"ü": [1, None, "\ud800"]}, '{"ü": [1, null, "\ufffd"]}'),
    ({1: 2, None: 3, False: 4, Color.RED: 5}, '{"1": 2, "null": 3, "false": 4, "red": 5}'),
    ({datetime.date(2025, 1, 31): 3}, '{"2025-01-31": 3}'),
    ({(1, 2): 3}, '{"(1, 2)": 3}'),
    ((1, 2), "[1, 2]"),
    ({7}, "[7]"),
    (Pair(1, "b"), '{"left": 1, "right": "b"}'),
    (Color.RED, "red"),
    (Level.HIGH, "2"),
    ([Color.RED, Level.LOW], '["red", 1]'),
    (Point(1.0), '{"x": 1.0, "y": 0.5, "color": "red"}'),
    ({"p": [Point(2.0)]}, '{"p": [{"x": 2.0, "y": 0.5, "color": "red"}]}'),
    (datetime.date(2025, 1, 31), '"2025-01-31"'),
    ([decimal.Decimal("1.10"), pathlib.PurePosixPath("/a")], '["1.10", "/a"]'),
    ([SHARED, SHARED], "[[1], [1]]"),
    (b"ab\xff", "bytes, 3 of them"),
    (object, "<class 'object'>"),
    (Point, f"<class '{__name__}.Point'>"),
    (Seen(), "<seen \ufffd>"),
    ([Seen()], '["<seen \ufffd>"]'),
    (Unseen(), "(the result cannot be shown)"),
    (Leaves(), "(the result cannot be shown)"),
    ([Unseen()], '["(the result cannot be shown)"]'),
    (BadModel(), "(the result cannot be shown)"),
    (10**5000, '"an integer of about 5001 digits"'),
]


@pytest.mark.parametrize(("result", "text"), RESULTS, ids=range(len(RESULTS)))
def test_u06_a_result_becomes_text(result, text):
    got = to_text(result)
    assert got == text
    assert type(got) is str
    got.encode("utf-8")


def test_u06_what_contains_itself_is_its_repr():
    cycle: List[Any] = [1]
    cycle.append(cycle)
    assert to_text(cycle) == "[1, [...]]"
    deep: List[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert to_text(deep) == "(the result cannot be shown)"
    while deep:  # taken apart here: freeing it at once is deep as well
        deep = deep[0]


def test_u06_a_text_is_cut_to_the_limit_with_a_mark():
    assert to_text("a" * 100, 100) == "a" * 100
    got = to_text("a" * 101, 100)
    assert got == "a" * 58 + "\n[cut here: the result has 101 characters]"
    assert len(got) == 100
    for limit in (0, 1, 10, -1):
        assert len(to_text("a" * 101, limit)) == max(limit, 0)
        assert len(to_text(list(range(1000)), limit)) == max(limit, 0)


@pytest.mark.parametrize(
    "result",
    [
        list(range(10_000)),
        {str(n): n for n in range(10_000)},
        ["a" * 5000],
        [["a" * 150], "b" * 150],
        ["\x00" * 150],
        Seen,
        [Point(n) for n in range(100)],
    ],
)
def test_u06_everything_is_cut_to_the_limit(result):
    got = to_text(result, 200)
    assert len(got) <= 200
    assert ("[cut here: the result " in got) == (result is not Seen)


def test_u06_json_that_just_fits_is_whole():
    for size in range(1, 120):
        whole = json.dumps(list(range(size)))
        assert to_text(list(range(size)), len(whole)) == whole
        text = to_text(list(range(size)), 60)
        assert text == whole if len(whole) <= 60 else text.endswith("]")
        assert ("cut here" in text) == (len(whole) > 60)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "a" * 100_000_000,
        lambda: ["a" * 100_000_000],
        lambda: {"k": ["a" * 100_000_000]},
        lambda: [1.5] * 5_000_000,
        lambda: {"k": [Point(1.0)] * 1_000_000},
    ],
    ids=["text", "nested", "deeper", "list", "points"],
)
def test_u06_a_huge_result_costs_no_more_than_its_limit(make):
    result = make()
    tracemalloc.start()
    try:
        text = to_text(result)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) <= 20_000
    assert "[cut here: the result " in text
    assert peak < 4_000_000


# -- without docstrings ----------------------------------------------------------------------

_WITHOUT = """
import warnings
from agentstream import Agent, tool
from agentstream.testing import ScriptedClient

def look(x: int) -> int:
    'Look.'
    return x

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    made = [tool(look), tool(look, name="b", description="B."), tool(look, name="c", description="")]
print([w.category.__name__ for w in told], "look" in str(told[0].message), "-OO" in str(told[0].message))
print([t.description for t in made], Agent("a", client=ScriptedClient("hi"), tools=made).run("x").response)
"""


def test_y11_without_docstrings_a_tool_without_a_description_is_told_of():
    done = subprocess.run(
        [sys.executable, "-OO", "-c", _WITHOUT], check=True, stdout=subprocess.PIPE, timeout=60
    )
    assert done.stdout.decode().splitlines() == [
        "['RuntimeWarning'] True True",
        "['', 'B.', ''] hi",
    ]


def test_the_module_and_the_decorator_go_by_one_name():
    code = """
import inspect
import agentstream.tools.tool as module
from agentstream import tool
from agentstream.tools import tool as either

assert inspect.ismodule(module) and module.Tool and callable(module.tool)
assert inspect.isfunction(tool)

@either
def one(city: str) -> str:
    "One."

@either(timeout=5)
def two(city: str) -> str:
    "Two."

assert (one.name, two.timeout) == ("one", 5)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
