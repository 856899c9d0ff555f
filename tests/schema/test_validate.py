"""A value against a schema: what fits, what is mended, what is refused; schemas that were brought.

The cases are tables; a seeded fuzz holds `bind` to "ToolError or values that fit", whatever comes.
"""

from __future__ import annotations

import datetime
import json
import random
from typing import Any, Dict, List, Literal, Optional, Set, Tuple, TypedDict, Union

import pytest

from agentstream.errors import ToolError
from agentstream.schema.validate import same
from agentstream.tools import Tool, tool
from tests.kit.tool_support import Color, Level, Point, bound


class Movie(TypedDict, total=False):
    title: str
    color: Color


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
