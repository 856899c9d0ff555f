"""Tool: what it is made of, what it refuses, how a request lists it, and what a call comes to."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any, List, Literal, Optional

import pytest

from agentstream.cancel import CancelToken
from agentstream.errors import ConfigError, ToolError
from agentstream.tools import Tool, as_tool, tool
from tests.kit.tool_support import INTEGER, NULL, taking


@tool
def get_weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
    """Weather of a city."""
    return f"{city} {days} {unit}"


def test_a_default_is_left_to_the_function_and_null_means_it():
    assert get_weather.bind('{"city": "Rome"}') == {"city": "Rome"}
    assert get_weather.bind('{"city": "Rome", "days": null}') == {"city": "Rome"}
    assert taking(Optional[int], default=3).bind('{"x": null}') == {"x": None}


def test_s09_the_model_cannot_hand_in_our_own_token():
    def work(cancel: CancelToken, **others: Any) -> Any:
        return others

    made = Tool("t", "", {}, work)
    with pytest.raises(ToolError, match='"cancel" is unknown'):
        made.bind('{"cancel": 1}')
    assert made.call(made.bind('{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize(
    "raised", [ValueError("no"), StopIteration(1), SystemExit(3), KeyboardInterrupt(), ToolError()]
)
def test_u04_what_the_function_raises_comes_out_of_call(raised):
    def work() -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        tool(work).call({})
    assert caught.value is raised


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


@dataclasses.dataclass
class Node:
    children: List[Node]


def refused_place(city: str, /) -> None: ...


class Weather:
    def lookup(self, city: str, days: int = 1) -> str:
        """Weather of a city."""
        return f"{city}:{days}"


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
def current_weather(city: str, unit: Literal["C", "F"] = "C", days: Optional[int] = None) -> str:
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
    assert current_weather.to_openai() == {
        "type": "function",
        "function": {
            "name": "current_weather",
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
    current_weather.to_openai()["function"]["parameters"]["properties"].clear()
    assert "city" in current_weather.to_openai()["function"]["parameters"]["properties"]


def test_a_tool_is_still_its_function():
    assert current_weather("Paris") == "Paris C None"
    assert current_weather("Paris", unit="F", days=2) == "Paris F 2"
    assert current_weather.__name__ == "current_weather"
    assert current_weather.__doc__.startswith("Current weather")
    assert current_weather.__wrapped__ is current_weather.function
    assert repr(current_weather) == "<Tool current_weather>"


def test_the_decorators_arguments_win():
    @tool(name="other", description="Told.", timeout=2)
    def one(x: int) -> int:
        """Not told."""
        return x

    assert (one.name, one.description, one.timeout) == ("other", "Told.", 2.0)
    assert one(3) == 3
    assert tool(one.function, description="").description == ""


def test_on_unknown_says_what_becomes_of_a_call_that_nobody_knows_about():
    def one(x: int) -> int:
        """One."""
        return x

    assert tool(one).on_unknown == Tool("t", "", {}, lambda: None).on_unknown == "suspend"
    for word in ("rerun", "suspend", "fail"):
        assert tool(one, on_unknown=word).on_unknown == word
        assert tool(on_unknown=word)(one).on_unknown == word
        assert Tool("t", "", {}, lambda: None, on_unknown=word).on_unknown == word
    for word in ("again", "", "Rerun", True, 3, ["rerun"]):
        with pytest.raises(ConfigError, match="tool 'one': on_unknown must be one of rerun, ") as e:
            tool(one, on_unknown=word)
        assert e.value.setting == "on_unknown"


def test_a_functions_own_attributes_do_not_become_the_tools():
    def one(x: int) -> int:
        return x

    one.name, one.parameters, one.call = "evil", {}, None
    made = tool(one)
    assert made.name == "one"
    assert "x" in made.parameters["properties"]
    assert made.call({"x": 1}) == 1


def test_as_tool_leaves_a_tool_alone_and_wraps_a_function():
    assert as_tool(current_weather) is current_weather
    assert as_tool(current_weather.function).parameters == current_weather.parameters
    with pytest.raises(ConfigError, match="already"):
        tool(current_weather, name="again")


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


def test_a_description_is_a_text():
    with pytest.raises(ConfigError, match="description"):
        Tool("t", None, {}, lambda: 1)
